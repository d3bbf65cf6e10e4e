"""What the SCTL study writes: a table on the terminal, Markdown, JSON and a figure."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.calibration.report import LABELS
from assay.files import atomic_folder
from assay.studies.sctl import ORACLE, UNCALIBRATED, ArmResult, Judgement
from assay.studies.tables import markdown_table, print_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

COLUMNS = ("arm", "ECE %", "accuracy %", "adaptive %", "class-wise %", "NLL", "Brier", "converged")
_COLOURS = {"cross_entropy": "#d1495b", "sctl_nd": "#3b6ea5"}


def arm_label(key: str) -> str:
    """Return the name of an arm in tables.

    Example:
        >>> arm_label("ts/sctl_nd"), arm_label("ts/fixed 0.3 1"), arm_label("oracle")
        ('TS, SCTL (ND)', 'TS, SCTL (ND), alpha 0.3, beta 1 fixed', 'oracle T')
    """
    calibrator, _, loss = key.partition("/")
    if loss.startswith("fixed "):
        alpha, beta = loss.split()[1:]
        return f"{LABELS[calibrator]}, SCTL (ND), alpha {alpha}, beta {beta} fixed"
    return f"{LABELS[calibrator]}, {LABELS[loss]}" if loss else LABELS[calibrator]


def arm_cells(result: ArmResult) -> list[str]:
    """Return a row of the table, in the order of :data:`COLUMNS`."""
    converged = "–" if result.converged is None else f"{result.converged:.0%}"
    return [
        arm_label(result.key),
        result.estimates["ece"].percent(),
        result.estimates["accuracy"].percent(),
        f"{100 * result.metrics['adaptive_ece']:.2f}",
        f"{100 * result.metrics['classwise_ece']:.2f}",
        f"{result.metrics['nll']:.4f}",
        f"{result.metrics['brier']:.4f}",
        converged,
    ]


def claim_cells(judgements: Sequence[Judgement]) -> list[str]:
    """Return a claim and, for each condition, the verdict with the difference in percentage points."""
    return [
        judgements[0].claim.text,
        *(f"{judgement.verdict}: {judgement.difference.percent()}" for judgement in judgements),
    ]


def print_condition(console: "Console", name: str, results: Sequence[ArmResult]) -> None:
    """Print the arms of one condition."""
    print_table(console, name, COLUMNS, [arm_cells(result) for result in results])


def print_claims(console: "Console", conditions: Sequence[str], rows: Sequence[Sequence[Judgement]]) -> None:
    """Print every claim with its verdicts."""
    title = "Claims: verdict and paired difference in percentage points"
    print_table(console, title, ("claim", *conditions), [claim_cells(row) for row in rows])


def write_study(
    folder: Path,
    design: dict[str, Any],
    results: dict[str, list[ArmResult]],
    rows: Sequence[Sequence[Judgement]],
) -> None:
    """Write ``results.json``, ``README.md`` and ``sctl.png`` into a folder, atomically.

    Args:
        folder: replaced as a whole.
        design: what was run, for the record.
        results: the arms by condition.
        rows: for every claim, its judgements by condition.
    """
    with atomic_folder(folder) as target:
        record = {
            "study": "sctl",
            "design": design,
            "conditions": {name: [_arm_record(result) for result in found] for name, found in results.items()},
            "claims": [_claim_record(judgement) for row in rows for judgement in row],
        }
        (target / "results.json").write_text(json.dumps(record, indent=1) + "\n")
        (target / "README.md").write_text(_markdown(design, results, rows))
        figure(results).savefig(target / "sctl.png", dpi=130, metadata={"Software": None})


def figure(results: dict[str, list[ArmResult]]) -> "Figure":
    """Draw the ECE of temperature scaling with every loss, with intervals; the oracle is a line."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(3.1 * len(results) + 1.6, 3.6), layout="constrained")
    panels = drawn.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, (condition, found) in zip(panels, results.items(), strict=True):
        arms = [result for result in found if result.key.startswith("ts/") and "fixed" not in result.key]
        for height, result in enumerate(reversed(arms)):
            estimate = result.estimates["ece"]
            colour = _COLOURS.get(result.key.partition("/")[2], "#555555")
            axes.plot([100 * estimate.low, 100 * estimate.high], [height, height], color=colour, linewidth=2)
            axes.plot(100 * estimate.value, height, "o", color=colour, markersize=6)
        axes.set_yticks(range(len(arms)), [LABELS[r.key.partition("/")[2]] for r in reversed(arms)])
        floor = next(result for result in found if result.key == ORACLE).metrics["ece"]
        start = next(result for result in found if result.key == UNCALIBRATED).metrics["ece"]
        axes.axvline(100 * floor, color="#2a9d5c", linewidth=1, linestyle="--")
        axes.set_title(f"{condition}\nuncalibrated {100 * start:.1f} %", fontsize=9.5, loc="left")
        axes.set_xlim(left=0)
        axes.set_xlabel("ECE %, temperature scaling")
        axes.grid(axis="x", color="#e5e7eb", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    return drawn


def _arm_record(result: ArmResult) -> dict[str, Any]:
    return {
        "arm": result.key,
        "metrics": result.metrics,
        "estimates": {name: estimate.as_dict() for name, estimate in result.estimates.items()},
        "by_seed": {name: found.values.tolist() for name, found in result.replicates.items()},
        "converged": result.converged,
        "strengths": result.strengths,
    }


def _claim_record(judgement: Judgement) -> dict[str, Any]:
    return {
        **asdict(judgement.claim),
        "condition": judgement.condition,
        "difference": judgement.difference.as_dict(),
        "verdict": judgement.verdict,
    }


def _markdown(design: dict[str, Any], results: dict[str, list[ArmResult]], rows: Sequence[Sequence[Judgement]]) -> str:
    seeds = len(next(iter(results.values()))[0].replicates["ece"].values)
    lines = [
        "# Study: scaling of class-wise training losses (SCTL)",
        "",
        f"Command: `{design['command']}`",
        "",
        f"Data: {design['data']}. Training seeds: {seeds}. A verdict compares the paired 95 % bootstrap interval "
        "(training seed as the outer unit, test samples as the inner one) with zero: *holds* in the claimed "
        "direction, *refuted* in the other, else *undecided*. No correction for the number of claims. Small data "
        "decides direction and mechanism, not the paper's own figures.",
        "",
        "## Claims",
        "",
        "Verdict, then the difference in percentage points with its interval.",
        "",
        *markdown_table(("claim", *results), [claim_cells(row) for row in rows]),
        "",
        "![ECE of temperature scaling by loss](sctl.png)",
        "",
        "Points: mean over seeds; bars: 95 % interval; dashed: the best temperature on the test set itself.",
    ]
    for condition, found in results.items():
        lines += ["", f"## {condition[0].upper()}{condition[1:]}", ""]
        lines += markdown_table(COLUMNS, [arm_cells(result) for result in found])
    return "\n".join(lines) + "\n"
