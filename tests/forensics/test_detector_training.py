import json

import pytest
from pytest import approx

from assay.errors import UserError
from assay.forensics import Detector, assemble_detection_data, train_detector
from assay.forensics.detector_training import DetectionSplits

QUICK = {"epochs": 4, "batch_size": 32, "learning_rate": 5e-3}


def run(data, folder, method="rgb", config=QUICK, **kwargs):
    return train_detector(
        data, method, config, model=folder / "m", report=folder / "r.html", metrics=folder / "metrics.json", **kwargs
    )


def test_the_task_leaves_a_calibrated_detector_its_metrics_and_a_report(detection_data, project, tmp_path):
    results = run(detection_data.path, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text()) == results
    assert results["validation_auc"] > 0.9
    detector = Detector.from_pretrained(tmp_path / "m")
    assert detector.decision.threshold == results["threshold"]
    assert 0 <= results["unsure_above"] <= results["unsure_below"] <= 1
    page = (tmp_path / "r.html").read_text()
    assert "<img" in page or "<svg" in page
    assert list((project / ".assay" / "training").iterdir()) == []


def test_only_what_may_be_seen_is_read(detection_data):
    for split in ("train", "validation", "calibration"):
        assert set(DetectionSplits(detection_data.path, generated=True)[split].generators) == {"blocks"}
        assert DetectionSplits(detection_data.path, generated=False)[split].generated is None


@pytest.mark.parametrize("method", ["radial", "fingerprint"])
def test_what_was_calibrated_is_what_training_left(method, detection_data, project, tmp_path):
    config = {**QUICK, "epochs": 1, "options": {"fingerprint": {"depths": [1], "pretraining_epochs": 1}}}
    first = run(detection_data.path, tmp_path / "a", method, config)
    again = run(detection_data.path, tmp_path / "b", method, config)
    assert first == again
    weights = [(tmp_path / folder / "m" / "model.safetensors").read_bytes() for folder in "ab"]
    assert weights[0] == weights[1]


def test_a_wrong_setting_or_data_set_leaves_nothing_behind(detection_data, digits, project, tmp_path):
    for data, method, config, sentence in (
        (digits.path, "rgb", QUICK, "instead of real, generated"),
        (detection_data.path, "rgb", {"epoch": 1}, "detector.epoch is not a setting"),
        (detection_data.path, "bihpf", {"options": {"bihpf": {"cutof": 1}}}, "options of bihpf.cutof"),
    ):
        with pytest.raises(UserError, match=sentence):
            run(data, tmp_path, method, config)
    assert [path.name for path in tmp_path.iterdir()] == ["project"]


def test_simulations_are_encoded_as_the_images_are(detection_data, project, tmp_path):
    assemble_detection_data(
        detection_data.path, [], {"codec": "jpeg"}, corpus=tmp_path / "jpegs", metrics=tmp_path / "counts.json"
    )
    config = {**QUICK, "epochs": 1, "options": {"fingerprint": {"depths": [1], "pretraining_epochs": 1}}}
    for method, quality in (("fingerprint", 95), ("rgb", None)):
        run(tmp_path / "jpegs", tmp_path / method, method, config)
        assert Detector.from_pretrained(tmp_path / method / "m").config.options.get("jpeg_quality") == quality


@pytest.mark.slow
def test_two_ray_workers_train_a_detector(detection_data, project, tmp_path):
    assert run(detection_data.path, tmp_path, "frepgan", QUICK, workers=2)["validation_auc"] == approx(1, abs=0.1)
