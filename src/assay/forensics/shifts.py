"""What happens to an image between its maker and a detector: colours change, and files are written again.

Every shift takes images uint8 [N, C, H, W] and returns as many of the same shape and type on the same device, as
a photo editor or a messenger would: each intermediate picture is rounded to 8 bits.
"""

import io
import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from assay.data.codec import decode
from assay.data.parallel import map_ranges

Shift = Callable[[Tensor], Tensor]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's conversion to grey


def brightness(images: Tensor, factor: float) -> Tensor:
    """Multiply every value by ``factor``.

    Example:
        >>> brightness(torch.tensor([[[[100, 200]]]], dtype=torch.uint8), 1.3).tolist()
        [[[[130, 255]]]]
    """
    return _rounded(images.float() * factor)


def contrast(images: Tensor, factor: float) -> Tensor:
    """Multiply every value's distance to the image's mean grey level by ``factor``.

    Example:
        >>> contrast(torch.tensor([[[[100, 200]]]], dtype=torch.uint8), 0.5).tolist()
        [[[[125, 175]]]]
    """
    mean = _grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return _rounded(mean + factor * (images.float() - mean))


def saturation(images: Tensor, factor: float) -> Tensor:
    """Multiply every pixel's distance to its grey level by ``factor``; images [N, 3, H, W].

    Example:
        >>> saturation(torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1), 0.5).flatten().tolist()
        [166, 38, 38]
    """
    grey = _grey(images)
    return _rounded(grey + factor * (images.float() - grey))


def hue(images: Tensor, turns: float) -> Tensor:
    """Turn the hue by a part of the full circle; images [N, 3, H, W].

    Example:
        >>> hue(torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1), 1 / 3).flatten().tolist()
        [0, 255, 0]
    """
    from kornia.enhance import adjust_hue

    return _rounded(255 * adjust_hue(images.float() / 255, 2 * math.pi * turns))


def gamma(images: Tensor, exponent: float) -> Tensor:
    """Raise every value, as a share of the largest, to ``exponent``.

    Example:
        >>> gamma(torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8), 0.5).tolist()
        [[[[0, 114, 255]]]]
    """
    return _rounded(255 * (images.float() / 255) ** exponent)


def greyscale(images: Tensor) -> Tensor:
    """Replace every channel by the grey level; images [N, 3, H, W].

    Example:
        >>> greyscale(torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)).flatten().tolist()
        [76, 76, 76]
    """
    return _rounded(_grey(images).expand(-1, images.shape[1], -1, -1))


def resized(images: Tensor, scale: float) -> Tensor:
    """Resize to another size and back, both bilinear with anti-aliasing, as Pillow does.

    Example:
        >>> resized(torch.full((1, 1, 9, 9), 7, dtype=torch.uint8), 0.5).unique().tolist()
        [7]
    """
    resize = partial(functional.interpolate, mode="bilinear", antialias=True)
    height, width = images.shape[2:]
    other = (max(1, round(height * scale)), max(1, round(width * scale)))
    return _rounded(resize(_rounded(resize(images.float(), size=other)).float(), size=(height, width)))


def as_png(images: Tensor) -> Tensor:
    """Write every image as PNG and read it again: without loss, so that a detector must not notice.

    Example:
        >>> image = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2)
        >>> bool((as_png(image) == image).all())
        True
    """
    return through_file(images, "PNG")


def as_jpeg(images: Tensor, quality: int) -> Tensor:
    """Write every image as JPEG, colour at half the resolution (4:2:0) as is usual, and read it again.

    Example:
        >>> as_jpeg(torch.full((2, 3, 8, 8), 128, dtype=torch.uint8), 90).unique().tolist()
        [128]
    """
    return through_file(images, "JPEG", quality=quality, subsampling="4:2:0")


def through_file(images: Tensor, file_format: str, **options: Any) -> Tensor:
    """Write every image uint8 [N, C, H, W] as a file and read it again, with Pillow on every core.

    Args:
        images: on any device.
        file_format: as Pillow names it.
        options: of Pillow's ``save``.

    Example:
        >>> through_file(torch.full((1, 1, 8, 8), 9, dtype=torch.uint8), "JPEG", quality=50).shape
        torch.Size([1, 1, 8, 8])
    """
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()
    pixels = pixels[..., 0] if images.shape[1] == 1 else pixels

    def write_and_read(start: int, stop: int) -> np.ndarray:
        return np.stack([once(pixels[index]) for index in range(start, stop)])

    def once(picture: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, file_format, **options)
        return decode(buffer.getvalue(), images.shape[1])

    parts = list(map_ranges(write_and_read, len(pixels), what=f"Encoding as {file_format}"))
    return torch.from_numpy(np.concatenate(parts)).to(images.device) if parts else images


def applicable(channels: int) -> Mapping[str, Shift]:
    """Return the shifts that mean something for images of so many channels: grey ones have no hue.

    Example:
        >>> len(applicable(3)) - len(applicable(1))
        5
    """
    return SHIFTS if channels == 3 else {name: shift for name, shift in SHIFTS.items() if name not in _OF_COLOUR}


def _grey(images: Tensor) -> Tensor:
    """Return grey levels, float [N, 1, H, W]."""
    if images.shape[1] == 1:
        return images.float()
    weights = torch.tensor(_LUMA, device=images.device).view(1, 3, 1, 1)
    return (images.float() * weights).sum(dim=1, keepdim=True)


def _rounded(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


COLOUR_SHIFTS: Mapping[str, Shift] = MappingProxyType(
    {
        "brightness x0.7": partial(brightness, factor=0.7),
        "brightness x1.3": partial(brightness, factor=1.3),
        "contrast x0.7": partial(contrast, factor=0.7),
        "contrast x1.3": partial(contrast, factor=1.3),
        "gamma 0.7": partial(gamma, exponent=0.7),
        "gamma 1.3": partial(gamma, exponent=1.3),
        "saturation x0.5": partial(saturation, factor=0.5),
        "saturation x1.5": partial(saturation, factor=1.5),
        "hue -0.1": partial(hue, turns=-0.1),
        "hue +0.1": partial(hue, turns=0.1),
        "greyscale": greyscale,
    }
)
"""Shifts of colour, on both classes alike; the two gammas are [ours]."""

REENCODINGS: Mapping[str, Shift] = MappingProxyType(
    {
        "PNG": as_png,
        "resized x0.5": partial(resized, scale=0.5),
        "resized x2": partial(resized, scale=2.0),
        "JPEG 90": partial(as_jpeg, quality=90),
    }
)
"""What a file goes through on its way: the same picture to the eye."""

SHIFTS: Mapping[str, Shift] = MappingProxyType({**COLOUR_SHIFTS, **REENCODINGS})
"""Every shift by name."""

_OF_COLOUR = {"saturation x0.5", "saturation x1.5", "hue -0.1", "hue +0.1", "greyscale"}
