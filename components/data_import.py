"""Turn (data set name, revision) into the data set artifact that every later step reads."""

from kfp.dsl import Dataset, Metrics, Output

from components import component


@component
def data_import(name: str, revision: str, config: dict, dataset: Output[Dataset], metrics: Output[Metrics]):
    """Read one pinned data set.

    Args:
        name: a folder of ``data/`` that ``data.dvc`` pins.
        revision: its md5 in ``data.dvc``; a part of the cache key, and of every model's lineage.
        config: see ``assay.data.ImportConfig``.
        dataset: the artifact: Parquet shards and ``dataset.json``.
        metrics: the number of samples of each split.
    """
    from pathlib import Path

    from assay.data import import_dataset

    counts = import_dataset(name, revision, config, dataset=Path(dataset.path), metrics=Path(metrics.path))
    metrics.metadata.update(counts)
