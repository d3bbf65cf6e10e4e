"""The gate's decision as a page: the reasons, then the numbers, the guards and the lineage."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.registry.judgement import Evidence, Verdict, class_accuracy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN_CLASSES = 25
_CHALLENGER, _CHAMPION = "#1f6feb", "#8b949e"


def write_report(path: Path, outcome: Mapping[str, Any], verdict: Verdict, evidence: Evidence) -> None:
    """Write the decision as one self-contained HTML file."""
    from matplotlib import pyplot

    from assay.reports import Report

    label = f"{outcome['name']}/{outcome['version']}"
    against = f"champion version {outcome['champion']}" if outcome["champion"] else "no champion"
    report = Report(
        f"Gate: {verdict.decision} {label}",
        f"Against {against}, on {outcome['samples']:,} test samples of {outcome['dataset']}",
    )
    report.text("\n".join(f"- {reason}" for reason in verdict.reasons))
    if verdict.changes:
        figure, axes = _axes(len(verdict.changes))
        _draw_changes(axes, verdict)
        level = next(iter(verdict.changes.values())).confidence
        report.figure(figure, f"From champion to challenger: paired bootstrap, {level:.0%} intervals.")
        pyplot.close(figure)
    figure, axes = _axes(min(len(evidence.class_names), _SHOWN_CLASSES))
    _draw_classes(axes, evidence)
    report.figure(figure, "Accuracy of each class, the worst at the top.")
    pyplot.close(figure)
    report.section("Metrics").table(*_metric_table(verdict))
    report.section("Guards").table(
        ["guard", "holds", "value", "bound"],
        [[check.name, check.passed, check.value, check.bound] for check in verdict.checks],
    )
    report.section("Lineage").table(
        ["field", "value"],
        [[key.replace("_", " "), value or "–"] for key, value in outcome["lineage"].items()],
    )
    report.write(path)


def _metric_table(verdict: Verdict) -> tuple[list[str], list[list[Any]]]:
    """Return each metric of both models, and the change with its interval where there is one."""
    from assay.evaluation import ALL_METRICS

    rows = []
    for name, value in verdict.values.items():
        change = verdict.changes.get(name)
        before = None if change is None else value.value - change.value
        better = "higher" if ALL_METRICS[name].higher_is_better else "lower"
        rows.append([ALL_METRICS[name].title, better, before, value, change])
    return ["metric", "better", "champion", "challenger", "change"], rows


def _axes(rows: int) -> "tuple[Figure, Axes]":
    """Return a figure with room for so many labelled rows, readable on a phone."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.5, 0.9 + 0.26 * rows), layout="constrained")
    return figure, axes


def _draw_changes(axes: "Axes", verdict: Verdict) -> None:
    """Draw one interval for each metric, turned so that right of zero is better."""
    from assay.evaluation import ALL_METRICS

    for row, (name, change) in enumerate(verdict.changes.items()):
        sign = 1 if ALL_METRICS[name].higher_is_better else -1
        ends = sorted((sign * change.low, sign * change.high))
        axes.plot(ends, [row, row], color=_CHALLENGER, linewidth=2)
        axes.plot(sign * change.value, row, "o", color=_CHALLENGER, markersize=5)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(verdict.changes)), [ALL_METRICS[name].title for name in verdict.changes])
    axes.invert_yaxis()
    axes.set_xlabel("← worse     change     better →")


def _draw_classes(axes: "Axes", evidence: Evidence) -> None:
    """Draw the accuracy of the worst classes, of both models where there are two."""
    challenger = class_accuracy(evidence.challenger, evidence.labels, evidence.class_names)
    worst = sorted(challenger, key=challenger.__getitem__)[:_SHOWN_CLASSES]
    rows = range(len(worst))
    if evidence.champion is not None:
        champion = class_accuracy(evidence.champion, evidence.labels, evidence.class_names)
        axes.plot([champion[name] for name in worst], rows, "D", color=_CHAMPION, markersize=5, label="champion")
    axes.plot([challenger[name] for name in worst], rows, "o", color=_CHALLENGER, markersize=5, label="challenger")
    axes.set_yticks(rows, worst)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower left", fontsize="small")
