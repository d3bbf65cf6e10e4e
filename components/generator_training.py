"""Train a generator, whose images the detectors are trained and judged on."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output

from components import component


@component
def generator_training(
    dataset: Input[Dataset],
    name: str,
    config: dict,
    seed: int,
    workers: int,
    model: Output[Model],
    images: Output[Dataset],
    report: Output[HTML],
    metrics: Output[Metrics],
):
    """Train a generator on half of the ``train`` split and write images that it makes.

    Args:
        dataset: the data set artifact of real images.
        name: a key of ``assay.forensics.zoo.GENERATORS``.
        config: see ``assay.forensics.zoo.GeneratorConfig``.
        seed: of the weights, the order of the data and the images.
        workers: 0 trains in this process; n > 0 on n Ray Train workers.
        model: the generator: ``model.safetensors`` and ``config.json``.
        images: the generated images, a data set artifact of all four splits.
        report: samples, spectra, nearest real images, training curves.
        metrics: the last epoch's losses, diversity, and the share of copied training images.
    """
    from pathlib import Path

    from assay.forensics.zoo import train_generator

    results = train_generator(
        Path(dataset.path),
        name,
        config,
        model=Path(model.path),
        images=Path(images.path),
        report=Path(report.path),
        metrics=Path(metrics.path),
        seed=seed,
        workers=workers,
    )
    metrics.metadata.update(results)
