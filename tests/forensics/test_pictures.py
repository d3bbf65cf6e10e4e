import pytest
import torch
from torch import nn

from assay.forensics.pictures import Row, draw_rows, mean_spectrum, transformed


def drawn(axes):
    return torch.as_tensor(axes.images[0].get_array())


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_shown_as_they_are_and_differences_around_mid_grey(channels):
    images = torch.rand(2, channels, 8, 8)
    difference = 0.1 * torch.randn(2, channels, 8, 8)
    difference[0, :, 0, 0] = 0
    figure = draw_rows([Row("real", images), Row("difference", difference, signed=True)])
    assert torch.allclose(drawn(figure.axes[1]), images[1].permute(1, 2, 0).squeeze(-1))
    assert (drawn(figure.axes[3])[0, 0] == 0.5).all()
    assert figure.axes[3].get_ylabel().startswith("difference\n(x ")


def test_all_spectra_share_one_scale():
    figure = draw_rows([Row("faint", 0.01 * torch.rand(2, 1, 8, 8)), Row("strong", torch.rand(2, 1, 8, 8))])
    limits = [figure.axes[index].images[0].get_clim() for index in (2, 5)]
    assert limits[0] == limits[1]


def test_rows_that_are_all_zero_can_be_drawn():
    draw_rows([Row("nothing", torch.zeros(2, 1, 8, 8), signed=True)])


def test_the_mean_spectrum_is_the_mean_of_the_logarithms():
    images = torch.rand(5, 3, 7, 6)
    spectrum = torch.fft.fftshift(torch.fft.fft2(images, norm="ortho"), dim=(-2, -1))
    assert torch.allclose(mean_spectrum(images), spectrum.abs().log().mean(dim=(0, 1)), atol=1e-3)


def test_a_module_is_left_in_the_mode_it_was_in():
    module = nn.Dropout(0.9)
    before, after = transformed(module, torch.rand(3, 4))
    assert torch.equal(before, after)
    assert module.training
