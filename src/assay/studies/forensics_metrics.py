"""What a detector's scores are worth, on resampled images, without a loop over replicates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assay.evaluation.metric import Array

RANKING_METRICS = ("ap", "auc", "accuracy_at_half", "accuracy", "accuracy_real", "accuracy_generated")
"""What `measure` gives, in order; the last three are at the detector's own threshold, and all are in [0, 1]."""


@dataclass(frozen=True)
class Scores:
    """The logits of "generated" that one detector gave: a probability that is rounded to 1 ranks no more.

    Attributes:
        real: [N], of real images.
        generated: by generator, [M] each.
        threshold: the logit from which on the detector says "generated".
    """

    real: Array
    generated: dict[str, Array]
    threshold: float


def measure(scores: Scores, real_weights: Array, generated_weights: dict[str, Array]) -> Array:
    """Compute all metrics of each generator's images against the real ones, on every resampling of both.

    Average precision is the sum of precision times the step of recall over the distinct scores; the area
    under the ROC curve counts a tie one half; accuracy is the mean of those on real and on generated images,
    so that their numbers do not matter.

    Args:
        scores: of one detector.
        real_weights: [N, R], how often each replicate holds each real image.
        generated_weights: by generator, [M, R].

    Returns:
        [len(RANKING_METRICS), generators, R], the generators in the order of ``scores.generated``.

    Example:
        >>> scores = Scores(np.array([-2.0, 1.0]), {"dcgan": np.array([-0.5, 3.0])}, threshold=-1.0)
        >>> measure(scores, np.ones((2, 1)), {"dcgan": np.ones((2, 1))})[:, 0, 0].round(3)
        array([0.833, 0.75 , 0.5  , 0.75 , 0.5  , 1.   ])
    """
    order = np.argsort(-scores.real)
    descending = -scores.real[order]
    # Row k: the weight of the k highest real scores.
    false = np.concatenate([np.zeros_like(real_weights[:1]), np.cumsum(real_weights[order], axis=0)])
    real = _share(scores.real < scores.threshold, real_weights)
    real_at_half = _share(scores.real < 0, real_weights)
    columns = []
    for name, generated in scores.generated.items():
        weights = generated_weights[name]
        ap, auc = _rank(generated, weights, descending, false)
        found = _share(generated >= scores.threshold, weights)
        found_at_half = _share(generated >= 0, weights)
        columns.append([ap, auc, (real_at_half + found_at_half) / 2, (real + found) / 2, real, found])
    return np.array(columns).swapaxes(0, 1)


def resample(size: int, replicates: int, generator: np.random.Generator) -> Array:
    """Draw multinomial weights float32 [size, R]; the first replicate is the data itself.

    Example:
        >>> weights = resample(3, 5, np.random.default_rng(0))
        >>> weights[:, 0], weights.sum(axis=0)
        (array([1., 1., 1.], dtype=float32), array([3., 3., 3., 3., 3.], dtype=float32))
    """
    rows = generator.integers(size, size=(size, replicates)) * replicates + np.arange(replicates)
    weights = np.bincount(rows.ravel(), minlength=size * replicates).reshape(size, replicates).astype(np.float32)
    weights[:, 0] = 1
    return weights


def average(values: Sequence[Array], chosen: Array) -> Array:
    """Return, for each replicate, the mean over the detectors that it drew.

    Args:
        values: one [..., R] for each of D detectors.
        chosen: [D, R], indices of detectors.

    Example:
        >>> average([np.array([0.0, 0.0]), np.array([1.0, 1.0])], np.array([[0, 1], [1, 1]]))
        array([0.5, 1. ])
    """
    counts = np.stack([(chosen == index).sum(axis=0) for index in range(len(values))])
    return sum(value * count for value, count in zip(values, counts, strict=True)) / len(values)


def _rank(generated: Array, weights: Array, descending: Array, false: Array) -> tuple[Array, Array]:
    """Average precision and the area under the ROC curve, [R] each.

    ``descending`` are the negated real scores in ascending order, ``false`` [N + 1, R] their running weights.
    """
    order = np.argsort(-generated)
    mine = -generated[order]
    weights = weights[order]
    found = np.cumsum(weights, axis=0)
    total = found[-1].copy()
    ends = np.searchsorted(mine, mine, side="right") - 1
    if (ends != np.arange(len(ends))).any():  # equal scores are told apart by no threshold
        found = found[ends]
    above_or_equal = false[np.searchsorted(descending, mine, side="right")]
    above = false[np.searchsorted(descending, mine, side="left")]
    precision = np.divide(found, found + above_or_equal, out=np.zeros_like(found), where=found > 0)
    ap = np.einsum("ir,ir->r", weights, precision) / total
    lost = np.einsum("ir,ir->r", weights, above + above_or_equal) / 2
    return ap, 1 - lost / (total * false[-1])


def _share(right: Array, weights: Array) -> Array:
    return right.astype(weights.dtype) @ weights / weights.sum(axis=0)
