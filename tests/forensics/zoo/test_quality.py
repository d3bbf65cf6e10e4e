import matplotlib as mpl
import pytest
import torch

from assay.errors import UserError
from assay.forensics.zoo.quality import (
    draw_spectra,
    image_grid,
    measure_quality,
    nearest_real,
    radial_profile,
    refuse_collapse,
)

GOOD = {"diversity": 1.0, "spacing": 1.0}


@pytest.fixture
def noise():
    torch.manual_seed(0)
    return torch.randint(0, 256, (400, 1, 8, 8), dtype=torch.uint8)


def test_images_of_the_same_kind_are_as_good_as_real(noise):
    quality = measure_quality(noise[:200], noise[200:])
    assert quality["memorised_share"] == 0
    assert quality["spectrum_error"] < 0.05
    for key in ("diversity", "spacing", "distance_to_real"):
        assert quality[key] == pytest.approx(1, abs=0.03)
    refuse_collapse("dcgan", quality, minimum=0.9)


def test_copies_are_memorised_and_blurred_copies_are_near(noise):
    real = noise[:200]
    copies = (real[:50].float() + torch.randn(50, 1, 8, 8)).round().clamp(0, 255).byte()
    assert measure_quality(torch.cat([copies, noise[200:250]]), real)["memorised_share"] == 0.5


def test_one_image_and_a_few_images_are_a_collapse(noise):
    quality = measure_quality(noise[:1].expand(100, 1, 8, 8), noise)
    assert quality["diversity"] < 0.01
    with pytest.raises(UserError, match=r"The generator 'vae' collapsed: the diversity of its images is 0\.00"):
        refuse_collapse("vae", quality, minimum=0.3)
    quality = measure_quality(noise[:5].repeat(20, 1, 1, 1), noise)
    assert quality["diversity"] > 0.7  # five images are diverse, and yet
    with pytest.raises(UserError, match=r"the spacing of its images is 0\.00"):
        refuse_collapse("vae", quality, minimum=0.3)


def test_without_a_minimum_nothing_is_a_collapse(noise):
    refuse_collapse("vae", measure_quality(noise[:1].expand(100, 1, 8, 8), noise), minimum=0)


def test_constant_real_images_give_finite_figures():
    constant = torch.full((10, 1, 8, 8), 7, dtype=torch.uint8)
    quality = measure_quality(constant, constant)
    assert quality == {
        "diversity": 1,
        "spacing": 1,
        "distance_to_real": 1,
        "memorised_share": 0,
        "spectrum_error": 0,
    }


def test_the_radial_profile_of_white_noise_is_flat_above_zero_frequency(noise):
    frequency, profile = radial_profile(noise)
    assert frequency[0] == 0 and 0.6 < frequency[-1] < 0.5**0.5
    assert profile[1:].std() < 0.2 and profile[0] > profile[1:].max() + 1


def test_the_nearest_real_image_is_found(noise):
    order = torch.randperm(40)
    damaged = noise[order].clone()
    damaged[:, :, 0, 0] = 0
    assert torch.equal(nearest_real(damaged, noise), noise[order])


def test_a_grid_keeps_every_image_whole():
    images = torch.randint(0, 256, (6, 3, 4, 5), dtype=torch.uint8)
    grid = image_grid(images, columns=3)
    for index in range(6):
        row, column = divmod(index, 3)
        cell = grid[4 * row : 4 * row + 4, 5 * column : 5 * column + 5]
        assert torch.equal(cell, images[index].permute(1, 2, 0))


def test_the_difference_of_spectra_is_centred_on_zero(noise):
    figure = draw_spectra(noise[:100], noise[100:])
    difference = figure.axes[2].images[0]
    low, high = difference.get_clim()
    assert low == -high
    assert isinstance(figure, mpl.figure.Figure)
