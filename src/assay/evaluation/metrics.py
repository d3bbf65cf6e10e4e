"""The metrics of a probabilistic classifier: what it gets right, and whether its confidence can be believed.

Notation: ``probabilities`` is float64 [N, K] with rows that sum to 1, ``labels`` int64 [N]. The confidence
of a row is its largest probability and its prediction the column of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
from scipy import sparse

from assay.evaluation.metric import Array, Metric, check_predictions
from assay.evaluation.ranking import AUC, AVERAGE_PRECISION

BINS = 15
"""Bins of every calibration error: the number used throughout the calibration literature."""

_SMALLEST = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class ReliabilityBins:
    """Confidence against accuracy in equal-width bins; arrays [B], NaN where a bin is empty.

    Attributes:
        confidence: mean confidence of the samples in each bin.
        accuracy: share of them that is right.
        share: share of all samples that fell into the bin.
    """

    confidence: Array
    accuracy: Array
    share: Array

    @property
    def expected_calibration_error(self) -> float:
        """The share-weighted mean of ``|accuracy - confidence|``."""
        return float(np.nansum(self.share * np.abs(self.accuracy - self.confidence)))


def reliability_bins(probabilities: Array, labels: Array, bins: int = BINS) -> ReliabilityBins:
    """Group samples by confidence into equal-width bins, each open on the left and closed on the right.

    Raises:
        UserError: see :func:`assay.evaluation.metric.check_predictions`.

    Example:
        >>> reliability_bins(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1])).accuracy[-2].item()
        0.5
    """
    probabilities, labels = check_predictions(probabilities, labels)
    confidence = probabilities.max(axis=1)
    which = _equal_width(confidence, bins)
    count = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(which, confidence, bins) / count
        mean_accuracy = np.bincount(which, _correct(probabilities, labels), bins) / count
    return ReliabilityBins(mean_confidence, mean_accuracy, count / len(labels))


def accuracy(probabilities: Array, labels: Array) -> float:
    """Share of samples whose most probable class is their label.

    Example:
        >>> accuracy(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0]))
        0.5
    """
    return METRICS["accuracy"](probabilities, labels)


def macro_f1(probabilities: Array, labels: Array) -> float:
    """Mean over classes of the F1 score; a class that is neither a label nor a prediction is left out.

    Example:
        >>> round(macro_f1(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 1])), 4)
        0.6667
    """
    return METRICS["macro_f1"](probabilities, labels)


def negative_log_likelihood(probabilities: Array, labels: Array) -> float:
    """Mean of ``-log p[label]``, in nats; a probability of 0 counts as the smallest normal float64.

    Example:
        >>> round(negative_log_likelihood(np.array([[0.5, 0.5]]), np.array([1])), 4)
        0.6931
    """
    return METRICS["nll"](probabilities, labels)


def brier_score(probabilities: Array, labels: Array) -> float:
    """Mean squared distance between the probabilities and the one-hot label, in [0, 2] (Brier 1950).

    Example:
        >>> brier_score(np.array([[0.5, 0.5]]), np.array([1]))
        0.5
    """
    return METRICS["brier"](probabilities, labels)


def expected_calibration_error(probabilities: Array, labels: Array) -> float:
    """Mean gap between confidence and accuracy over 15 equal-width bins (Guo et al., ICML 2017, eq. 3).

    Example:
        >>> round(expected_calibration_error(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1])), 4)
        0.4
    """
    return METRICS["ece"](probabilities, labels)


def adaptive_calibration_error(probabilities: Array, labels: Array) -> float:
    """ECE over 15 bins that hold equally many samples (Nguyen and O'Connor, EMNLP 2015); ties stay together.

    Example:
        >>> round(adaptive_calibration_error(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1])), 4)
        0.4
    """
    return METRICS["adaptive_ece"](probabilities, labels)


def classwise_calibration_error(probabilities: Array, labels: Array) -> float:
    """Mean over classes of the one-against-rest ECE, 15 equal-width bins (Kull et al., NeurIPS 2019, eq. 3).

    Example:
        >>> round(classwise_calibration_error(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1])), 4)
        0.4
    """
    return METRICS["classwise_ece"](probabilities, labels)


def metrics_for(classes: int) -> Mapping[str, Metric]:
    """Return every metric of a classifier of so many classes, by name: of two, those of ranking too.

    Example:
        >>> set(metrics_for(2)) - set(metrics_for(3)) == {"auc", "average_precision"}
        True
    """
    return ALL_METRICS if classes == 2 else METRICS


def metrics_of_class(index: int) -> dict[str, Metric]:
    """Return the F1 score and the one-against-rest ECE of one class, both on *all* samples.

    Example:
        >>> p = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
        >>> round(metrics_of_class(1)["f1"](p, np.array([0, 1, 1])), 3)
        0.667
    """

    def f1_statistics(probabilities: Array, labels: Array) -> Array:
        predicted, true = probabilities.argmax(axis=1) == index, labels == index
        return np.stack([predicted & true, predicted.astype(int) + true], axis=1)

    def f1(sums: Array, n: int) -> Array:
        return np.divide(2 * sums[..., 0], sums[..., 1], out=np.zeros(sums.shape[:-1]), where=sums[..., 1] > 0)

    def gaps(probabilities: Array, labels: Array) -> sparse.csr_array:
        column = probabilities[:, index]
        return _in_columns(column - (labels == index), _equal_width(column, BINS), BINS)

    return {
        "f1": Metric("f1", "F1", "fraction", True, f1_statistics, f1),
        "ece_one_vs_rest": Metric("ece_one_vs_rest", "ECE, one against rest", "fraction", False, gaps, _mean_absolute),
    }


def _equal_width(values: Array, bins: int) -> Array:
    """Index of the bin ``(b/bins, (b+1)/bins]`` of every value; 0 belongs to the first."""
    return np.digitize(values, np.arange(1, bins) / bins, right=True)


def _equal_mass(values: Array, bins: int) -> Array:
    return np.digitize(values, np.quantile(values, np.arange(1, bins) / bins), right=True)


def _correct(probabilities: Array, labels: Array) -> Array:
    return (probabilities.argmax(axis=1) == labels).astype(np.float64)


def _in_columns(values: Array, columns: Array, width: int) -> sparse.csr_array:
    """Return the matrix [N, width] with ``values`` [N] or [N, J] in ``columns`` of the same shape."""
    per_row = 1 if values.ndim == 1 else values.shape[1]
    pointers = np.arange(0, values.size + 1, per_row)
    return sparse.csr_array((values.ravel(), columns.ravel(), pointers), shape=(len(values), width))


def _mean(sums: Array, n: int) -> Array:
    return sums[..., 0] / n


def _mean_absolute(sums: Array, n: int, groups: int = 1) -> Array:
    return np.abs(sums).sum(axis=-1) / (n * groups)


def _correct_column(probabilities: Array, labels: Array) -> Array:
    return _correct(probabilities, labels)[:, None]


def _log_losses(probabilities: Array, labels: Array) -> Array:
    picked = np.take_along_axis(probabilities, labels[:, None], axis=1)
    return -np.log(np.maximum(picked, _SMALLEST))


def _squared_distances(probabilities: Array, labels: Array) -> Array:
    difference = probabilities - np.eye(probabilities.shape[1])[labels]
    return np.square(difference).sum(axis=1, keepdims=True)


def _confidence_gaps(probabilities: Array, labels: Array, *, equal_mass: bool) -> sparse.csr_array:
    confidence = probabilities.max(axis=1)
    which = (_equal_mass if equal_mass else _equal_width)(confidence, BINS)
    return _in_columns(confidence - _correct(probabilities, labels), which, BINS)


def _class_gaps(probabilities: Array, labels: Array) -> sparse.csr_array:
    """One column for each class and bin, class by class."""
    classes = probabilities.shape[1]
    columns = _equal_width(probabilities, BINS) + BINS * np.arange(classes)
    return _in_columns(probabilities - np.eye(classes)[labels], columns, BINS * classes)


def _class_mean(sums: Array, n: int) -> Array:
    return _mean_absolute(sums, n, groups=sums.shape[-1] // BINS)


def _class_counts(probabilities: Array, labels: Array) -> sparse.csr_array:
    """Columns: K true positives, then K sums of being a prediction and being a label."""
    classes, predicted = probabilities.shape[1], probabilities.argmax(axis=1)
    hit = (predicted == labels).astype(np.float64)
    values = np.stack([hit, np.ones_like(hit), np.ones_like(hit)], axis=1)
    columns = np.stack([labels, classes + predicted, classes + labels], axis=1)
    return _in_columns(values, columns, 2 * classes)


def _mean_f1(sums: Array, n: int) -> Array:
    classes = sums.shape[-1] // 2
    hits, occurrences = sums[..., :classes], sums[..., classes:]
    scores = np.divide(2 * hits, occurrences, out=np.zeros_like(hits, dtype=np.float64), where=occurrences > 0)
    return scores.sum(axis=-1) / (occurrences > 0).sum(axis=-1)


METRICS = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("accuracy", "Accuracy", "fraction", True, _correct_column, _mean),
            Metric("macro_f1", "Macro F1", "fraction", True, _class_counts, _mean_f1),
            Metric("nll", "NLL", "nats", False, _log_losses, _mean, highest=np.inf),
            Metric("brier", "Brier score", "score", False, _squared_distances, _mean, highest=2.0),
            Metric("ece", "ECE", "fraction", False, partial(_confidence_gaps, equal_mass=False), _mean_absolute),
            Metric(
                "adaptive_ece",
                "Adaptive ECE",
                "fraction",
                False,
                partial(_confidence_gaps, equal_mass=True),
                _mean_absolute,
            ),
            Metric("classwise_ece", "Class-wise ECE", "fraction", False, _class_gaps, _class_mean),
        )
    }
)
"""The metrics of any classifier by name; ``METRICS["ece"](probabilities, labels)`` computes one."""

ALL_METRICS = MappingProxyType({**METRICS, AUC.name: AUC, AVERAGE_PRECISION.name: AVERAGE_PRECISION})
"""Every metric by name: those of any classifier, then those of one that tells two classes apart."""
