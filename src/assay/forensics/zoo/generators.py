"""The generators G1 to G8: what they are, and the trained generator that makes images."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn import functional

from assay.errors import UserError
from assay.files import atomic_folder, write_json
from assay.forensics.zoo.networks import REDUCTION, Decoder, Doublings, Translator

_CONFIG_FILE = "config.json"
_WEIGHTS_FILE = "model.safetensors"
_BATCH = 256

NOISE = 0.2
"""Standard deviation, on the scale [-1, 1], of the noise that a translator removes from its source."""


@dataclass(frozen=True)
class GeneratorSpec:
    """What sets one generator apart from the others; everything else is equal.

    Attributes:
        label: number in the protocol.
        title: in tables and figures.
        doublings: kinds of up-sampling, coarse to fine.
        family: how it is trained.
        loss: of a GAN.
        spectral_norm: whether a GAN's discriminator is bounded by it; otherwise by a gradient penalty.
    """

    label: str
    title: str
    doublings: Doublings
    family: Literal["gan", "vae", "translator"] = "gan"
    loss: Literal["non-saturating", "hinge"] = "non-saturating"
    spectral_norm: bool = False


_TRANSPOSED: Doublings = ("transposed", "transposed", "transposed")
_NEAREST: Doublings = ("nearest", "nearest", "nearest")

GENERATORS: Mapping[str, GeneratorSpec] = MappingProxyType(
    {
        "dcgan": GeneratorSpec("G1", "DCGAN, transposed convolution", _TRANSPOSED),
        "nearest": GeneratorSpec("G2", "GAN, nearest neighbour", _NEAREST),
        "bilinear": GeneratorSpec("G3", "GAN, bilinear", ("bilinear", "bilinear", "bilinear")),
        "pixel-shuffle": GeneratorSpec("G4", "GAN, pixel shuffle", ("pixel-shuffle", "pixel-shuffle", "pixel-shuffle")),
        "spectral-hinge": GeneratorSpec(
            "G5", "GAN, spectral normalisation and hinge loss", _TRANSPOSED, loss="hinge", spectral_norm=True
        ),
        "vae": GeneratorSpec("G6", "Variational autoencoder, nearest neighbour", _NEAREST, family="vae"),
        "translator": GeneratorSpec(
            "G7",
            "Image translator, transposed convolution of kernel 3",
            ("transposed-3", "transposed-3", "transposed-3"),
            family="translator",
        ),
        "anti-artefact": GeneratorSpec(
            "G8", "DCGAN, last up-sampling bilinear", ("transposed", "transposed", "bilinear")
        ),
    }
)
"""The generators of the protocol by name."""


def find_spec(name: str) -> GeneratorSpec:
    """Return what ``name`` stands for.

    Raises:
        UserError: there is no such generator.
    """
    if name not in GENERATORS:
        raise UserError(f"{name!r} is not a generator: the generators are {', '.join(GENERATORS)}.")
    return GENERATORS[name]


@dataclass(frozen=True)
class Shape:
    """What a generator's network is built from: channels and (height, width) of its images, and its own sizes."""

    channels: int
    image_size: tuple[int, int]
    width: int
    latent_size: int


class ZooGenerator(nn.Module):
    """A generator: images of the training images' size from latent variables or, for a translator, from images.

    Inside, images are padded to multiples of 8 pixels, and samples are cropped back, so that no border tells
    generated images from real ones.

    Args:
        name: a key of `GENERATORS`.
        shape: the sizes.

    Example:
        >>> generator = ZooGenerator("nearest", Shape(channels=1, image_size=(28, 28), width=2, latent_size=4))
        >>> generator.sample(3, seed=0).shape
        torch.Size([3, 1, 28, 28])
    """

    def __init__(self, name: str, shape: Shape) -> None:
        super().__init__()
        self.name = name
        self.shape = shape
        self.spec = find_spec(name)
        if self.spec.family == "translator":
            self.network: nn.Module = Translator(self.spec.doublings, shape.channels, width=shape.width)
        else:
            self.network = Decoder(
                self.spec.doublings,
                shape.channels,
                self.padded_size,
                width=shape.width,
                latent_size=shape.latent_size,
            )

    @property
    def padded_size(self) -> tuple[int, int]:
        """Height and width in pixels of what the network sees."""
        height, width = (-(-side // REDUCTION) * REDUCTION for side in self.shape.image_size)
        return height, width

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def encode(self, images: Tensor) -> Tensor:
        """Return uint8 images [N, C, H, W] as the network sees them: float, padded, in [-1, 1]."""
        top, left = self._margins()
        height, width = self.shape.image_size
        bottom, right = self.padded_size[0] - height - top, self.padded_size[1] - width - left
        return functional.pad(images.float() / 127.5 - 1, (left, right, top, bottom), mode="replicate")

    def decode(self, outputs: Tensor) -> Tensor:
        """Return what the network put out as images: cropped, rounded, uint8 [N, C, H, W]."""
        top, left = self._margins()
        height, width = self.shape.image_size
        cropped = outputs[..., top : top + height, left : left + width]
        return ((cropped.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    @torch.no_grad()
    def sample(self, count: int, *, seed: int, sources: Tensor | None = None) -> Tensor:
        """Return generated images uint8 [count, C, H, W] on the CPU; the same for the same seed.

        Args:
            count: how many.
            seed: of the latent variables, or of the noise that a translator removes.
            sources: uint8 [count, C, H, W], what a translator translates; the others do not look at it.

        Raises:
            UserError: a translator has no sources, or another number of them.
        """
        translates = self.spec.family == "translator"
        if translates and (sources is None or len(sources) != count):
            found = "none" if sources is None else str(len(sources))
            raise UserError(f"{self.name} translates images: give it {count} source images, not {found}.")
        # Drawn on the CPU, so that the device does not change the images.
        random = torch.Generator().manual_seed(seed)
        training = self.training
        self.eval()
        made = [torch.empty(0, self.shape.channels, *self.shape.image_size, dtype=torch.uint8)]
        for start in range(0, count, _BATCH):
            size = min(_BATCH, count - start)
            if translates and sources is not None:
                clean = self.encode(sources[start : start + size].cpu())
                inputs = clean + NOISE * torch.randn(clean.shape, generator=random)
            else:
                inputs = torch.randn(size, self.shape.latent_size, generator=random)
            made.append(self.decode(self.network(inputs.to(self.device))).cpu())
        self.train(training)
        return torch.cat(made)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``config.json``."""
        with atomic_folder(folder) as target:
            save_model(self, str(target / _WEIGHTS_FILE))
            write_json(target / _CONFIG_FILE, {"name": self.name, **asdict(self.shape)})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read what `save_pretrained` wrote; the generator is in evaluation mode.

        Raises:
            UserError: the folder holds no generator.
        """
        try:
            description = json.loads((Path(folder) / _CONFIG_FILE).read_text())
            description["image_size"] = tuple(description["image_size"])
            generator = cls(description.pop("name"), Shape(**description))
            load_model(generator, Path(folder) / _WEIGHTS_FILE)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            reason = (str(error).strip().splitlines() or [repr(error)])[0]
            raise UserError(
                f"{folder} is not a generator ({reason}): train one with the generator training."
            ) from error
        return generator.eval()

    def _margins(self) -> tuple[int, int]:
        """Return the rows above and the columns left of the image."""
        top, left = ((padded - side) // 2 for padded, side in zip(self.padded_size, self.shape.image_size, strict=True))
        return top, left
