"""Train the image classifier that the other methods start from."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output

from components import component


@component
def pretraining(
    dataset: Input[Dataset],
    config: dict,
    seed: int,
    workers: int,
    model: Output[Model],
    logits: Output[Dataset],
    report: Output[HTML],
    metrics: Output[Metrics],
):
    """Train on the ``train`` split and store the logits of every split.

    Args:
        dataset: the data set artifact.
        config: see ``assay.classification.ClassificationConfig``.
        seed: of the weights, the order of the data and the augmentation.
        workers: 0 trains in this process; n > 0 on n Ray Train workers.
        model: the classifier: ``model.safetensors`` and ``config.json``.
        logits: ``logits.npz``: logits, labels and ids of every split.
        report: the training curves.
        metrics: losses and accuracies of the last epoch.
    """
    from pathlib import Path

    from assay.classification import pretrain

    results = pretrain(
        Path(dataset.path),
        config,
        model=Path(model.path),
        logits=Path(logits.path),
        report=Path(report.path),
        metrics=Path(metrics.path),
        workers=workers,
        seed=seed,
    )
    metrics.metadata.update(results)
