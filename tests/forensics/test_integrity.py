"""Every gate holds on honest data and refuses the leak that it is there for, by name."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from assay.data import ImageDataset, write_dataset
from assay.data.codec import encode_png
from assay.errors import UserError
from assay.forensics import integrity
from assay.forensics.integrity import IntegrityConfig, check_integrity, null_auc, stored_alike

QUICK = {"epochs": 1, "images": 60}
SPLITS = np.array(["train", "validation", "calibration", "test"])


@pytest.fixture
def run(tmp_path):
    """Check a data set; return the numbers."""

    def check(dataset: ImageDataset, config=QUICK, **options):
        written = {"report": tmp_path / "report.html", "metrics": tmp_path / "metrics.json"}
        return check_integrity(dataset.path, config, **written, **options)

    return check


@pytest.fixture
def make(tmp_path):
    """A detection data set of random pictures, 20 of each class in each split, after changes to its columns."""

    def write(change=lambda columns: None, encode=None):
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (160, 8, 8), dtype=np.uint8)
        columns = {
            "images": images,
            "labels": np.tile([0, 1], 80),
            "splits": SPLITS[np.arange(160) // 2 % 4],
            "sample_ids": np.array([f"s{k}" for k in range(160)]),
        }
        change(columns)
        if encode:
            pairs = zip(columns["images"], columns["labels"], strict=True)
            columns["images"] = [encode(image, label) for image, label in pairs]
        made_by = ["dcgan" if label else "" for label in columns["labels"]]
        return write_dataset(
            tmp_path / "corpus", class_names=["real", "generated"], name="made", extra={"generator": made_by}, **columns
        )

    return write


def refused(run, dataset, sentence, tmp_path, **options):
    with pytest.raises(UserError, match=sentence):
        run(dataset, **options)
    assert "no</td>" in (tmp_path / "report.html").read_text(), "the report does not show which gate failed"
    assert json.loads((tmp_path / "metrics.json").read_text())["failed_gates"] >= 1


def jpeg(image: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_honest_data_pass_and_the_same_seed_gives_the_same_numbers(run, detection_data, tmp_path):
    numbers = run(detection_data, seed=3)
    assert numbers["failed_gates"] == 0
    assert json.loads((tmp_path / "metrics.json").read_text()) == numbers
    for null in ("real_vs_real_auc", "shuffled_labels_auc"):
        assert abs(numbers[null] - 0.5) <= numbers[f"{null}_band"]
    assert run(detection_data, seed=3) == numbers


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("label", [0, 1])
def test_a_split_of_one_class_is_refused(run, make, tmp_path, split, label):
    def leave_out(columns):
        keep = (columns["splits"] != split) | (columns["labels"] != label)
        columns |= {key: values[keep] for key, values in columns.items()}

    title = ("real", "generated")[label]
    refused(run, make(leave_out), f"the split '{split}' has no {title} image", tmp_path)


def test_a_split_that_is_missing_is_refused(run, make, tmp_path):
    def leave_out(columns):
        columns |= {key: values[columns["splits"] != "validation"] for key, values in columns.items()}

    refused(run, make(leave_out), "the split 'validation' has no real image", tmp_path)


@pytest.mark.parametrize(
    ("encode", "kind"),
    [
        (lambda image, label: jpeg(image, 95) if label else encode_png(image), "PNG L 8 x 8|JPEG L 8 x 8"),
        (lambda image, label: jpeg(image, 95 if label else 75), "JPEG L 8 x 8, quantisation"),
        (lambda image, label: encode_png(np.stack([image] * 3, axis=2) if label else image), "PNG (L|RGB) 8 x 8"),
        (lambda image, label: encode_png(image[:7] if label else image), "PNG L 8 x [78]"),
    ],
    ids=["codec", "quality", "mode", "size"],
)
def test_classes_that_are_stored_differently_are_refused(run, make, tmp_path, encode, kind):
    sentence = rf"(0%|100%) of the real and (0%|100%) of the generated images are stored as ({kind})"
    refused(run, make(encode=encode), sentence, tmp_path)


def test_classes_that_are_rounded_differently_are_refused(run, make, tmp_path):
    def coarse(columns):
        columns["images"][columns["labels"] == 0] &= 0xF0

    refused(run, make(coarse), "real images take 16 values of 256 and generated ones 256", tmp_path)
    tolerant = {**QUICK, "levels": 0.0, "standard_errors": 100.0}
    assert run(make(coarse), config=tolerant)["levels_real"] == 16


def test_a_leaked_real_image_is_refused_by_name(run, make, tmp_path):
    def leak(columns):
        columns["images"][9] = columns["images"][8]  # row 8 is real and row 9 generated, in the same split

    sentence = r"'s8' \(real, train\) and 's9' \(generated, train\) are the same picture; remove"
    refused(run, make(leak), sentence, tmp_path)


def test_the_same_image_in_two_splits_is_refused_by_name(run, make, tmp_path):
    def repeat(columns):
        columns["images"][[6, 14]] = columns["images"][[0, 8]]

    sentence = r"'s0' \(real, train\) and 's6' \(real, test\) are the same picture, and 1 more are in two splits; "
    refused(run, make(repeat), sentence, tmp_path)


def test_a_leak_between_train_and_test_shows_in_the_nulls(detection_arrays):
    """A null detector that is judged on what it learned from finds its labels again."""
    images = torch.from_numpy(detection_arrays[0])[:, None, 4:12, 4:12].contiguous()
    classes = images[:40], images[40:80]
    config = IntegrityConfig(epochs=30, images=40)
    leaked, band = null_auc(classes, classes, config)
    assert leaked - 0.5 > band
    fresh = images[200:300], images[300:400]
    honest, band = null_auc(classes, fresh, config)
    assert abs(honest - 0.5) <= band


def test_a_null_that_is_not_chance_stops_the_run(run, make, monkeypatch, tmp_path):
    monkeypatch.setattr(integrity, "null_auc", lambda *_: (0.71, 0.1))
    refused(run, make(), "a detector trained on real images against others has an AUC of 0.710", tmp_path)


def test_the_band_is_four_standard_errors_of_random_scores():
    """The standard deviation of the AUC of scores that know nothing, by simulation."""
    generator, m, n = np.random.default_rng(0), 30, 50
    scores = generator.random((1000, m + n))
    aucs = (scores[:, m:, None] > scores[:, None, :m]).mean(axis=(1, 2))
    images = torch.zeros(80, 1, 8, 8, dtype=torch.uint8)
    test = images[:m], images[m:]
    band = null_auc(test, test, IntegrityConfig(epochs=1))[1]
    assert band == pytest.approx(4 * np.std(aucs), rel=0.1)


@pytest.mark.parametrize("codec", ["PNG", "JPEG"])
def test_an_image_that_trained_generators_is_refused(run, make, tmp_path, monkeypatch, codec):
    monkeypatch.setattr(integrity, "generator_half", lambda ids: np.isin(ids, ["a", "b"]))
    generator = np.random.default_rng(5)
    images = generator.integers(0, 256, (5, 8, 8), dtype=np.uint8)
    source = write_dataset(
        tmp_path / "source",
        images=images,
        labels=[0, 1, 0, 1, 0],
        splits=["train", "train", "train", "train", "test"],
        sample_ids=["a", "b", "c", "d", "e"],
        class_names=["cat", "dog"],
        name="pets",
    )

    def use(row):
        def change(columns):
            columns["images"][0] = images[row]

        return change

    def encode(image, label):
        return jpeg(image, 90) if codec == "JPEG" else encode_png(image)

    assert run(make(use(2), encode), source=source.path)["failed_gates"] == 0
    with pytest.raises(UserError, match="'s0' of the split 'train' is an image that the generators learned from"):
        run(make(use(1), encode), source=source.path)


def test_a_source_with_generated_images_of_its_own_trained_no_generator(run, make):
    dataset = make()
    assert run(dataset, source=dataset.path)["failed_gates"] == 0


def test_storing_alike_gives_the_pixels_that_the_example_s_codec_would():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=83, subsampling="4:2:2")
    expected = np.asarray(Image.open(buffer)).transpose(2, 0, 1)
    found = stored_alike(torch.from_numpy(image).permute(2, 0, 1)[None], buffer.getvalue())
    assert np.array_equal(found[0].numpy(), expected)


def test_other_classes_and_unknown_settings_are_one_sentence(run, digits, detection_data):
    with pytest.raises(UserError, match="has the classes 0, 1, 2, 3 instead of real, generated"):
        run(digits)
    with pytest.raises(UserError, match=r"integrity\.epoch is not a setting"):
        run(detection_data, config={"epoch": 1})
