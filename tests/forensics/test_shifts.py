"""Shifts against Pillow, colorsys and closed forms."""

import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from assay.forensics.shifts import COLOUR_SHIFTS, REENCODINGS, SHIFTS, applicable, as_jpeg, hue, resized


def pictures(channels: int, count: int = 5, height: int = 20, width: int = 17) -> torch.Tensor:
    """Smooth images with some noise, as photos are."""
    generator = torch.Generator().manual_seed(channels)
    coarse = torch.rand(count, channels, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    noisy = 255 * smooth + 8 * torch.randn(smooth.shape, generator=generator)
    return noisy.round().clamp(0, 255).to(torch.uint8)


def to_pillow(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy())


def from_pillow(picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_shift_keeps_shape_type_and_order(channels):
    images = pictures(channels)
    for name, shift in applicable(channels).items():
        shifted = shift(images)
        assert (shifted.shape, shifted.dtype) == (images.shape, torch.uint8), name
        alone = torch.cat([shift(image[None]) for image in images])
        assert torch.equal(shifted, alone), f"{name} of an image depends on its batch"


def test_grey_images_have_no_shift_of_colour():
    assert applicable(3) is SHIFTS
    left_out = SHIFTS.keys() - applicable(1).keys()
    assert left_out == {"saturation x0.5", "saturation x1.5", "hue -0.1", "hue +0.1", "greyscale"}
    grey = pictures(1).expand(-1, 3, -1, -1)
    for name in left_out:
        assert torch.equal(SHIFTS[name](grey), grey), f"{name} changes an image without colour"


@pytest.mark.parametrize(
    ("name", "enhance", "factor"),
    [
        ("brightness x0.7", ImageEnhance.Brightness, 0.7),
        ("brightness x1.3", ImageEnhance.Brightness, 1.3),
        ("contrast x0.7", ImageEnhance.Contrast, 0.7),
        ("contrast x1.3", ImageEnhance.Contrast, 1.3),
        ("saturation x0.5", ImageEnhance.Color, 0.5),
        ("saturation x1.5", ImageEnhance.Color, 1.5),
        ("greyscale", ImageEnhance.Color, 0.0),
    ],
)
def test_colours_change_as_in_pillow(name, enhance, factor):
    images = pictures(3)
    theirs = np.stack([from_pillow(enhance(to_pillow(image)).enhance(factor)) for image in images])
    difference = np.abs(COLOUR_SHIFTS[name](images).numpy().astype(int) - theirs)
    assert difference.max() <= 1  # Pillow rounds the grey level first, and then cuts off


@pytest.mark.parametrize("turns", [-0.1, 0.1])
def test_hue_turns_as_in_colorsys(turns):
    images = pictures(3, count=1, height=6, width=6)
    shifted = hue(images, turns)
    for before, after in zip(images[0].flatten(1).T.tolist(), shifted[0].flatten(1).T.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(value / 255 for value in before))
        expected = [255 * value for value in colorsys.hsv_to_rgb((h + turns) % 1, s, v)]
        assert after == pytest.approx(expected, abs=0.6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_resizing_is_pillows(channels, scale):
    images = pictures(channels)
    size = (round(17 * scale), round(20 * scale))
    theirs = np.stack(
        [
            from_pillow(
                to_pillow(image).resize(size, Image.Resampling.BILINEAR).resize((17, 20), Image.Resampling.BILINEAR)
            )
            for image in images
        ]
    )
    difference = np.abs(resized(images, scale).numpy().astype(int) - theirs)
    assert difference.max() <= 2 and difference.mean() < 0.5  # Pillow rounds between its two passes as well


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_the_identity_and_jpeg_is_pillows(channels):
    images = pictures(channels)
    assert torch.equal(REENCODINGS["PNG"](images), images)
    compressed = as_jpeg(images, 90)
    for image, ours in zip(images, compressed, strict=True):
        buffer = io.BytesIO()
        to_pillow(image).save(buffer, "JPEG", quality=90)  # 4:2:0 is Pillow's default
        assert np.array_equal(from_pillow(Image.open(buffer)), ours.numpy())
    assert 0 < (compressed.float() - images.float()).abs().mean() < 12


def test_worse_quality_changes_more():
    images = pictures(3)
    change = [(as_jpeg(images, quality).float() - images.float()).abs().mean() for quality in (95, 60, 20)]
    assert change == sorted(change)


def test_no_image_is_no_error():
    none = torch.zeros(0, 3, 8, 8, dtype=torch.uint8)
    assert all(len(REENCODINGS[name](none)) == 0 for name in ("PNG", "JPEG 90"))
