"""Fit a post-hoc calibrator on the calibration split and fold it into the model."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output

from components import component


@component
def calibration(
    model: Input[Model],
    logits: Input[Dataset],
    config: dict,
    calibrated: Output[Model],
    report: Output[HTML],
    metrics: Output[Metrics],
):
    """Calibrate a classifier, by default with temperature scaling under class-wise loss scaling (SCTL).

    Args:
        model: the classifier.
        logits: its ``logits.npz``.
        config: see ``assay.calibration.CalibrationConfig``.
        calibrated: the classifier with its calibrator: images in, calibrated probabilities out.
        report: reliability diagrams before and after, and the table of calibrators and losses.
        metrics: the expected calibration error on the test split before and after, with intervals.
    """
    from pathlib import Path

    from assay.calibration import calibrate

    results = calibrate(
        Path(model.path),
        Path(logits.path),
        config,
        calibrated=Path(calibrated.path),
        report=Path(report.path),
        metrics=Path(metrics.path),
    )
    metrics.metadata.update(results)
