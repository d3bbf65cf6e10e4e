import json

import pytest
import torch

from assay.artifacts import load_model
from assay.calibration import CalibratedClassifier, TemperatureScaling
from assay.errors import UserError
from assay.forensics import Decision, Detector, DetectorConfig
from assay.models import ImageClassifier

IMAGES = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def classifier():
    scaling = TemperatureScaling().fit(torch.eye(2), torch.tensor([0, 0]))
    return CalibratedClassifier(ImageClassifier(num_classes=2, image_size=8), scaling).eval()


@pytest.fixture
def detector():
    made = Detector(DetectorConfig(method="rgb"), channels=1, image_size=(8, 8)).eval()
    made.decision = Decision(threshold=0.4, lower=0.2, upper=0.7, confidence=0.95)
    return made


@pytest.mark.parametrize("kind", ["classifier", "detector"])
def test_what_was_saved_answers_the_same_whatever_its_kind(kind, request, tmp_path):
    saved = request.getfixturevalue(kind)
    saved.save_pretrained(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert type(loaded) is type(saved) and not loaded.training
    assert torch.equal(loaded(IMAGES), saved(IMAGES))
    assert getattr(loaded, "metadata", None) == getattr(saved, "metadata", None)


def test_the_decision_of_a_detector_is_in_its_metadata(detector):
    assert Decision(**detector.metadata["decision"]) == detector.decision


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (None, "is not a model: it has no config.json"),
        ("not json", "is not a model"),
        ("[]", "is not a model"),
        (json.dumps({"kind": "poem"}), "is of the kind 'poem': give the folder of a calibrated-classifier or"),
        (json.dumps({"model_type": "resnet"}), "is of no kind"),
    ],
)
def test_another_folder_is_refused(tmp_path, config, sentence):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=sentence):
        load_model(tmp_path)
