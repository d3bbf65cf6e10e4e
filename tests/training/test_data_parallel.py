"""Two and three processes against one, on the same global batches: the same losses, the same weights."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from assay.classification.config import ClassificationConfig
from assay.classification.train import create_classifier, fit
from assay.forensics import DetectionSplit, DetectorConfig
from assay.forensics.methods import METHODS
from assay.forensics.train import create_detector, train_detector_network
from assay.forensics.zoo.config import GeneratorConfig
from assay.forensics.zoo.training import create_generator
from assay.forensics.zoo.training import fit as fit_generator
from assay.training import Session, TrainingResult
from assay.training.checkpoints import CheckpointFolder
from tests.training.processes import run_in_processes

torch.set_num_threads(1)
EPOCHS = {"radial": 1, "fingerprint": 3, "frepgan": 2}


def random_images(count, channels=1, size=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


def train_network(folder, batch_size):
    """Train a network in double precision, without batch normalisation: its statistics are of each process's share."""
    session = Session(CheckpointFolder(folder), seed=3)
    images = random_images(96).double() / 255
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3)).double()
    model, optimizer = session.prepare(model, torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9))
    for epoch in session.epochs(3):
        totals = torch.zeros(2, dtype=torch.float64)
        for index in session.progress(session.batches(96, batch_size)):
            loss = functional.cross_entropy(model(images[index]), index % 3)
            session.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            totals += torch.stack([loss.detach() * len(index), torch.tensor(len(index), dtype=torch.float64)])
        total, count = session.reduce(totals).tolist()
        session.log({"loss": total / count}, epoch + 1)
        session.checkpoint(epoch)


@pytest.mark.parametrize(("processes", "batch_size"), [(2, 16), (3, 16)], ids=["even shares", "uneven shares"])
def test_several_processes_reach_the_losses_and_weights_of_one(tmp_path, processes, batch_size):
    train_network(tmp_path / "one", batch_size)
    run_in_processes(train_network, processes, tmp_path / "several", batch_size)
    one, several = (CheckpointFolder(tmp_path / name).newest() for name in ("one", "several"))
    expected, found = (load_file(folder / "model.safetensors") for folder in (one, several))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)
    losses = [[record["loss"] for record in TrainingResult.read(folder).history] for folder in (one, several)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-10)
    assert losses[0][-1] < losses[0][0]


def train_classifier(folder):
    session = Session(CheckpointFolder(folder))
    images = random_images(64)
    labels = torch.arange(64) % 2
    images[labels == 1] //= 4
    config = ClassificationConfig(epochs=2, batch_size=16, learning_rate=0.05)
    fit(session, create_classifier(images, ["a", "b"], config), images, labels, config, (images, labels))


def train_generator(folder, name):
    session = Session(CheckpointFolder(folder))
    images = random_images(48)
    config = GeneratorConfig(epochs=2, batch_size=16, width=4)
    fit_generator(session, create_generator(name, images, config), images, config)


def train_detector(folder, method):
    session = Session(CheckpointFolder(folder))
    real, generated = random_images(48, size=16), random_images(40, size=16, seed=1) // 2
    train = DetectionSplit(real, generated)
    options = {"fingerprint": {"depths": [1], "pretraining_epochs": 1}}.get(method, {})
    config = DetectorConfig(method=method, epochs=2, batch_size=16, options=options)
    detector, its_method = create_detector(config, real)
    train_detector_network(session, detector, its_method, train, train)


def train_everything(folder):
    train_classifier(folder / "classifier")
    for name in ("dcgan", "spectral-hinge", "vae", "translator"):  # every family and loss
        train_generator(folder / name, name)
    for method in METHODS:
        train_detector(folder / method, method)


@pytest.mark.ray
def test_every_training_runs_on_two_processes(tmp_path):
    run_in_processes(train_everything, 2, tmp_path)
    runs = {folder.name: CheckpointFolder(folder).newest() for folder in tmp_path.iterdir()}
    assert len(runs) == 5 + len(METHODS)
    for name, newest in runs.items():
        history = TrainingResult.read(newest).history
        assert history[-1]["step"] == len(history) == EPOCHS.get(name, 2), name
        weights = [value for file in newest.glob("*.safetensors") for value in load_file(file).values()]
        assert all(value.isfinite().all() for value in weights), name
    assert TrainingResult.read(runs["classifier"]).history[-1]["validation_accuracy"] > 0.6
