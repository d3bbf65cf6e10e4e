"""Ray Train workers against this process: start-up alone takes longer than everything else here."""

import os
import signal

import pytest
import torch

from assay.errors import AssayError, UserError
from assay.training import forget, launch
from assay.training.launch import TrainingResult

pytestmark = pytest.mark.slow


def make_train():
    """Return the loop as a closure, so that it travels to the workers by value."""

    def train(session, config):
        from pathlib import Path

        import torch
        from torch import nn

        images = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        model, optimizer = session.prepare(model, torch.optim.Adam(model.parameters(), lr=0.01))
        for epoch in session.epochs(config["epochs"]):
            total = torch.zeros(2)
            for index in session.progress(session.batches(64, 16)):
                loss = (model(images[index]) - images[index].sum(1, keepdim=True)).square().mean()
                session.backward(loss * config.get("factor", 1.0))
                optimizer.step()
                optimizer.zero_grad()
                total += torch.stack([loss.detach() * len(index), torch.tensor(len(index))])
            if epoch == config.get("kill_in_epoch") and not Path(config["killed"]).exists():
                Path(config["killed"]).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            total = session.reduce(total)
            session.log({"loss": (total[0] / total[1]).item(), "workers": session.world_size}, epoch + 1)
            session.checkpoint(epoch)

    return train


def weights(result: TrainingResult) -> torch.Tensor:
    from safetensors.torch import load_file

    return torch.cat([value.flatten() for value in load_file(result.checkpoint / "model.safetensors").values()])


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One Ray for all tests; without it, `launch` starts and stops its own."""
    import ray

    from assay.training.ray import start

    start(cores=2)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def in_process(tmp_path_factory):
    return launch(make_train(), {"epochs": 3}, storage=tmp_path_factory.mktemp("runs"), name="here", seed=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_what_this_process_gives(tmp_path, in_process, workers):
    settings = {"storage": tmp_path, "name": "run", "workers": workers, "seed": 2}
    launch(make_train(), {"epochs": 2}, **settings)
    result = launch(make_train(), {"epochs": 3}, **settings)  # the same name goes on
    assert [record["step"] for record in result.history] == [1, 2, 3]
    assert result.history[-1]["workers"] == workers
    assert torch.allclose(weights(result), weights(in_process), atol=1e-6)
    losses = [[record["loss"] for record in run.history] for run in (result, in_process)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    forget(tmp_path, "run")
    assert not list(tmp_path.iterdir())


def test_a_killed_worker_is_replaced_and_the_result_is_the_same(tmp_path, in_process):
    config = {"epochs": 3, "kill_in_epoch": 1, "killed": str(tmp_path / "killed")}
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
