"""Non-parametric calibrators: isotonic regression and histogram binning, one class against the rest.

They stand in the tables as peers. They are not exported: a step function of the fitting sample needs more
data than a calibration split usually has, and it can make equal what the classifier told apart.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import Self

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from assay.calibration.calibrator import check_logits
from assay.errors import UserError
from assay.evaluation.metric import Array

_BINS = 15
_SMALLEST = np.finfo(np.float64).tiny

ScoreMap = Callable[[Array], Array]
"""Scores of one class [N] -> calibrated scores [N]."""


class OneVersusRest:
    """Calibrates the probability of each class by itself and normalises (Zadrozny and Elkan, KDD 2002).

    Args:
        fit_map: (probabilities of one class [N], whether the sample is of that class [N]) -> a score map.

    Example:
        >>> logits, labels = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), np.array([0, 1, 1])
        >>> PEERS["isotonic"]().fit(logits, labels).probabilities(logits)[0].tolist()
        [0.5, 0.5]
    """

    def __init__(self, fit_map: Callable[[Array, Array], ScoreMap]) -> None:
        self.fit_map = fit_map
        self.maps: list[ScoreMap] = []

    def fit(self, logits: Tensor | Array, labels: Tensor | Array) -> Self:
        """Fit one score map for each class; arguments and errors as for the other calibrators."""
        z, y = check_logits(logits, labels)
        columns, classes = torch.softmax(z, dim=1).numpy().T, y.numpy()
        self.maps = [self.fit_map(column, (classes == k).astype(float)) for k, column in enumerate(columns)]
        return self

    def probabilities(self, logits: Tensor | Array) -> Array:
        """Return calibrated probabilities [N, K]; uniform where every class got zero.

        Raises:
            UserError: not fitted, or on another number of columns.
        """
        z = torch.as_tensor(logits).double()
        if len(self.maps) != z.shape[1]:
            raise UserError(
                f"The calibrator was fitted on {len(self.maps)} columns, not {z.shape[1]}: fit it on these."
            )
        columns = torch.softmax(z, dim=1).numpy().T
        scores = np.stack([apply(column) for apply, column in zip(self.maps, columns, strict=True)], axis=1)
        scores = np.where(scores.sum(axis=1, keepdims=True) > _SMALLEST, scores, 1.0)
        return scores / scores.sum(axis=1, keepdims=True)


def isotonic_map(scores: Array, hits: Array) -> ScoreMap:
    """Return the non-decreasing step function closest to the hits in mean squares.

    Example:
        >>> isotonic_map(np.array([0.1, 0.2, 0.3]), np.array([0.0, 1.0, 0.0]))(np.array([0.0, 0.2])).tolist()
        [0.0, 0.5]
    """
    return IsotonicRegression(out_of_bounds="clip").fit(scores, hits).predict


def histogram_map(scores: Array, hits: Array) -> ScoreMap:
    """Return the share of hits in each of 15 bins that hold equally many scores.

    Example:
        >>> histogram_map(np.array([0.1, 0.2]), np.array([0.0, 1.0]))(np.array([0.0, 0.9])).tolist()
        [0.0, 1.0]
    """
    edges = np.unique(np.quantile(scores, np.arange(1, _BINS) / _BINS))
    which = np.digitize(scores, edges, right=True)
    count = np.bincount(which, minlength=len(edges) + 1)
    share = np.divide(np.bincount(which, hits, len(edges) + 1), count, out=np.zeros(len(count)), where=count > 0)
    return lambda values: share[np.digitize(values, edges, right=True)]


PEERS: MappingProxyType[str, Callable[[], OneVersusRest]] = MappingProxyType(
    {"isotonic": lambda: OneVersusRest(isotonic_map), "histogram": lambda: OneVersusRest(histogram_map)}
)
"""The non-parametric calibrators by name."""
