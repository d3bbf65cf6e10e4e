"""The networks of the generators: small, and alike in all but the way they double their resolution."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from assay.forensics.upsampling import Upsampling, upsample

REDUCTION = 8
"""Height and width of what a network sees are multiples of this: three halvings, or three doublings."""

Doublings = tuple[Upsampling, Upsampling, Upsampling]
"""How a generator gets back to the full resolution, coarse to fine."""

_OVERSHOOT = 1.1
"""tanh alone never reaches the black of a real image, and "no pixel is quite black" would give it away."""


class Decoder(nn.Module):
    """From latent variables to images, after DCGAN (Radford et al. 2016): three doublings, batch norm, ReLU.

    Args:
        doublings: kinds of up-sampling, coarse to fine.
        channels: of the images.
        size: height and width in pixels, multiples of `REDUCTION`.
        width: channels before the last doubling.
        latent_size: numbers that an image is made from.

    Example:
        >>> Decoder(("nearest",) * 3, 1, (32, 32), width=2, latent_size=4)(torch.zeros(5, 4)).shape
        torch.Size([5, 1, 32, 32])
    """

    def __init__(
        self, doublings: Doublings, channels: int, size: tuple[int, int], *, width: int, latent_size: int
    ) -> None:
        super().__init__()
        first, second, last = doublings
        self.project = nn.Sequential(
            nn.Linear(latent_size, 4 * width * size[0] // REDUCTION * size[1] // REDUCTION),
            nn.Unflatten(1, (4 * width, size[0] // REDUCTION, size[1] // REDUCTION)),
            _normalised(4 * width),
        )
        self.upsample = nn.Sequential(
            upsample(first, 4 * width, 2 * width),
            _normalised(2 * width),
            upsample(second, 2 * width, width),
            _normalised(width),
            upsample(last, width, channels),
        )
        initialise(self)

    def forward(self, latent: Tensor) -> Tensor:
        """Return images float [N, C, H, W], a little beyond [-1, 1], from latent variables [N, Z]."""
        return _OVERSHOOT * torch.tanh(self.upsample(self.project(latent)))


class Encoder(nn.Module):
    """From images to ``outputs`` numbers each: a discriminator's logit, or the parameters of a posterior.

    Without batch normalisation, whose statistics would tie the real images of a batch to the generated ones.

    Args:
        channels: of the images.
        size: height and width in pixels, multiples of `REDUCTION`.
        width: channels after the first of three halvings.
        outputs: numbers for each image.
        spectral_norm: bound the Lipschitz constant of every layer (Miyato et al. 2018).

    Example:
        >>> Encoder(1, (32, 32), width=2, outputs=3)(torch.zeros(5, 1, 32, 32)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self, channels: int, size: tuple[int, int], *, width: int, outputs: int, spectral_norm: bool = False
    ) -> None:
        super().__init__()
        depths = [channels, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for inputs, depth in pairwise(depths):
            layers += [nn.Conv2d(inputs, depth, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        features = depths[-1] * size[0] // REDUCTION * size[1] // REDUCTION
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, outputs))
        initialise(self)
        if spectral_norm:
            for layer in self.layers:
                if hasattr(layer, "weight"):
                    nn.utils.parametrizations.spectral_norm(layer)

    def forward(self, images: Tensor) -> Tensor:
        """Return [N, outputs] of images float [N, C, H, W] in [-1, 1]."""
        return self.layers(images)


class VariationalAutoencoder(nn.Module):
    """An encoder of mean and log variance, and the decoder that becomes the generator (Kingma, Welling 2014)."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction [N, C, H, W], and the posterior's mean and log variance [N, Z]."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        latent = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decoder(latent), mean, log_variance


class Translator(nn.Module):
    """An autoencoder with skips at a half and a quarter of the resolution, none at the full one.

    Every pixel that it puts out has therefore gone through the last up-sampling, as in the translators whose
    images CNNDetection collects (CycleGAN and its like: transposed convolutions of kernel 3, stride 2). [ours]

    Args:
        doublings: kinds of up-sampling, coarse to fine.
        channels: of the images.
        width: channels at half the resolution.

    Example:
        >>> Translator(("transposed-3",) * 3, 1, width=2)(torch.zeros(5, 1, 32, 32)).shape
        torch.Size([5, 1, 32, 32])
    """

    def __init__(self, doublings: Doublings, channels: int, *, width: int) -> None:
        super().__init__()
        first, second, last = doublings
        self.down_to_half = _halving(channels, width)
        self.down_to_quarter = _halving(width, 2 * width)
        self.down_to_eighth = _halving(2 * width, 4 * width)
        self.up_to_quarter = nn.Sequential(upsample(first, 4 * width, 2 * width), _normalised(2 * width))
        self.up_to_half = nn.Sequential(upsample(second, 4 * width, width), _normalised(width))
        self.up_to_full = upsample(last, 2 * width, channels)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return images like ``images``, float [N, C, H, W], a little beyond [-1, 1]."""
        half = self.down_to_half(images)
        quarter = self.down_to_quarter(half)
        up = self.up_to_quarter(self.down_to_eighth(quarter))
        up = self.up_to_half(torch.cat([up, quarter], dim=1))
        return _OVERSHOOT * torch.tanh(self.up_to_full(torch.cat([up, half], dim=1)))


def initialise(network: nn.Module) -> None:
    """Draw the weights of convolutions from N(0, 0.02²), as DCGAN does, and lay them out channels last."""
    # Resized maps are convolved twice as quickly so on a CPU.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # every convolution here has one


def _normalised(channels: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())


def _halving(inputs: int, outputs: int) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))
