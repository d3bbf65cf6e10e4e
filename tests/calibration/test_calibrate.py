"""The calibration and evaluation tasks, from a model folder to a calibrated one that is scored."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.calibration import (
    CalibratedClassifier,
    CalibrationConfig,
    TemperatureScaling,
    calibrate,
    evaluate,
    load_classifier,
)
from assay.classification import ClassificationConfig, predict_logits, train_classifier
from assay.classification.predict import write_logits
from assay.errors import UserError

CONFIG = {"calibrators": ["ts"], "losses": ["cross_entropy"], "peers": [], "replicates": 100}


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An overconfident classifier of the digits, and its logits."""
    folder = tmp_path_factory.mktemp("trained")
    splits = {name: digits.split(name) for name in ("train", "calibration", "test")}
    config = ClassificationConfig(epochs=3, batch_size=64, learning_rate=0.1, horizontal_flip=0.0, shift=0)
    train = splits["train"]
    names = digits.info.class_names
    model = train_classifier(train.images, train.labels, config, class_names=names)
    with torch.no_grad():
        model.classifier.weight *= 4
        model.classifier.bias *= 4
    model.save_pretrained(folder / "model")
    logits = {name: predict_logits(model, split.images) for name, split in splits.items()}
    write_logits(folder / "logits.npz", logits, splits, names)
    return folder / "model", folder / "logits.npz"


def outputs(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in ("calibrated", "report", "metrics")}


def test_calibration_lowers_the_ece_and_what_is_evaluated_is_what_was_measured(trained, digits, tmp_path):
    model, logits = trained
    measured = calibrate(model, logits, CONFIG, **outputs(tmp_path))
    assert json.loads((tmp_path / "metrics").read_text()) == measured
    assert measured["ece_after"] < measured["ece_before"]
    assert measured["ece_change"] == pytest.approx(measured["ece_after"] - measured["ece_before"])
    assert measured["accuracy_after"] == measured["accuracy_before"]
    assert measured["converged"] == 1.0
    page = (tmp_path / "report").read_text()
    assert "SCTL (ND)" in page
    assert "alpha" in page

    scored = {name: tmp_path / f"{name}_2" for name in ("predictions", "report", "metrics")}
    found = evaluate(digits.path, tmp_path / "calibrated", {"replicates": 100}, **scored)
    for name in ("accuracy", "ece", "nll", "brier"):
        assert found[name] == pytest.approx(measured[f"{name}_after"], abs=2e-4)
    plain = evaluate(digits.path, model, {"replicates": 100}, **scored)
    assert plain["ece"] == pytest.approx(measured["ece_before"], abs=2e-4)


def test_a_calibrated_classifier_loads_and_exports_with_the_same_probabilities(trained, digits, tmp_path):
    calibrate(*trained, CONFIG | {"calibrator": "cts"}, **outputs(tmp_path))
    loaded = CalibratedClassifier.from_pretrained(tmp_path / "calibrated")
    images = digits.split("test").images[:6]
    expected = loaded(images)
    assert expected.sum(dim=1).detach().numpy() == pytest.approx(np.ones(6), abs=1e-5)
    dynamic = ({0: torch.export.Dim("batch", min=1)},)
    exported = torch.export.export(loaded, (images[:2],), dynamic_shapes=dynamic).module()
    assert torch.allclose(exported(images), expected, atol=1e-6)
    assert loaded.class_names == digits.info.class_names


def test_a_bad_setting_or_file_leaves_nothing_behind(trained, tmp_path):
    model, logits = trained
    for arguments, sentence in (
        ((model, logits, {"loss": "hinge"}), "calibration.loss"),
        ((model, logits, {"temperature": 2}), "calibration.temperature is not a setting"),
        ((model, tmp_path / "absent.npz", CONFIG), "absent.npz cannot be opened"),
        ((tmp_path / "absent", logits, CONFIG), "is not an image classifier"),
    ):
        with pytest.raises(UserError, match=sentence):
            calibrate(*arguments, **outputs(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_calibrator_of_another_classifier_and_a_plain_folder_are_refused(trained, tmp_path):
    classifier = load_classifier(trained[0])[0]
    other = TemperatureScaling().fit(np.zeros((2, 3)), np.array([0, 1]))
    with pytest.raises(UserError, match="fitted on 3 classes and the classifier has 10"):
        CalibratedClassifier(classifier, other)
    with pytest.raises(UserError, match="is not a calibrated classifier"):
        CalibratedClassifier.from_pretrained(trained[0])


def test_every_combination_of_the_configuration_has_a_loss():
    for loss in ("cross_entropy", "class_balanced", "label_smoothing", "focal"):
        assert CalibrationConfig(loss=loss).loss_name == loss
    assert [CalibrationConfig(normalisation=n).loss_name for n in ("nd", "mm", "cm")] == [
        "sctl_nd",
        "sctl_mm",
        "sctl_cm",
    ]
