"""Refuse a detection data set whose classes can be told apart by anything but the pictures."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Output

from components import component


@component
def detection_integrity(
    dataset: Input[Dataset],
    config: dict,
    seed: int,
    report: Output[HTML],
    metrics: Output[Metrics],
    source: Input[Dataset] = None,
):
    """Check files, rounding, copies and leaks, and that null detectors find nothing; a failed gate stops the run.

    Args:
        dataset: real and generated images, as detectors will see them.
        config: see ``assay.forensics.integrity.IntegrityConfig``.
        seed: of the null detectors.
        report: every gate and what was found.
        metrics: the AUCs of the null detectors and how far chance reaches.
        source: the real images that the generators learned from, if any did; none of them may be in ``dataset``.
    """
    from pathlib import Path

    from assay.forensics.integrity import check_integrity

    results = check_integrity(
        Path(dataset.path),
        config,
        source=Path(source.path) if source else None,
        report=Path(report.path),
        metrics=Path(metrics.path),
        seed=seed,
    )
    metrics.metadata.update(results)
