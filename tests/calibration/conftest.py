"""Logits whose calibration is known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Sample = Callable[..., tuple[np.ndarray, np.ndarray]]


def draw(
    n: int = 2000, classes: int = 5, temperature: float = 2.5, seed: int = 0, prior: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels from ``softmax(z)`` and return ``z * temperature``: calibrated by exactly that temperature."""
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(n, classes)) * 2
    probabilities = np.exp(z - z.max(axis=1, keepdims=True))
    if prior is not None:
        probabilities *= prior
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = (probabilities.cumsum(axis=1) > generator.random((n, 1))).argmax(axis=1)
    return z * temperature, labels


@pytest.fixture
def sample() -> Sample:
    """A function that draws logits [N, K] and labels [N]."""
    return draw


@pytest.fixture
def logits_file(tmp_path: Path) -> Path:
    """A file of overconfident logits with a calibration and a test split."""
    path = tmp_path / "logits.npz"
    (a, b), (c, d) = draw(800, seed=1), draw(600, seed=2)
    np.savez(path, calibration_logits=a, calibration_labels=b, test_logits=c, test_labels=d)
    return path
