"""A metric, declared once: its name, its unit, which way is better, and how it is computed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.errors import UserError

Array = NDArray[Any]
"""A NumPy array; the shape is given where it is used."""

Statistics = Callable[[Array, Array], Any]
"""(probabilities [N, K], labels [N]) -> per-sample statistics [N, M], dense or ``scipy.sparse``."""

Combine = Callable[[Array, int], Array]
"""(sums of the statistics [..., M], N) -> values [...]."""


@dataclass(frozen=True)
class Metric:
    """A number that judges predicted probabilities, as a function of *sums over samples*.

    Every metric here (also the calibration errors, whose bins are sums) is ``combine(sum of statistics)``.
    A bootstrap replicate is then one row of resampling weights times the statistics, so that a thousand
    replicates of all metrics are matrix products [ours].

    Args:
        name: the key in reports, gates and JSON.
        title: the name in tables and figures.
        unit: ``"fraction"``, ``"nats"`` or ``"score"``.
        higher_is_better: the direction that gates and comparisons read.
        statistics: per-sample statistics.
        combine: what turns their sums into the value.
        lowest: the smallest possible value, to which intervals are clipped.
        highest: the largest possible value.

    Example:
        >>> mean = Metric("hit", "Hit rate", "fraction", True,
        ...     lambda p, y: (p.argmax(1) == y)[:, None], lambda sums, n: sums[..., 0] / n)
        >>> mean(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]))
        0.5
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool
    statistics: Statistics
    combine: Combine
    lowest: float = 0.0
    highest: float = 1.0

    def __call__(self, probabilities: Array, labels: Array) -> float:
        """Compute the metric on probabilities [N, K] and labels [N].

        Raises:
            UserError: see :func:`check_predictions`.
        """
        probabilities, labels = check_predictions(probabilities, labels)
        sums = np.asarray(self.statistics(probabilities, labels).sum(axis=0), dtype=np.float64)
        return float(self.combine(sums, len(labels)))


def check_predictions(probabilities: Array, labels: Array) -> tuple[Array, Array]:
    """Return probabilities as float64 [N, K] and labels as int64 [N], or say what is wrong with which row.

    Raises:
        UserError: the shapes do not fit, there are no rows, a probability is not a number in [0, 1], a row
            does not sum to 1, or a label is not a column.

    Example:
        >>> check_predictions(np.array([[0.7, 0.7]]), np.array([0]))
        Traceback (most recent call last):
        ...
        assay.errors.UserError: Row 0 of the probabilities sums to 1.4 instead of 1: ...
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    check_shapes(probabilities, labels, "probabilities")
    outside = ~((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all(axis=1)
    if outside.any():
        row = int(outside.argmax())
        raise UserError(f"Row {row} of the probabilities holds a value outside [0, 1]: give the output of a softmax.")
    totals = probabilities.sum(axis=1)
    if (wrong := np.abs(totals - 1) > 1e-3).any():
        row = int(wrong.argmax())
        raise UserError(
            f"Row {row} of the probabilities sums to {totals[row]:.4g} instead of 1: give a softmax's output."
        )
    return probabilities, labels.astype(np.int64)


def check_shapes(scores: Array, labels: Array, what: str) -> None:
    """Refuse anything but scores [N, K] and integer labels [N] in 0..K-1, with N and K at least 1.

    Args:
        scores: logits or probabilities.
        labels: class indices.
        what: how the sentence names ``scores``.

    Raises:
        UserError: one of these does not hold; the sentence names the shape or the row.

    Example:
        >>> check_shapes(np.zeros((2, 3)), np.array([0, 3]), "logits")
        Traceback (most recent call last):
        ...
        assay.errors.UserError: Label 3 in row 1 is not one of the 3 columns of the logits (0 to 2): ...
    """
    if scores.ndim != 2 or 0 in scores.shape:
        raise UserError(f"The {what} have shape {list(scores.shape)}: give at least one row and one column, [N, K].")
    if labels.shape != scores.shape[:1]:
        raise UserError(
            f"The labels have shape {list(labels.shape)} for {what} of shape {list(scores.shape)}: one a row."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"The labels are {labels.dtype}: give whole numbers, the column of each row's class.")
    classes = scores.shape[1]
    if (outside := (labels < 0) | (labels >= classes)).any():
        row = int(outside.argmax())
        raise UserError(
            f"Label {labels[row]} in row {row} is not one of the {classes} columns of the {what} "
            f"(0 to {classes - 1}): correct the label or add the column."
        )
