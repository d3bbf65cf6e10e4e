"""The simple detectors that a published method has to beat."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from assay.config import Config
from assay.forensics.augmentation import BlurAndJPEG
from assay.forensics.methods.base import Method, labelled
from assay.forensics.spectrum import AzimuthalAverage, LogMagnitude, half_spectrum, log_magnitude
from assay.training import Session

_LUMA = (0.299, 0.587, 0.114)


class RGB(Method):
    """The image as it is."""

    name = "rgb"
    title = "RGB"

    def __init__(self, options: Config, *, channels: int, image_size: tuple[int, int]) -> None:
        super().__init__(options, channels=channels, image_size=image_size)
        self.transform = nn.Identity()


class AugmentationOptions(Config):
    """How often, and how much, training images are blurred and compressed.

    Attributes:
        probability: of each of the two for an image; CNNDetection publishes 0.1 and 0.5.
        largest_sigma: of the Gaussian blur, in pixels; drawn uniformly from 0 on.
        lowest_quality: of JPEG; drawn uniformly up to 100.

    Example:
        >>> AugmentationOptions.parse({"probability": 0.1}, where="augmentation").largest_sigma
        3.0
    """

    probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    largest_sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3.0
    lowest_quality: Annotated[int, Field(ge=1, le=100)] = 30


class AugmentedRGB(RGB):
    """The image as it is, trained on blurred and compressed copies of both classes.

    Wang, Wang, Zhang, Owens and Efros 2020, "CNN-generated images are surprisingly easy to spot" [paper].
    """

    name = "rgb-augmented"
    title = "RGB + blur/JPEG"
    Options = AugmentationOptions

    def __init__(self, options: AugmentationOptions, *, channels: int, image_size: tuple[int, int]) -> None:
        super().__init__(options, channels=channels, image_size=image_size)
        self.augment = BlurAndJPEG(
            options.probability, sigma=(0.0, options.largest_sigma), quality=(options.lowest_quality, 100)
        )

    def training_batch(self, session: Session, real: Tensor, generated: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both classes, each image with its own draw of the augmentation, and their labels."""
        if generated is None:
            generated = self.simulate(real)
        images, labels = labelled(real, generated)
        return self.augment(images), labels


class LogSpectrum(Method):
    """The centred log magnitude of the spectrum, standardised image by image."""

    name = "log-fft"
    title = "Log-FFT"

    def __init__(self, options: Config, *, channels: int, image_size: tuple[int, int]) -> None:
        super().__init__(options, channels=channels, image_size=image_size)
        self.transform = LogMagnitude(image_size)


class RadialProfile(nn.Module):
    """The azimuthal average of the log magnitude of the grey image, relative to zero frequency.

    Args:
        channels: 1, or 3 for RGB, of which the luma is taken.
        size: height and width of the images in pixels.

    Example:
        >>> RadialProfile(3, (28, 28))(torch.rand(2, 3, 28, 28)).shape
        torch.Size([2, 19])
    """

    luma: Tensor

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.average = AzimuthalAverage(size)
        weights = torch.tensor(_LUMA) if channels == len(_LUMA) else torch.full((channels,), 1 / channels)
        self.register_buffer("luma", weights.reshape(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return profiles [N, R - 1] of images [N, C, H, W]."""
        grey = (images * self.luma).sum(dim=1)
        profile = self.average(log_magnitude(half_spectrum(grey)))
        # A difference of logarithms is the ratio of magnitudes; the first would always be 0.
        return profile[:, 1:] - profile[:, :1]


class RadialSpectrum(Method):
    """The radial profile of the spectrum, in front of a logistic regression.

    Durall, Keuper and Keuper 2020, "Watch your up-convolution" (authors' code), whose profiles are divided by
    their first value; here the *magnitudes* are, since a logarithm near 0 is nothing to divide by. [ours]
    """

    name = "radial"
    title = "Radial spectrum"

    def __init__(self, options: Config, *, channels: int, image_size: tuple[int, int]) -> None:
        super().__init__(options, channels=channels, image_size=image_size)
        self.transform = RadialProfile(channels, image_size)


class NeighbouringPixels(nn.Module):
    """What each pixel differs by from the upper left one of its 2 x 2 block.

    [paper]; in the last row or column of an odd size a block is cut off, and its upper left pixel still counts. [ours]

    Example:
        >>> NeighbouringPixels()(torch.tensor([[[[1.0, 2.0, 4.0], [3.0, 5.0, 9.0]]]]))[0, 0]
        tensor([[0., 1., 0.], [2., 4., 5.]])
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return ``x - nearest_up(nearest_down(x, 1/2))`` [N, C, H, W]."""
        return images - functional.interpolate(images[..., ::2, ::2], size=images.shape[-2:], mode="nearest")


class NPR(Method):
    """Neighbouring pixel relationships, in which an up-sampling layer leaves its trace.

    Tan, Zhao, Wei, Gu, Liu and Wei 2024, "Rethinking the up-sampling operations in CNN-based generative
    network for generalizable deepfake detection" [paper].
    """

    name = "npr"
    title = "NPR"

    def __init__(self, options: Config, *, channels: int, image_size: tuple[int, int]) -> None:
        super().__init__(options, channels=channels, image_size=image_size)
        self.transform = NeighbouringPixels()
