import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from assay.forensics import augmentation
from assay.forensics.augmentation import BlurAndJPEG, gaussian_blur, jpeg

SIZES = [(28, 28), (32, 32), (64, 48), (29, 31)]


def smooth_images(channels, size, count=4):
    """Images with the falling spectrum of natural ones, of whole grey levels."""
    images = ndimage.gaussian_filter(np.random.default_rng(0).random((count, channels, *size)), (0, 0, 1, 1))
    images = (images - images.min()) / (images.max() - images.min())
    return torch.from_numpy((images * 255).round() / 255).float()


def pillow(image, quality):
    """Compress and decompress one image [C, H, W]."""
    levels = (image * 255).round().byte().permute(1, 2, 0).squeeze(-1).numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", quality=quality)
    decoded = torch.from_numpy(np.array(Image.open(buffer)))
    return (decoded[None] if decoded.ndim == 2 else decoded.permute(2, 0, 1)) / 255


@pytest.mark.parametrize("size", [*SIZES, (3, 5)])
def test_every_image_is_blurred_as_scipy_does_it_at_its_own_sigma(size):
    images = smooth_images(3, size, count=6).double()
    sigma = torch.tensor([0.0, 0.1, 0.4, 1.0, 2.3, 3.0])
    found = gaussian_blur(images, sigma)
    for image, blurred, one in zip(images.numpy(), found.numpy(), sigma.tolist(), strict=True):
        expected = ndimage.gaussian_filter(image, (0, one, one)) if one else image
        assert np.allclose(blurred, expected, atol=1e-6)


def test_blur_keeps_the_mean_and_constant_images():
    images = smooth_images(1, (28, 28))
    sigma = torch.tensor([0.5, 1.0, 2.0, 3.0])
    assert torch.allclose(gaussian_blur(images, sigma).mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3)), atol=1e-6)
    assert torch.allclose(gaussian_blur(torch.ones(4, 1, 9, 7), sigma), torch.ones(4, 1, 9, 7), atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("quality", [30, 49, 50, 75, 90, 100])
def test_grey_jpeg_is_pillows_to_within_its_rounding(size, quality):
    images = smooth_images(1, size)
    found = jpeg(images, torch.full((4,), quality))
    expected = torch.stack([pillow(image, quality) for image in images])
    assert (found - expected).abs().mean() * 255 < 0.4
    assert (found - expected).abs().max() < (images - expected).abs().max() or quality == 100


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("quality", [30, 50, 75, 90, 100])
def test_colour_jpeg_is_pillows_to_within_its_rounding(size, quality):
    images = smooth_images(3, size)
    found = jpeg(images, torch.full((4,), quality))
    expected = torch.stack([pillow(image, quality) for image in images])
    assert (found - expected).abs().mean() * 255 < 0.8
    assert (found - expected).abs().mean() < 0.15 * (images - expected).abs().mean()


def test_jpeg_compresses_every_image_at_its_own_quality():
    images = smooth_images(3, (28, 28))
    quality = torch.tensor([30, 60, 90, 100])
    alone = torch.cat([jpeg(image[None], one[None]) for image, one in zip(images, quality, strict=True)])
    assert torch.equal(jpeg(images, quality), alone)


def test_jpeg_gives_whole_grey_levels_and_loses_more_at_lower_quality():
    image = smooth_images(1, (32, 32), count=1).expand(4, -1, -1, -1)
    found = jpeg(image, torch.tensor([30, 60, 90, 100]))
    assert torch.allclose(found * 255, (found * 255).round(), atol=1e-4)
    assert (found - image).square().mean(dim=(1, 2, 3)).diff().max() < 0


def test_a_batch_that_nothing_is_drawn_for_is_untouched():
    images = torch.rand(8, 3, 28, 28)
    assert BlurAndJPEG(0.0)(images) is images


def test_images_that_are_not_chosen_stay_as_they_are_and_the_others_are_of_8_bits():
    torch.manual_seed(0)
    images = torch.rand(400, 1, 16, 16)
    augmented = BlurAndJPEG(0.1)(images)
    same = (augmented == images).all(dim=3).all(dim=2).squeeze(1)
    assert same.float().mean() == pytest.approx(0.9**2, abs=0.06)
    levels = augmented[~same] * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)


def test_a_batch_is_augmented_as_its_images_one_by_one():
    images = smooth_images(3, (28, 28), count=16)
    torch.manual_seed(3)
    augmented = BlurAndJPEG(0.5)(images)
    torch.manual_seed(3)
    blurred, compressed = torch.rand(2, 16) < 0.5
    sigma = torch.empty(16).uniform_(0, 3)
    quality = torch.randint(30, 101, (16,))
    for k, image in enumerate(images):
        expected = image[None]
        if blurred[k]:
            expected = (gaussian_blur(expected, sigma[k : k + 1]) * 255).round() / 255
        if compressed[k]:
            expected = jpeg(expected, quality[k : k + 1])
        assert torch.allclose(augmented[k : k + 1], expected, atol=1e-6)
    assert blurred.any() and compressed.any() and not (blurred & compressed).all()


def test_strengths_span_their_ranges(monkeypatch):
    drawn = {}

    def remember(name):
        def change(images, strength):
            drawn[name] = strength
            return images

        return change

    monkeypatch.setattr(augmentation, "gaussian_blur", remember("sigma"))
    monkeypatch.setattr(augmentation, "jpeg", remember("quality"))
    BlurAndJPEG(1.0)(torch.zeros(3000, 1, 1, 1))
    assert drawn["quality"].min() == 30 and drawn["quality"].max() == 100
    assert drawn["sigma"].min() < 0.05 and drawn["sigma"].max() > 2.95
    assert drawn["sigma"].mean() == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_and_shape_are_kept_and_the_values_in_range(dtype):
    torch.manual_seed(0)
    images = torch.rand(16, 3, 29, 31, dtype=dtype)
    augmented = BlurAndJPEG(1.0)(images)
    assert augmented.dtype == dtype and augmented.shape == images.shape
    assert augmented.min() >= 0 and augmented.max() <= 1


@pytest.mark.gpu
def test_a_gpu_makes_the_same_choices():
    images = smooth_images(3, (28, 28), count=16)
    torch.manual_seed(0)
    here = BlurAndJPEG(0.5)(images)
    torch.manual_seed(0)
    there = BlurAndJPEG(0.5)(images.cuda())
    assert there.is_cuda
    assert (there.cpu() - here).abs().mean() < 1e-3
