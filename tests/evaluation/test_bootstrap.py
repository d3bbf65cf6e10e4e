"""Bootstrap intervals: the same as resampling by hand, and they cover."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import UserError
from assay.evaluation import METRICS, evaluate_predictions
from assay.evaluation.bootstrap import draw, interval


def overconfident(generator: np.random.Generator, n: int, sharpness: float):
    """Labels drawn from probabilities q; the predictions are q with its logits times ``sharpness``."""
    q = generator.dirichlet(np.full(4, 0.5), size=n)
    labels = (q.cumsum(axis=1) > generator.random((n, 1))).argmax(axis=1)
    powered = np.maximum(q, 1e-12) ** sharpness
    return powered / powered.sum(axis=1, keepdims=True), labels


@given(st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_weighted_statistics_equal_the_metric_on_resampled_rows(seed: int):
    generator = np.random.default_rng(seed)
    p, y = overconfident(generator, 50, 2.0)
    rows = generator.integers(50, size=50)
    weights = np.bincount(rows, minlength=50)[None].astype(float)
    for metric in METRICS.values():
        if metric.name != "adaptive_ece":  # its bins are those of the whole sample
            by_hand = metric(p[rows], y[rows])
            assert metric.combine(weights @ metric.statistics(p, y), 50)[0] == pytest.approx(by_hand)


def test_intervals_hold_their_estimate_and_depend_on_nothing_but_the_seed():
    p, y = overconfident(np.random.default_rng(0), 300, 2.0)
    first, again, other = (evaluate_predictions(p, y, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    for name, estimate in first.items():
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.value == pytest.approx(METRICS[name](p, y))


def test_the_interval_of_an_accuracy_is_the_normal_one():
    p, y = overconfident(np.random.default_rng(0), 2000, 1.0)
    found = evaluate_predictions(p, y, {"accuracy": METRICS["accuracy"]}, replicates=4000)["accuracy"]
    half = 1.96 * np.sqrt(found.value * (1 - found.value) / 2000)
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    assert found.value - found.low == pytest.approx(half, rel=0.1)


def test_intervals_cover_the_truth_of_a_known_distribution():
    generator = np.random.default_rng(0)
    names = ("accuracy", "brier", "ece")
    metrics = {name: METRICS[name] for name in names}
    truth = {name: METRICS[name](*overconfident(generator, 400_000, 2.0)) for name in names}
    covered = dict.fromkeys(names, 0)
    for repetition in range(100):
        p, y = overconfident(generator, 500, 2.0)
        found = evaluate_predictions(p, y, metrics, replicates=300, seed=repetition)
        for name in names:
            covered[name] += found[name].low <= truth[name] <= found[name].high
    assert all(count >= 87 for count in covered.values()), covered


def test_the_basic_interval_is_reflected_widened_to_its_estimate_and_clipped():
    assert interval(1.0, np.array([1.0, 3.0]), confidence=1.0).low == -1.0
    biased = interval(1.0, np.array([2.0, 3.0]), confidence=1.0)
    assert (biased.low, biased.high) == (-1.0, 1.0)
    assert interval(0.1, np.array([0.3, 0.4]), 1.0, lowest=0.0).low == 0.0


def test_blocks_do_not_change_the_number_of_replicates(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("assay.evaluation.bootstrap._WEIGHTS_AT_ONCE", 64)
    totals = draw(lambda weights: weights.sum(axis=1), 10, 101, seed=0)
    assert totals.tolist() == [10.0] * 101


def test_one_replicate_is_refused():
    with pytest.raises(UserError, match="too few"):
        evaluate_predictions(np.eye(2), np.array([0, 1]), replicates=1)
