"""Gaussian blur and JPEG of whole batches on their own device, each image with its own strength."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

# ITU-T T.81, Annex K: the tables that a quality scales.
_LUMA_TABLE = """
    16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
    18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
_CHROMA_TABLE = """
    17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
    99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
"""
# JFIF 1.02: Y, Cb and Cr from red, green and blue, and back.
_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
_LARGEST = 255


class BlurAndJPEG(nn.Module):
    """Blur, then compress, each with its own probability: the recipe of CNNDetection.

    Wang, Wang, Zhang, Owens and Efros 2020 [paper]. What is blurred or compressed is rounded to 8 bits, as
    every stored image is, so that rounding never tells the classes apart. The choices come from torch's
    generator on the CPU: they are the same on every device, and a GPU is never waited for.

    Args:
        probability: of blurring and of compressing an image.
        sigma: range of the Gaussian's standard deviation in pixels, drawn uniformly.
        quality: range of JPEG's quality, whole numbers, both ends included.

    Example:
        >>> BlurAndJPEG(0.5)(torch.rand(8, 3, 28, 28)).shape
        torch.Size([8, 3, 28, 28])
    """

    def __init__(
        self, probability: float, sigma: tuple[float, float] = (0.0, 3.0), quality: tuple[int, int] = (30, 100)
    ) -> None:
        super().__init__()
        self.probability = probability
        self.sigma = sigma
        self.quality = quality

    def forward(self, images: Tensor) -> Tensor:
        """Return augmented images float [N, C, H, W] in [0, 1]; those that are not chosen stay as they are."""
        count = len(images)
        blurred, compressed = torch.rand(2, count) < self.probability
        sigma = torch.empty(count).uniform_(*self.sigma)
        quality = torch.randint(self.quality[0], self.quality[1] + 1, (count,))
        images = _replace(images, blurred, lambda chosen, strength: _to_8_bits(gaussian_blur(chosen, strength)), sigma)
        return _replace(images, compressed, jpeg, quality)


def _replace(images: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor], strength: Tensor) -> Tensor:
    """Return images of which the chosen ones are changed, each by its own strength."""
    index = chosen.nonzero().squeeze(1)
    if not len(index):
        return images
    there = index.to(images.device)
    return images.index_copy(0, there, change(images[there], strength[index]))


def _to_8_bits(images: Tensor) -> Tensor:
    return (images * _LARGEST).round_().clamp_(0, _LARGEST) / _LARGEST


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur every image by its own Gaussian, cut off at four standard deviations, mirrored at the border.

    What ``scipy.ndimage.gaussian_filter`` computes, which CNNDetection calls. A symmetric kernel on an image
    that is mirrored at its border is a product in the domain of the cosine transform: four matrix products
    blur a whole batch. [ours]

    Args:
        images: float [N, C, H, W].
        sigma: standard deviation in pixels, [N], best on the CPU; 0 leaves an image as it is.

    Example:
        >>> gaussian_blur(torch.tensor([[[[0.0, 4.0, 0.0]]]]), torch.tensor([0.5])).flatten()
        tensor([0.4269, 3.1463, 0.4269])
    """
    height, width = images.shape[-2:]
    rows, columns = _cosine_basis(height).to(images), _cosine_basis(width).to(images)
    gain = _gaussian_gain(sigma, height)[:, None, :, None] * _gaussian_gain(sigma, width)[:, None, None, :]
    coefficients = rows @ images @ columns.T
    return rows.T @ (coefficients * gain.to(images)) @ columns


def _cosine_basis(length: int) -> Tensor:
    """Return the orthonormal discrete cosine transform (DCT-II) as a matrix [frequency, position]."""
    index = torch.arange(length, dtype=torch.float64)
    basis = torch.cos(math.pi / length * index[:, None] * (index + 0.5)) * math.sqrt(2 / length)
    basis[0] *= math.sqrt(0.5)
    return basis


def _gaussian_gain(sigma: Tensor, length: int) -> Tensor:
    """Return what sampled Gaussians multiply each frequency of `_cosine_basis` by, [N, length]."""
    sigma = sigma.double()[:, None]
    radius = (4 * sigma + 0.5).floor()
    offset = torch.arange(int(radius.max()) + 1, dtype=torch.float64, device=sigma.device)
    kernel = torch.exp(-((offset / sigma.clamp_min(1e-6)).square()) / 2) * (offset <= radius)
    kernel[:, 1:] *= 2
    kernel /= kernel.sum(dim=1, keepdim=True)
    frequency = torch.arange(length, dtype=torch.float64, device=sigma.device) / length
    return kernel @ torch.cos(math.pi * offset[:, None] * frequency)


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress every image at its own quality, as libjpeg does it, to within its rounding.

    Baseline JPEG with the standard tables. Colour is subsampled 4:2:0 and comes back by libjpeg's triangular
    up-sampling. The entropy coding, which loses nothing, is left out.

    Args:
        images: float [N, C, H, W] in [0, 1], C = 1 or 3 (RGB); rounded to 8 bits first.
        quality: 1 to 100, [N].

    Example:
        >>> flat = torch.full((2, 3, 9, 9), 128 / 255)
        >>> torch.equal(jpeg(flat, torch.tensor([30, 90])), flat)
        True
    """
    # 128 images, milliseconds on one core, mean difference from Pillow in grey levels (`make benchmarks`, noise,
    # the hardest image there is): 28 x 28 grey 1.6, 0.4; 32 x 32 colour 8, 0.7. kornia's differentiable codec,
    # whose rounding is soft: 22, 2.5; 23, 7.6. Pillow in a pool of threads: 27; 33.
    levels = (images * _LARGEST).round_()
    quality = quality.to(images)
    if images.shape[1] == 1:
        return _code_blocks(levels, _quantisation(_LUMA_TABLE, quality)) / _LARGEST
    height, width = images.shape[-2:]
    planes = _mix(levels, _TO_YCBCR)
    planes[:, 1:] += 128
    planes = planes.round_().clamp_(0, _LARGEST)
    luma = _code_blocks(planes[:, :1], _quantisation(_LUMA_TABLE, quality))
    chroma = _code_blocks(_halve(planes[:, 1:]), _quantisation(_CHROMA_TABLE, quality))
    chroma = chroma[..., : (height + 1) // 2, : (width + 1) // 2]
    chroma = functional.interpolate(chroma, scale_factor=2, mode="bilinear")[..., :height, :width].round_()
    rgb = _mix(torch.cat([luma, chroma - 128], dim=1), _TO_RGB)
    return rgb.round_().clamp_(0, _LARGEST) / _LARGEST


def _mix(planes: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.einsum("kc,nchw->nkhw", planes.new_tensor(matrix), planes)


def _halve(planes: Tensor) -> Tensor:
    """Return means of 2 x 2 pixels as libjpeg takes them: padded on the right to whole blocks, ties by turns."""
    height, width = planes.shape[-2:]
    padded = functional.pad(planes, (0, -width % 16, 0, height % 2), mode="replicate")
    bias = (1 + torch.arange(padded.shape[-1] // 2, device=planes.device) % 2) / 4
    return (functional.avg_pool2d(padded, 2) + bias).floor_()


def _code_blocks(planes: Tensor, table: Tensor) -> Tensor:
    """Return planes [N, C, H, W] of 0..255 after quantising the cosine transform of their 8 x 8 blocks."""
    height, width = planes.shape[-2:]
    basis = _cosine_basis(8).to(planes)
    blocks = functional.pad(planes - 128, (0, -width % 8, 0, -height % 8), mode="replicate")
    blocks = basis @ blocks.unflatten(-2, (-1, 8))
    blocks = blocks.unflatten(-1, (-1, 8)) @ basis.T  # [N, C, block, row, block, column]
    table = table[:, None, None, :, None, :]
    blocks = (blocks / table).round_() * table
    decoded = (basis.T @ (blocks @ basis).flatten(-2)).flatten(-3, -2)
    return (decoded[..., :height, :width] + 128).round_().clamp_(0, _LARGEST)


def _quantisation(table: str, quality: Tensor) -> Tensor:
    """Return libjpeg's steps [N, 8, 8] for a table at each quality."""
    standard = quality.new_tensor([float(step) for step in table.split()]).reshape(8, 8)
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    return ((standard * scale[:, None, None] + 50) / 100).floor_().clamp_(1, _LARGEST)
