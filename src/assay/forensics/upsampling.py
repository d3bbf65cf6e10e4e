"""The ways to double the resolution that generators and simulators share."""

from typing import Literal, get_args

from torch import nn

Upsampling = Literal["transposed", "transposed-3", "nearest", "bilinear", "pixel-shuffle"]
"""Ways to double the resolution; ``transposed`` has 4x4 kernels and ``transposed-3`` has 3x3 kernels."""

UPSAMPLINGS: tuple[Upsampling, ...] = get_args(Upsampling)


def upsample(kind: Upsampling, inputs: int, outputs: int) -> nn.Module:
    """Return a layer that doubles height and width.

    Args:
        kind: transposed convolution of kernel 4 or 3, a resize followed by a convolution, or a pixel shuffle.
        inputs: channels.
        outputs: channels.

    Example:
        >>> import torch
        >>> upsample("transposed-3", 2, 1)(torch.zeros(1, 2, 4, 4)).shape
        torch.Size([1, 1, 8, 8])
    """
    match kind:
        case "transposed":
            return nn.ConvTranspose2d(inputs, outputs, kernel_size=4, stride=2, padding=1)
        case "transposed-3":
            return nn.ConvTranspose2d(inputs, outputs, kernel_size=3, stride=2, padding=1, output_padding=1)
        case "pixel-shuffle":
            return nn.Sequential(nn.Conv2d(inputs, 4 * outputs, kernel_size=3, padding=1), nn.PixelShuffle(2))
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
    return nn.Sequential(nn.Upsample(scale_factor=2, mode=kind), convolution)
