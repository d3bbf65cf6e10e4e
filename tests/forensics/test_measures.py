"""What is measured of a detector, against scikit-learn and by hand."""

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from assay.evaluation import METRICS, evaluate_predictions
from assay.forensics.decision import Decision
from assay.forensics.measures import (
    Subjects,
    balanced_accuracy,
    estimate_mean_average_precision,
    mean_average_precision,
    measure_generator,
    measure_shift,
    two_columns,
    verdicts,
)

DECISION = Decision(threshold=0.4, lower=0.3, upper=0.6, confidence=0.9)
RESAMPLING = {"replicates": 400, "confidence": 0.95, "seed": 0}


@pytest.fixture(scope="module")
def judged() -> tuple[Subjects, np.ndarray]:
    """60 real images, 60 of a generator that is easy to tell and 30 of a hard one; and their scores."""
    generators = np.repeat(["", "easy", "hard"], [60, 60, 30])
    draws = np.random.default_rng(0).normal(np.repeat([0.0, 3.0, 0.7], [60, 60, 30]))
    order = np.random.default_rng(1).permutation(150)
    labels = (generators != "").astype(np.int64)
    ids = np.array([f"s{k}" for k in range(150)])
    images = torch.arange(150).view(-1, 1, 1, 1)
    return Subjects(images, labels[order], generators[order], ids), (1 / (1 + np.exp(-draws)))[order]


def test_a_generator_is_compared_with_the_real_images_alone(judged):
    subjects, scores = judged
    found = measure_generator(subjects, scores, "hard", DECISION.threshold, seen=False)
    rows = np.isin(subjects.generators, ["", "hard"])
    labels, chosen = subjects.labels[rows], scores[rows]
    assert found.auc == pytest.approx(reference.roc_auc_score(labels, chosen))
    assert found.average_precision == pytest.approx(reference.average_precision_score(labels, chosen))
    assert found.accuracy == pytest.approx(reference.balanced_accuracy_score(labels, chosen >= 0.4))
    assert found.accuracy_at_half == pytest.approx(reference.balanced_accuracy_score(labels, chosen >= 0.5))
    assert (found.count, found.seen) == (30, False)
    assert found.found == pytest.approx(reference.recall_score(labels, chosen >= 0.4))


def test_the_mean_is_over_generators_not_over_images(judged):
    subjects, scores = judged
    single = [mean_average_precision(subjects, scores, [name]) for name in ("easy", "hard")]
    assert mean_average_precision(subjects, scores, ["easy", "hard"]) == pytest.approx(np.mean(single))
    estimate = estimate_mean_average_precision(subjects, scores, ["easy", "hard"], **RESAMPLING)
    assert estimate.value == pytest.approx(np.mean(single))
    assert estimate.low < estimate.value < estimate.high


def test_the_interval_over_one_generator_is_that_of_the_evaluation(judged):
    """The same resampled rows, whether other generators lie between them or not."""
    subjects, scores = judged
    rows = subjects.against("hard")
    expected = evaluate_predictions(two_columns(scores[rows]), subjects.labels[rows], **RESAMPLING)
    found = estimate_mean_average_precision(subjects, scores, ["hard"], **RESAMPLING)
    assert found == expected["average_precision"]


def test_a_part_has_the_first_images_of_every_kind(judged):
    subjects, _ = judged
    rows = subjects.first(20)
    part = subjects.take(rows)
    assert [(part.generators == name).sum() for name in ("", "easy", "hard")] == [20, 20, 20]
    assert np.array_equal(part.images.flatten().numpy(), rows) and part.names == subjects.names
    assert len(subjects.first(50)) == 50 + 50 + 30


def test_verdicts_are_those_of_the_decision():
    scores = np.array([0.0, 0.3, 0.300001, 0.45, 0.599999, 0.6, 1.0])
    words = {-1: "real", 0: "unsure", 1: "generated"}
    assert [words[one] for one in verdicts(scores, DECISION)] == [DECISION.verdict(score) for score in scores]


def test_balanced_accuracy_is_the_accuracy_of_equal_classes(judged):
    scores, labels = np.random.default_rng(2).random(80), np.arange(80) % 2
    assert balanced_accuracy(scores, labels, 0.5) == pytest.approx(METRICS["accuracy"](two_columns(scores), labels))


def test_a_shift_is_what_it_changes(judged):
    subjects, scores = judged
    same = measure_shift("none", subjects, scores, scores, DECISION, ["easy", "hard"])
    assert (same.drift, same.changed) == (0, 0)
    assert same.mean_ap == pytest.approx(mean_average_precision(subjects, scores, ["easy", "hard"]))
    after = scores.copy()
    after[:15] = np.where(verdicts(scores[:15], DECISION) == 1, 0.0, 1.0)
    moved = measure_shift("some", subjects, scores, after, DECISION, ["easy"])
    assert moved.changed == pytest.approx(15 / 150)
    assert moved.drift == pytest.approx(np.abs(after - scores).sum() / 150)
    rows = subjects.against("easy")
    assert moved.mean_auc == pytest.approx(reference.roc_auc_score(subjects.labels[rows], after[rows]))
