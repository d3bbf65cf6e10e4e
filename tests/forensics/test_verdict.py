import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from assay.data import codec
from assay.errors import UserError
from assay.forensics import Decision, Detector, DetectorConfig
from assay.forensics.methods import METHODS
from assay.forensics.verdict import examine

DECISION = Decision(threshold=0.5, lower=0.4, upper=0.6, confidence=0.95)
NOISE = np.random.default_rng(0).integers(0, 256, (24, 24), dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def roughness(images):
    """A detector of high frequencies: the mean step between neighbours, of 0 to 1."""
    return np.abs(np.diff(images.astype(float), axis=3)).mean(axis=(1, 2, 3)) / 255


def brightness(images):
    return images.mean(axis=(1, 2, 3)) / 255


def examine_one(image, score=brightness, size=(24, 24), channels=1, decision=DECISION, kind="PNG", **options):
    (finding,) = examine([("a", encoded(image, kind, **options))], score, decision, channels=channels, image_size=size)
    return finding


def probabilities(finding):
    return {view.name: view.probability for view in finding.views}


def test_an_image_of_the_models_size_is_scored_as_it_is():
    finding = examine_one(Image.fromarray(NOISE))
    assert list(probabilities(finding)) == ["as given", "JPEG 90", "resize to half and back"]
    assert finding.given.probability == pytest.approx(NOISE.mean() / 255)
    assert finding.as_dict()["resized_to"] is None


def test_another_size_is_resized_by_the_rule_of_the_codec_and_cropped():
    finding = examine_one(Image.fromarray(NOISE), roughness, size=(8, 10))
    data = encoded(Image.fromarray(NOISE))
    found = probabilities(finding)
    resized = codec.decode(data, 1, (8, 10))[None]
    assert found["resized from 24 x 24 to 10 x 8"] == finding.given.probability == roughness(resized)[0]
    assert found["centre crop to 10 x 8"] == roughness(NOISE[None, None, 8:16, 7:17])[0]
    assert finding.as_dict()["resized_to"] == [10, 8] and finding.as_dict()["size"] == [24, 24]


@pytest.mark.parametrize("size", [(32, 32), (8, 32), (32, 8)])
def test_an_image_smaller_on_a_side_is_enlarged_and_not_cropped(size):
    found = probabilities(examine_one(Image.fromarray(NOISE), size=size))
    assert f"resized from 24 x 24 to {size[1]} x {size[0]}" in found
    assert not any(name.startswith("centre crop") for name in found)


def test_jpeg_and_half_size_are_made_at_the_images_own_size():
    wide = np.random.default_rng(1).integers(0, 256, (48, 48), dtype=np.uint8)
    found = probabilities(examine_one(Image.fromarray(wide), roughness))
    jpeg = codec.decode(encoded(Image.fromarray(wide), "JPEG", quality=90), 1, (24, 24))[None]
    assert found["JPEG 90"] == roughness(jpeg)[0]
    half = Image.fromarray(wide).resize((24, 24), Image.Resampling.BILINEAR)
    back = half.resize((48, 48), Image.Resampling.BILINEAR).resize((24, 24), Image.Resampling.BILINEAR)
    assert found["resize to half and back"] == roughness(np.asarray(back)[None, None])[0]


def test_a_verdict_that_rests_on_fine_detail_is_told_to_change():
    kept = roughness(NOISE[None, None])[0]
    decision = Decision(threshold=kept - 0.05, lower=kept - 0.1, upper=kept - 0.05, confidence=0.95)
    finding = examine_one(Image.fromarray(NOISE), roughness, decision=decision)
    assert finding.given.verdict == "generated"
    assert [view.name for view in finding.changes] == ["resize to half and back"]
    low, high = finding.range
    assert (low, high) == (min(probabilities(finding).values()), max(probabilities(finding).values()))
    assert finding.sentence == (
        f"The probability goes from {low:.4f} to {high:.4f}, and the verdict changes after resize to half and back "
        "(real)."
    )


def test_a_verdict_that_stays_is_told_to():
    finding = examine_one(Image.new("L", (24, 24), 250))
    assert finding.changes == () and finding.sentence.endswith("and the verdict stays.")


def test_every_mode_and_size_in_one_call_gives_what_the_data_room_decodes():
    grey = Image.fromarray(NOISE)
    files = [
        ("grey.png", encoded(grey)),
        ("colour.jpg", encoded(grey.convert("RGB").resize((40, 30)), "JPEG")),
        ("rgba.png", encoded(grey.convert("RGBA"))),
        ("sixteen.png", encoded(Image.fromarray(NOISE.astype(np.uint16) * 257))),
        ("palette.gif", encoded(grey.convert("RGB").quantize(16), "GIF")),
        ("palette.png", encoded(grey.convert("RGB").quantize(16))),
        ("one.png", encoded(Image.new("1", (1, 1)))),
        ("constant.png", encoded(Image.new("L", (24, 24), 7))),
    ]
    for channels in (1, 3):
        findings = examine(files, brightness, DECISION, channels=channels, image_size=(24, 24))
        assert [finding.name for finding in findings] == [name for name, _ in files]
        for finding, (_, data) in zip(findings, files, strict=True):
            expected = brightness(codec.decode(data, channels, (24, 24))[None])[0]
            assert finding.given.probability == pytest.approx(expected, abs=1e-12)
            assert np.isfinite(list(probabilities(finding).values())).all()
    assert json.loads(json.dumps([finding.as_dict() for finding in findings], allow_nan=False))


def test_all_views_of_all_images_go_through_the_model_at_once():
    calls = []

    def score(images):
        calls.append(images.shape)
        return np.zeros(len(images))

    picture = encoded(Image.fromarray(NOISE))
    examine([("a", picture), ("b", picture)], score, DECISION, channels=3, image_size=(24, 24))
    assert calls == [(6, 3, 24, 24)]
    assert examine([], score, DECISION, channels=3, image_size=(24, 24)) == []


def test_an_image_too_long_for_jpeg_is_scored_without():
    found = probabilities(examine_one(Image.new("L", (65_501, 1), 9)))
    assert set(found) == {"resized from 65501 x 1 to 24 x 24", "resize to half and back"}


@pytest.mark.parametrize("data", [b"", b"text", encoded(Image.fromarray(NOISE))[:60]])
def test_a_file_that_cannot_be_read_is_named(data):
    good = encoded(Image.fromarray(NOISE))
    with pytest.raises(UserError, match=r"bad\.png is .*: give a whole image file"):
        examine([("good.png", good), ("bad.png", data)], brightness, DECISION, channels=1, image_size=(24, 24))


@pytest.mark.parametrize("method", list(METHODS))
def test_an_image_without_variance_has_a_probability_by_every_method(method):
    detector = Detector(DetectorConfig(method=method), channels=1, image_size=(16, 16)).eval()
    files = [(str(level), encoded(Image.new("L", (size, size), level))) for level in (0, 255) for size in (16, 40)]
    findings = examine(
        files, lambda images: detector.score(torch.from_numpy(images)), DECISION, channels=1, image_size=(16, 16)
    )
    assert np.isfinite([finding.range for finding in findings]).all()


def test_a_score_of_nan_is_no_verdict():
    with pytest.raises(UserError, match="is NaN"):
        examine_one(Image.fromarray(NOISE), lambda images: np.full(len(images), np.nan))
