import contextlib
import json
import sys

import numpy as np
import pytest
import torch

from assay.classification import predict_logits, pretrain
from assay.classification.pretrain import Splits
from assay.data import write_dataset
from assay.errors import UserError
from assay.models import ImageClassifier
from assay.project import Project

CONFIG = {"epochs": 2, "batch_size": 64, "learning_rate": 0.1}


def outputs(folder):
    names = {"model": "model", "logits": "logits.npz", "report": "report.html", "metrics": "metrics.json"}
    return {key: folder / name for key, name in names.items()}


@pytest.fixture
def paths(tmp_path):
    return outputs(tmp_path / "outputs")


def test_the_outputs_agree_with_each_other(digits, project, paths):
    summary = pretrain(digits.path, CONFIG, **paths)
    assert json.loads(paths["metrics"].read_text()) == summary
    model = ImageClassifier.from_pretrained(paths["model"])
    assert model.class_names == digits.info.class_names
    with np.load(paths["logits"], allow_pickle=False) as file:
        for split in digits.info.splits:
            expected = digits.split(split)
            assert np.allclose(file[f"{split}_logits"], predict_logits(model, expected.images), atol=1e-5)
            assert (file[f"{split}_labels"] == expected.labels.numpy()).all()
            assert (file[f"{split}_ids"] == expected.sample_ids).all()
            correct = file[f"{split}_logits"].argmax(1) == file[f"{split}_labels"]
            assert summary[f"{split}_accuracy"] == pytest.approx(correct.mean())
    page = paths["report"].read_text()
    assert "Pretraining" in page and "resnet-small on digits" in page
    assert not list((Project.find().state / "training").iterdir())  # the checkpoints have served


def test_a_run_cut_short_goes_on_to_the_same_model(digits, project, paths, tmp_path, monkeypatch):
    pretrain(digits.path, CONFIG, **paths)
    other = outputs(tmp_path / "continued")
    with monkeypatch.context() as patch:
        from assay.training import Session

        whole = Session.checkpoint

        def die_after_the_first(session, epoch):
            whole(session, epoch)
            raise KeyboardInterrupt

        patch.setattr(Session, "checkpoint", die_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            pretrain(digits.path, CONFIG, **other)
    assert not other["model"].exists()
    assert len(list((Project.find().state / "training").glob("*/epoch-0001"))) == 1
    pretrain(digits.path, CONFIG, **other)
    assert (other["model"] / "model.safetensors").read_bytes() == (paths["model"] / "model.safetensors").read_bytes()


def test_inside_a_pipeline_run_the_curves_are_tracked(digits, project, paths, monkeypatch):
    started, records = [], []

    class Tracker:
        def log(self, metrics, step):
            records.append((step, metrics))

    def start_run(name, params):
        started.append((name, params))
        return contextlib.nullcontext(Tracker())

    monkeypatch.setattr("assay.registry.tracking.start_run", start_run)
    monkeypatch.setenv("ASSAY_RUN_ID", "run-1")
    pretrain(digits.path, CONFIG, **paths, seed=3)
    assert started[0][0] == "pretraining" and started[0][1]["seed"] == 3
    assert [step for step, _ in records] == [1, 2]
    assert {"train_loss", "validation_accuracy", "learning_rate"} <= records[0][1].keys()


def test_an_unknown_setting_leaves_nothing_behind(digits, project, paths):
    with pytest.raises(UserError, match=r"training\.lr is not a setting"):
        pretrain(digits.path, {"lr": 0.1}, **paths)
    assert not any(path.exists() for path in paths.values())


def test_splits_travel_as_their_path(digits):
    splits = Splits(digits.path)
    assert len(splits["train"]) == digits.info.splits["train"]
    rebuild, arguments = splits.__reduce__()
    assert arguments == (digits.path,)
    assert torch.equal(rebuild(*arguments)["test"].labels, splits["test"].labels)


def test_a_data_set_with_a_training_split_only_is_enough(digits_arrays, project, paths, tmp_path):
    images, labels, _ = digits_arrays
    dataset = write_dataset(
        tmp_path / "small",
        images=images[:64],
        labels=labels[:64].tolist(),
        splits=["train"] * 64,
        class_names=[str(k) for k in range(10)],
        name="small",
    )
    summary = pretrain(dataset.path, CONFIG, **paths)
    assert summary.keys() == {"epochs", "train_loss", "train_accuracy"}
    with np.load(paths["logits"], allow_pickle=False) as file:
        assert set(file.files) == {"class_names", "train_logits", "train_labels", "train_ids"}


def test_what_is_too_large_for_memory_asks_for_ray_workers(digits, project, paths, monkeypatch):
    monkeypatch.setattr(sys.modules["assay.classification.pretrain"], "_LARGE", 1000)
    with pytest.raises(UserError, match=r"is to be streamed, which Ray workers do: give --workers 1"):
        pretrain(digits.path, CONFIG, **paths)
    assert pretrain(digits.path, CONFIG | {"stream": False}, **paths)["epochs"] == 2


def test_chunks_hold_what_the_split_holds(digits):
    whole, parts = digits.split("train"), list(digits.chunks("train", rows=100))
    assert max(len(part) for part in parts) == 100
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
    assert np.concatenate([part.sample_ids for part in parts]).tolist() == whole.sample_ids.tolist()
