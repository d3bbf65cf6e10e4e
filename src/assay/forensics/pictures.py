"""Rows of example images, each with the mean spectrum of its row."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from assay.forensics.spectrum import Unfold, draw_frequencies, half_spectrum, log_magnitude

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_IMAGES = 256
"""As many images as a mean spectrum needs."""

_EXAMPLES = 6


@dataclass(frozen=True)
class Row:
    """Images of one kind.

    Attributes:
        title: what they are.
        images: float [N, C, H, W] on the CPU, in [0, 1] unless they are signed.
        signed: differences, shown around mid-grey and amplified.
    """

    title: str
    images: Tensor
    signed: bool = False


def draw_rows(rows: Sequence[Row]) -> "Figure":
    """Draw some images of each row and, on a scale that all rows share, the mean log magnitude of all of them.

    Example:
        >>> figure = draw_rows([Row("real", torch.rand(3, 1, 8, 8)), Row("lost", torch.rand(3, 1, 8, 8), signed=True)])
        >>> len(figure.axes)  # three images and a spectrum in each row, and a colour bar
        9
    """
    from matplotlib.figure import Figure

    spectra = [mean_spectrum(row.images) for row in rows]
    scale = {"vmin": min(map(torch.amin, spectra)).item(), "vmax": max(map(torch.amax, spectra)).item()}
    count = min(_EXAMPLES, min(len(row.images) for row in rows))
    figure = Figure(figsize=(1.2 * count + 3, 1.5 * len(rows) + 0.4), layout="constrained")
    grid = figure.subplots(len(rows), count + 1, squeeze=False, width_ratios=[1] * count + [1.4])
    for line, row, spectrum in zip(grid, rows, spectra, strict=True):
        title, pictures = _visible(row, count)
        for axes, picture in zip(line, pictures, strict=False):
            axes.imshow(picture.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(title, fontsize=8, rotation=0, ha="right", va="center")
        drawn = draw_frequencies(line[-1], spectrum, **scale)
        line[-1].set(xlabel="", ylabel="")
        line[-1].tick_params(labelsize=6)
    figure.colorbar(drawn, ax=grid[:, -1].tolist(), label="mean log magnitude; axes in cycles/pixel")
    return figure


def mean_spectrum(images: Tensor) -> Tensor:
    """Return the centred log magnitude [H, W], averaged over images [N, C, H, W] and channels.

    Example:
        >>> mean_spectrum(torch.ones(2, 1, 1, 4)).exp().round()
        tensor([[0., 0., 2., 0.]])
    """
    unfold = Unfold((images.shape[-2], images.shape[-1])).to(images.device)
    return unfold(log_magnitude(half_spectrum(images))).mean(dim=(0, 1))


def _visible(row: Row, count: int) -> tuple[str, Tensor]:
    if not row.signed:
        return row.title, row.images[:count].clamp(0, 1)
    # The few largest values may saturate.
    largest = row.images[:count].abs().flatten().kthvalue(max(1, int(0.995 * row.images[:count].numel()))).values
    gain = 0.5 / largest.clamp_min(1e-3).item()
    return f"{row.title}\n(x {gain:.0f})", (0.5 + gain * row.images[:count]).clamp(0, 1)


@torch.no_grad()
def transformed(module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return images and what a module in evaluation mode makes of them, both on the CPU.

    Example:
        >>> transformed(nn.Identity(), torch.ones(1))
        (tensor([1.]), tensor([1.]))
    """
    state = next(chain(module.parameters(), module.buffers()), images)
    training = module.training
    result = module.eval()(images.to(state.device)).cpu()
    module.train(training)
    return images.cpu(), result
