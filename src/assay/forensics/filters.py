"""High-pass filters of frequency and of pixels, and the low-pass filters that mirror them.

A low-pass filter is here what its high-pass filter takes away: the two add up to the identity.
"""

import math

import torch
from torch import Tensor, nn

from assay.forensics.spectrum import Layout, frequencies, from_half_spectrum, half_spectrum, radial_frequency


def ramp(values: Tensor, cutoff: float, transition: float = 0.0) -> Tensor:
    """Return weights that rise from 0 below ``cutoff`` to 1 above it.

    Args:
        values: of any shape.
        cutoff: where the weight is one half.
        transition: width of the half cosine that leads up; 0 is a step, whose upper side holds the cutoff.

    Example:
        >>> ramp(torch.tensor([0.0, 0.25, 0.5]), cutoff=0.25), ramp(torch.tensor([0.0, 0.25, 0.5]), 0.25, 0.5)
        (tensor([0., 1., 1.]), tensor([0.0000, 0.5000, 1.0000]))
    """
    if transition == 0:
        return (values >= cutoff).float()
    rise = ((values - cutoff) / transition + 0.5).clamp(0, 1)
    return (1 - torch.cos(math.pi * rise)) / 2


def frequency_response(
    size: tuple[int, int],
    cutoff: float,
    transition: float = 0.0,
    *,
    low_pass: bool = False,
    layout: Layout = "centred",
) -> Tensor:
    """Return the gain of a radial filter at every frequency.

    Args:
        size: height and width of the images in pixels.
        cutoff: radius in cycles per pixel.
        transition: width of the ramp around it in cycles per pixel; 0 is a hard mask.
        low_pass: pass the radii below the cutoff instead of those above.
        layout: of the grid that is returned.

    Example:
        >>> frequency_response((1, 4), cutoff=0.3)
        tensor([[1., 0., 0., 0.]])
    """
    gain = ramp(radial_frequency(size, layout), cutoff, transition)
    return 1 - gain if low_pass else gain


def binomial_response(size: tuple[int, int], *, low_pass: bool = False, layout: Layout = "centred") -> Tensor:
    """Return the gain of a convolution that leaves what a [1, 2, 1] / 4 smoothing along both axes takes away.

    Pixel-level high-pass filter, second reading [ours]: ``1 - cos^2(pi u) cos^2(pi v)`` at the frequency (u, v),
    0 for a constant and 1 at Nyquist's limit. As in every product of spectra, the image goes on at its other
    side.

    Args:
        size: height and width of the images in pixels.
        low_pass: return the gain of the smoothing instead.
        layout: of the grid that is returned.

    Example:
        >>> binomial_response((1, 4))
        tensor([[1.0000, 0.5000, 0.0000, 0.5000]])
    """
    rows, columns = frequencies(size, layout)
    smooth = (torch.cos(math.pi * rows) * torch.cos(math.pi * columns)).square()
    return smooth if low_pass else 1 - smooth


class SpectralFilter(nn.Module):
    """Multiplies the spectrum of every channel by a response.

    Args:
        response: gain of each frequency as `half_spectrum` is laid out, [H, W // 2 + 1].
        size: height and width of the images in pixels.

    Example:
        >>> SpectralFilter(torch.zeros(2, 3), (2, 4))(torch.rand(1, 1, 2, 4)).sum()
        tensor(0.)
    """

    response: Tensor

    def __init__(self, response: Tensor, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("response", response, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return images [N, C, H, W]."""
        return from_half_spectrum(self.spectrum(images), self.size)

    def spectrum(self, images: Tensor) -> Tensor:
        """Return the filtered half spectra, complex [N, C, H, W // 2 + 1]."""
        return half_spectrum(images).mul_(self.response)


class FrequencyFilter(SpectralFilter):
    """The filter whose gain is `frequency_response`; takes its arguments.

    Example:
        >>> FrequencyFilter((8, 8), cutoff=0.1)(torch.ones(1, 1, 8, 8)).abs().max()
        tensor(0.)
    """

    def __init__(
        self, size: tuple[int, int], cutoff: float, transition: float = 0.0, *, low_pass: bool = False
    ) -> None:
        super().__init__(frequency_response(size, cutoff, transition, low_pass=low_pass, layout="half"), size)


class CentreMask(nn.Module):
    """Pixel-level high-pass filter, first reading: dark in the centre, so that the background counts.

    [ours]: the distance from the centre is 1 in the middle of each side, whatever the image's shape.

    Args:
        size: height and width of the images in pixels.
        cutoff: distance at which the weight is one half.
        transition: width of the ramp around it; 0 is a hard mask.
        low_pass: keep the centre and suppress the border instead.

    Example:
        >>> CentreMask((3, 3), cutoff=0.5)(torch.ones(1, 1, 3, 3))[0, 0]
        tensor([[1., 1., 1.], [1., 0., 1.], [1., 1., 1.]])
    """

    mask: Tensor

    def __init__(
        self, size: tuple[int, int], cutoff: float, transition: float = 0.0, *, low_pass: bool = False
    ) -> None:
        super().__init__()
        rows, columns = ((2 * torch.arange(n) + 1 - n) / n for n in size)
        mask = ramp(torch.hypot(rows[:, None], columns), cutoff, transition)
        self.register_buffer("mask", 1 - mask if low_pass else mask, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return images [N, C, H, W]."""
        return images * self.mask
