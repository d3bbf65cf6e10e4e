"""Digits of 16 x 16 pixels, and settings under which a generator is trained in a blink."""

import pytest
import torch

from assay.forensics.zoo import GeneratorConfig


@pytest.fixture(scope="session")
def images(digits_arrays) -> torch.Tensor:
    """Digits cut to a size that is no multiple of 8, uint8 [96, 1, 14, 13]."""
    return torch.from_numpy(digits_arrays[0])[:96, None, 1:15, 2:15]


@pytest.fixture
def tiny() -> GeneratorConfig:
    return GeneratorConfig(epochs=2, batch_size=16, width=4, latent_size=8, minimum_diversity=0)
