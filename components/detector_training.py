"""Train and calibrate the detector of one method."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output

from components import component


@component
def detector_training(
    dataset: Input[Dataset],
    method: str,
    config: dict,
    seed: int,
    workers: int,
    model: Output[Model],
    report: Output[HTML],
    metrics: Output[Metrics],
):
    """Train a detector of generated images on the generators of the train split.

    Args:
        dataset: the data set of real and generated images.
        method: a name in ``assay.forensics.methods.METHODS``.
        config: see ``assay.forensics.DetectorTrainingConfig``.
        seed: of the weights, the order of the data and the method's randomness.
        workers: 0 trains in this process; n > 0 on n Ray Train workers.
        model: the detector: ``model.safetensors`` and ``config.json``.
        report: the training curves, the scores, the method's own pictures.
        metrics: validation metrics, the threshold and the band of "unsure".
    """
    from pathlib import Path

    from assay.forensics import train_detector

    results = train_detector(
        Path(dataset.path),
        method,
        config,
        model=Path(model.path),
        report=Path(report.path),
        metrics=Path(metrics.path),
        seed=seed,
        workers=workers,
    )
    metrics.metadata.update(results)
