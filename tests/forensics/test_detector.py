import json

import pytest
import torch

from assay.errors import UserError
from assay.forensics import Decision, Detector, DetectorConfig, fit_detector
from assay.forensics.methods import METHODS

IMAGES = torch.randint(256, (6, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["rgb", "radial"])
def detector(request, detection_split) -> Detector:
    return fit_detector(
        detection_split,
        DetectorConfig(method=request.param, epochs=1, batch_size=64),
        calibration=detection_split,
    )


def test_what_is_saved_answers_as_what_was_trained(detector, tmp_path):
    detector.save_pretrained(tmp_path / "d")
    loaded = Detector.from_pretrained(tmp_path / "d")
    assert torch.equal(loaded(IMAGES), detector(IMAGES))
    assert loaded.decision == detector.decision and loaded.metadata == detector.metadata
    assert loaded.config == detector.config
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("method", METHODS)
def test_the_exported_detector_takes_plain_images_and_scores_as_the_eager_one(method):
    torch.manual_seed(0)
    detector = Detector(DetectorConfig(method=method), channels=1, image_size=(16, 16)).eval()
    program = torch.export.export(
        detector, (IMAGES[:2],), dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}}
    )
    assert torch.allclose(program.module()(IMAGES), detector(IMAGES), atol=1e-5)


def test_probabilities_are_calibrated_and_add_up_to_one(detector):
    probabilities = detector(IMAGES).detach()
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(6))
    logits = detector.logits(IMAGES).detach()
    expected = 1 / (1 + torch.exp(-(detector.slope * logits + detector.offset)))
    assert torch.allclose(probabilities[:, 1], expected, atol=1e-6)
    assert detector.score(IMAGES, batch_size=4) == pytest.approx(expected.double().numpy(), abs=1e-6)


def test_constant_images_get_a_number(detector):
    flat = torch.full((2, 1, 16, 16), 255, dtype=torch.uint8)
    flat[1] = 0
    assert ((detector.score(flat) >= 0) & (detector.score(flat) <= 1)).all()


def test_other_images_and_folders_are_refused(detector, tmp_path):
    with pytest.raises(UserError, match=r"takes images \[N, 1, 16, 16\], not \[2, 3, 16, 16\]"):
        detector.score(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(UserError, match="is not a detector of generated images"):
        Detector.from_pretrained(tmp_path)
    detector.save_pretrained(tmp_path / "d")
    description = json.loads((tmp_path / "d" / "config.json").read_text())
    (tmp_path / "d" / "config.json").write_text(json.dumps({**description, "kind": "classifier"}))
    with pytest.raises(UserError, match="it is a classifier"):
        Detector.from_pretrained(tmp_path / "d")


def test_metadata_travels_as_plain_json(detector):
    decision = Decision(**json.loads(json.dumps(detector.metadata))["decision"])
    assert decision == detector.decision
