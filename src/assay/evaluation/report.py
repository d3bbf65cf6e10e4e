"""The page of an evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from assay.evaluation.bootstrap import Estimate
from assay.evaluation.config import EvaluationConfig
from assay.evaluation.measure import Evaluation, worst_errors
from assay.evaluation.metric import Array
from assay.evaluation.metrics import ALL_METRICS, reliability_bins
from assay.reports import Report
from assay.reports.calibration import Panel, reliability_diagram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_CLASSES_WITH_COUNTS = 20


@dataclass(frozen=True)
class Scored:
    """A split and what the classifier said about it.

    Attributes:
        probabilities: [N, K].
        labels: [N].
        images: uint8 [N, C, H, W].
        sample_ids: str [N].
        class_names: K names.
    """

    probabilities: Array
    labels: Array
    images: Array
    sample_ids: Array
    class_names: Sequence[str]


def write_report(path: Path, evaluation: Evaluation, scored: Scored, settings: EvaluationConfig, subtitle: str) -> None:
    """Write metrics, reliability, classes, slices, confusion and the worst mistakes as one HTML page."""
    page = Report("Evaluation", subtitle)
    page.metrics(evaluation.overall)
    page.text(
        f"Brackets hold {settings.confidence:.0%} bootstrap intervals over the samples "
        f"({settings.replicates:,} replicates). Calibration errors use 15 bins; NLL is in nats."
    )
    page.section("Reliability")
    page.figure(
        reliability_diagram([reliability_panel(settings.split, scored.probabilities, scored.labels)]),
        "Accuracy in 15 bins of confidence; under the bars, how many samples fall into each.",
    )
    page.section("Classes")
    _table(page, "class", evaluation.classes, evaluation.class_counts, "Accuracy on a class is its recall.")
    page.figure(confusion_figure(evaluation.confusion, scored.class_names), "Rows: true class; share of its row.")
    if evaluation.slices:
        page.section("Slices")
        _table(
            page,
            "slice",
            evaluation.slices,
            evaluation.slice_counts,
            "Slices overlap; brightness is 0 to 255.",
        )
    _worst(page.section("Most confident mistakes"), scored, settings.worst)
    page.write(path)


def reliability_panel(title: str, probabilities: Array, labels: Array) -> Panel:
    """Return one panel of a reliability diagram.

    Example:
        >>> round(reliability_panel("Before", np.array([[0.9, 0.1]]), np.array([0])).error, 3)
        0.1
    """
    bins = reliability_bins(probabilities, labels)
    return Panel(title, bins.confidence, bins.accuracy, bins.share, bins.expected_calibration_error)


def _table(
    page: Report, what: str, found: dict[str, dict[str, Estimate]], counts: dict[str, int], caption: str
) -> None:
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    titles = {name: metric.title for name, metric in ALL_METRICS.items()}
    titles |= {"f1": "F1", "ece_one_vs_rest": "ECE, one against rest"}
    columns = [what, "n", *(titles[name] for name in names)]
    rows = [[key, counts[key], *map(values.get, names)] for key, values in found.items()]
    page.table(columns, rows, caption)


def _worst(page: Report, scored: Scored, most: int) -> None:
    rows = worst_errors(scored.probabilities, scored.labels, most)
    if not len(rows):
        page.text("There are none.")
        return
    predicted, confidence = scored.probabilities.argmax(axis=1), scored.probabilities.max(axis=1)
    captions = [
        f"{scored.class_names[predicted[row]]} {confidence[row]:.0%}, "
        f"is {scored.class_names[scored.labels[row]]} ({scored.sample_ids[row]})"
        for row in rows
    ]
    page.images([scored.images[row] for row in rows], captions, "Predicted class and confidence, true class, sample.")


def confusion_figure(confusion: Array, class_names: Sequence[str]) -> "Figure":
    """Draw a confusion matrix as the share of each true class, with counts where they can be read.

    Args:
        confusion: counts [K, K], rows are labels.
        class_names: K names.

    Example:
        >>> [text.get_text() for text in confusion_figure(np.eye(2, dtype=int), ["a", "b"]).axes[0].texts]
        ['1', '1']
    """
    from matplotlib.figure import Figure

    classes = len(class_names)
    size = float(np.clip(2.2 + 0.45 * classes, 3.5, 11))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if classes <= _MOST_CLASSES_WITH_COUNTS:
        axes.set_xticks(range(classes), class_names, rotation=45, ha="right")
        axes.set_yticks(range(classes), class_names)
        for row, column in np.argwhere(confusion).tolist():
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=colour, fontsize=8)
    return figure
