"""BiHPF: bilateral high-pass filters, of pixels and of frequencies, in front of a detector."""

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from assay.config import Config
from assay.forensics.compression_map import compression_map_figure, fit_compression_map
from assay.forensics.filters import CentreMask, SpectralFilter, binomial_response, frequency_response
from assay.forensics.methods.base import Method
from assay.forensics.pictures import MOST_IMAGES, Row, draw_rows
from assay.forensics.spectrum import Layout, LogMagnitude, draw_frequencies, half_spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class BilateralOptions(Config):
    """Which filters stand in front of the detector. Every arm of the study is a choice of these.

    Attributes:
        pixel: ``mask`` suppresses the centre of the image, ``convolution`` what is smooth; the paper's "pixel-level
            high-pass filter" can be read as either. [ours]
        frequency: suppress the spectrum's low radii.
        output: the filtered image, or the standardised log magnitude of its spectrum.
        low_pass: replace each filter by the one that passes what it suppresses: the control.
        cutoff: radius in cycles per pixel at which the frequency filter's gain is one half.
        transition: width of its ramp in cycles per pixel; 0 is a hard mask.
        mask_cutoff: distance from the centre at which the mask is one half; 1 is the middle of a side.
        mask_transition: width of its ramp; 0 is a hard mask.

    Example:
        >>> BilateralOptions.parse({"pixel": "blur"}, where="bihpf")
        Traceback (most recent call last):
        ...
        assay.errors.UserError: bihpf.pixel = 'blur' is not valid: Input should be 'mask', 'convolution' or 'none'.
    """

    pixel: Literal["mask", "convolution", "none"] = "mask"
    frequency: bool = True
    output: Literal["image", "log-magnitude"] = "image"
    low_pass: bool = False
    cutoff: Annotated[float, Field(gt=0, lt=0.71)] = 0.25
    transition: Annotated[float, Field(ge=0, le=1)] = 0.1
    mask_cutoff: Annotated[float, Field(gt=0, lt=1.42)] = 0.5
    mask_transition: Annotated[float, Field(ge=0, le=2)] = 1.0


class BilateralFilter(nn.Module):
    """The pixel filter, then the frequency filter, then the image or its log magnitude.

    Args:
        options: which of them, and how wide.
        size: height and width of the images in pixels.

    Example:
        >>> BilateralFilter(BilateralOptions(output="log-magnitude"), (8, 6))(torch.rand(2, 3, 8, 6)).shape
        torch.Size([2, 3, 8, 6])
    """

    def __init__(self, options: BilateralOptions, size: tuple[int, int]) -> None:
        super().__init__()
        self.mask: nn.Module = nn.Identity()
        if options.pixel == "mask":
            self.mask = CentreMask(size, options.mask_cutoff, options.mask_transition, low_pass=options.low_pass)
        # A convolution is a product of spectra: with the frequency filter it becomes one response.
        response = _response(options, size, "half")
        self.spectral = None if response is None else SpectralFilter(response, size)
        self.log_magnitude = LogMagnitude(size) if options.output == "log-magnitude" else None

    def forward(self, images: Tensor) -> Tensor:
        """Return [N, C, H, W] for images [N, C, H, W]."""
        if self.log_magnitude is None:
            return self.image(images)
        # The spectrum is there already: going back to pixels would be undone at once.
        images = self.mask(images)
        spectrum = half_spectrum(images) if self.spectral is None else self.spectral.spectrum(images)
        return self.log_magnitude.of_spectrum(spectrum)

    def image(self, images: Tensor) -> Tensor:
        """Return the filtered images [N, C, H, W], whatever the network sees of them."""
        images = self.mask(images)
        return images if self.spectral is None else self.spectral(images)


def _response(options: BilateralOptions, size: tuple[int, int], layout: Layout) -> Tensor | None:
    """Return the gain of all that is done to the spectrum; None if it is left alone."""
    gains = []
    if options.pixel == "convolution":
        gains.append(binomial_response(size, low_pass=options.low_pass, layout=layout))
    if options.frequency:
        gain = frequency_response(size, options.cutoff, options.transition, low_pass=options.low_pass, layout=layout)
        gains.append(gain)
    return torch.stack(gains).prod(dim=0) if gains else None


class BilateralHighPass(Method):
    """Detection on images that a pixel-level and a frequency-level high-pass filter went over.

    Jeong, Kim, Min, Joe, Gwon and Choi 2022, "BiHPF: bilateral high-pass filters for robust deepfake
    detection" [paper]; there is no code of the authors.
    """

    name = "bihpf"
    title = "BiHPF"
    Options = BilateralOptions
    options: BilateralOptions
    transform: BilateralFilter

    def __init__(self, options: BilateralOptions, *, channels: int, image_size: tuple[int, int]) -> None:
        super().__init__(options, channels=channels, image_size=image_size)
        self.transform = BilateralFilter(options, image_size)

    def figures(self, real: Tensor, generated: Tensor | None) -> "dict[str, Figure]":
        """Return the filters, what they leave of some images, and the artifact compression map."""
        pictures = {"The filters: how much of each pixel and of each frequency reaches the detector.": self._filters()}
        if generated is not None:
            pictures["What the filters leave of real and of generated images."] = self._examples(real, generated)
            pictures[
                "Artifact compression map: how far each frequency of generated images has to be damped to pass for "
                "real, over the plane of frequencies and by radius. It cannot show what they lack."
            ] = compression_map_figure(fit_compression_map(real, generated))
        return pictures

    def _filters(self) -> "Figure":
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        pixels, plane = figure.subplots(1, 2)
        shade = {"cmap": "gray", "vmin": 0, "vmax": 1}
        ones = torch.ones(self.image_size)
        mask = self.transform.mask(ones.to(self._device()))
        picture = pixels.imshow(mask.cpu().numpy(), **shade)
        pixels.set(title="weight of pixels", xticks=[], yticks=[])
        response = _response(self.options, self.image_size, "centred")
        draw_frequencies(plane, ones if response is None else response, **shade)
        plane.set_title("gain of frequencies")
        figure.colorbar(picture, ax=[pixels, plane])
        return figure

    @torch.no_grad()
    def _examples(self, real: Tensor, generated: Tensor) -> "Figure":
        rows = []
        for title, images in (("real", real), ("generated", generated)):
            images = images[:MOST_IMAGES].to(self._device()).float() / 255
            rows += [Row(title, images.cpu()), Row("filtered", self.transform.image(images).cpu(), signed=True)]
        return draw_rows(rows)

    def _device(self) -> torch.device:
        return next((buffer.device for buffer in self.transform.buffers()), torch.device("cpu"))
