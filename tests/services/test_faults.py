"""Each server is taken away in the middle of a run: nothing that is registered is lost or doubled."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from assay.registry import Lineage, Registry
from tests.pipelines.test_end_to_end import SETTINGS

pytestmark = pytest.mark.services

FAULTS = {
    "the object store is killed": ("s3", signal.SIGKILL, "evaluation", "calibration.loss=cross_entropy"),
    "PostgreSQL stops at once": ("postgres", signal.SIGQUIT, "gate", "calibration.loss=label_smoothing"),
    "the MLflow server is killed": ("mlflow", signal.SIGKILL, "gate", "calibration.calibrator=vs"),
}
AWAY = {"s3": 30.0, "postgres": 10.0, "mlflow": 10.0}  # seconds before `assay services up`


class Tilted(torch.nn.Module):
    def __init__(self, tilt: float) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.full((256, 10), tilt))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.softmax(images.float().flatten(1) / 255 @ self.weights, dim=1)


@pytest.mark.parametrize("delay", [0.0, 0.8], ids=["before", "within"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_registration_is_neither_lost_nor_doubled(activated, monkeypatch, fault, delay):
    name, number, *_ = FAULTS[fault]
    monkeypatch.setenv("ASSAY_RUN_ID", "disturbed")  # a step of a pipeline waits for its servers
    registry, model = Registry(), f"tilted-{name}-{10 * delay:.0f}"

    def disturb() -> None:
        time.sleep(delay)
        activated.kill(name, number)
        time.sleep(3)
        activated.assay("services", "up")

    with ThreadPoolExecutor() as pool:
        disturbance = pool.submit(disturb)
        version = registry.register(
            model,
            Tilted(delay),
            torch.zeros(2, 1, 16, 16, dtype=torch.uint8),
            lineage=Lineage(data_revision="d1", seed=0),
            class_names=[str(k) for k in range(10)],
        )
        disturbance.result()
    assert [each.number for each in registry.versions(model)] == [version] == [1]
    assert registry.load(model, 1).predict(np.zeros((1, 1, 16, 16), np.uint8)).shape == (1, 10)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_rides_out_a_server_that_comes_back(team, first, fault):
    name, number, task, setting = FAULTS[fault]
    before = team.versions()
    begin = time.time()
    with team.started(setting) as run:
        team.wait_for(task, begin)
        team.kill(name, number)
        time.sleep(AWAY[name])
        team.assay("services", "up")
        told, _ = run.communicate(timeout=200)
    if run.returncode:
        assert "error: " in told and "Traceback" not in told, told
        told = team.assay("run", "classification", *[word for s in [*SETTINGS, setting] for word in ("--set", s)])
    check_the_record(team, before)


@pytest.mark.slow
def test_a_run_without_its_server_ends_with_one_sentence_and_continues(team, first):
    before = team.versions()
    begin = time.time()
    setting = "training.epochs=3"
    try:
        with team.started(setting) as run:
            team.wait_for("evaluation", begin)
            team.kill("mlflow")
            told, _ = run.communicate(timeout=240)
    finally:
        team.assay("services", "up")
    assert run.returncode, "no step of this run needed the server: the setting changes nothing"
    sentences = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1 and "MLflow" in sentences[0] and "Traceback" not in told, told
    assert len(told) < 20_000
    team.assay("run", "classification", *[word for s in [*SETTINGS, setting] for word in ("--set", s)])
    check_the_record(team, before)


def check_the_record(team, before: list[dict]) -> None:
    """Exactly one version more, told once, and a champion whose moves add up."""
    after = team.versions()
    assert len(after) == len(before) + 1
    assert [each["version"] for each in after] == list(range(1, len(after) + 1))
    events = team.history()
    registered = [event["version"] for event in events if event["kind"] == "registration"]
    assert registered == [each["version"] for each in after]
    assert len({event["digest"] for event in events if event["kind"] == "registration"}) == len(after)
    moves = [event["champion"] for event in events if event["kind"] == "promotion"]
    assert all(event["step"] == "done" for event in events if event["kind"] == "promotion")
    assert [move[0] for move in moves] == [None, *(move[1] for move in moves[:-1])]
    assert "note:" not in team.assay("models", "list")
