"""Metrics against independent implementations and closed forms."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from netcal.metrics import ECE
from sklearn import metrics as reference
from torchmetrics.functional.classification import multiclass_calibration_error

from assay.evaluation import METRICS, reliability_bins
from assay.evaluation.metrics import (
    adaptive_calibration_error,
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    macro_f1,
    metrics_of_class,
    negative_log_likelihood,
)


def predictions(seed: int, n: int = 400, classes: int = 5, sharpness: float = 2.0):
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(n, classes)) * sharpness
    probabilities = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return probabilities, generator.integers(classes, size=n)


def test_accuracy_f1_nll_and_brier_equal_scikit_learn():
    p, y = predictions(0)
    predicted, onehot = p.argmax(axis=1), np.eye(5)[y]
    assert METRICS["accuracy"](p, y) == pytest.approx(reference.accuracy_score(y, predicted))
    assert macro_f1(p, y) == pytest.approx(reference.f1_score(y, predicted, average="macro"))
    assert negative_log_likelihood(p, y) == pytest.approx(reference.log_loss(y, p))
    assert brier_score(p, y) == pytest.approx(((p - onehot) ** 2).sum(axis=1).mean())


def test_f1_leaves_out_a_class_that_neither_occurs_nor_is_predicted():
    p, y = predictions(1, classes=4)
    p = np.concatenate([p, np.zeros((len(p), 1))], axis=1)
    assert macro_f1(p, y) == pytest.approx(reference.f1_score(y, p.argmax(axis=1), average="macro"))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sharpness", [0.3, 3.0])
def test_ece_equals_torchmetrics_and_netcal(seed: int, sharpness: float):
    p, y = predictions(seed, sharpness=sharpness)
    found = expected_calibration_error(p, y)
    theirs = multiclass_calibration_error(torch.tensor(p), torch.tensor(y), num_classes=5, n_bins=15, norm="l1")
    assert found == pytest.approx(theirs.item(), abs=1e-6)  # theirs is float32
    assert found == pytest.approx(ECE(bins=15).measure(p, y), abs=1e-9)


def test_adaptive_ece_is_the_mean_gap_of_equally_large_groups():
    p, y = predictions(2, n=450)
    order = np.argsort(p.max(axis=1))
    groups = np.array_split(order, 15)
    gaps = [abs(p[g].max(axis=1).mean() - (p[g].argmax(axis=1) == y[g]).mean()) for g in groups]
    assert adaptive_calibration_error(p, y) == pytest.approx(np.mean(gaps), rel=1e-9)


def test_classwise_ece_is_the_mean_over_classes_of_the_binary_ece():
    p, y = predictions(3)
    binary = [metrics_of_class(k)["ece_one_vs_rest"](p, y) for k in range(5)]
    assert classwise_calibration_error(p, y) == pytest.approx(np.mean(binary))
    edges = np.linspace(0, 1, 16)
    gap = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (p[:, 2] > low) & (p[:, 2] <= high)
        if inside.any():
            gap += inside.mean() * abs(p[inside, 2].mean() - (y[inside] == 2).mean())
    assert binary[2] == pytest.approx(gap)


def test_f1_of_each_class_equals_scikit_learn():
    p, y = predictions(4)
    theirs = reference.f1_score(y, p.argmax(axis=1), average=None)
    assert [metrics_of_class(k)["f1"](p, y) for k in range(5)] == pytest.approx(theirs)


def test_one_confidence_has_the_ece_of_its_closed_form():
    p = np.tile([0.8, 0.2], (100, 1))
    y = (np.arange(100) < 30).astype(int)
    for name in ("ece", "adaptive_ece", "classwise_ece"):
        assert METRICS[name](p, y) == pytest.approx(abs(0.8 - 0.7))


@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_every_metric_is_in_its_range_and_blind_to_the_order_of_samples(seed: int, classes: int, n: int):
    p, y = predictions(seed, n, classes)
    order = np.random.default_rng(seed).permutation(n)
    for metric in METRICS.values():
        value = metric(p, y)
        assert metric.lowest <= value <= metric.highest
        assert metric(p[order], y[order]) == pytest.approx(value)


def test_a_certain_and_right_classifier_is_perfect_by_every_metric():
    y = np.arange(30) % 3
    for metric in METRICS.values():
        assert metric(np.eye(3)[y], y) == pytest.approx(1.0 if metric.higher_is_better else 0.0)


def test_a_certain_and_wrong_classifier_has_a_finite_nll():
    assert 700 < negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1])) < 710


def test_reliability_bins_hold_every_sample_once_and_give_the_ece():
    p, y = predictions(5)
    bins = reliability_bins(p, y)
    assert bins.share.sum() == pytest.approx(1)
    assert bins.expected_calibration_error == pytest.approx(expected_calibration_error(p, y))
    assert np.isnan(bins.confidence[bins.share == 0]).all()
