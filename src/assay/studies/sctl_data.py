"""The classifiers of the SCTL study: balanced and long-tailed subsets, and the logits trained on them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.calibration.logits import LogitsFile
from assay.classification import ClassificationConfig, predict_logits, train_classifier
from assay.data import ImageDataset
from assay.errors import UserError
from assay.evaluation.metric import Array
from assay.files import tree_digest
from assay.studies.cells import Cells
from assay.studies.sctl import Condition

_VERSION = 1


@dataclass(frozen=True)
class Source:
    """Images uint8 [N, C, H, W] and labels int64 [N] to train and fit on, and those to judge on.

    Attributes:
        name: of the data set.
        revision: changes with its content.
    """

    name: str
    revision: str
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.labels.max()) + 1


@dataclass(frozen=True)
class Design:
    """What is trained.

    Attributes:
        train_size: images that a classifier is trained on.
        fit_size: images that calibrators are fitted on.
        imbalances: size of the largest class over that of the smallest; 1 is balanced.
        seeds: trainings for each; the seed also draws the images.
        training: long enough, and without augmentation or weight decay, to become overconfident.
    """

    train_size: int = 10_000
    fit_size: int = 4_000
    imbalances: tuple[int, ...] = (1, 10, 100)
    seeds: int = 5
    training: ClassificationConfig = field(
        default_factory=lambda: ClassificationConfig(
            epochs=12, learning_rate=0.2, weight_decay=0.0, horizontal_flip=0.0, shift=0
        )
    )


SMOKE = Design(
    train_size=320,
    fit_size=160,
    imbalances=(1, 10),
    seeds=2,
    training=ClassificationConfig(
        epochs=5, batch_size=32, learning_rate=0.1, weight_decay=0.0, horizontal_flip=0.0, shift=0
    ),
)
"""The same study in under a minute, on scikit-learn's digits."""


def load_digits() -> Source:
    """Return scikit-learn's 1,797 digits, 8 x 8; the last 500 are to judge on."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    return Source("digits", "scikit-learn", images[:-500], labels[:-500], images[-500:], labels[-500:])


def load_source(artifact: Path) -> Source:
    """Read a data set artifact: its test split, and everything else to train and fit on.

    Raises:
        UserError: it is not an artifact, or has no test split.
    """
    dataset = ImageDataset.open(artifact)
    others = [dataset.split(name) for name, count in dataset.info.splits.items() if count and name != "test"]
    test = dataset.split("test")
    return Source(
        name=dataset.info.name,
        revision=dataset.info.content_hash or tree_digest(artifact),
        images=torch.cat([split.images for split in others]),
        labels=torch.cat([split.labels for split in others]),
        test_images=test.images,
        test_labels=test.labels,
    )


def class_sizes(total: int, classes: int, imbalance: float) -> list[int]:
    """Return class sizes that fall exponentially from the first class to the last and sum to about ``total``.

    Example:
        >>> class_sizes(1110, 3, 100), class_sizes(9, 3, 1)
        ([1000, 100, 10], [3, 3, 3])
    """
    shape = imbalance ** -(np.arange(classes) / max(classes - 1, 1))
    return np.maximum(np.round(shape * total / shape.sum()), 1).astype(int).tolist()


def draw_rows(labels: Array, sizes: list[list[int]], seed: int) -> list[Array]:
    """Draw disjoint sets of rows without replacement, each with the class sizes asked for.

    Args:
        labels: [N].
        sizes: for each set, how many rows of each class.
        seed: of the draw.

    Raises:
        UserError: a class has too few rows.

    Example:
        >>> [rows.tolist() for rows in draw_rows(np.array([0, 1]), [[1, 0], [0, 1]], seed=0)]
        [[0], [1]]
    """
    generator = np.random.default_rng(seed)
    sets: list[list[Array]] = [[] for _ in sizes]
    for label, wanted in enumerate(zip(*sizes, strict=True)):
        rows = generator.permutation(np.flatnonzero(labels == label))
        if len(rows) < sum(wanted):
            raise UserError(f"Class {label} has {len(rows)} images and the study needs {sum(wanted)}: use more data.")
        for chosen, part in zip(sets, np.split(rows, np.cumsum(wanted)), strict=False):
            chosen.append(part)
    return [np.sort(np.concatenate(chosen)) for chosen in sets]


def make_conditions(
    source: Source, design: Design, cells: Cells, say: Callable[[str], None] = print
) -> list[Condition]:
    """Train every classifier that is not in the cells yet and return the conditions of the study.

    Args:
        source: the images.
        design: what is trained on them.
        cells: keep the logits.
        say: is told about each training.
    """
    conditions = []
    for imbalance in design.imbalances:
        files, identities = [], []
        for seed in range(design.seeds):
            identity = {
                "data": source.name, "revision": source.revision, "imbalance": imbalance, "seed": seed,
                "train_size": design.train_size, "fit_size": design.fit_size,
                "training": design.training.model_dump(), "version": _VERSION,
            }  # fmt: skip
            known = cells.has(identity)
            step = f"imbalance {imbalance}, seed {seed + 1} of {design.seeds}"
            say(f"{step}: {'logits found' if known else 'training'}")
            arrays = cells.arrays(identity, partial(_train, source, design, imbalance, seed))
            files.append(_file(arrays, source))
            identities.append(identity)
        if imbalance == 1:
            conditions.append(Condition("balanced", files, identities))
            continue
        conditions.append(Condition(f"long tail {imbalance}, test balanced", files, identities))
        matched = [_same_prior(file, imbalance) for file in files]
        conditions.append(Condition(f"long tail {imbalance}, test alike", matched, identities))
    return conditions


def _train(source: Source, design: Design, imbalance: int, seed: int) -> dict[str, Array]:
    sizes = [class_sizes(total, source.num_classes, imbalance) for total in (design.train_size, design.fit_size)]
    train, fit = draw_rows(source.labels.numpy(), sizes, seed)
    names = [str(k) for k in range(source.num_classes)]
    model = train_classifier(source.images[train], source.labels[train], design.training, class_names=names, seed=seed)
    return {
        "fit_logits": predict_logits(model, source.images[fit]).numpy(),
        "fit_labels": source.labels[fit].numpy(),
        "test_logits": predict_logits(model, source.test_images).numpy(),
    }


def _file(arrays: dict[str, Array], source: Source) -> LogitsFile:
    return LogitsFile(
        fit_logits=torch.from_numpy(arrays["fit_logits"]).double(),
        fit_labels=torch.from_numpy(arrays["fit_labels"]),
        test_logits=torch.from_numpy(arrays["test_logits"]).double(),
        test_labels=source.test_labels,
        fit_split="held-out",
    )


def _same_prior(file: LogitsFile, imbalance: int) -> LogitsFile:
    """Return the file with the test rows thinned to the prior that the classifier was trained on."""
    counts = np.bincount(file.test_labels.numpy(), minlength=file.num_classes)
    shape = imbalance ** -(np.arange(file.num_classes) / max(file.num_classes - 1, 1))
    sizes = np.maximum(np.floor(counts * shape), 1).astype(int).tolist()
    (rows,) = draw_rows(file.test_labels.numpy(), [sizes], seed=0)
    return LogitsFile(file.fit_logits, file.fit_labels, file.test_logits[rows], file.test_labels[rows], file.fit_split)


def file_condition(file: LogitsFile, path: Path) -> Condition:
    """Return the condition of one stored file of logits: no training, and a single seed."""
    return Condition(path.stem, [file], [{"file": tree_digest(path), "version": _VERSION}])


def describe(design: Design) -> dict[str, Any]:
    """Return the design as JSON values, for the record."""
    return {
        "train_size": design.train_size,
        "fit_size": design.fit_size,
        "imbalances": list(design.imbalances),
        "seeds": design.seeds,
        "training": design.training.model_dump(),
    }
