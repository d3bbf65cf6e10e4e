import numpy as np
import pytest
import torch
from torch.nn import functional

from assay.errors import UserError
from assay.forensics.methods.baselines import (
    NPR,
    RGB,
    AugmentationOptions,
    AugmentedRGB,
    LogSpectrum,
    RadialSpectrum,
)
from assay.forensics.spectrum import MAGNITUDE_FLOOR
from assay.training import Session

SIZES = [(28, 28), (64, 48), (29, 31)]
METHODS = [RGB, AugmentedRGB, LogSpectrum, RadialSpectrum, NPR]


def create(method, channels, size):
    return method(method.Options(), channels=channels, image_size=size)


def exported(module, images):
    """Export with a dynamic batch, from two images."""
    batch = torch.export.Dim("batch")
    return torch.export.export(module.eval(), (images[:2],), dynamic_shapes=({0: batch},)).module()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_the_exported_transform_gives_what_the_eager_one_does(method, channels, size):
    transform = create(method, channels, size).transform
    images = torch.rand(5, channels, *size)
    assert torch.allclose(exported(transform, images)(images), transform(images), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_images_without_variance_are_finite(method, value):
    assert create(method, 3, (28, 28)).transform(torch.full((2, 3, 28, 28), value)).isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_an_image_is_transformed_the_same_alone_as_in_a_batch(method):
    transform = create(method, 3, (28, 28)).transform
    images = torch.rand(4, 3, 28, 28)
    alone = torch.cat([transform(image[None]) for image in images])
    assert torch.allclose(transform(images), alone, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_training_batch_holds_both_classes_without_a_graph(method):
    real, generated = torch.rand(3, 1, 28, 28), torch.rand(3, 1, 28, 28)
    inputs, labels = create(method, 1, (28, 28)).training_batch(Session(), real, generated)
    assert len(inputs) == 6 and not inputs.requires_grad
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("size", [(28, 28), (64, 48)])
def test_npr_is_the_published_formula_on_even_sizes(size):
    images = torch.rand(2, 3, *size)
    down = functional.interpolate(images, scale_factor=0.5, mode="nearest", recompute_scale_factor=True)
    up = functional.interpolate(down, scale_factor=2.0, mode="nearest", recompute_scale_factor=True)
    assert torch.equal(NPR(NPR.Options(), channels=3, image_size=size).transform(images), images - up)


@pytest.mark.parametrize("size", [(29, 31), (28, 31), (101, 57), (1, 1)])
def test_npr_on_odd_sizes_subtracts_the_upper_left_pixel_of_each_block(size):
    images = torch.rand(2, 1, *size)
    reference = images[:, :, torch.arange(size[0]) // 2 * 2][..., torch.arange(size[1]) // 2 * 2]
    assert torch.equal(create(NPR, 1, size).transform(images), images - reference)


def test_npr_of_nearest_upsampling_is_nothing():
    images = torch.rand(2, 3, 14, 14).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert (create(NPR, 3, (28, 28)).transform(images) == 0).all()


def test_the_radial_profile_is_relative_to_zero_frequency():
    size = (28, 28)
    image = torch.rand(1, 1, *size)
    profile = create(RadialSpectrum, 1, size).transform(image)[0].numpy()
    spectrum = np.fft.fftshift(np.fft.fft2(image[0, 0].double().numpy(), norm="ortho"))
    values = np.log(np.hypot(np.abs(spectrum), MAGNITUDE_FLOOR))
    y, x = np.indices(size) - 14
    ring = np.hypot(y, x).astype(int)
    expected = [values[ring == r].mean() - values[14, 14] for r in range(1, ring.max() + 1)]
    assert np.allclose(profile, expected, atol=1e-4)


def test_the_radial_profile_ignores_contrast_and_direction():
    transform = create(RadialSpectrum, 3, (28, 28)).transform
    images = torch.rand(2, 3, 28, 28)
    assert torch.allclose(transform(images), transform(0.7 * images), atol=1e-2)
    assert torch.allclose(transform(images), transform(images.transpose(2, 3)), atol=1e-4)


def test_the_radial_profile_of_colour_is_that_of_luma():
    images = torch.rand(2, 3, 28, 28)
    luma = (images * torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)).sum(dim=1, keepdim=True)
    colour, grey = (create(RadialSpectrum, channels, (28, 28)).transform for channels in (3, 1))
    assert torch.allclose(colour(images), grey(luma), atol=1e-4)


def test_the_log_spectrum_shows_upsampling_as_replicas():
    zeros_between = torch.zeros(16, 1, 32, 32)
    zeros_between[..., ::2, ::2] = torch.rand(16, 1, 16, 16)
    mean = create(LogSpectrum, 1, (32, 32)).transform(zeros_between).mean(dim=0)[0]
    peaks = [mean[16, 16], mean[0, 0], mean[0, 16], mean[16, 0]]  # zero frequency, and its copies at Nyquist's
    assert min(peaks) > mean.flatten().kthvalue(32 * 32 - 4).values


def test_augmentation_is_for_training_alone():
    torch.manual_seed(0)
    method = AugmentedRGB(AugmentationOptions(probability=1.0), channels=1, image_size=(28, 28))
    real, generated = torch.rand(4, 1, 28, 28), torch.rand(4, 1, 28, 28)
    inputs, _ = method.training_batch(Session(), real, generated)
    assert (inputs[:4] != real).flatten(1).any(dim=1).all() and (inputs[4:] != generated).flatten(1).any(dim=1).all()
    assert method.transform(real) is real


@pytest.mark.parametrize("options", [{"probability": 1.5}, {"lowest_quality": 0}, {"largest_sigma": 0}, {"blur": 1}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError, match="rgb-augmented"):
        AugmentationOptions.parse(options, where="rgb-augmented")
