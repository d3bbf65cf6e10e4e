"""How good a generator is: collapse, copies of training images, and spectra against real images."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from assay.errors import UserError
from assay.forensics.pictures import mean_spectrum
from assay.forensics.spectrum import AzimuthalAverage, draw_frequencies

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COMPARED = 1000
"""Images of each kind that distances are taken between."""

_COPY = 1 / 3


def measure_quality(generated: Tensor, real: Tensor) -> dict[str, float]:
    """Compare generated images with the real ones that the generator learned from.

    Distances are Euclidean, between pixels.

    Args:
        generated: uint8 [M, C, H, W], at least two; the first 1000 count.
        real: uint8 [N, C, H, W], at least three.

    Returns:
        ``diversity``: mean distance between two generated images, over that between two real ones. [ours]
        ``spacing``: median distance from a generated image to the next generated one, over that among as many
        real ones; small when all samples come from a few modes. [ours]
        ``distance_to_real``: median distance from a generated image to the nearest real one, over that from a
        real image to the nearest other one. [ours]
        ``memorised_share``: generated images whose nearest real image is less than a third as far away as the
        second nearest (Yoon et al. 2023).
        ``spectrum_error``: mean absolute difference of the radial profiles of the log magnitude, in nats. [ours]

    Example:
        >>> real = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8)
        >>> measure_quality(real[:16], real)["memorised_share"], measure_quality(real[[0, 0]], real)["diversity"]
        (1.0, 0.0)
    """
    sample, reference = _flat(generated[:_COMPARED]), _flat(real)
    few = min(len(sample), len(reference))  # neighbours are nearer among more images
    among_generated = _nearest(sample[:few], sample[:few], others=True)
    among_real = _nearest(reference[:few], reference[:few], others=True)
    to_real = _nearest(sample, reference)
    between_real = _nearest(reference[:few], reference, others=True)
    profiles = [radial_profile(images[:_COMPARED])[1] for images in (generated, real)]
    return {
        "diversity": _ratio(_mean_distance(sample), _mean_distance(reference[:_COMPARED])),
        "spacing": _ratio(among_generated[:, 0].median(), among_real[:, 0].median()),
        "distance_to_real": _ratio(to_real[:, 0].median(), between_real[:, 0].median()),
        "memorised_share": (to_real[:, 0] < _COPY * to_real[:, 1]).double().mean().item(),
        "spectrum_error": (profiles[0] - profiles[1]).abs().mean().item(),
    }


def refuse_collapse(name: str, quality: Mapping[str, float], minimum: float) -> None:
    """Raise an error if the generator puts out one image, or a few.

    Args:
        name: of the generator.
        quality: from `measure_quality`.
        minimum: of ``diversity`` and of ``spacing``.

    Raises:
        UserError: the generator collapsed.
    """
    for key in ("diversity", "spacing"):
        if quality[key] < minimum:
            raise UserError(
                f"The generator {name!r} collapsed: the {key} of its images is {quality[key]:.2f} of that of real "
                f"ones, and at least {minimum} is wanted; train it longer, lower learning_rate, or change the seed."
            )


def radial_profile(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return frequencies in cycles per pixel [R], and the mean log magnitude of uint8 images there [R]."""
    average = AzimuthalAverage((images.shape[2], images.shape[3]), "centred")
    return average.frequency, average(mean_spectrum(images.float() / 255))


def nearest_real(generated: Tensor, real: Tensor) -> Tensor:
    """Return the real image nearest to each generated one, uint8 [M, C, H, W].

    Example:
        >>> real = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1)
        >>> nearest_real(real[2:3], real).item()
        2
    """
    return real[torch.cdist(_flat(generated), _flat(real)).argmin(dim=1)]


def image_grid(images: Tensor, columns: int) -> Tensor:
    """Return the images side by side as one, uint8 [rows * H, columns * W, C]; what fills no row is left out.

    Example:
        >>> image_grid(torch.zeros(7, 1, 4, 5, dtype=torch.uint8), columns=3).shape
        torch.Size([8, 15, 1])
    """
    count, channels, height, width = images.shape
    rows = count // columns
    grid = images[: rows * columns].reshape(rows, columns, channels, height, width)
    return grid.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)


def draw_spectra(generated: Tensor, real: Tensor) -> "Figure":
    """Draw the mean spectra of generated and real images, their difference, and the radial profiles.

    Example:
        >>> images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
        >>> len(draw_spectra(images, images).axes)  # four panels and two colour bars
        6
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3), layout="constrained")
    panels = figure.subplots(1, 4)
    spectra = [mean_spectrum(images.float() / 255) for images in (generated, real)]
    scale = {"vmin": min(map(torch.amin, spectra)).item(), "vmax": max(map(torch.amax, spectra)).item()}
    for axes, spectrum, title in zip(panels, spectra, ("generated", "real"), strict=False):
        drawn = draw_frequencies(axes, spectrum, **scale)
        axes.set_title(title)
    figure.colorbar(drawn, ax=panels[1], label="log magnitude")
    difference = spectra[0] - spectra[1]
    largest = max(difference.abs().max().item(), 1e-6)
    drawn = draw_frequencies(panels[2], difference, cmap="RdBu_r", vmin=-largest, vmax=largest)
    panels[2].set_title("generated - real")
    figure.colorbar(drawn, ax=panels[2])
    for images, title in ((generated, "generated"), (real, "real")):
        frequency, profile = radial_profile(images)
        panels[3].plot(frequency.numpy(), profile.numpy(), label=title)
    panels[3].set(title="radial profile", xlabel="cycles/pixel", ylabel="log magnitude")
    panels[3].legend()
    return figure


def _flat(images: Tensor) -> Tensor:
    return images.cpu().flatten(1).float() / 255


def _nearest(images: Tensor, among: Tensor, *, others: bool = False) -> Tensor:
    """Return the two smallest distances of each image to ``among``, ascending, [N, 2].

    With ``others``, ``among`` begins with the same images, and none is its own neighbour.
    """
    distances = torch.cdist(images, among)
    if others:
        distances.fill_diagonal_(torch.inf)
    return distances.topk(2, dim=1, largest=False).values


def _mean_distance(images: Tensor) -> Tensor:
    """Return the mean distance between two different images, 0 where there is one only."""
    return torch.cdist(images, images).sum() / max(1, len(images) * (len(images) - 1))


def _ratio(value: Tensor, of: Tensor) -> float:
    """Return the ratio, 1 where both are 0: constant real images are imitated by constant ones."""
    return 1.0 if value == of else (value / of.clamp_min(1e-6)).item()
