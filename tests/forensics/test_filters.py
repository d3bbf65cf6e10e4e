import math

import pytest
import torch
from torch.nn import functional

from assay.forensics.filters import (
    CentreMask,
    FrequencyFilter,
    SpectralFilter,
    binomial_response,
    frequency_response,
    ramp,
)
from assay.forensics.spectrum import Unfold, half_spectrum, radial_frequency

SIZES = [(28, 28), (32, 32), (64, 48), (29, 31), (28, 31)]


def impulse(size):
    image = torch.zeros(1, 1, *size)
    image[..., size[0] // 2, size[1] // 2] = 1
    return image


def binomial(size, low_pass=False):
    return SpectralFilter(binomial_response(size, low_pass=low_pass, layout="half"), size)


def measured_response(module, size):
    """Return the gain at every frequency, centred, from what an impulse becomes."""
    spectrum = half_spectrum(module(impulse(size))) / half_spectrum(impulse(size))
    assert spectrum.imag.abs().max() < 1e-4  # no filter shifts anything
    return Unfold(size)(spectrum.real)[0, 0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("transition", [0.0, 0.2])
@pytest.mark.parametrize("low_pass", [False, True])
def test_the_frequency_filter_has_the_stated_response(size, transition, low_pass):
    module = FrequencyFilter(size, 0.26, transition, low_pass=low_pass)
    radius = radial_frequency(size)
    if transition:
        phase = ((radius - 0.26) / transition + 0.5).clamp(0, 1)
        expected = 0.5 - 0.5 * torch.cos(math.pi * phase)
    else:
        expected = (radius > 0.26).float()
    expected = 1 - expected if low_pass else expected
    assert torch.allclose(measured_response(module, size), expected, atol=1e-4)
    assert torch.allclose(frequency_response(size, 0.26, transition, low_pass=low_pass), expected, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("low_pass", [False, True])
def test_the_binomial_filter_has_the_stated_response(size, low_pass):
    expected = binomial_response(size, low_pass=low_pass)
    assert torch.allclose(measured_response(binomial(size, low_pass=low_pass), size), expected, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_the_binomial_filter_is_the_convolution(size):
    images = torch.rand(2, 3, *size)
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
    smooth = functional.conv2d(functional.pad(images, (1, 1, 1, 1), mode="circular"), kernel, groups=3)
    assert torch.allclose(binomial(size)(images), images - smooth, atol=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (0, 14), (16, 14), (5, 3)])
def test_the_binomial_filter_scales_sinusoids(rows, columns):
    y, x = torch.arange(32)[:, None], torch.arange(28)
    wave = torch.cos(2 * math.pi * (rows * y / 32 + columns * x / 28))
    gain = 1 - (math.cos(math.pi * rows / 32) * math.cos(math.pi * columns / 28)) ** 2
    assert torch.allclose(binomial((32, 28))(wave[None, None])[0, 0], gain * wave, atol=1e-5)


@pytest.mark.parametrize("frequency", [2, 5, 9, 14])
def test_the_hard_filter_passes_a_sinusoid_or_nothing(frequency):
    wave = torch.cos(2 * math.pi * frequency * torch.arange(28) / 28).expand(1, 1, 28, 28)
    passed = FrequencyFilter((28, 28), cutoff=0.2)(wave)
    assert torch.allclose(passed, wave if frequency / 28 > 0.2 else torch.zeros_like(wave), atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda size, low_pass: FrequencyFilter(size, 0.2, 0.1, low_pass=low_pass),
        lambda size, low_pass: CentreMask(size, 0.5, 1.0, low_pass=low_pass),
        lambda size, low_pass: binomial(size, low_pass=low_pass),
    ],
)
@pytest.mark.parametrize("size", SIZES)
def test_high_pass_and_low_pass_add_up_to_the_image(make, size):
    images = torch.rand(2, 3, *size)
    assert torch.allclose(make(size, False)(images) + make(size, True)(images), images, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_the_centre_mask_rises_from_the_centre_and_is_symmetric(size):
    mask = CentreMask(size, 0.5, 1.0).mask
    assert torch.allclose(mask, mask.flip(0)) and torch.allclose(mask, mask.flip(1))
    middle = mask[size[0] // 2, size[1] // 2 :]
    assert (middle.diff() >= 0).all() and middle[0] < 0.02 and middle[-1] > 0.9


def test_the_hard_centre_mask_blacks_out_an_ellipse():
    mask = CentreMask((200, 100), 0.5).mask
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert (mask == 0).float().mean() == pytest.approx(math.pi * 0.5**2 / 4, abs=0.005)


def test_a_ramp_is_one_half_at_its_cutoff_and_flat_outside():
    values = torch.linspace(0, 1, 101)
    weights = ramp(values, 0.4, 0.2)
    assert (weights[values < 0.3] == 0).all() and (weights[values > 0.5] == 1).all()
    assert weights[40] == pytest.approx(0.5, abs=1e-5)
    assert (weights.diff() >= 0).all()
