"""Bootstrap intervals for any metric, without a loop over samples, replicates or bins."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from assay.errors import UserError
from assay.evaluation.metric import Array, Metric, check_predictions
from assay.evaluation.metrics import metrics_for

_WEIGHTS_AT_ONCE = 1 << 20
"""Resampling weights held in memory together: replicates come in blocks of this size over N."""


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval.

    Example:
        >>> str(Estimate(0.9, 0.88, 0.92, 0.95))
        '0.9000 [0.8800, 0.9200]'
    """

    value: float
    low: float
    high: float
    confidence: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def percent(self, digits: int = 2) -> str:
        """Write a fraction as percent, for example ``3.13 [2.51, 3.70]``."""
        return f"{100 * self.value:.{digits}f} [{100 * self.low:.{digits}f}, {100 * self.high:.{digits}f}]"

    def flat(self, name: str) -> dict[str, float]:
        """Return ``{name: value, name_low: low, name_high: high}``."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    def as_dict(self) -> dict[str, float]:
        """Return the four numbers by name."""
        return asdict(self)


def evaluate_predictions(
    probabilities: Array,
    labels: Array,
    metrics: Mapping[str, Metric] | None = None,
    *,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Compute every metric with a basic bootstrap interval over samples.

    Args:
        probabilities: [N, K], rows sum to 1.
        labels: [N], class indices.
        metrics: by name; default all that so many classes have.
        replicates: bootstrap replicates; every metric sees the same ones.
        confidence: coverage of the intervals.
        seed: of the resampling.

    Raises:
        UserError: see :func:`check_predictions`, or there are fewer than 2 replicates.

    Example:
        >>> p = np.tile([[0.9, 0.1], [0.2, 0.8]], (50, 1))
        >>> evaluate_predictions(p, np.tile([0, 1], 50))["accuracy"]
        Estimate(value=1.0, low=1.0, high=1.0, confidence=0.95)
    """
    probabilities, labels = check_predictions(probabilities, labels)
    n = len(labels)
    metrics = metrics_for(probabilities.shape[1]) if metrics is None else metrics
    statistics = {name: metric.statistics(probabilities, labels) for name, metric in metrics.items()}

    def replicate(weights: Array) -> Array:
        return np.stack([metrics[name].combine(weights @ s, n) for name, s in statistics.items()])

    drawn = draw(replicate, n, replicates, seed)
    values = replicate(np.ones((1, n)))[:, 0]
    return {
        name: interval(value, row, confidence, metrics[name].lowest, metrics[name].highest)
        for name, value, row in zip(statistics, values, drawn, strict=True)
    }


def draw(statistic: Callable[[Array], Array], n: int, replicates: int, seed: int) -> Array:
    """Return ``statistic`` of every replicate, [..., R].

    Args:
        statistic: resampling weights [r, n] -> values [..., r].
        n: number of units that are resampled with replacement.
        replicates: R.
        seed: of the resampling.

    Raises:
        UserError: there are fewer than 2 replicates.

    Example:
        >>> draw(lambda weights: weights @ np.arange(5.0) / 5, 5, 1000, seed=0).mean().round(1).item()
        2.0
    """
    if replicates < 2:
        raise UserError(f"bootstrap replicates = {replicates} is too few for an interval: use 1000.")
    return np.concatenate([statistic(weights) for weights in _weights(n, replicates, seed)], axis=-1)


def interval(
    value: float, drawn: Array, confidence: float, lowest: float = -np.inf, highest: float = np.inf
) -> Estimate:
    """Turn replicates [R] into a basic ("reverse percentile") interval, clipped to the metric's range.

    A calibration error is biased upwards in small samples, and its replicates a second time, so that the
    percentile interval often lies wholly above the truth. The basic interval reflects the replicates about
    the estimate, which takes that bias out (Davison and Hinkley 1997, section 5.2). It is widened where it
    would not hold the estimate itself [ours]. For a model that is calibrated almost perfectly the low end
    stays above the truth: an ECE below its own sampling noise cannot be told from zero.

    Example:
        >>> interval(2.0, np.array([1.0, 2.0, 3.0, 6.0]), confidence=1.0)
        Estimate(value=2.0, low=-2.0, high=3.0, confidence=1.0)
    """
    below, above = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.clip([2 * value - max(above, value), 2 * value - min(below, value)], lowest, highest)
    return Estimate(float(value), float(low), float(high), confidence)


def _weights(n: int, replicates: int, seed: int) -> Iterator[Array]:
    """Yield blocks [r, n] of multinomial counts, ``replicates`` rows in all."""
    generator = np.random.default_rng(seed)
    block = max(1, _WEIGHTS_AT_ONCE // n)
    for start in range(0, replicates, block):
        rows = min(block, replicates - start)
        drawn = generator.integers(n, size=(rows, n))
        drawn += n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)
