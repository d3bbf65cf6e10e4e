"""Ray Train workers against this process: start-up alone takes longer than everything else here."""

import subprocess
import sys
import threading

import numpy as np
import psutil
import pytest
import torch

from assay.classification import pretrain
from assay.errors import AssayError, UserError
from assay.training import forget, launch
from assay.training.launch import TrainingResult
from tests.training.ray_loop import make_train

pytestmark = pytest.mark.ray


def weights(result: TrainingResult) -> torch.Tensor:
    from safetensors.torch import load_file

    return torch.cat([value.flatten() for value in load_file(result.checkpoint / "model.safetensors").values()])


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One Ray for all tests; without it, `launch` starts and stops its own."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")  # as a step of a pipeline has it: the cores of the whole machine
        ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="warning")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def in_process(tmp_path_factory):
    return launch(make_train(), {"epochs": 3}, storage=tmp_path_factory.mktemp("runs"), name="here", seed=2)


def test_two_workers_go_on_from_this_process_to_the_same_result(tmp_path, in_process):
    settings = {"storage": tmp_path, "name": "run", "seed": 2}
    launch(make_train(), {"epochs": 1}, **settings)
    result = launch(make_train(), {"epochs": 3}, workers=2, **settings)
    assert [record["workers"] for record in result.history] == [1, 2, 2]
    assert [record["threads"] for record in result.history[1:]] == [1, 1], "two workers share the two cores"
    assert torch.allclose(weights(result), weights(in_process), atol=1e-6)
    losses = [[record["loss"] for record in run.history] for run in (result, in_process)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert [folder.name for folder in (tmp_path / "run").iterdir()] == ["epoch-0002", "epoch-0003"]
    forget(tmp_path, "run")
    assert not list(tmp_path.iterdir())


def test_a_killed_worker_is_replaced_and_the_result_is_the_same(tmp_path, in_process):
    config = {"epochs": 3, "killed": str(tmp_path / "killed")}
    result = launch(make_train(), config, storage=tmp_path, name="run", workers=1, seed=2, max_failures=1)
    assert (tmp_path / "killed").exists()
    assert torch.allclose(weights(result), weights(in_process), atol=1e-6)


def test_a_diverging_loss_is_the_users_to_mend_and_not_retried(tmp_path):
    with pytest.raises(UserError, match="training loss became nan in epoch 1"):
        launch(make_train(), {"epochs": 2, "factor": float("nan")}, storage=tmp_path, name="run", workers=2)


def test_a_worker_that_fails_for_good_is_one_sentence(tmp_path):
    def train(session, config):
        raise ZeroDivisionError("the loop is broken")

    with pytest.raises(AssayError, match=r"The Ray run run failed: .*the loop is broken") as caught:
        launch(train, {}, storage=tmp_path, name="run", workers=1, max_failures=0)
    assert "\n" not in str(caught.value)


def kill_a_worker_after_an_epoch(state):
    """SIGKILL one of the training's processes as soon as there is a checkpoint; return its process id."""

    def kill():
        while not list(state.glob("*/epoch-0001")):
            if done.wait(0.05):
                return
        workers = [p for p in psutil.Process().children(recursive=True) if "TrainWorker" in " ".join(p.cmdline())]
        killed.append(workers[-1].pid)
        workers[-1].kill()

    killed, done = [], threading.Event()
    thread = threading.Thread(target=kill)
    thread.start()
    return killed, done, thread


def test_a_step_whose_worker_is_killed_ends_with_exactly_the_results_of_one_left_alone(digits, project, tmp_path):
    summaries = []
    for folder in ("alone", "killed"):
        paths = {name: tmp_path / folder / name for name in ("model", "logits", "report", "metrics")}
        if folder == "killed":
            killed, done, thread = kill_a_worker_after_an_epoch(project / ".assay" / "training")
        config = {"epochs": 6, "batch_size": 32, "learning_rate": 0.05}
        summaries.append(pretrain(digits.path, config, **paths, workers=2))
    done.set()
    thread.join()
    assert len(killed) == 1 and not psutil.pid_exists(killed[0])
    assert summaries[0] == summaries[1]
    models = [(tmp_path / folder / "model" / "model.safetensors").read_bytes() for folder in ("alone", "killed")]
    assert models[0] == models[1]


def test_a_large_training_split_streams_through_ray_data(digits, project, tmp_path):
    paths = {name: tmp_path / "out" / name for name in ("model", "logits", "report", "metrics")}
    config = {"epochs": 4, "batch_size": 64, "learning_rate": 0.1, "stream": True}
    summary = pretrain(digits.path, config, **paths, workers=2)
    assert summary["epochs"] == 4 and summary["test_accuracy"] > 0.6
    with np.load(paths["logits"], allow_pickle=False) as file:
        train = digits.split("train")
        assert sorted(file["train_ids"]) == sorted(train.sample_ids) and len(file["train_logits"]) == len(train)
        assert (file["train_logits"].argmax(1) == file["train_labels"]).mean() == summary["train_accuracy"]


def test_a_ray_of_our_own_listens_on_loopback_alone():
    code = """if True:
        import psutil
        from assay.training.ray import start

        start(cores=1)
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        found = [c.laddr.ip for p in processes for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
        print(len(found), sorted({ip.removeprefix("::ffff:") for ip in found}))
    """
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    count, addresses = printed.strip().splitlines()[-1].split(maxsplit=1)
    assert int(count) >= 3 and addresses == "['127.0.0.1']"
