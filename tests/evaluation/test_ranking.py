"""Metrics of ranking against scikit-learn, with ties, weights and absent classes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from assay.evaluation import ALL_METRICS, METRICS, EvaluationConfig, compare_predictions, evaluate_predictions
from assay.evaluation.bootstrap import draw
from assay.evaluation.measure import measure
from assay.evaluation.ranking import roc_curve

AUC, AP = ALL_METRICS["auc"], ALL_METRICS["average_precision"]


def scored(seed: int, n: int = 200, levels: int = 0):
    """Probabilities and labels that agree somewhat; ``levels`` distinct scores, so that ties are common."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(n) % 2)
    scores = 1 / (1 + np.exp(-generator.normal(labels, 1.0)))
    if levels:
        scores = np.round(scores * levels) / levels
    return np.stack([1 - scores, scores], axis=1), labels


@pytest.mark.parametrize("levels", [0, 1, 2, 10])
@given(seed=st.integers(0, 10_000), n=st.integers(2, 80))
@settings(max_examples=25, deadline=None)
def test_both_equal_scikit_learn_with_and_without_ties(levels, seed, n):
    p, y = scored(seed, n, levels)
    assert AUC(p, y) == pytest.approx(reference.roc_auc_score(y, p[:, 1]))
    assert AP(p, y) == pytest.approx(reference.average_precision_score(y, p[:, 1]))


@pytest.mark.parametrize("levels", [0, 8])
def test_resampling_weights_are_scikit_learns_sample_weights(levels):
    p, y = scored(3, levels=levels)
    weights = np.random.default_rng(0).multinomial(len(y), np.full(len(y), 1 / len(y)), size=20).astype(float)
    for metric, theirs in ((AUC, reference.roc_auc_score), (AP, reference.average_precision_score)):
        found = metric.combine(weights @ metric.statistics(p, y), len(y))
        assert found == pytest.approx([theirs(y, p[:, 1], sample_weight=row) for row in weights])


def test_a_replicate_is_the_metric_of_the_resampled_rows():
    p, y = scored(5, n=60, levels=6)
    rows = np.random.default_rng(1).integers(60, size=60)
    weights = np.bincount(rows, minlength=60)[None].astype(float)
    for metric in (AUC, AP):
        assert metric.combine(weights @ metric.statistics(p, y), 60)[0] == pytest.approx(metric(p[rows], y[rows]))


def test_an_absent_class_is_chance_for_the_auc_and_its_share_for_the_average_precision():
    p, _ = scored(0, n=10)
    assert (AUC(p, np.zeros(10, int)), AP(p, np.zeros(10, int))) == (0.5, 0.0)
    assert (AUC(p, np.ones(10, int)), AP(p, np.ones(10, int))) == (0.5, pytest.approx(1.0))


def test_turning_the_scores_around_turns_the_auc_around():
    p, y = scored(7, levels=12)
    assert AUC(p[:, ::-1], y) == pytest.approx(1 - AUC(p, y))


def test_the_roc_curve_is_scikit_learns_and_has_the_area_of_the_auc():
    p, y = scored(8, levels=15)
    false_positives, true_positives = roc_curve(p[:, 1], y)
    theirs = reference.roc_curve(y, p[:, 1], drop_intermediate=False)
    np.testing.assert_allclose(false_positives, theirs[0])
    np.testing.assert_allclose(true_positives, theirs[1])
    assert np.trapezoid(true_positives, false_positives) == pytest.approx(AUC(p, y))


def test_the_interval_of_the_auc_has_the_width_that_hanley_and_mcneil_give():
    """Hanley and McNeil 1982, whose Q1 and Q2 are those of exponential scores and near those of any others."""
    p, y = scored(9, n=1000)
    found = evaluate_predictions(p, y)["auc"]
    a, m = found.value, 500
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = np.sqrt((a * (1 - a) + (m - 1) * (q1 - a * a) + (m - 1) * (q2 - a * a)) / (m * m))
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.1)


def test_two_classes_get_the_metrics_of_ranking_and_more_do_not():
    p, y = scored(1)
    three = np.concatenate([p, np.zeros((len(p), 1))], axis=1)
    assert evaluate_predictions(p, y, replicates=5).keys() == ALL_METRICS.keys()
    assert compare_predictions(p, p, y, replicates=5).keys() == ALL_METRICS.keys()
    assert evaluate_predictions(three, y, replicates=5).keys() == METRICS.keys()
    assert compare_predictions(three, three, y, replicates=5).keys() == METRICS.keys()


def test_a_slice_of_one_class_has_no_ranking():
    p, y = scored(2)
    found = measure(p, y, ["real", "generated"], {"one": y == 1, "both": y >= 0}, EvaluationConfig(replicates=5))
    assert "auc" in found.overall and "auc" in found.slices["both"]
    assert found.slices["one"].keys() == METRICS.keys()


def test_replicates_are_drawn_in_blocks_of_bounded_memory():
    """The replicates of 20,000 distinct scores would take 1.6 GB at once; one block of them takes 17 MB."""
    p, y = scored(4, n=20_000)
    statistics, widest = AUC.statistics(p, y), []

    def replicate(weights):
        sums = weights @ statistics
        widest.append(sums.nbytes)
        return AUC.combine(sums, len(y))

    assert draw(replicate, len(y), 120, seed=0).shape == (120,)
    assert max(widest) <= 2 * 8 * (1 << 20)
