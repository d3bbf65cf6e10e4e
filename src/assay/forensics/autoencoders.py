"""Networks that put an image through a generator's up-sampling, and the controls that only lose detail."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.forensics.augmentation import gaussian_blur
from assay.forensics.upsampling import Upsampling, upsample

_BISECTIONS = 20
_MARGIN = 2  # pixels on each side, at least


class Autoencoder(nn.Module):
    """An autoencoder whose decoder has ``depth`` up-convolutions, the last of which gives the image [ours].

    As in a GAN, nothing follows the last up-convolution that could smooth its traces. The bottleneck is wide:
    what matters is the trace of the up-sampling, not what the code leaves out.

    Args:
        channels: of the images.
        depth: how often the resolution is halved and doubled again.
        width: channels after the first layer; they double with each further one.
        upsampling: how the decoder doubles the resolution; None: as many layers, all with stride 1.

    Example:
        >>> Autoencoder(1, depth=3, width=4)(torch.rand(2, 1, 28, 27)).shape
        torch.Size([2, 1, 28, 27])
    """

    def __init__(self, channels: int, depth: int, width: int, upsampling: Upsampling | None = "transposed") -> None:
        super().__init__()
        self.multiple = 1 if upsampling is None else 2**depth
        # At full resolution a doubled width would quadruple the cost.
        inner = [width * 2**level if upsampling else width for level in range(depth)]
        widths = list(pairwise([channels, *inner]))
        encoder = [_down(before, after, upsampling) for before, after in widths]
        decoder = [_up(after, before, upsampling) for before, after in reversed(widths)]
        layers = [layer for block in [*encoder, *decoder] for layer in (block, nn.LeakyReLU(0.2))]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, images: Tensor) -> Tensor:
        """Return the reconstruction, float [N, C, H, W], of images in [0, 1]; values may leave that range a little.

        Inside, the border is repeated outwards to a size that the up-samplings can give, and cut off again: what
        zero padding does to the outermost pixels must not tell the classes apart.
        """
        height, width = images.shape[-2:]
        left, right = self._margins(width)
        top, bottom = self._margins(height)
        padded = functional.pad(images, (left, right, top, bottom), mode="replicate")
        return self.layers(padded)[..., top : top + height, left : left + width]

    def _margins(self, length: int) -> tuple[int, int]:
        total = 2 * _MARGIN + (-length - 2 * _MARGIN) % self.multiple
        return total // 2, total - total // 2


def _down(channels: int, out: int, upsampling: Upsampling | None) -> nn.Module:
    if upsampling is None:
        return nn.Conv2d(channels, out, 3, padding=1)
    return nn.Conv2d(channels, out, 4, stride=2, padding=1)


def _up(channels: int, out: int, upsampling: Upsampling | None) -> nn.Module:
    return nn.Conv2d(channels, out, 3, padding=1) if upsampling is None else upsample(upsampling, channels, out)


class AutoencoderBank(nn.Module):
    """Several autoencoders of the same images.

    Args:
        members: by the name that pictures give them.

    Example:
        >>> bank = AutoencoderBank({f"depth {k}": Autoencoder(1, depth=k, width=4) for k in (1, 2)})
        >>> bank(torch.rand(5, 1, 8, 8)).shape, bank.mixed(torch.rand(5, 1, 8, 8)).shape
        (torch.Size([2, 5, 1, 8, 8]), torch.Size([5, 1, 8, 8]))
    """

    def __init__(self, members: dict[str, Autoencoder]) -> None:
        super().__init__()
        self.names = list(members)
        self.members = nn.ModuleList(members.values())

    def forward(self, images: Tensor) -> Tensor:
        """Return every member's reconstruction [members, N, C, H, W] of all images [N, C, H, W]."""
        return torch.stack([member(images) for member in self.members])

    def mixed(self, images: Tensor) -> Tensor:
        """Return one reconstruction [N, C, H, W] of each image: that of member i modulo their number.

        In shuffled batches every member is as likely as any other, and all have equal shares of a batch.
        """
        result = torch.empty_like(images)
        for offset, member in enumerate(self.members):
            result[offset :: len(self.members)] = member(images[offset :: len(self.members)])
        return result


def create_bank(
    channels: int, depths: Sequence[int], upsamplings: Sequence[Upsampling | None], width: int
) -> AutoencoderBank:
    """Return an autoencoder for every depth and way of up-sampling.

    Example:
        >>> create_bank(1, [1, 2], ["nearest", None], width=4).names
        ['nearest, depth 1', 'nearest, depth 2', 'stride 1, depth 1', 'stride 1, depth 2']
    """
    return AutoencoderBank(
        {
            f"{upsampling or 'stride 1'}, depth {depth}": Autoencoder(channels, depth, width, upsampling)
            for upsampling in upsamplings
            for depth in depths
        }
    )


def reconstruction_loss(reconstruction: Tensor, images: Tensor, ssim_weight: float = 0.0) -> Tensor:
    """Return ``mean |x - x'| + ssim_weight * (1 - SSIM) / 2`` of images [N, C, H, W] in [0, 1].

    The structural similarity is kornia's, with a Gaussian window of 7 pixels.

    Example:
        >>> images = torch.rand(2, 1, 8, 8)
        >>> reconstruction_loss(images, images, ssim_weight=1).item()
        0.0
    """
    loss = functional.l1_loss(reconstruction, images)
    if ssim_weight:
        from kornia.losses import ssim_loss

        loss = loss + ssim_weight * ssim_loss(reconstruction, images, window_size=7)
    return loss


def matched_blur(images: Tensor, references: Tensor) -> Tensor:
    """Blur each image so much that it is as far from the original as its reference is, in PSNR [ours].

    A detector that tells these from the originals has learned to see blur. The Gaussians are found by bisection
    for all images at once, between a tenth of a pixel and the image's size.

    Args:
        images: float [N, C, H, W].
        references: distorted versions of them.

    Example:
        >>> images = torch.rand(2, 1, 16, 16)
        >>> noisy = images + 0.1 * torch.randn_like(images)
        >>> blurred = matched_blur(images, noisy)
        >>> torch.allclose(squared_error(images, blurred), squared_error(images, noisy), rtol=1e-3)
        True
    """
    target = squared_error(images, references)
    low = torch.full_like(target, math.log(0.1))
    high = torch.full_like(target, math.log(max(images.shape[-2:])))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        too_little = squared_error(images, gaussian_blur(images, middle.exp())) < target
        low, high = torch.where(too_little, middle, low), torch.where(too_little, high, middle)
    return gaussian_blur(images, low.exp())


def squared_error(images: Tensor, others: Tensor) -> Tensor:
    """Return the mean squared error of each image, [N]; its PSNR is ``-10 log10`` of that.

    Example:
        >>> squared_error(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
        tensor([1.])
    """
    return (images - others).square().mean(dim=(1, 2, 3))


def to_eight_bits(images: Tensor) -> Tensor:
    """Round images in [0, 1] to the 256 values that a stored image can have.

    Example:
        >>> to_eight_bits(torch.tensor([-0.2, 0.5, 1.2])) * 255
        tensor([  0., 128., 255.])
    """
    return (images.clamp(0, 1) * 255).round() / 255
