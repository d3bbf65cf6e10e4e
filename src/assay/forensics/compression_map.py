"""The artifact compression map: where in the spectrum must generated images be damped to pass for real ones?"""

from typing import TYPE_CHECKING, Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel

from assay.config import Config
from assay.errors import UserError
from assay.forensics.spectrum import (
    AzimuthalAverage,
    draw_frequencies,
    half_spectrum,
    log_magnitude,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BETAS = (0.5, 0.99)  # a short memory, as two adversaries need it


class CompressionMapConfig(Config):
    """How an artifact compression map is trained; the defaults take a few seconds on one core.

    Attributes:
        penalty: weight of the mean of ``1 - M`` against the adversarial loss.
        steps: updates of the map, and as many of the discriminator.
        batch_size: images of each class in a step.
        learning_rate: of the discriminator; the map's is 20 times that.
        width: hidden units of the discriminator.

    Example:
        >>> CompressionMapConfig(steps=100).penalty
        1.0
    """

    penalty: Annotated[float, Field(ge=0)] = 1.0
    steps: Annotated[int, Field(ge=2)] = 400
    batch_size: Annotated[int, Field(ge=2)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    width: Annotated[int, Field(ge=1)] = 64


class CompressionMap(nn.Module):
    """``M`` in [0, 1]: the share of each frequency's magnitude that is kept, the same for all channels.

    [paper]; ``M(-f) = M(f)``, so that a compressed image stays real.

    Args:
        size: height and width of the images in pixels.

    Example:
        >>> CompressionMap((8, 6)).centred().shape
        torch.Size([8, 6])
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        # It begins near 1: where the spectra do not differ, nothing moves it.
        self.logits = nn.Parameter(torch.full(size, 3.0))

    def forward(self) -> Tensor:
        """Return M as `half_spectrum` is laid out, [H, W // 2 + 1]."""
        whole = self._whole()
        return whole[:, : whole.shape[1] // 2 + 1]

    def centred(self) -> Tensor:
        """Return M with zero frequency in the middle, [H, W], without a graph."""
        return torch.fft.fftshift(self._whole()).detach()

    def radial_profile(self) -> tuple[Tensor, Tensor]:
        """Return frequencies in cycles per pixel and the azimuthal average of ``1 - M`` there, both [R]."""
        whole = self._whole().detach()
        average = AzimuthalAverage((whole.shape[0], whole.shape[1]), "unshifted").to(whole.device)
        return average.frequency, average(1 - whole)

    def _whole(self) -> Tensor:
        mirrored = self.logits.flip(0, 1).roll((1, 1), (0, 1))
        return torch.sigmoid((self.logits + mirrored) / 2)


def fit_compression_map(
    real: Tensor, generated: Tensor, config: CompressionMapConfig | None = None, *, seed: int = 0
) -> CompressionMap:
    """Train a map that hides generated images among real ones from a discriminator of their spectra.

    The map minimises ``-log D(M * F(generated)) + penalty * mean(1 - M)``, the discriminator tells
    ``M * F(generated)`` from ``F(real)`` by the logarithm of their magnitudes [paper; the discriminator's form
    is ours]. Spectra are taken once, so that a step costs little; the map that is returned is the mean of the
    second half of the training, since two adversaries circle around their equilibrium. [ours]

    Args:
        real: uint8 [N, C, H, W].
        generated: uint8 [M, C, H, W], of the same size; work is done on its device.
        config: default `CompressionMapConfig()`.
        seed: of the discriminator's weights and of the batches.

    Raises:
        UserError: the images differ in shape, or a class has none.

    Example:
        >>> images = torch.randint(0, 256, (8, 1, 6, 6), dtype=torch.uint8)
        >>> fit_compression_map(images, images, CompressionMapConfig(steps=2)).centred().shape
        torch.Size([6, 6])
    """
    if real.shape[1:] != generated.shape[1:] or not len(real) or not len(generated):
        raise UserError(
            f"A compression map needs real and generated images of one shape, and these are {list(real.shape)} "
            f"and {list(generated.shape)}: bring them to the same size and channels."
        )
    config = config or CompressionMapConfig()
    device = generated.device
    spectra = [half_spectrum(images.to(device).float() / 255) for images in (real, generated)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        discriminator = _Discriminator(spectra[0], config.width)
        batches = [torch.randint(len(spectrum), (config.steps, config.batch_size)).to(device) for spectrum in spectra]
    compression = CompressionMap((generated.shape[2], generated.shape[3])).to(device)
    mean_map = AveragedModel(compression)
    optimizer = Adam(discriminator.parameters(), lr=config.learning_rate, betas=_BETAS)
    map_optimizer = Adam(compression.parameters(), lr=20 * config.learning_rate, betas=_BETAS)
    for step in range(config.steps):
        authentic, fake = (spectrum[index[step]] for spectrum, index in zip(spectra, batches, strict=True))
        hidden = compression() * fake
        # -log D(real) - log(1 - D(M * fake)), and -log D(M * fake) for the map.
        loss = softplus(-discriminator(authentic)).mean() + softplus(discriminator(hidden.detach())).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        map_loss = softplus(-discriminator(hidden)).mean() + config.penalty * (1 - compression()).mean()
        map_optimizer.zero_grad()
        map_loss.backward()
        map_optimizer.step()
        if step >= config.steps // 2:
            mean_map.update_parameters(compression)
    return cast(CompressionMap, mean_map.module)


class _Discriminator(nn.Module):
    """A logit [N] for each half spectrum: its log magnitude, standardised as real ones are, and two layers."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, real: Tensor, width: int) -> None:
        super().__init__()
        magnitude = log_magnitude(real)
        self.register_buffer("mean", magnitude.mean(dim=0))
        # Where all real images are alike, as at a black border, a small difference is not an infinite one.
        self.register_buffer("deviation", magnitude.std(dim=0, correction=0) + 0.1)
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(self.mean.numel(), width), nn.LeakyReLU(0.2), nn.Linear(width, 1)
        )
        self.to(real.device)

    def forward(self, spectrum: Tensor) -> Tensor:
        return self.layers((log_magnitude(spectrum) - self.mean) / self.deviation).squeeze(1)


def compression_map_figure(compression: CompressionMap) -> "Figure":
    """Draw ``1 - M``, what the map takes away, over the plane of frequencies and by radius.

    Example:
        >>> [axes.get_xlabel() for axes in compression_map_figure(CompressionMap((8, 8))).axes[:2]]
        ['horizontal frequency (cycles/pixel)', 'radial frequency (cycles/pixel)']
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    plane, profile = figure.subplots(1, 2)
    removed = 1 - compression.centred().cpu()
    picture = draw_frequencies(plane, removed, cmap="magma")
    figure.colorbar(picture, ax=plane, label="1 - M")
    frequency, mean = (values.cpu() for values in compression.radial_profile())
    profile.plot(frequency, mean, marker=".", color="#3b6ea5")
    profile.set(xlabel="radial frequency (cycles/pixel)", ylabel="mean of 1 - M", ylim=(0, None))
    profile.axvline(0.5, color="#9aa5b1", linewidth=1, linestyle="--")
    profile.spines[["top", "right"]].set_visible(False)
    return figure
