"""The paired bootstrap of two models."""

import numpy as np
import pytest

from assay.errors import UserError
from assay.evaluation import METRICS, compare_predictions, evaluate_predictions, replicate_over_seeds


def model(seed: int, labels: np.ndarray, skill: float) -> np.ndarray:
    z = np.random.default_rng(seed).normal(size=(len(labels), 3))
    z[np.arange(len(labels)), labels] += skill
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


LABELS = np.random.default_rng(0).integers(3, size=600)


def test_identical_models_differ_by_exactly_nothing():
    p = model(1, LABELS, 1.0)
    for estimate in compare_predictions(p, p, LABELS).values():
        assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)


def test_a_better_model_is_better_by_every_metric_and_the_difference_changes_sign_with_the_order():
    worse, better = model(1, LABELS, 0.5), model(1, LABELS, 2.5)
    there, back = compare_predictions(worse, better, LABELS), compare_predictions(better, worse, LABELS)
    for name in ("accuracy", "macro_f1", "nll", "brier"):
        sign = 1 if METRICS[name].higher_is_better else -1
        assert sign * there[name].value > 0
        assert min(sign * there[name].low, sign * there[name].high) > 0
        assert there[name].value == pytest.approx(-back[name].value)
        assert there[name].low == pytest.approx(-back[name].high)


def test_pairing_makes_the_interval_of_similar_models_narrow():
    p = model(1, LABELS, 1.0)
    q = p.copy()
    q[:20] = model(2, LABELS[:20], 1.0)
    paired = compare_predictions(p, q, LABELS)["accuracy"]
    alone = evaluate_predictions(p, LABELS)["accuracy"]
    assert paired.high - paired.low < 0.4 * (alone.high - alone.low)


def test_seeds_that_disagree_widen_the_interval():
    agree = [model(seed, LABELS, 1.0) for seed in (1, 2, 3, 4)]
    disagree = [model(seed, LABELS, skill) for seed, skill in ((1, 0.2), (2, 1.0), (3, 1.0), (4, 1.8))]
    width = {
        name: found.high - found.low
        for name, group in (("agree", agree), ("disagree", disagree))
        for found in [replicate_over_seeds(group, LABELS)["accuracy"].estimate()]
    }
    assert width["disagree"] > 3 * width["agree"]


def test_arms_with_other_numbers_of_seeds_cannot_be_paired():
    p = model(1, LABELS, 1.0)
    one, two = (replicate_over_seeds([p] * count, LABELS)["ece"] for count in (1, 2))
    with pytest.raises(UserError, match="1 and 2 sets of predictions cannot be paired"):
        one.minus(two)
    with pytest.raises(UserError, match="no predictions"):
        replicate_over_seeds([], LABELS)
