import math
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from assay.errors import UserError
from assay.training import Session
from assay.training.checkpoints import CheckpointFolder

RESUMABLE = Path(__file__).with_name("resumable.py")


class ListTracker:
    def __init__(self):
        self.records = []

    def log(self, metrics, step):
        self.records.append((step, metrics))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture
def one_thread():
    """Sums of floats depend on how many threads share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_run_killed_in_the_middle_of_an_epoch_ends_with_the_same_bits(tmp_path, one_thread):
    run = runpy.run_path(str(RESUMABLE))["run"]
    command = [sys.executable, str(RESUMABLE), str(tmp_path / "cut"), "2"]
    killed = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    checkpoints = CheckpointFolder(tmp_path / "cut" / "run").all()
    assert [p.name for p in checkpoints] == ["epoch-0001", "epoch-0002"]
    whole, cut = run(tmp_path / "whole"), run(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_two_models_with_alternating_optimisers_resume_to_the_same_bits(tmp_path):
    def adversarial(folder, epochs):
        session = Session(CheckpointFolder(folder), seed=3)
        generator, critic = nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.2), nn.Linear(2, 1))
        first, second = torch.optim.Adam(generator.parameters()), torch.optim.SGD(critic.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(first, 3, gamma=0.5)
        generator, critic, first, second, schedule = session.prepare(generator, critic, first, second, schedule)
        for epoch in session.epochs(epochs):
            for _ in session.progress(range(5)):
                fake = generator(torch.randn(8, 2))
                session.backward(critic(fake.detach()).mean() - critic(torch.randn(8, 2) + 1).mean())
                second.step()
                second.zero_grad()
                session.backward(-critic(fake).mean())
                first.step()
                schedule.step()
                first.zero_grad()
            session.log({"loss": fake.mean().item()}, epoch)
            session.checkpoint(epoch)
        return torch.cat([weights(generator), weights(critic)]), session.history

    whole, history = adversarial(tmp_path / "whole", 4)
    adversarial(tmp_path / "cut", 2)
    resumed, continued = adversarial(tmp_path / "cut", 4)
    assert torch.equal(whole, resumed)
    assert history == continued and len(history) == 4


def test_a_session_trains_as_plain_pytorch_does():
    inputs, targets = torch.randn(32, 4), torch.randn(32, 1)

    def plain():
        torch.manual_seed(0)
        model = nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(10):
            functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        return weights(model)

    session = Session()
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    model, optimizer = session.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    for _ in range(10):
        with session.autocast():
            loss = functional.mse_loss(model(inputs), targets)
        session.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(weights(model), plain())


def test_batches_visit_each_sample_once_in_an_order_of_the_seed_and_the_epoch():
    session = Session(seed=5)
    orders = {}
    for epoch in session.epochs(2):
        batches = session.batches(12, batch_size=4)
        assert [len(batch) for batch in batches] == [4, 4, 4]
        orders[epoch] = torch.cat(batches)
        assert torch.equal(orders[epoch].sort().values, torch.arange(12))
    assert not torch.equal(orders[0], orders[1])
    again = Session(seed=5)
    assert torch.equal(torch.cat(again.batches(12, batch_size=4)), orders[0])
    assert not torch.equal(torch.cat(Session(seed=6).batches(12, batch_size=4)), orders[0])


def test_what_is_left_over_waits_and_a_small_set_is_one_batch():
    session = Session()
    assert [len(batch) for batch in session.batches(11, batch_size=4)] == [4, 4]
    assert [len(batch) for batch in session.batches(3, batch_size=4)] == [3]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_its_checkpoint(tmp_path, bad):
    session = Session(CheckpointFolder(tmp_path))
    model = session.prepare(nn.Linear(1, 1))
    with pytest.raises(UserError, match=r"training loss became .* in epoch 2: lower the learning rate"):
        for epoch in session.epochs(3):
            for step in session.progress(range(3)):
                factor = bad if epoch == 1 and step == 0 else 1.0
                session.backward(model(torch.ones(2, 1)).mean() * factor)
            session.checkpoint(epoch)
    assert [p.name for p in tmp_path.iterdir()] == ["epoch-0001"]


def test_a_weight_that_is_not_finite_stops_before_its_checkpoint(tmp_path):
    session = Session(CheckpointFolder(tmp_path))
    model = session.prepare(nn.Linear(1, 1))
    nn.init.constant_(model.weight, math.inf)
    with pytest.raises(UserError, match="A weight is not finite after epoch 1"):
        session.checkpoint(0)
    assert not list(tmp_path.iterdir())


def test_a_metric_that_is_not_finite_is_named():
    with pytest.raises(UserError, match="validation_loss is nan at step 4"):
        Session().log({"accuracy": 0.5, "validation_loss": math.nan}, step=4)


def test_metrics_go_to_the_tracker_the_history_and_one_line(capsys):
    tracker = ListTracker()
    session = Session(tracker=tracker)
    session.log({"loss": 0.25}, step=1)
    assert tracker.records == [(1, {"loss": 0.25})]
    assert session.history == [{"step": 1, "loss": 0.25}]
    assert capsys.readouterr().err == "step 1: loss 0.25\n"


@pytest.mark.parametrize(("precision", "expected"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_on_the_cpu(precision, expected):
    session = Session(precision=precision)
    with session.autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype is expected
