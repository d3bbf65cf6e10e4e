import numpy as np
import pytest
import torch

from assay.forensics.spectrum import (
    MAGNITUDE_FLOOR,
    AzimuthalAverage,
    LogMagnitude,
    Unfold,
    from_half_spectrum,
    half_spectrum,
    log_magnitude,
    radial_frequency,
    standardize,
)

SIZES = [(28, 28), (32, 32), (64, 48), (29, 31), (28, 31), (31, 28), (2, 3), (1, 1)]


def images_of(size, channels=3, count=2):
    return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", SIZES)
def test_the_round_trip_gives_the_images_back(size):
    images = images_of(size)
    assert torch.allclose(from_half_spectrum(half_spectrum(images), size), images, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_the_whole_spectrum_has_the_energy_of_the_images(size):
    images = images_of(size).double()
    energy = Unfold(size)(half_spectrum(images).abs().square()).sum(dim=(-2, -1))
    assert torch.allclose(energy, images.square().sum(dim=(-2, -1)))  # Parseval


@pytest.mark.parametrize("size", SIZES)
def test_the_unfolded_half_is_the_centred_spectrum_of_numpy(size):
    images = images_of(size)
    expected = np.abs(np.fft.fftshift(np.fft.fft2(images.numpy(), norm="ortho"), axes=(-2, -1)))
    assert np.allclose(Unfold(size)(half_spectrum(images).abs()).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_layouts_of_the_radial_frequency_are_one_grid(size):
    whole = radial_frequency(size, "unshifted")
    assert torch.equal(radial_frequency(size, "half"), whole[:, : size[1] // 2 + 1])
    assert torch.equal(Unfold(size)(radial_frequency(size, "half")[None, None])[0, 0], radial_frequency(size))


@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (5, 0), (4, 7), (0, 14)])
def test_a_sinusoid_is_where_its_frequency_says(rows, columns):
    height, width = 30, 28
    y, x = torch.arange(height)[:, None], torch.arange(width)
    wave = torch.cos(2 * torch.pi * (rows * y / height + columns * x / width))
    magnitude = Unfold((height, width))(half_spectrum(wave[None, None]).abs())[0, 0]
    found = radial_frequency((height, width))[magnitude > 0.1]
    assert torch.allclose(found, torch.tensor(np.hypot(rows / height, columns / width)).float())


def naive_radial_profile(image):
    """Durall's loop over rings, over the whole shifted spectrum, by NumPy."""
    height, width = image.shape
    spectrum = np.fft.fftshift(np.fft.fft2(image, norm="ortho"))
    values = np.log(np.sqrt(np.abs(spectrum) ** 2 + MAGNITUDE_FLOOR**2))
    rings = {}
    for row in range(height):
        for column in range(width):
            radius = np.hypot((row - height // 2) / height, (column - width // 2) / width)
            rings.setdefault(int(radius * max(height, width) + 1e-4), []).append(values[row, column])
    return np.array([np.mean(rings[ring]) for ring in sorted(rings)])


@pytest.mark.parametrize("size", SIZES)
def test_the_azimuthal_average_is_that_of_a_loop_over_rings(size):
    image = images_of(size, channels=1, count=1).double()
    average = AzimuthalAverage(size).double()
    profile = average(log_magnitude(half_spectrum(image)))[0, 0]
    assert np.allclose(profile.numpy(), naive_radial_profile(image[0, 0].numpy()), atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_all_layouts_give_the_same_azimuthal_average(size):
    half = log_magnitude(half_spectrum(images_of(size)))
    centred = Unfold(size)(half)
    unshifted = torch.fft.ifftshift(centred, dim=(-2, -1))
    expected = AzimuthalAverage(size)(half)
    assert torch.allclose(AzimuthalAverage(size, "centred")(centred), expected, atol=1e-5)
    assert torch.allclose(AzimuthalAverage(size, "unshifted")(unshifted), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(28, 28), (64, 48), (29, 31)])
def test_rings_go_from_zero_frequency_out_to_the_corners(size):
    frequency = AzimuthalAverage(size).frequency
    steps = frequency * max(size)
    assert frequency[0] == 0 and frequency[-1] > np.hypot(0.5, 0.5) - 2 / min(size)
    assert torch.equal((steps + 1e-4).floor(), torch.arange(len(steps)).float())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_images_without_variance_have_a_finite_spectrum(size, value):
    maps = LogMagnitude(size)(torch.full((2, 1, *size), value))
    assert maps.isfinite().all()
    if value == 0:
        assert (maps == 0).all()


def test_standardised_maps_have_no_mean_and_variance_one():
    maps = standardize(3 + 5 * torch.randn(4, 2, 9, 7))
    assert torch.allclose(maps.mean(dim=(-2, -1)), torch.zeros(4, 2), atol=1e-5)
    assert torch.allclose(maps.var(dim=(-2, -1), correction=0), torch.ones(4, 2), atol=1e-3)


def test_the_standardised_log_magnitude_ignores_contrast():
    images = images_of((28, 28))
    transform = LogMagnitude((28, 28))
    assert torch.allclose(transform(images), transform(images / 2), atol=1e-2)


def test_the_log_magnitude_is_that_of_abs_above_the_floor():
    spectrum = half_spectrum(images_of((28, 28)) + 1)
    strong = spectrum.abs() > 100 * MAGNITUDE_FLOOR
    assert torch.allclose(log_magnitude(spectrum)[strong], spectrum.abs().log()[strong], atol=1e-4)


def test_the_log_magnitude_has_a_finite_gradient_at_zero():
    images = torch.zeros(1, 1, 8, 8, requires_grad=True)
    LogMagnitude((8, 8))(images).sum().backward()
    assert images.grad.isfinite().all()
