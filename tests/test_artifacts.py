import json
import pickle

import pytest
import torch

from assay.artifacts import load_model
from assay.calibration import CalibratedClassifier, TemperatureScaling
from assay.errors import UserError
from assay.files import refuse_pickles
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


class Malicious:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return type(self.mark).touch, (self.mark,)


@pytest.mark.parametrize("kind", ["classifier", "detector"])
@pytest.mark.parametrize("how", ["in place of the weights", "saved by torch", "beside the weights", "old protocol"])
def test_a_malicious_pickle_where_a_model_is_expected_is_refused_by_name(kind, how, request, tmp_path):
    request.getfixturevalue(kind).save_pretrained(tmp_path / "model")
    mark = tmp_path / "the pickle ran"
    file = next((tmp_path / "model").rglob("model.safetensors"))
    if how == "beside the weights":
        file = file.with_name("pytorch_model.bin")
    elif how == "old protocol":
        file = file.with_name("weights.pkl")
    if how == "saved by torch":
        torch.save(Malicious(mark), file)
    else:
        file.write_bytes(pickle.dumps(Malicious(mark), protocol=0 if how == "old protocol" else None))
    with pytest.raises(UserError, match=f"{file.name} is refused: it is a pickle, which could run code"):
        load_model(tmp_path / "model")
    assert not mark.exists()


def test_weights_whose_first_bytes_look_like_a_pickle_are_none(tmp_path):
    (tmp_path / "model.safetensors").write_bytes((640).to_bytes(8, "little") + b"{}".ljust(640))
    assert (tmp_path / "model.safetensors").read_bytes()[:2] == pickle.dumps(0, protocol=2)[:2]
    refuse_pickles(tmp_path)
