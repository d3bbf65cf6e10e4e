"""The page and the table of the detectors' evaluation."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from assay.evaluation.ranking import roc_curve
from assay.forensics.corpus import as_float
from assay.forensics.detector_training import draw_scores
from assay.forensics.evaluate import UNSHIFTED, Comparison, DetectionEvaluationConfig, DetectorResult
from assay.forensics.spectrum import AzimuthalAverage, Unfold, half_spectrum, log_magnitude
from assay.reports import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 3  # panels beside each other
_LOG_WIDTH = 140  # characters; a log may be wider than a terminal is
_SPECTRA = 500  # images of each kind whose spectra are averaged


def print_comparison(found: Comparison) -> None:
    """Print the average precision of every detector on every generator, and its mean over the primary ones."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Average precision on test images", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("generator")
    for result in found.results:
        table.add_column(result.name + (" *" if result is found.best else ""), justify="right", overflow="fold")
    for generator, kind, values in _precision_rows(found):
        table.add_row(f"{generator} ({kind})", *(f"{value:.3f}" for value in values))
    table.add_row(found.primary_title, *(f"{result.mean_ap.value:.3f}" for result in found.results))
    table.add_row("AUC on seen generators, validation", *(f"{result.seen_auc:.3f}" for result in found.results))
    console = Console()
    if not console.is_terminal:
        console.width = _LOG_WIDTH
    console.print(table)
    if found.best is not None:
        console.print(f"* kept: {found.best.name}, {found.primary_title} {found.best.mean_ap}", highlight=False)


def write_report(path: Path, found: Comparison, settings: DetectionEvaluationConfig, data: str) -> None:
    """Write the comparison of all detectors, then everything about the best, as one HTML page.

    Without a detector that is good enough the page shows the best by the primary metric.
    """
    shown = found.best or max(found.results, key=lambda result: result.validation_ap)
    page = Report("Generated-image detectors", f"{data}, {len(found.test.labels):,} test images")
    page.text(_introduction(found, settings))
    _detector_table(page, found)
    page.figure(precision_figure(found), "Average precision on test images; generators in brackets were seen.")
    page.section(f"Generators: {shown.name}")
    _generator_table(page, shown)
    page.figure(roc_figure(found, shown), "ROC curves against each generator.")
    page.figure(score_figure(found, shown), "Scores of real and of generated images.")
    page.section("Spectra")
    page.figure(
        spectrum_figure(found),
        "Mean log magnitude of the spectrum less that of real images, zero frequency in the middle; the last panel is "
        "its mean over all directions.",
    )
    page.section("Shifts")
    _shift_tables(page, found, shown)
    page.section(f"Failures: {shown.name}")
    _failures(page, found, shown, settings.worst)
    page.write(path)


def _introduction(found: Comparison, settings: DetectionEvaluationConfig) -> str:
    seen = ", ".join(found.seen) or "no generator"
    chosen = (
        f"Kept is **{found.best.name}**: of the detectors with an AUC of at least {settings.seen_auc:g} on the seen "
        "generators it has the highest mean AP on *validation* images; the test images only report."
        if found.best
        else f"**No detector reaches an AUC of {settings.seen_auc:g} on the seen generators**, so none is kept."
    )
    return (
        f"Detectors were trained on {seen}. The primary metric is the {found.primary_title}, each against the same "
        f"real images. {chosen} Brackets hold {settings.confidence:.0%} bootstrap intervals over images."
    )


def _detector_table(page: Report, found: Comparison) -> None:
    rows = [
        [
            f"{result.name} (kept)" if result is found.best else result.name,
            result.seen_auc,
            result.validation_ap,
            result.mean_ap,
            result.accuracy_real,
            result.decision.threshold,
            result.unsure,
        ]
        for result in found.results
    ]
    page.table(
        ["detector", "AUC on seen", "validation AP", "mean AP", "right on real", "threshold", "unsure"],
        rows,
        "AUC on seen: the lowest over the generators trained on, on validation images. Validation AP and mean AP: "
        f"the {found.primary_title}, on validation and test images. Right on real: at the detector's threshold.",
    )


def _generator_table(page: Report, result: DetectorResult) -> None:
    columns = ["generator", "", "images", "AP", "AUC", "accuracy at 0.5", "accuracy at the threshold", "found"]
    rows = [
        [
            one.generator,
            "seen" if one.seen else "unseen",
            one.count,
            one.average_precision,
            one.auc,
            one.accuracy_at_half,
            one.accuracy,
            one.found,
        ]
        for one in result.generators
    ]
    page.table(
        columns,
        rows,
        f"Accuracy is the mean of both classes. The threshold is {result.decision.threshold:.3f}; found is the share "
        f"of generated images above it, and {result.accuracy_real:.1%} of the real ones lie below.",
    )


def _shift_tables(page: Report, found: Comparison, shown: DetectorResult) -> None:
    count = len(found.test.names) + 1
    page.text(
        "Every shift is applied to both classes alike. *Drift* is the mean absolute change of the probability, "
        "*changed* the share of images with another verdict of real, generated and unsure."
    )
    page.table(
        ["shift", "drift", "changed", "mean AP", "mean AUC"],
        [[one.shift, one.drift, one.changed, one.mean_ap, one.mean_auc] for one in shown.shifts],
        f"{shown.name}, on part of the images of {count} kinds: the {found.primary_title}, and the AUC likewise.",
    )
    names = [one.shift for one in shown.shifts]
    for title, value in (("Mean AP", "mean_ap"), ("Drift", "drift")):
        rows = [
            [name, *(getattr(result.shifts[row], value) for result in found.results)] for row, name in enumerate(names)
        ]
        kept = rows if value == "mean_ap" else [row for row in rows if row[0] != UNSHIFTED]
        page.table(["shift", *(result.name for result in found.results)], kept, f"{title} of every detector.")


def _failures(page: Report, found: Comparison, shown: DetectorResult, most: int) -> None:
    """Show the real images with the highest scores and the generated ones with the lowest."""
    test, threshold = found.test, shown.decision.threshold
    for label, told, wrong, order in (
        (0, "Real images called generated", shown.scores >= threshold, -shown.scores),
        (1, "Generated images called real", shown.scores < threshold, shown.scores),
    ):
        rows = np.flatnonzero((test.labels == label) & wrong)
        page.text(f"**{told}**: {len(rows):,} of {int((test.labels == label).sum()):,}.")
        worst = rows[np.argsort(order[rows], kind="stable")][:most]
        captions = [f"{shown.scores[row]:.3f} {test.generators[row]} ({test.sample_ids[row]})" for row in worst]
        if len(worst):
            page.images([test.images[row].numpy() for row in worst], captions, "Score, generator and sample.")


def precision_figure(found: Comparison) -> "Figure":
    """Draw the average precision of every detector on every generator as a heat map."""
    from matplotlib.figure import Figure

    rows = _precision_rows(found)
    values = np.array([of_generator for _, _, of_generator in rows]).T
    figure = Figure(figsize=(3 + 0.75 * len(rows), 2 + 0.36 * len(found.results)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(values, cmap="viridis", vmin=min(0.5, float(values.min())), vmax=1, aspect="auto")
    labels = [f"({name})" if kind == "seen" else name for name, kind, _ in rows]
    axes.set_xticks(range(len(rows)), labels, rotation=35, ha="right")
    axes.set_yticks(range(len(found.results)), [result.name for result in found.results])
    for (row, column), value in np.ndenumerate(values):
        colour = "black" if value > 0.8 else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    return figure


def roc_figure(found: Comparison, shown: DetectorResult) -> "Figure":
    """Draw one ROC curve against each generator; the dot is the detector's threshold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for one in shown.generators:
        rows = found.test.against(one.generator)
        label = f"{one.generator}{' (seen)' if one.seen else ''}, {one.auc:.3f}"
        (line,) = axes.plot(*roc_curve(shown.scores[rows], found.test.labels[rows]), linewidth=1.2, label=label)
        axes.plot(1 - shown.accuracy_real, one.found, "o", color=line.get_color(), markersize=4)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="share of real images called generated", ylabel="share of generated images found")
    axes.legend(title="AUC", fontsize="small", loc="lower right")
    return figure


def score_figure(found: Comparison, shown: DetectorResult) -> "Figure":
    """Draw the scores of each generator's images beside those of real ones, with the threshold and the band."""
    figure, panels = _panels(len(shown.generators), height=2.6)
    real = shown.scores[found.test.labels == 0]
    for axes, one in zip(panels, shown.generators, strict=True):
        draw_scores(
            axes, {"real": real, "generated": shown.scores[found.test.generators == one.generator]}, shown.decision
        )
        axes.set_title(f"{one.generator}{' (seen)' if one.seen else ''}", fontsize=10)
        axes.set_ylim(20 / len(real), 80)  # from half an image in one of 40 bins to all images
        axes.get_legend().remove()
    panels[0].legend(fontsize="x-small")
    return figure


def spectrum_figure(found: Comparison) -> "Figure":
    """Draw each generator's mean spectrum less that of real images: as a map and by frequency."""
    test = found.test
    size = (test.images.shape[2], test.images.shape[3])
    real = _mean_log_spectrum(test.images[test.labels == 0])
    excess = {name: _mean_log_spectrum(test.images[test.generators == name]) - real for name in test.names}
    figure, panels = _panels(len(excess) + 1, height=2.4)
    unfold, average = Unfold(size), AzimuthalAverage(size)
    # A few coefficients, such as the corner of an up-sampler's spectrum, would make all others look white.
    limit = float(torch.stack([*excess.values()]).abs().quantile(0.99)) or 1.0
    for axes, (name, one) in zip(panels, excess.items(), strict=False):
        drawn = axes.imshow(unfold(one[None, None])[0, 0], cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
        panels[-1].plot(average.frequency, average(one), linewidth=1.2, label=name)
    figure.colorbar(drawn, ax=panels[: len(excess)], shrink=0.6)
    panels[-1].axhline(0, color="black", linewidth=0.8)
    panels[-1].set(xlabel="cycles per pixel")
    panels[-1].legend(fontsize="x-small")
    return figure


def _mean_log_spectrum(images: Tensor) -> Tensor:
    """Return the mean over images and channels, float [H, W // 2 + 1]."""
    return log_magnitude(half_spectrum(as_float(images[:_SPECTRA], images.device))).mean(dim=(0, 1))


def _precision_rows(found: Comparison) -> list[tuple[str, str, list[float]]]:
    """Return each generator, whether it was seen, and every detector's average precision: unseen ones last."""
    rows = [
        (of[0].generator, "seen" if of[0].seen else "unseen", [one.average_precision for one in of])
        for of in zip(*(result.generators for result in found.results), strict=True)
    ]
    return sorted(rows, key=lambda row: row[1])


def _panels(count: int, height: float) -> "tuple[Figure, Sequence[Any]]":
    """Return a figure with so many axes in rows of a few."""
    from matplotlib.figure import Figure

    rows = -(-count // _COLUMNS)
    figure = Figure(figsize=(9, height * rows), layout="constrained")
    grid = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.remove()
    return figure, list(grid[:count])
