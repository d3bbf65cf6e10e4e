"""The evaluation of a classifier on a data set artifact."""

import json
from pathlib import Path

import numpy as np
import pytest

from assay.data import ImageDataset, write_dataset
from assay.errors import UserError
from assay.evaluation import METRICS, EvaluationConfig, evaluate_classifier
from assay.evaluation.measure import measure, worst_errors
from assay.evaluation.slices import brightness_slices

SETTINGS = EvaluationConfig(replicates=100, worst=5)


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 noisy pictures of two classes, with a column that makes slices and one that does not."""
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("pets") / "pets"
    write_dataset(
        path,
        images=generator.integers(256, size=(60, 6, 6), dtype=np.uint8),
        labels=[k % 2 for k in range(60)],
        splits=["test"] * 60,
        class_names=["cat", "dog <b>"],
        name="pets",
        extra={"camera_id": [k % 3 for k in range(60)], "person_id": [f"p{k}" for k in range(60)]},
    )
    return path


def classify(images) -> np.ndarray:
    """Answer "dog" with a confidence that grows with the brightness of the picture."""
    dog = np.clip(images.numpy().mean(axis=(1, 2, 3)) / 255, 0.05, 0.95)
    return np.stack([1 - dog, dog], axis=1).astype(np.float32)


def run(dataset: Path, folder: Path, settings: EvaluationConfig = SETTINGS, classifier=classify):
    outputs = {name: folder / name for name in ("predictions", "report", "metrics")}
    return evaluate_classifier(dataset, classifier, settings, **outputs), outputs


def test_metrics_predictions_and_report_are_written(pets: Path, tmp_path: Path):
    summary, outputs = run(pets, tmp_path)
    assert json.loads(outputs["metrics"].read_text()) == summary
    assert all(isinstance(value, float) for value in summary.values())
    with np.load(outputs["predictions"], allow_pickle=False) as file:
        probabilities, labels, ids = file["probabilities"], file["labels"], file["sample_ids"]
    test = ImageDataset.open(pets).split("test")
    assert ids.tolist() == test.sample_ids.tolist()
    for name, metric in METRICS.items():
        assert summary[name] == pytest.approx(metric(probabilities, labels))
        assert summary[f"{name}_low"] <= summary[name] <= summary[f"{name}_high"]
    page = outputs["report"].read_text()
    assert "camera_id = 2" in page
    assert "brightness 1/4" in page
    assert "person_id" not in page
    assert "dog <b>" not in page, "names are escaped"


def test_a_classifier_for_other_classes_is_refused_and_nothing_is_written(pets: Path, tmp_path: Path):
    with pytest.raises(UserError, match="tells 3 classes apart and pets has 2"):
        run(pets, tmp_path, classifier=lambda images: np.full((len(images), 3), 1 / 3))
    assert list(tmp_path.iterdir()) == []


def test_a_perfect_classifier_has_no_worst_errors_but_a_report(pets: Path, tmp_path: Path):
    labels = ImageDataset.open(pets).split("test").labels.numpy()
    summary, outputs = run(pets, tmp_path, classifier=lambda images: np.eye(2)[labels])
    assert summary["accuracy"] == summary["worst_class_accuracy"] == 1.0
    assert "There are none." in outputs["report"].read_text()


def test_class_accuracies_and_slices_agree_with_the_confusion_matrix():
    generator = np.random.default_rng(1)
    p = generator.dirichlet(np.ones(3), size=200)
    y = generator.integers(2, size=200)  # the third class is absent
    halves = {"first": np.arange(200) < 100, "second": np.arange(200) >= 100, "none": np.zeros(200, bool)}
    found = measure(p, y, ["a", "b", "c"], halves, EvaluationConfig(replicates=50))
    assert list(found.classes) == ["a", "b"]
    for row, name in enumerate(found.classes):
        recall = found.confusion[row, row] / found.confusion[row].sum()
        assert found.classes[name]["accuracy"].value == pytest.approx(recall)
    assert list(found.slices) == ["first", "second"]
    mean = np.mean([found.slices[name]["accuracy"].value for name in found.slices])
    assert mean == pytest.approx(found.overall["accuracy"].value)


def test_the_worst_errors_are_wrong_and_sorted_by_confidence():
    generator = np.random.default_rng(2)
    p, y = generator.dirichlet(np.ones(4), size=100), generator.integers(4, size=100)
    rows = worst_errors(p, y, 10)
    assert (p[rows].argmax(axis=1) != y[rows]).all()
    assert (np.diff(p[rows].max(axis=1)) <= 0).all()


def test_brightness_slices_part_the_images_and_equal_images_make_none():
    images = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
    masks = np.stack(list(brightness_slices(images, 4).values()))
    assert masks.sum(axis=0).tolist() == [1] * 40
    assert masks.sum(axis=1).tolist() == [10] * 4
    assert brightness_slices(np.zeros((5, 1, 2, 2), np.uint8), 4) == {}
