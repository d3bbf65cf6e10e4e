"""FrePGAN's networks: perturbations of images through their spectrum, noise as strong, and the adversary."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from assay.forensics.spectrum import from_half_spectrum, half_spectrum
from assay.training import Session

ADAM_BETAS = (0.5, 0.99)
"""Of networks that learn against each other: little momentum, as is usual with GANs."""

_SLOPE = 0.2


class EncoderDecoder(nn.Module):
    """An image-to-image network H that gives 0 until it is trained [ours].

    The paper names an image-to-image network and no more; this one halves the resolution once and keeps a skip
    at full resolution.

    Args:
        channels: of the input and of the output.
        width: channels at full resolution; twice as many below.

    Example:
        >>> EncoderDecoder(2, width=4)(torch.rand(3, 2, 7, 5)).count_nonzero().item()
        0
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.up = nn.Conv2d(2 * width, width, 3, padding=1)
        self.head = nn.Conv2d(width, channels, 3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [N, C, H, W], of any height and width, to the same shape."""
        fine = functional.leaky_relu(self.stem(inputs), _SLOPE)
        coarse = functional.leaky_relu(self.down(fine), _SLOPE)
        coarse = functional.leaky_relu(self.up(coarse), _SLOPE)
        # The size is given, so that odd sizes need no padding.
        return self.head(fine + functional.interpolate(coarse, size=fine.shape[-2:]))


class FrequencyPerturbation(nn.Module):
    """``G(x) = Re F^-1(H(F(x)))`` with the orthonormal 2-D Fourier transform F [paper].

    H sees real and imaginary parts as 2C channels. The spectrum of an image is symmetric: H is given the half
    that ``rfft2`` keeps, and the inverse of half a spectrum is real by itself. [ours]

    Args:
        channels: of the images.
        width: of H.

    Example:
        >>> FrequencyPerturbation(3, width=4)(torch.rand(2, 3, 9, 8)).abs().max().item()
        0.0
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.network = EncoderDecoder(2 * channels, width)

    def forward(self, images: Tensor) -> Tensor:
        """Return the perturbation, float32 [N, C, H, W], of images of that shape."""
        spectrum = half_spectrum(images.float())  # there is no bfloat16 transform
        parts = self.network(torch.cat([spectrum.real, spectrum.imag], dim=1))
        real, imaginary = parts.float().chunk(2, dim=1)
        return from_half_spectrum(torch.complex(real, imaginary), (images.shape[-2], images.shape[-1]))


class PixelPerturbation(nn.Module):
    """``G(x) = H(x)``: the same network without the Fourier transform, as a control.

    Example:
        >>> PixelPerturbation(1, width=4)(torch.rand(2, 1, 9, 8)).shape
        torch.Size([2, 1, 9, 8])
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.network = EncoderDecoder(channels, width)

    def forward(self, images: Tensor) -> Tensor:
        """Return the perturbation, float32 [N, C, H, W], of images of that shape."""
        return self.network(images).float()


class Perturbed(nn.Module):
    """``A_G(x) = x + G(x)`` [paper]. Values are not clipped: the perturbation may be negative.

    Example:
        >>> images = torch.rand(2, 1, 8, 8)
        >>> torch.equal(Perturbed(FrequencyPerturbation(1, width=4))(images), images)
        True
    """

    def __init__(self, perturbation: nn.Module) -> None:
        super().__init__()
        self.perturbation = perturbation

    def forward(self, images: Tensor) -> Tensor:
        """Return images [N, C, H, W] with their perturbation added."""
        return images + self.perturbation(images)


class MatchedNoise(nn.Module):
    """Adds random spectral noise as strong as a perturbation that is measured while it is trained [ours].

    If FrePGAN owes its gain to what its perturbation looks like, and not to how much it hides, it beats this.
    Independent normal coefficients of an orthonormal spectrum are independent normal pixels, so the noise is
    drawn as pixels. Training draws it anew for every image; evaluation adds one fixed pattern, so that a score
    does not change from call to call.

    Args:
        channels: of the images.
        image_size: height and width in pixels.
        momentum: weight of the newest measurement in the running mean.

    Example:
        >>> noise = MatchedNoise(1, (8, 8), momentum=1).eval()
        >>> noise.measure(torch.full((4, 1, 8, 8), 0.1))
        >>> images = torch.rand(2, 1, 8, 8)
        >>> round((noise(images) - images).square().mean().sqrt().item(), 4)
        0.1
    """

    mean_square: Tensor
    pattern: Tensor

    def __init__(self, channels: int, image_size: tuple[int, int], momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        pattern = torch.randn(1, channels, *image_size, generator=torch.Generator().manual_seed(0))
        self.register_buffer("pattern", _unit(pattern))
        self.register_buffer("mean_square", torch.zeros(()))

    def measure(self, perturbation: Tensor) -> None:
        """Move the strength of the noise towards that of a perturbation [N, C, H, W]."""
        self.mean_square.lerp_(perturbation.detach().square().mean(), self.momentum)

    def forward(self, images: Tensor) -> Tensor:
        """Return images [N, C, H, W] with noise whose root mean square is the measured one."""
        noise = _unit(torch.randn_like(images)) if self.training else self.pattern
        return images + self.mean_square.sqrt() * noise


def _unit(noise: Tensor) -> Tensor:
    return noise / noise.square().mean().sqrt()


class Measured(nn.Module):
    """A perturbation whose every call `MatchedNoise` measures: one module, trained and kept in checkpoints as one.

    Example:
        >>> noise = MatchedNoise(1, (8, 8), momentum=1)
        >>> perturbation = Measured(nn.Identity(), noise)(torch.full((1, 1, 8, 8), 0.5))
        >>> noise.mean_square
        tensor(0.2500)
    """

    def __init__(self, perturbation: nn.Module, noise: MatchedNoise) -> None:
        super().__init__()
        self.perturbation = perturbation
        self.noise = noise

    def forward(self, images: Tensor) -> Tensor:
        """Return the perturbation [N, C, H, W] of images [N, C, H, W]."""
        perturbation = self.perturbation(images)
        self.noise.measure(perturbation)
        return perturbation


class Discriminator(nn.Module):
    """A small convolutional network that gives one logit, positive for generated images [ours].

    Spectral norms keep its gradient bounded. Without batch norms it can see real and generated images in one
    pass, and neither class changes what it says about the other.

    Args:
        channels: of the images.
        width: channels after the first of three convolutions; twice as many after each further one.

    Example:
        >>> Discriminator(1, width=4)(torch.rand(5, 1, 28, 28)).shape
        torch.Size([5])
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [channels, width, 2 * width, 4 * width]
        self.convolutions = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, after, 3, stride=2, padding=1)) for before, after in pairwise(widths)
        )
        self.head = spectral_norm(nn.Linear(widths[-1], 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N] of images [N, C, H, W]; positive means generated."""
        features = images
        for convolution in self.convolutions:
            features = functional.leaky_relu(convolution(features), _SLOPE)
        return self.head(features.mean(dim=(2, 3))).squeeze(1)


class Adversary:
    """A discriminator, its optimiser and its turns: what another network learns to pass for real with.

    Args:
        channels: of the images.
        width: of the `Discriminator`.
        learning_rate: of Adam.

    Attributes:
        network: the discriminator.

    Example:
        >>> adversary, session = Adversary(1, width=4, learning_rate=1e-3), Session()
        >>> adversary.prepare(session)
        >>> adversary.learn(session, torch.zeros(4, 1, 8, 8), torch.ones(4, 1, 8, 8))
        >>> adversary.loss(torch.ones(4, 1, 8, 8)).requires_grad
        False
    """

    def __init__(self, channels: int, width: int, learning_rate: float) -> None:
        self.network = Discriminator(channels, width)
        self._wrapped: nn.Module = self.network
        self._optimizer: Any = torch.optim.Adam(self.network.parameters(), lr=learning_rate, betas=ADAM_BETAS)

    def prepare(self, session: Session) -> None:
        """Hand the network and its optimiser to the session."""
        self._wrapped, self._optimizer = session.prepare(self.network, self._optimizer)

    def learn(self, session: Session, real: Tensor, generated: Tensor) -> None:
        """Take one step on ``BCE(D(real), 0) + BCE(D(generated), 1)``; nothing reaches the images' own graph."""
        logits = self._wrapped(torch.cat([real, generated.detach()]))
        on_real, on_generated = logits.split([len(real), len(generated)])
        session.backward(functional.softplus(on_real).mean() + functional.softplus(-on_generated).mean())
        self._optimizer.step()
        self._optimizer.zero_grad()

    def loss(self, generated: Tensor) -> Tensor:
        """Return ``BCE(D(generated), 0)``: its gradient reaches the images and not the discriminator."""
        # Weights are left out of the graph, and the spectral norms, which move in training mode, stand still.
        self.network.requires_grad_(False).eval()
        loss = functional.softplus(self.network(generated)).mean()
        self.network.requires_grad_(True).train()
        return loss
