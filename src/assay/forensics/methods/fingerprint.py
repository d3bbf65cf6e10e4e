"""Artificial fingerprints: a detector that learns from real images and their own reconstructions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from assay.config import Config
from assay.errors import AssayError
from assay.forensics.augmentation import jpeg
from assay.forensics.autoencoders import (
    AutoencoderBank,
    create_bank,
    matched_blur,
    reconstruction_loss,
    squared_error,
    to_eight_bits,
)
from assay.forensics.methods.base import Method
from assay.forensics.perturbation import ADAM_BETAS, Adversary
from assay.forensics.pictures import MOST_IMAGES, Row, draw_rows
from assay.forensics.spectrum import LogMagnitude
from assay.forensics.upsampling import Upsampling
from assay.training import Session

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Depth = Annotated[int, Field(ge=1, le=5)]

_ADVERSARIAL_WEIGHT = 0.1


class FingerprintOptions(Config):
    """Artificial fingerprints, and the controls that they are compared with.

    Attributes:
        depths: numbers of up-convolutions, one autoencoder for each; together they are the union.
        kinds: ways of up-sampling, one autoencoder for each depth and kind. One that a test generator uses as
            well is a leak, and results must say so.
        input: what the network sees: the standardised log magnitude of the spectrum, or pixels.
        simulator: ``autoencoder`` is the method. ``stride-1`` has as many layers and no up-sampling; ``blur``
            loses as much detail as the autoencoders do, measured in PSNR image by image; ``autogan`` is one
            autoencoder, of the largest depth and the first kind, that learns to pass for real as well.
        ssim_weight: of the structural similarity in the autoencoders' loss, beside the L1 norm.
        learning_rate: of Adam for the autoencoders.
        width: channels of an autoencoder's first layer.
        pretraining_epochs: of the autoencoders, before the detector's own.
        jpeg_quality: of the last encoding of the images, if that is JPEG; simulations then get the same, or "was
            encoded last" would mean real.

    Example:
        >>> FingerprintOptions.parse({"depths": [2.0]}, where="options of fingerprint").depths
        (2,)
    """

    depths: Annotated[tuple[Depth, ...], Field(min_length=1)] = (1, 2, 3)
    kinds: Annotated[tuple[Upsampling, ...], Field(min_length=1)] = ("transposed",)
    input: Literal["spectrum", "pixel"] = "spectrum"
    simulator: Literal["autoencoder", "stride-1", "blur", "autogan"] = "autoencoder"
    ssim_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3e-3
    width: Annotated[int, Field(ge=1)] = 16
    pretraining_epochs: Annotated[int, Field(ge=1)] = 6
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] | None = None


class Fingerprint(Method):
    """Real images against auto-encoded real images [Jeong et al., arXiv 2111.06575; FingerprintNet, ECCV 2022].

    Autoencoders leave the traces of their up-sampling, as generators do. Every batch holds real images and
    their own reconstructions, so that nothing but these traces tells the classes apart. No generated image
    is read: not in training, and not in calibration. Giving one is an error.

    Example:
        >>> method = Fingerprint(FingerprintOptions(width=4), channels=1, image_size=(28, 28))
        >>> method.simulate(torch.rand(6, 1, 28, 28)).shape
        torch.Size([6, 1, 28, 28])
    """

    name: ClassVar[str] = "fingerprint"
    title: ClassVar[str] = "Artificial fingerprints"
    Options: ClassVar[type[Config]] = FingerprintOptions
    needs_generated: ClassVar[bool] = False
    options: FingerprintOptions

    def __init__(self, options: FingerprintOptions, *, channels: int, image_size: tuple[int, int]) -> None:
        super().__init__(options, channels=channels, image_size=image_size)
        self.pretraining_epochs = options.pretraining_epochs
        self.bank = _create_simulators(options, channels)
        self.adversary = (
            Adversary(channels, options.width, options.learning_rate) if options.simulator == "autogan" else None
        )
        self.transform = LogMagnitude(image_size) if options.input == "spectrum" else nn.Identity()

    @classmethod
    def as_stored(cls, options: Mapping[str, Any], jpeg_quality: int | None) -> dict[str, Any]:
        """Encode the simulations as the images are, unless the options say otherwise."""
        return dict(options) if jpeg_quality is None else {"jpeg_quality": jpeg_quality, **options}

    def prepare(self, session: Session) -> None:
        """Hand the autoencoders, their optimiser and the adversary, if there is one, to the session."""
        self.transform.to(session.device)
        betas = (0.9, 0.999) if self.adversary is None else ADAM_BETAS
        optimizer = torch.optim.Adam(self.bank.parameters(), lr=self.options.learning_rate, betas=betas)
        self._reconstruct, self._optimizer = session.prepare(self.bank, optimizer)
        if self.adversary is not None:
            self.adversary.prepare(session)

    def pretraining_step(self, session: Session, real: Tensor, generated: Tensor | None) -> None:
        """Let every autoencoder learn to reconstruct the real images."""
        _refuse(generated)
        reconstructions = self._reconstruct(real)
        losses = [reconstruction_loss(one, real, self.options.ssim_weight) for one in reconstructions]
        loss = torch.stack(losses).sum()  # each gradient is its own autoencoder's
        if self.adversary is not None:
            (shown,) = reconstructions
            self.adversary.learn(session, real, shown)
            loss = loss + _ADVERSARIAL_WEIGHT * self.adversary.loss(shown)
        session.backward(loss)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def training_batch(self, session: Session, real: Tensor, generated: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the transformed real images and their own transformed simulations, rounded alike."""
        _refuse(generated)
        return super().training_batch(session, to_eight_bits(real), None)

    @torch.no_grad()
    def simulate(self, real: Tensor) -> Tensor:
        """Return what the simulators make of real images [n, C, H, W], each taking its share, rounded to 8 bits."""
        return self._finish(self.bank.mixed(real), real)

    def _finish(self, reconstruction: Tensor, real: Tensor) -> Tensor:
        simulated = to_eight_bits(reconstruction)
        if self.options.simulator == "blur":
            simulated = to_eight_bits(matched_blur(real, simulated))
        if self.options.jpeg_quality is not None:
            simulated = jpeg(simulated, torch.full((len(simulated),), self.options.jpeg_quality))
        return simulated

    @torch.no_grad()
    def figures(self, real: Tensor, generated: Tensor | None) -> "dict[str, Figure]":
        """Return real images, what each simulator makes of them, what it changed, and the spectra of all."""
        device = next(self.bank.parameters()).device
        images = real[:MOST_IMAGES].to(device).float() / 255
        rows = [Row("real", images.cpu())]
        for name, reconstruction in zip(self.bank.names, self.bank(images), strict=True):
            simulated = self._finish(reconstruction, images)
            # Without a floor one image that came back exactly would make the mean infinite.
            decibels = -10 * squared_error(images, simulated).clamp_min(1e-8).log10().mean().item()
            rows.append(Row(f"{name}\nPSNR {decibels:.1f} dB", simulated.cpu()))
            rows.append(Row("difference", (simulated - images).cpu(), signed=True))
        return {"Real images and the artificial fingerprints that the simulators leave on them.": draw_rows(rows)}


def _create_simulators(options: FingerprintOptions, channels: int) -> AutoencoderBank:
    if options.simulator == "stride-1":
        return create_bank(channels, options.depths, [None], options.width)
    if options.simulator == "autogan":
        return create_bank(channels, [max(options.depths)], options.kinds[:1], options.width)
    return create_bank(channels, options.depths, options.kinds, options.width)


def _refuse(generated: Tensor | None) -> None:
    if generated is not None:
        raise AssayError("The fingerprint method was given generated images and must never read one: give it None.")
