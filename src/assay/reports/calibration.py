"""Reliability diagrams: does a confidence of 80 % mean that 80 % are right?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACCURACY, _OVER, _UNDER, _INK = "#3b6ea5", "#d1495b", "#f2c14e", "#333333"


class Panel(NamedTuple):
    """One diagram: equal-width bins of confidence, arrays [B] with NaN in empty bins.

    Attributes:
        title: stands above, before the calibration error.
        confidence: mean confidence in each bin.
        accuracy: share of right answers in each bin.
        share: of all samples, in each bin.
        error: expected calibration error, a fraction.
    """

    title: str
    confidence: Any
    accuracy: Any
    share: Any
    error: float


def reliability_diagram(panels: Sequence[Panel]) -> "Figure":
    """Draw accuracy against confidence, the gap to the diagonal, and how often each bin occurs.

    Args:
        panels: side by side, for example before and after calibration.

    Example:
        >>> halves = np.array([0.25, 0.75])
        >>> figure = reliability_diagram([Panel("After", halves, halves, halves, error=0.0)])
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['After: ECE 0.00 %', '']
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(panels), 4.9), layout="constrained")
    grid = figure.subplots(2, len(panels), squeeze=False, sharex=True, height_ratios=[4, 1])
    for column, panel in enumerate(panels):
        upper, lower = grid[:, column]
        _draw_reliability(upper, panel)
        _draw_shares(lower, panel)
        if column == 0:
            upper.set_ylabel("accuracy")
            lower.set_ylabel("share")
            upper.legend(loc="upper left", framealpha=0.9, edgecolor="none", fontsize=9)
    return figure


def _draw_reliability(axes: "Axes", panel: Panel) -> None:
    centres, width = _geometry(len(panel.share))
    accuracy = np.nan_to_num(panel.accuracy)
    gap = np.nan_to_num(panel.confidence - panel.accuracy)
    axes.bar(centres, accuracy, width, color=_ACCURACY, edgecolor="white", linewidth=0.6, label="accuracy")
    colours = np.where(gap >= 0, _OVER, _UNDER).tolist()
    gaps = axes.bar(centres, gap, width, bottom=accuracy, color=colours, alpha=0.8, edgecolor="white", linewidth=0.6)
    names = {_OVER: "too confident", _UNDER: "not confident enough"}
    for colour in dict.fromkeys(colours):
        gaps[colours.index(colour)].set_label(names[colour])
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle="--", label="perfect calibration")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"{panel.title}: ECE {100 * panel.error:.2f} %", loc="left", fontsize=11)
    _clean(axes)


def _draw_shares(axes: "Axes", panel: Panel) -> None:
    centres, width = _geometry(len(panel.share))
    axes.bar(centres, panel.share, width, color="#9aa5b1", edgecolor="white", linewidth=0.6)
    axes.axvline(float(np.nansum(panel.share * panel.accuracy)), color=_ACCURACY, linewidth=1.5)
    axes.axvline(float(np.nansum(panel.share * panel.confidence)), color=_OVER, linewidth=1.5, linestyle="--")
    axes.set_xlabel("confidence (lines: mean accuracy, mean confidence)", fontsize=9)
    _clean(axes)


def _geometry(bins: int) -> tuple[Any, float]:
    return (np.arange(bins) + 0.5) / bins, 1 / bins


def _clean(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
