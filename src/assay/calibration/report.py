"""The page and the table of a calibration."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.calibration.calibrator import Calibrator
from assay.calibration.logits import LogitsFile
from assay.calibration.losses import ClassWiseLossScaling
from assay.calibration.table import Row
from assay.evaluation import Estimate
from assay.evaluation.report import reliability_panel
from assay.reports import Report
from assay.reports.calibration import reliability_diagram

LABELS = {
    "uncalibrated": "uncalibrated", "oracle": "oracle T", "": "–",
    "ts": "TS", "cts": "CTS", "ets": "ETS", "ets_logits": "ETS on logits", "pts": "PTS", "vs": "VS",
    "ms": "MS", "isotonic": "isotonic", "histogram": "histogram",
    "cross_entropy": "cross-entropy", "class_balanced": "class-balanced", "focal": "focal",
    "label_smoothing": "label smoothing", "sctl_nd": "SCTL (ND)", "sctl_mm": "SCTL (MM)",
    "sctl_cm": "SCTL (CM)",
}  # fmt: skip
"""How tables name calibrators and losses."""

COLUMNS = ("calibrator", "loss", "accuracy", "ECE", "adaptive", "class-wise", "NLL", "Brier", "converged")
"""Of the table; accuracy and the three calibration errors are percentages."""


@dataclass(frozen=True)
class Calibration:
    """The outcome on one file of logits.

    Attributes:
        before: the uncalibrated row.
        after: the row of the calibrator that the configuration asks for.
        rows: the whole table, the chosen one included.
        change: ``after - before`` of every metric, paired.
    """

    before: Row
    after: Row
    rows: list[Row]
    change: dict[str, Estimate]

    @property
    def calibrator(self) -> Calibrator:
        """The fitted calibrator that is kept."""
        assert self.after.fitted is not None  # noqa: S101 - `after` is never a row without a fit
        return self.after.fitted


def cells(row: Row) -> list[str]:
    """Return a row of the table as text, in the order of :data:`COLUMNS`."""
    return [
        LABELS[row.calibrator],
        LABELS[row.loss],
        f"{100 * row.metrics['accuracy']:.2f}",
        row.ece.percent(),
        f"{100 * row.metrics['adaptive_ece']:.2f}",
        f"{100 * row.metrics['classwise_ece']:.2f}",
        f"{row.metrics['nll']:.4f}",
        f"{row.metrics['brier']:.4f}",
        row.converged,
    ]


def sentences(result: Calibration, file: LogitsFile) -> list[str]:
    """Say in words what was fitted, on what, and what it changed."""
    before, after, change = result.before, result.after, result.change["ece"]
    said = [
        f"{result.calibrator.title} with {LABELS[after.loss]} was fitted on {len(file.fit_labels):,} rows "
        f"({file.fit_split}) and judged on {len(file.test_labels):,} (test).",
        f"ECE {before.ece.percent()} % before, {after.ece.percent()} % after, change {change.percent()} points.",
    ]
    if after.metrics["accuracy"] != before.metrics["accuracy"]:
        said.append(
            f"Accuracy {100 * before.metrics['accuracy']:.2f} % before, {100 * after.metrics['accuracy']:.2f} % after."
        )
    if (fit := after.fit) is not None:
        said.append(
            f"The fit {'converged' if fit.converged else 'did not converge'} in {fit.evaluations} "
            f"evaluations, gradient norm {fit.gradient_norm:.1e}."
        )
        if isinstance(fit.loss, ClassWiseLossScaling):
            said.append(f"SCTL ran with alpha = {fit.loss.alpha:.3f} and beta = {fit.loss.beta:.3f}.")
    return said


def write_report(path: Path, result: Calibration, file: LogitsFile, *, title: str, subtitle: str = "") -> None:
    """Write the HTML page: what was done, reliability before and after, the table."""
    labels = file.test_labels.numpy()
    panels = [
        reliability_panel(name, row.probabilities, labels)
        for name, row in (("Before", result.before), ("After", result.after))
    ]
    page = Report(title, subtitle)
    page.text("\n\n".join(sentences(result, file)))
    page.figure(
        reliability_diagram(panels),
        "Accuracy in 15 bins of confidence on the test split; below, the samples in each bin.",
    )
    page.table(COLUMNS, [cells(row) for row in result.rows], _caption(result.rows))
    page.write(path)


def _caption(rows: Sequence[Row]) -> str:
    confidence = rows[0].ece.confidence
    return (
        "All on the test split. Accuracy and the calibration errors are in percent; the ECE comes with its "
        f"{confidence:.0%} bootstrap interval. The oracle is the temperature with the lowest ECE on the test "
        "split, which no method may look at."
    )
