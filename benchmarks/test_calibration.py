"""What fitting costs: temperature scaling against netcal's, SCTL against cross-entropy, and the bootstrap."""

import statistics
import time

import numpy as np
import torch
from netcal.scaling import TemperatureScaling as NetcalTemperatureScaling

from assay.calibration import TemperatureScaling
from assay.calibration.table import softmax
from assay.evaluation import evaluate_predictions

ROWS, CLASSES, ROUNDS = 10_000, 10, 15


def overconfident_logits() -> tuple[np.ndarray, np.ndarray]:
    """Return logits [N, K] that are three times too large, with a long-tailed prior, and their labels [N]."""
    generator = np.random.default_rng(0)
    z = generator.normal(size=(ROWS, CLASSES)) * 2
    p = np.exp(z) * np.geomspace(1, 0.1, CLASSES)
    p /= p.sum(axis=1, keepdims=True)
    return z * 3, (p.cumsum(axis=1) > generator.random((ROWS, 1))).argmax(axis=1)


def seconds(function) -> float:
    """Processor seconds, so that a neighbour on the machine does not count."""
    begin = time.process_time()
    function()
    return time.process_time() - begin


def test_fitting_sctl_costs_at_most_twice_cross_entropy_which_is_as_fast_as_netcal():
    logits, labels = overconfident_logits()
    probabilities = softmax(torch.from_numpy(logits))
    contenders = {
        "plain": lambda: TemperatureScaling().fit(logits, labels),
        "sctl": lambda: TemperatureScaling().fit(logits, labels, "sctl_nd"),
        "netcal": lambda: NetcalTemperatureScaling().fit(probabilities, labels),
    }
    for fit in contenders.values():
        fit()
    times = {name: [] for name in contenders}
    for _ in range(ROUNDS):  # interleaved, so that a change of clock speed meets all of them
        for name, fit in contenders.items():
            times[name].append(seconds(fit))
    sctl = statistics.median(a / b for a, b in zip(times["sctl"], times["plain"], strict=True))
    netcal = statistics.median(a / b for a, b in zip(times["plain"], times["netcal"], strict=True))
    medians = {name: f"{1000 * statistics.median(found):.1f} ms" for name, found in times.items()}
    print(f"\n{medians}; SCTL / plain: {sctl:.2f} (at most 2); plain / netcal: {netcal:.2f} (at most 1)")
    assert sctl <= 2
    assert netcal <= 1


def test_a_thousand_replicates_of_every_metric_take_less_than_two_seconds():
    logits, labels = overconfident_logits()
    probabilities = softmax(torch.from_numpy(logits))
    took = statistics.median(seconds(lambda: evaluate_predictions(probabilities, labels)) for _ in range(3))
    print(f"\n1,000 replicates of 7 metrics on {ROWS:,} x {CLASSES}: {took:.2f} s")
    assert took < 2
