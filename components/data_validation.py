"""Stop a run whose data is not what the task expects."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Output

from components import component


@component
def data_validation(dataset: Input[Dataset], config: dict, report: Output[HTML], metrics: Output[Metrics]):
    """Run the Great Expectations suite of the task; a critical failure fails the step.

    Args:
        dataset: the data set artifact.
        config: see ``assay.data.ValidationConfig``.
        report: Great Expectations' Data Docs.
        metrics: expectations met and missed, by severity.
    """
    from pathlib import Path

    from assay.data import validate

    results = validate(Path(dataset.path), config, report=Path(report.path), metrics=Path(metrics.path))
    metrics.metadata.update(results)
