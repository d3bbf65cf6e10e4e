"""The evaluation of a classifier on a split of a data set: score, measure, write down."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from assay.data import ImageDataset
from assay.errors import UserError
from assay.evaluation.config import EvaluationConfig
from assay.evaluation.measure import measure
from assay.evaluation.metric import Array
from assay.evaluation.report import Scored, write_report
from assay.evaluation.slices import brightness_slices, column_slices
from assay.files import atomic_write, write_json

if TYPE_CHECKING:
    from torch import Tensor


def evaluate_classifier(
    dataset: Path,
    classify: "Callable[[Tensor], Array]",
    settings: EvaluationConfig,
    *,
    predictions: Path,
    report: Path,
    metrics: Path,
) -> dict[str, float]:
    """Score any classifier on one split of a data set artifact and write what was found.

    Args:
        dataset: data set artifact.
        classify: images uint8 [N, C, H, W] -> probabilities [N, K].
        settings: what is measured.
        predictions: file for ``sample_ids``, ``labels``, ``probabilities`` and ``class_names``, as npz.
        report: file for the HTML page.
        metrics: file for the returned metrics, as JSON.

    Raises:
        UserError: the split is empty, or the classifier has other classes than the data set.
    """
    opened = ImageDataset.open(dataset)
    split = opened.split(settings.split)
    labels, images = split.labels.numpy(), split.images.numpy()
    probabilities = np.asarray(classify(split.images), dtype=np.float64)
    names = opened.info.class_names
    if probabilities.shape[1] != len(names):
        raise UserError(
            f"The model tells {probabilities.shape[1]} classes apart and {opened.info.name} has "
            f"{len(names)}: evaluate it on the data set that it was trained for."
        )
    probabilities /= probabilities.sum(axis=1, keepdims=True)  # a float32 softmax sums to 1 only nearly
    extra = [name for name in opened.table(settings.split).column_names if name != "image"]
    slices = column_slices(opened.table(settings.split, extra), settings.slice_values)
    slices |= brightness_slices(images, settings.brightness_slices)
    evaluation = measure(probabilities, labels, names, slices, settings)

    write_predictions(predictions, split.sample_ids, labels, probabilities, names)
    subtitle = f"{opened.info.name}, {settings.split} split, {len(labels):,} images"
    write_report(report, evaluation, Scored(probabilities, labels, images, split.sample_ids, names), settings, subtitle)
    summary = evaluation.flat()
    write_json(metrics, summary)
    return summary


def write_predictions(
    path: Path, sample_ids: Array, labels: Array, probabilities: Array, class_names: list[str]
) -> None:
    """Write what a gate reads of an evaluation, as npz.

    Args:
        path: file to write.
        sample_ids: str [N].
        labels: int64 [N].
        probabilities: [N, K].
        class_names: K names.
    """
    buffer = io.BytesIO()
    np.savez(
        buffer,
        sample_ids=np.asarray(sample_ids, dtype=np.str_),
        labels=labels,
        probabilities=probabilities,
        class_names=np.array(class_names, dtype=np.str_),
    )
    atomic_write(path, buffer.getvalue())
