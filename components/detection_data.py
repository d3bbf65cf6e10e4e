"""Bring real and generated images together, encoded alike."""

from kfp.dsl import Dataset, Input, Metrics, Output

from components import component


@component
def detection_data(
    dataset: Input[Dataset],
    config: dict,
    corpus: Output[Dataset],
    metrics: Output[Metrics],
    generated: Input[list[Dataset]] = None,
):
    """Make the data set of real and generated images that detectors are trained and judged on.

    Args:
        dataset: real images, or a data set that has generated ones already.
        config: see ``assay.forensics.DetectionDataConfig``.
        corpus: data set artifact with the classes real and generated, and a column ``generator``.
        metrics: the number of samples of each split, and of generators.
        generated: what each generator made; none with a data set that has generated images already.
    """
    from pathlib import Path

    from assay.forensics import assemble_detection_data

    counts = assemble_detection_data(
        Path(dataset.path),
        [Path(images.path) for images in generated or []],
        config,
        corpus=Path(corpus.path),
        metrics=Path(metrics.path),
    )
    metrics.metadata.update(counts)
