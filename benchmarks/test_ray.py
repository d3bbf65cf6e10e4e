"""What Ray costs over training in this process, and what a second worker brings, on the pretraining step."""

import itertools
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.classification.config import ClassificationConfig
from assay.classification.pretrain import Splits
from assay.classification.train import create_classifier, fit
from assay.data import write_dataset
from assay.training import TrainingResult, launch
from assay.training.checkpoints import CheckpointFolder

STEPS, BATCH, EPOCHS, ROUNDS = 80, 128, 3, 2


class Clock:
    """A tracker that notes when each epoch ended."""

    def __init__(self, file):
        self.file = file

    def log(self, metrics, step):
        with self.file.open("a") as file:
            file.write(f"{time.monotonic()}\n")

    def epoch_seconds(self):
        """Return the median length of an epoch; the first one, which warms up, does not count."""
        ends = [float(line) for line in self.file.read_text().split()]
        return statistics.median(after - before for before, after in itertools.pairwise(ends))


def make_train():
    """Return the pretraining loop on random images; it travels to the workers by value."""

    def train(session, config):
        import torch

        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (config["images"], 1, 28, 28), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, 10, (len(images),), generator=generator)
        settings = config["settings"]
        config["fit"](
            session, config["create"](images, [str(k) for k in range(10)], settings), images, labels, settings
        )

    return train


def measure(workers, threads):
    """Train, and return the seconds of the whole call and of one epoch."""
    folder = Path(tempfile.mkdtemp())
    settings = ClassificationConfig(epochs=EPOCHS, batch_size=BATCH, learning_rate=0.01)
    config = {"images": STEPS * BATCH, "settings": settings, "fit": fit, "create": create_classifier}
    clock = Clock(folder / "clock")
    begin = time.monotonic()
    if workers:
        from assay.training.ray import launch_on_ray

        session = {"tracker": clock}
        launch_on_ray(
            make_train(),
            config,
            storage=str(folder),
            name="run",
            workers=(workers, workers),
            session=session,
            max_failures=0,
            resources={"CPU": threads},
        )
        assert len(TrainingResult.read(CheckpointFolder(folder / "run").newest()).history) == EPOCHS
    else:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        launch(make_train(), config, storage=folder, name="run", tracker=clock)
        torch.set_num_threads(before)
    return time.monotonic() - begin, clock.epoch_seconds()


@pytest.fixture(scope="module")
def ray():
    import ray

    from assay.training.ray import start

    start(cores=2)
    yield
    ray.shutdown()


def test_a_second_worker_and_what_ray_costs(ray):
    contenders = {"in process": (0, 1), "1 worker": (1, 1), "2 workers": (2, 1)}
    times = {name: [] for name in contenders}
    for _ in range(ROUNDS):  # in turn, so that a change of the machine's load meets all of them
        for name, arguments in contenders.items():
            times[name].append(measure(*arguments))
            print(f"{name}: {times[name][-1][0]:.1f} s in all, {times[name][-1][1]:.2f} s an epoch", flush=True)
    whole, epoch = ({name: min(each[k] for each in found) for name, found in times.items()} for k in (0, 1))
    speed_up, cost = epoch["1 worker"] / epoch["2 workers"], epoch["1 worker"] / epoch["in process"]
    speeds = {name: f"{STEPS * BATCH / seconds:.0f}/s" for name, seconds in epoch.items()}
    print(f"\nimages: {speeds}; a step on 1 Ray worker / in process: {cost:.2f}")
    print(f"2 workers with 1 thread each / 1 worker with 1 thread: {speed_up:.2f}")
    print(f"starting Ray's workers takes {whole['1 worker'] - whole['in process']:.1f} s, on a Ray that runs already")


def make_reader():
    """Return a loop that goes once through the training split with next to no network: reading is what it measures."""

    def train(session, config):
        from pathlib import Path

        import torch
        from torch import nn

        from assay.classification.pretrain import Streamed
        from assay.classification.train import Decoded

        splits = config["splits"]
        model = nn.Linear(28 * 28, 10)
        model, optimizer = session.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01))
        if config["streamed"]:
            source = Streamed(splits)
        else:
            source = Decoded(session, splits["train"].images, splits["train"].labels)
        for epoch in session.epochs(1):
            peak = 0
            for part in session.progress(source.batches(session, config["batch"])):
                # What the process has to itself; pages of Ray's object store, which has a limit of its own, are shared.
                status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
                peak = max(peak, int(status["RssAnon"].split()[0]))
                images, labels = source.take(part)
                session.backward(nn.functional.cross_entropy(model(images.flatten(1) / 255), labels))
                optimizer.step()
                optimizer.zero_grad()
            session.log({"peak_mib": peak / 1024, "shared_mib": int(status["RssShmem"].split()[0]) / 1024}, epoch + 1)
            session.checkpoint(epoch)

    return train


def peak_memory(folder, count, streamed):
    """Return the peak resident memory in MiB of one Ray worker that trains on ``count`` images of 28 x 28."""
    from assay.training.ray import launch_on_ray

    if not folder.exists():
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (count, 28, 28), np.uint8)
        labels = generator.integers(0, 10, count)
        names = [str(k) for k in range(10)]
        write_dataset(folder, images=images, labels=labels, splits=["train"] * count, class_names=names, name="noise")
    storage = tempfile.mkdtemp()
    launch_on_ray(
        make_reader(),
        {"splits": Splits(folder), "streamed": streamed, "batch": BATCH},
        storage=storage,
        name="run",
        workers=(1, 1),
        session={},
        max_failures=0,
        resources={"CPU": 1},
        stream="splits/train" if streamed else "",
    )
    return TrainingResult.read(CheckpointFolder(Path(storage) / "run").newest()).history[0]["peak_mib"]


def test_the_memory_of_a_stream_does_not_grow_with_the_data(ray, tmp_path):
    counts = (10_000, 50_000, 200_000)
    found = {
        streamed: [peak_memory(tmp_path / str(count), count, streamed) for count in counts]
        for streamed in (True, False)
    }
    for streamed, peaks in found.items():
        listed = ", ".join(f"{count:,}: {peak:.0f} MiB" for count, peak in zip(counts, peaks, strict=True))
        print(f"\npeak memory of the worker, {'streamed' if streamed else 'decoded'}: {listed}")
    assert found[True][-1] <= 1.15 * found[True][0]
    assert found[False][-1] - found[False][0] > 100  # what the stream saves
