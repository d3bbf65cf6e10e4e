import pytest
import torch

from assay.errors import UserError
from assay.forensics.compression_map import (
    CompressionMap,
    CompressionMapConfig,
    compression_map_figure,
    fit_compression_map,
)
from assay.forensics.spectrum import from_half_spectrum, half_spectrum, radial_frequency

QUICK = CompressionMapConfig(steps=250, batch_size=64)


def noise(size, channels=1, count=400, seed=0):
    return 128 + 25 * torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(seed))


def to_bytes(images):
    return images.round().clamp(0, 255).to(torch.uint8)


def amplified(size, channels, low, high):
    """Return noise whose magnitude is doubled in a band of frequencies, and that band, centred."""
    radius = radial_frequency(size, "half")
    gain = torch.where((radius > low) & (radius < high), 2.0, 1.0)
    images = from_half_spectrum(half_spectrum(noise(size, channels, seed=1)) * gain, size)
    whole = radial_frequency(size)
    return to_bytes(images), (whole > low) & (whole < high)


@pytest.mark.parametrize(("size", "channels"), [((16, 16), 1), ((15, 18), 3)])
def test_the_map_halves_exactly_the_band_that_was_doubled(size, channels):
    fake, band = amplified(size, channels, 0.3, 0.42)
    compression = fit_compression_map(to_bytes(noise(size, channels)), fake, QUICK)
    removed = 1 - compression.centred()
    assert removed[band].mean() == pytest.approx(0.5, abs=0.1)
    assert removed[~band].mean() < 0.05
    frequency, profile = compression.radial_profile()
    assert 0.3 <= frequency[profile.argmax()] <= 0.42


def test_alike_images_leave_the_map_open():
    removed = 1 - fit_compression_map(to_bytes(noise((16, 16))), to_bytes(noise((16, 16), seed=1)), QUICK).centred()
    assert removed.mean() < 0.1


def test_a_heavier_penalty_keeps_more():
    real, (fake, _) = to_bytes(noise((16, 16))), amplified((16, 16), 1, 0.3, 0.42)
    configs = (CompressionMapConfig(penalty=penalty, steps=60) for penalty in (0.1, 300.0))
    light, heavy = (fit_compression_map(real, fake, config).centred() for config in configs)
    assert heavy.mean() > light.mean()


@pytest.mark.parametrize("size", [(8, 8), (7, 8), (8, 7), (5, 5)])
def test_a_compressed_image_is_real_and_the_map_symmetric(size):
    compression = CompressionMap(size)
    torch.nn.init.normal_(compression.logits)
    centred = compression.centred()
    assert ((centred >= 0) & (centred <= 1)).all()
    whole = torch.fft.ifftshift(centred)
    spectrum = torch.fft.fft2(torch.rand(size), norm="ortho") * whole
    assert torch.fft.ifft2(spectrum).imag.abs().max() < 1e-6
    assert torch.allclose(compression(), whole[:, : size[1] // 2 + 1])


def test_the_same_seed_gives_the_same_map_and_leaves_torchs_generator_alone():
    real, fake = to_bytes(noise((8, 8), count=32)), to_bytes(noise((8, 8), count=32, seed=1))
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    one, two, other = (fit_compression_map(real, fake, CompressionMapConfig(steps=4), seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.centred(), two.centred()) and not torch.equal(one.centred(), other.centred())


def test_black_images_give_a_finite_map():
    black = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)
    assert fit_compression_map(black, black, CompressionMapConfig(steps=4)).centred().isfinite().all()


@pytest.mark.parametrize("shape", [(4, 1, 8, 9), (4, 3, 8, 8), (0, 1, 8, 8)])
def test_images_that_cannot_be_compared_are_refused(shape):
    with pytest.raises(UserError, match="same size and channels"):
        fit_compression_map(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(shape, dtype=torch.uint8))


def test_the_figure_shows_what_is_taken_away():
    compression = CompressionMap((8, 8))
    figure = compression_map_figure(compression)
    assert torch.allclose(torch.tensor(figure.axes[0].images[0].get_array()), 1 - compression.centred())
    assert figure.axes[1].lines[0].get_ydata() == pytest.approx(1 - torch.sigmoid(torch.tensor(3.0)).item())
