"""How well the probability of the second of two classes ranks the samples: metrics that need no threshold.

Notation: ``probabilities`` is float64 [N, 2], ``labels`` int64 [N]; column and class 1 are the positive ones.
Both metrics are functions of how many samples of each class lie at each distinct score. Those counts are sums
over samples, so that a bootstrap replicate is a matrix product as for every other metric; the ranking itself is
found once. Ties are handled as in scikit-learn.
"""

import numpy as np
from scipy import sparse

from assay.evaluation.metric import Array, Metric


def auc(probabilities: Array, labels: Array) -> float:
    """Area under the ROC curve: how often a positive sample has a higher score than a negative one.

    A tie counts half (Mann and Whitney 1947). Where one class is absent it is 0.5: chance. [ours]

    Raises:
        UserError: see :func:`assay.evaluation.metric.check_predictions`.

    Example:
        >>> auc(np.array([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]]), np.array([0, 0, 1, 1]))
        0.75
    """
    return AUC(probabilities, labels)


def average_precision(probabilities: Array, labels: Array) -> float:
    """Mean precision over the positive samples, each at its own score, without interpolation.

    It depends on how common the positive class is: a random ranking has that share. Where no sample is
    positive it is 0, as in scikit-learn.

    Raises:
        UserError: see :func:`assay.evaluation.metric.check_predictions`.

    Example:
        >>> p = np.array([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]])
        >>> round(average_precision(p, np.array([0, 0, 1, 1])), 4)
        0.8333
    """
    return AVERAGE_PRECISION(probabilities, labels)


def roc_curve(scores: Array, labels: Array) -> tuple[Array, Array]:
    """Return the false positive and the true positive rate at every distinct score, from (0, 0) to (1, 1).

    Args:
        scores: [N], higher for class 1.
        labels: [N] of 0 and 1; both occur.

    Example:
        >>> [rates.tolist() for rates in roc_curve(np.array([0.1, 0.4, 0.8]), np.array([0, 1, 1]))]
        [[0.0, 0.0, 0.0, 1.0], [0.0, 0.5, 1.0, 1.0]]
    """
    _, column = np.unique(-scores, return_inverse=True)
    counts = [np.cumsum(np.bincount(column, labels == kind)) for kind in (0, 1)]
    false_positives, true_positives = (np.insert(count / count[-1], 0, 0.0) for count in counts)
    return false_positives, true_positives


def _counts_by_score(probabilities: Array, labels: Array) -> sparse.csr_array:
    """Columns: negatives at each distinct score, from the lowest, then positives at each."""
    scores, column = np.unique(probabilities[:, 1], return_inverse=True)
    rows = np.arange(len(labels) + 1)
    return sparse.csr_array(
        (np.ones(len(labels)), column + len(scores) * labels, rows), shape=(len(labels), 2 * len(scores))
    )


def _pairs_in_order(sums: Array, n: int) -> Array:
    negatives, positives = np.split(sums, 2, axis=-1)
    below = np.cumsum(negatives, axis=-1) - negatives / 2
    pairs = negatives.sum(axis=-1) * positives.sum(axis=-1)
    return np.divide((positives * below).sum(axis=-1), pairs, out=np.full(pairs.shape, 0.5), where=pairs > 0)


def _mean_precision(sums: Array, n: int) -> Array:
    negatives, positives = (part[..., ::-1] for part in np.split(sums, 2, axis=-1))
    hits = np.cumsum(positives, axis=-1)
    found = hits + np.cumsum(negatives, axis=-1)
    precision = np.divide(hits, found, out=np.zeros_like(found), where=found > 0)
    total = positives.sum(axis=-1)
    return np.divide((positives * precision).sum(axis=-1), total, out=np.zeros(total.shape), where=total > 0)


AUC = Metric("auc", "AUC", "fraction", True, _counts_by_score, _pairs_in_order)
AVERAGE_PRECISION = Metric(
    "average_precision", "Average precision", "fraction", True, _counts_by_score, _mean_precision
)
