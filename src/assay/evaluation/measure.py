"""What is measured of predictions: overall, by class, by slice; each number with its interval."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from assay.evaluation.bootstrap import Estimate, evaluate_predictions
from assay.evaluation.config import EvaluationConfig
from assay.evaluation.metric import Array, check_predictions
from assay.evaluation.metrics import METRICS, metrics_for, metrics_of_class

SLICE_METRICS = ("accuracy", "nll", "brier", "ece", "adaptive_ece")
"""Metrics that mean something on the samples of a single class."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured.

    Attributes:
        overall: every metric on all samples; those of ranking only where both of two classes occur.
        classes: by class name, the metrics on its samples and its F1 and one-against-rest ECE on all.
        slices: by slice name, the same on its samples.
        class_counts: samples of each class in ``classes``.
        slice_counts: samples of each slice.
        confusion: counts [K, K], rows are labels, columns predictions.
    """

    overall: dict[str, Estimate]
    classes: dict[str, dict[str, Estimate]]
    slices: dict[str, dict[str, Estimate]]
    class_counts: dict[str, int]
    slice_counts: dict[str, int]
    confusion: Array

    def flat(self) -> dict[str, float]:
        """Return the overall metrics with the ends of their intervals, and the worst class and slice."""
        values = {key: value for name, estimate in self.overall.items() for key, value in estimate.flat(name).items()}
        values["worst_class_accuracy"] = min(found["accuracy"].value for found in self.classes.values())
        if self.slices:
            values["worst_slice_accuracy"] = min(found["accuracy"].value for found in self.slices.values())
        return values


def measure(
    probabilities: Array,
    labels: Array,
    class_names: list[str],
    slices: dict[str, Array],
    settings: EvaluationConfig,
) -> Evaluation:
    """Compute every metric overall, by class and by slice, each with a bootstrap interval.

    Args:
        probabilities: [N, K].
        labels: [N].
        class_names: K names.
        slices: masks [N] by name; empty ones are left out.
        settings: replicates, confidence and seed.

    Example:
        >>> p = np.tile([[0.9, 0.1], [0.2, 0.8]], (50, 1))
        >>> found = measure(p, np.tile([0, 1], 50), ["cat", "dog"], {}, EvaluationConfig(replicates=50))
        >>> found.overall["accuracy"].value, found.classes["dog"]["f1"].value, found.confusion.tolist()
        (1.0, 1.0, [[50, 0], [0, 50]])
    """
    probabilities, labels = check_predictions(probabilities, labels)
    options = {"replicates": settings.replicates, "confidence": settings.confidence, "seed": settings.seed}

    def score(mask: Array, names: Collection[str] = ()) -> dict[str, Estimate]:
        ranks = len(np.unique(labels[mask])) == 2  # one class by itself has no ranking to judge
        known = metrics_for(len(class_names)) if ranks else METRICS
        chosen = {name: known[name] for name in names or known}
        return evaluate_predictions(probabilities[mask], labels[mask], chosen, **options)  # type: ignore[arg-type]

    classes, class_counts = {}, {}
    for index, name in enumerate(class_names):
        mask = labels == index
        if mask.any():
            overall = evaluate_predictions(probabilities, labels, metrics_of_class(index), **options)  # type: ignore[arg-type]
            classes[name] = score(mask, SLICE_METRICS) | overall
            class_counts[name] = int(mask.sum())
    present = {name: mask for name, mask in slices.items() if mask.any()}
    return Evaluation(
        overall=score(np.ones(len(labels), dtype=bool)),
        classes=classes,
        slices={name: score(mask) for name, mask in present.items()},
        class_counts=class_counts,
        slice_counts={name: int(mask.sum()) for name, mask in present.items()},
        confusion=confusion_matrix(probabilities.argmax(axis=1), labels, len(class_names)),
    )


def confusion_matrix(predicted: Array, labels: Array, classes: int) -> Array:
    """Count every pair of label (row) and prediction (column), [K, K].

    Example:
        >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def worst_errors(probabilities: Array, labels: Array, most: int) -> Array:
    """Return the rows that are wrong, the most confident first, at most ``most`` of them.

    Example:
        >>> worst_errors(np.array([[0.6, 0.4], [0.9, 0.1], [0.7, 0.3]]), np.array([1, 1, 0]), 5).tolist()
        [1, 0]
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:most]
