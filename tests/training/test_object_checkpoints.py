"""Checkpoints in S3, from this process."""

import threading
import time

import pytest
import torch
from safetensors.torch import load_file

from assay.errors import AssayError, UserError
from assay.storage import ObjectStore
from assay.training import forget, launch
from assay.training.checkpoints import CheckpointObjects
from tests.training.test_launch import train

pytestmark = pytest.mark.services


@pytest.fixture
def storage(s3, tmp_path):
    return f"s3://assay/{tmp_path.name}/runs"


def test_a_run_gives_what_it_gives_with_a_folder_and_continues(storage, tmp_path):
    whole = launch(train, {"epochs": 4}, storage=tmp_path, name="run")
    launch(train, {"epochs": 2}, storage=storage, name="run")
    continued = launch(train, {"epochs": 4}, storage=storage, name="run")
    assert continued.history == whole.history
    expected, found = (load_file(result.checkpoint / "model.safetensors") for result in (whole, continued))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_newest_two_stay_and_forgetting_removes_one_run_only(storage):
    for name in ("run", "run-2"):
        launch(train, {"epochs": 4}, storage=storage, name=name)
    store = ObjectStore(storage)
    assert CheckpointObjects(store, "run").all() == ["run/epoch-0003", "run/epoch-0004"]
    forget(storage, "run")
    assert CheckpointObjects(store, "run").newest() is None
    assert CheckpointObjects(store, "run-2").all() == ["run-2/epoch-0003", "run-2/epoch-0004"]
    forget(storage, "run")


def test_an_upload_cut_short_is_no_checkpoint(storage, monkeypatch):
    store = ObjectStore(storage)
    checkpoints = CheckpointObjects(store, "run")
    checkpoints.save(lambda folder: (folder / "n").write_text("0"), 0)

    def die(folder):
        (folder / "a").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(die, 1)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(ObjectStore, "_put_bytes", _failing(ObjectStore._put_bytes, "manifest"))
        checkpoints.save(lambda folder: (folder / "n").write_text("2"), 2)
    seen = []
    assert checkpoints.restore(lambda folder: seen.append((folder / "n").read_text()))
    assert seen == ["0"]


def _failing(whole, part):
    def put(store, content, name):
        if part in name:
            raise RuntimeError
        return whole(store, content, name)

    return put


def test_a_store_that_is_away_for_a_while_is_waited_for(storage, s3):
    def train_while_the_store_is_away(session, config):
        for epoch in session.epochs(2):
            if epoch == 1:
                s3.stop()
                threading.Thread(target=lambda: (time.sleep(4), s3.start())).start()
            session.log({"epoch": epoch}, epoch + 1)
            session.checkpoint(epoch)

    result = launch(train_while_the_store_is_away, {}, storage=storage, name="run")
    assert [record["epoch"] for record in result.history] == [0, 1]


def test_wrong_credentials_are_one_sentence(storage, monkeypatch, tmp_path):
    wrong = tmp_path / "credentials"
    wrong.write_text("[test]\naws_access_key_id = assay-test\naws_secret_access_key = canary-7f3a\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(wrong))
    with pytest.raises((UserError, AssayError)) as caught:
        launch(train, {"epochs": 1}, storage=storage, name="run")
    assert "\n" not in str(caught.value) and "canary" not in str(caught.value)
