"""Score a calibrated classifier on the test split."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output

from components import component


@component
def evaluation(
    dataset: Input[Dataset],
    model: Input[Model],
    config: dict,
    predictions: Output[Dataset],
    report: Output[HTML],
    metrics: Output[Metrics],
):
    """Measure accuracy, calibration, classes and slices, each with a bootstrap interval.

    Args:
        dataset: the data set artifact; its ``test`` split is scored.
        model: the calibrated classifier.
        config: see ``assay.evaluation.EvaluationConfig``.
        predictions: ``predictions.npz``: ids, labels and probabilities of the test split.
        report: metrics by class and slice, the confusion matrix, the worst examples.
        metrics: each metric, and the ends of its interval as ``<metric>_low`` and ``<metric>_high``.
    """
    from pathlib import Path

    from assay.calibration import evaluate

    results = evaluate(
        Path(dataset.path),
        Path(model.path),
        config,
        predictions=Path(predictions.path),
        report=Path(report.path),
        metrics=Path(metrics.path),
    )
    metrics.metadata.update(results)
