"""Spectra of whole batches: orthonormal FFT, radial frequency, log magnitude and azimuthal average.

Real images need half of their spectrum, [H, W // 2 + 1]; the other half is its mirror image. The transforms
work on that half, at less than half the price, and unfold it only for what must look at the whole plane.
"""

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Layout = Literal["half", "unshifted", "centred"]
"""Of a spectrum: ``rfft2``'s [H, W // 2 + 1], ``fft2``'s [H, W], or ``fft2``'s with zero frequency in the middle."""

MAGNITUDE_FLOOR = 1e-4
"""Added in quadrature before the logarithm: a tenth of what rounding to 8 bits puts into each coefficient. [ours]"""


def half_spectrum(images: Tensor) -> Tensor:
    """Return the orthonormal spectrum, complex [..., H, W // 2 + 1], of real images [..., H, W].

    Example:
        >>> half_spectrum(torch.ones(2, 4))[0]
        tensor([2.8284+0.j, 0.0000+0.j, 0.0000+0.j])
    """
    return torch.fft.rfft2(images, norm="ortho")


def from_half_spectrum(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the images [..., H, W] that `half_spectrum` came from.

    Args:
        spectrum: complex [..., H, W // 2 + 1].
        size: H and W, since even and odd widths share a half.
    """
    # One axis after the other: on a processor `irfft2` copies once more, and takes up to twice as long.
    columns = torch.fft.ifft(spectrum, dim=-2, norm="ortho")
    return torch.fft.irfft(columns, n=size[1], dim=-1, norm="ortho")


def frequencies(size: tuple[int, int], layout: Layout = "centred") -> tuple[Tensor, Tensor]:
    """Return the vertical frequencies as a column and the horizontal ones as a row, in cycles per pixel.

    Args:
        size: height and width of the images in pixels.
        layout: of the grid that the two span.

    Example:
        >>> frequencies((1, 4), "half")
        (tensor([[0.]]), tensor([0.0000, 0.2500, 0.5000]))
    """
    height, width = size
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)
    if layout == "half":
        return rows, torch.fft.rfftfreq(width)
    return (torch.fft.fftshift(rows), torch.fft.fftshift(columns)) if layout == "centred" else (rows, columns)


def radial_frequency(size: tuple[int, int], layout: Layout = "centred") -> Tensor:
    """Return the distance of every coefficient from zero frequency, in cycles per pixel.

    Along an axis it ends at 0.5, Nyquist's limit; in the corners it is 0.71. The arguments are those of
    `frequencies`.

    Example:
        >>> radial_frequency((1, 4))
        tensor([[0.5000, 0.2500, 0.0000, 0.2500]])
    """
    return torch.hypot(*frequencies(size, layout))


def log_magnitude(spectrum: Tensor, floor: float = MAGNITUDE_FLOOR) -> Tensor:
    """Return ``log sqrt(|F|^2 + floor^2)``, finite everywhere, for a complex spectrum of any shape.

    Example:
        >>> log_magnitude(torch.tensor([1 + 0j, 0j]))
        tensor([ 0.0000, -9.2103])
    """
    # Twice as quick as the logarithm of `abs`, which guards against an overflow that images do not have.
    power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
    return power.add_(floor**2).log_().div_(2)


def standardize(maps: Tensor) -> Tensor:
    """Return maps [..., H, W] with mean 0 and variance 1 each; a constant map becomes 0, never NaN.

    Example:
        >>> standardize(torch.tensor([[1.0, 3.0], [1.0, 3.0]])), standardize(torch.ones(1, 2)).tolist()
        (tensor([[-1.0000,  1.0000], [-1.0000,  1.0000]]), [[0.0, 0.0]])
    """
    return functional.layer_norm(maps, maps.shape[-2:])


class Unfold(nn.Module):
    """From values on half a spectrum to the whole, centred: v(-f) = v(f), as magnitudes of real images have it.

    Args:
        size: height and width of the images in pixels.

    Example:
        >>> Unfold((1, 4))(torch.tensor([[[[0.0, 1.0, 2.0]]]])).flatten()
        tensor([2., 1., 0., 1.])
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, values: Tensor) -> Tensor:
        """Return [N, C, H, W] for values [N, C, H, W // 2 + 1]."""
        # Four blocks are copied as they lie: quicker than to look up where each coefficient comes from.
        top, left = (length // 2 for length in self.size)
        below = self.size[0] - top
        mirrored = values[..., 1 : left + 1].flip(-2, -1)
        whole = values.new_empty((*values.shape[:-1], self.size[1]))
        whole[..., top:, left:] = values[..., :below, : self.size[1] - left]
        whole[..., :top, left:] = values[..., below:, : self.size[1] - left]
        whole[..., : top + 1, :left] = mirrored[..., below - 1 :, :]
        whole[..., top + 1 :, :left] = mirrored[..., : below - 1, :]
        return whole


class LogMagnitude(nn.Module):
    """The centred log magnitude of each channel's spectrum, standardised image by image.

    Standardising takes away brightness and contrast, which say nothing about where an image comes from. [ours]

    Args:
        size: height and width of the images in pixels.

    Example:
        >>> LogMagnitude((8, 6))(torch.rand(2, 3, 8, 6)).shape
        torch.Size([2, 3, 8, 6])
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.unfold = Unfold(size)

    def forward(self, images: Tensor) -> Tensor:
        """Return [N, C, H, W] for images [N, C, H, W]."""
        return self.of_spectrum(half_spectrum(images))

    def of_spectrum(self, spectrum: Tensor) -> Tensor:
        """Return [N, C, H, W] for half spectra [N, C, H, W // 2 + 1]."""
        return standardize(self.unfold(log_magnitude(spectrum)))


class AzimuthalAverage(nn.Module):
    """The mean over all directions, one value for each ring of frequencies: Durall's radial profile.

    Durall, Keuper and Keuper 2020 (authors' code): rings are one step of frequency wide, out to the corners,
    and the radius is rounded down. One product with a matrix instead of a histogram for each image. [ours]

    Args:
        size: height and width of the images in pixels; the step is one cycle along the longer side.
        layout: of the maps that are averaged; a half is weighted so that the average is that of the whole.

    Attributes:
        frequency: mean radius of each ring in cycles per pixel, [R].

    Example:
        >>> AzimuthalAverage((4, 4), "unshifted")(radial_frequency((4, 4), "unshifted"))
        tensor([0.0000, 0.3018, 0.5633])
    """

    weights: Tensor
    frequency: Tensor

    def __init__(self, size: tuple[int, int], layout: Layout = "half") -> None:
        super().__init__()
        radius = radial_frequency(size, layout)
        # The small number keeps whole radii whole: 3 pixels may have come out as 2.9999998.
        ring = (radius * max(size) + 1e-4).long()
        _, ring = ring.unique(return_inverse=True)
        counts = torch.ones_like(radius)
        if layout == "half":
            counts[:, 1 : (size[1] + 1) // 2] = 2
        weights = functional.one_hot(ring.flatten()) * counts.flatten()[:, None]
        weights /= weights.sum(dim=0)
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("frequency", radius.flatten() @ weights, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return [..., R] for maps [..., H, W] of the layout."""
        return maps.flatten(-2) @ self.weights


def draw_frequencies(axes: "Axes", values: Tensor, **appearance: Any) -> Any:
    """Draw a centred map [H, W] over both frequencies in cycles per pixel; return the picture, for a colour bar.

    Args:
        axes: where.
        values: on the CPU.
        appearance: of ``imshow``: ``cmap``, ``vmin``, ``vmax``.

    Example:
        >>> from matplotlib.figure import Figure
        >>> draw_frequencies(Figure().subplots(), torch.zeros(3, 4)).get_extent()
        [-0.625, 0.375, 0.5, -0.5]
    """
    # Each coefficient is a square around its own frequency.
    (bottom, top), (left, right) = (((-(n // 2) - 0.5) / n, ((n - 1) // 2 + 0.5) / n) for n in values.shape)
    axes.set(xlabel="horizontal frequency (cycles/pixel)", ylabel="vertical frequency (cycles/pixel)")
    return axes.imshow(values.numpy(), extent=(left, right, top, bottom), aspect="equal", **appearance)
