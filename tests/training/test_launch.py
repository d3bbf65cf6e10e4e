import json

import pytest
import torch
from torch import nn

from assay.errors import AssayError, UserError
from assay.training import forget, launch


def train(session, config):
    model = nn.Linear(2, 1)
    model, optimizer = session.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    for epoch in session.epochs(config["epochs"]):
        for index in session.progress(session.batches(16, 4)):
            session.backward(model(torch.randn(len(index), 2)).square().mean())
            optimizer.step()
            optimizer.zero_grad()
        session.log({"weight": model.weight.sum().item()}, epoch + 1)
        session.checkpoint(epoch)


def test_the_result_holds_the_trained_weights_and_the_history(tmp_path):
    result = launch(train, {"epochs": 3}, storage=tmp_path, name="run", seed=1)
    model = nn.Linear(2, 1)
    result.load(model)
    assert model.weight.sum().item() == pytest.approx(result.history[-1]["weight"])
    assert [record["step"] for record in result.history] == [1, 2, 3]


def test_the_same_name_continues_and_another_starts_anew(tmp_path):
    whole = launch(train, {"epochs": 4}, storage=tmp_path, name="whole")
    launch(train, {"epochs": 2}, storage=tmp_path, name="cut")
    continued = launch(train, {"epochs": 4}, storage=tmp_path, name="cut")
    assert continued.history == whole.history
    assert launch(train, {"epochs": 4}, storage=tmp_path, name="other", seed=9).history != whole.history


def test_forgetting_a_run_removes_its_checkpoints_only(tmp_path):
    for name in ("one", "two"):
        launch(train, {"epochs": 1}, storage=tmp_path, name=name)
    forget(tmp_path, "one")
    assert [p.name for p in tmp_path.iterdir()] == ["two"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"workers": -1}, "workers = -1 is not valid"),
        ({"name": "../elsewhere"}, "not a valid run name"),
        ({"storage": "gs://bucket/runs"}, "Checkpoints cannot be kept at gs://bucket/runs"),
    ],
)
def test_bad_settings_are_refused(tmp_path, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        launch(train, {"epochs": 1}, **({"storage": tmp_path, "name": "run"} | settings))


def test_a_loop_that_keeps_no_checkpoint_is_our_mistake(tmp_path):
    with pytest.raises(AssayError, match="run ended without a checkpoint"):
        launch(lambda session, config: None, {}, storage=tmp_path, name="run")


def test_the_progress_file_is_plain_json(tmp_path):
    result = launch(train, {"epochs": 2}, storage=tmp_path, name="run")
    progress = json.loads((result.checkpoint / "training.json").read_text())
    assert progress["epochs_done"] == 2
