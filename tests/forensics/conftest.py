"""Digits as real images, and blocky copies of them as what two generators made."""

import numpy as np
import pytest
import torch

from assay.forensics import DetectionSplit


def blocky(images: np.ndarray, size: int = 2) -> np.ndarray:
    """Average over blocks: what an up-sampler of the nearest kind leaves."""
    count, height, width = images.shape
    means = images.reshape(count, height // size, size, width // size, size).mean(axis=(2, 4))
    return np.kron(means, np.ones((1, size, size))).round().astype(np.uint8)


def noisy(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Natural images are not blocky: digits of 8 x 8 pixels doubled in size are, until noise is added."""
    noise = np.random.default_rng(seed).normal(0, 12, images.shape)
    return (images + noise).clip(0, 255).round().astype(np.uint8)


@pytest.fixture(scope="session")
def detection_arrays(digits_arrays) -> tuple[np.ndarray, np.ndarray]:
    """Real and generated images uint8 [890, 16, 16]."""
    images = noisy(digits_arrays[0])
    return images[:890], blocky(images[890:1780])


@pytest.fixture(scope="session")
def detection_split(detection_arrays) -> DetectionSplit:
    real, generated = (torch.from_numpy(images)[:, None] for images in detection_arrays)
    return DetectionSplit(real, generated, np.full(len(generated), "blocks"))


@pytest.fixture(scope="session")
def detection_data(digits_arrays, tmp_path_factory):
    """A detection data set: real digits, the seen generator "blocks", and the unseen one "coarse"."""
    from assay.data import write_dataset

    images, labels, splits = digits_arrays
    images, splits = noisy(images), np.array(splits)
    parts = []  # images, label, generator, split, category
    for index, generator in enumerate(("", "blocks", "coarse")):
        rows = np.arange(index, len(images), 3)
        if generator == "coarse":
            rows = rows[np.isin(splits[rows], ["validation", "test"])]
        made = images[rows] if not generator else blocky(images[rows], 2 if generator == "blocks" else 4)
        parts.append((made, np.full(len(rows), int(bool(generator))), np.full(len(rows), generator), rows))
    rows = np.concatenate([part[3] for part in parts])
    return write_dataset(
        tmp_path_factory.mktemp("detection") / "corpus",
        images=np.concatenate([part[0] for part in parts]),
        labels=np.concatenate([part[1] for part in parts]),
        splits=splits[rows],
        class_names=["real", "generated"],
        name="digits-detection",
        extra={
            "generator": np.concatenate([part[2] for part in parts]).tolist(),
            "category": labels[rows].astype(str).tolist(),
        },
    )
