"""Is one model better than another on the same samples? The paired bootstrap, for any metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from assay.errors import UserError
from assay.evaluation.bootstrap import Estimate, draw, interval
from assay.evaluation.metric import Array, Metric, check_predictions
from assay.evaluation.metrics import metrics_for


def compare_predictions(
    a: Array,
    b: Array,
    labels: Array,
    metrics: Mapping[str, Metric] | None = None,
    *,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Estimate ``metric(b) - metric(a)`` by resampling the samples once for both models.

    Args:
        a: probabilities [N, K] of the first model (the champion).
        b: probabilities [N, K] of the second on the same rows (the challenger).
        labels: [N].
        metrics: by name; default all that so many classes have.
        replicates: bootstrap replicates.
        confidence: coverage of the intervals.
        seed: of the resampling.

    Raises:
        UserError: the predictions are not those of the same rows, or not probabilities.

    Example:
        >>> p = np.tile([[0.9, 0.1], [0.2, 0.8]], (50, 1))
        >>> compare_predictions(p, p, np.tile([0, 1], 50))["ece"]
        Estimate(value=0.0, low=0.0, high=0.0, confidence=0.95)
    """
    before = replicate_over_seeds([a], labels, metrics, replicates=replicates, seed=seed)
    after = replicate_over_seeds([b], labels, metrics, replicates=replicates, seed=seed)
    return {name: after[name].minus(before[name]).estimate(confidence) for name in before}


@dataclass(frozen=True)
class Replicates:
    """A metric of one arm under resampling, for every training seed.

    Two arms that were resampled with the same seed and as many samples saw the same resampled samples, so
    that their difference is paired.

    Attributes:
        values: [S], the metric of each training seed.
        drawn: [S, R], its bootstrap replicates.
    """

    values: Array
    drawn: Array

    def minus(self, other: "Replicates") -> "Replicates":
        """Return the paired difference.

        Raises:
            UserError: the arms hold different numbers of seeds or replicates.
        """
        if self.drawn.shape != other.drawn.shape:
            raise UserError(
                f"{len(self.values)} and {len(other.values)} sets of predictions cannot be paired: give one of "
                "each for every seed."
            )
        return Replicates(self.values - other.values, self.drawn - other.drawn)

    def estimate(self, confidence: float = 0.95, lowest: float = -np.inf, highest: float = np.inf) -> Estimate:
        """Return the mean over training seeds; each replicate draws seeds with replacement too.

        The seed is the outer unit of the bootstrap. With few seeds its part of the width is underestimated
        by the factor ``sqrt((S - 1) / S)``.

        Example:
            >>> Replicates(np.array([1.0, 3.0]), np.array([[1.0, 1.0], [3.0, 3.0]])).estimate().value
            2.0
        """
        seeds, replicates = self.drawn.shape
        chosen = np.random.default_rng(seeds).integers(seeds, size=(seeds, replicates))
        means = np.take_along_axis(self.drawn, chosen, axis=0).mean(axis=0)
        return interval(float(self.values.mean()), means, confidence, lowest, highest)


def replicate_over_seeds(
    predictions: Sequence[Array],
    labels: Array,
    metrics: Mapping[str, Metric] | None = None,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Replicates]:
    """Compute every metric, and its replicates on resampled test samples, for every training seed.

    Args:
        predictions: one [N, K] of probabilities for each training seed.
        labels: [N], the same test samples for all.
        metrics: by name; default all that so many classes have.
        replicates: R.
        seed: of the resampling of samples.

    Raises:
        UserError: there are no predictions, or they do not fit the labels.

    Example:
        >>> p = np.tile([[0.9, 0.1], [0.2, 0.8]], (50, 1))
        >>> replicate_over_seeds([p, p[:, ::-1]], np.tile([0, 1], 50))["accuracy"].values
        array([1., 0.])
    """
    if not len(predictions):
        raise UserError("There are no predictions: give the probabilities of at least one training seed.")
    n = len(labels)
    checked = [check_predictions(one, labels) for one in predictions]
    metrics = metrics_for(checked[0][0].shape[1]) if metrics is None else metrics
    statistics = {
        name: [metric.statistics(probabilities, targets) for probabilities, targets in checked]
        for name, metric in metrics.items()
    }

    def replicate(weights: Array) -> Array:
        """Metrics [metrics, seeds, r] on resampled samples."""
        return np.array(
            [[metrics[name].combine(weights @ one, n) for one in found] for name, found in statistics.items()]
        )

    values = replicate(np.ones((1, n)))[..., 0]
    drawn = draw(replicate, n, replicates, seed)
    return {name: Replicates(values[i], drawn[i]) for i, name in enumerate(statistics)}
