"""Which real images generators learn from, and which are left to detectors."""

import hashlib

import numpy as np


def generator_half(sample_ids: np.ndarray) -> np.ndarray:
    """Say which samples of a train split generators learn from, bool [N]: about half, by a hash of the id.

    The rule knows nothing but the id, so that it is the same for every generator, run and machine, and the
    detectors' real images are never among those that a generator has seen. [ours]

    Args:
        sample_ids: str [N].

    Example:
        >>> half = generator_half(np.array([f"train-{index}" for index in range(1000)]))
        >>> bool(450 < half.sum() < 550)
        True
    """
    digests = [hashlib.sha256(f"generators {sample}".encode()).digest()[0] for sample in sample_ids.tolist()]
    return np.array(digests, np.uint8) < 128
