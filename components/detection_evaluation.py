"""Compare all detectors on seen and unseen generators and on shifted images, and keep the best."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output

from components import component


@component
def detection_evaluation(
    dataset: Input[Dataset],
    detectors: Input[list[Model]],
    config: dict,
    model: Output[Model],
    predictions: Output[Dataset],
    report: Output[HTML],
    metrics: Output[Metrics],
):
    """Measure every detector; keep the one with the highest mean AP over unseen generators on validation images.

    Args:
        dataset: real and generated images; the ``test`` split reports, the ``validation`` split chooses.
        detectors: the detectors of all methods.
        config: see ``assay.forensics.evaluate.DetectionEvaluationConfig``.
        model: the best detector.
        predictions: ``predictions.npz``: its ids, labels and probabilities on the test split.
        report: every detector on every generator and shift, with curves, spectra and failures.
        metrics: the best detector's numbers, and the mean AP of every detector.
    """
    from pathlib import Path

    from assay.forensics.evaluate import evaluate_detectors

    results = evaluate_detectors(
        Path(dataset.path),
        [Path(detector.path) for detector in detectors],
        config,
        model=Path(model.path),
        predictions=Path(predictions.path),
        report=Path(report.path),
        metrics=Path(metrics.path),
    )
    metrics.metadata.update(results)
