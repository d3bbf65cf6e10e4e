"""The ``calibration`` task: fit a calibrator, fold it into the model, and show what changed."""

from functools import partial
from pathlib import Path
from typing import Any

from assay.calibration.calibrated import CalibratedClassifier
from assay.calibration.config import CalibrationConfig
from assay.calibration.logits import LogitsFile, load_logits
from assay.calibration.report import Calibration, write_report
from assay.calibration.table import Judge, compare_calibrators
from assay.evaluation import compare_predictions, evaluate_predictions
from assay.files import write_json
from assay.models import ImageClassifier
from assay.training.progress import track


def calibrate(
    model: Path, logits: Path, config: dict[str, Any], *, calibrated: Path, report: Path, metrics: Path
) -> dict[str, float]:
    """Fit the chosen calibrator on the calibration split and store the calibrated classifier.

    Args:
        model: folder of an image classifier.
        logits: its ``logits.npz``.
        config: settings of :class:`CalibrationConfig`; the default is temperature scaling with SCTL.
        calibrated: folder for the :class:`CalibratedClassifier`.
        report: file for the HTML page.
        metrics: file for the returned metrics, as JSON.

    Returns:
        Every metric as ``<name>_before`` and ``<name>_after`` with ``_low`` and ``_high``, the change of the
        ECE, and the fit's ``converged`` (0 or 1) and ``gradient_norm``.

    Raises:
        UserError: a setting, the logits or the model are not valid.
    """
    settings = CalibrationConfig.parse(config, where="calibration")
    file = load_logits(logits)
    classifier = ImageClassifier.from_pretrained(model)
    result = calibrate_logits(file, settings)
    summary = summarise(result, file, settings)
    CalibratedClassifier(classifier, result.calibrator).save_pretrained(calibrated)
    write_report(report, result, file, title="Calibration")
    write_json(metrics, summary)
    return summary


def calibrate_logits(file: LogitsFile, settings: CalibrationConfig) -> Calibration:
    """Fit the chosen calibrator and every other of the table, with progress."""
    judge = Judge(file, settings.replicates, settings.confidence, settings.seed)
    after = judge.calibrator(settings.calibrator, settings.loss_name)
    rows = compare_calibrators(
        judge,
        settings.calibrators,
        settings.losses,
        settings.peers,
        track=partial(track, title="calibrators"),
    )
    if (after.calibrator, after.loss) not in [(row.calibrator, row.loss) for row in rows]:
        rows.insert(1, after)
    change = compare_predictions(
        rows[0].probabilities,
        after.probabilities,
        file.test_labels.numpy(),
        replicates=settings.replicates,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    return Calibration(rows[0], after, rows, change)


def summarise(result: Calibration, file: LogitsFile, settings: CalibrationConfig) -> dict[str, float]:
    """Return the task's metrics, flat."""
    labels = file.test_labels.numpy()
    summary: dict[str, float] = {}
    for moment, row in (("before", result.before), ("after", result.after)):
        estimates = evaluate_predictions(
            row.probabilities,
            labels,
            replicates=settings.replicates,
            confidence=settings.confidence,
            seed=settings.seed,
        )
        for name, estimate in estimates.items():
            summary |= estimate.flat(f"{name}_{moment}")
    summary |= result.change["ece"].flat("ece_change")
    if (fit := result.after.fit) is not None:
        summary |= {"converged": float(fit.converged), "gradient_norm": fit.gradient_norm}
    return summary
