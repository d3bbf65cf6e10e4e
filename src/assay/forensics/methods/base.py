"""What every detection method shares: the training-time side of a method, and its transform."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from assay.config import Config
from assay.training import Session

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class NoOptions(Config):
    """The options of a method that has none."""


class Method:
    """What a method adds to the training of a detector: a transform, and what happens to a batch.

    A detector is ``network(transform(images))``. The network is the same for all methods, so that what differs
    between two detectors is their method alone. [ours] Subclasses set ``transform``, and override what they need.

    Args:
        options: the method's own settings, an instance of ``Options``.
        channels: of the images.
        image_size: height and width in pixels.

    Attributes:
        name: in configurations.
        title: in tables and figures.
        Options: the model of the method's own settings.
        needs_generated: a method that does not is never given a generated image, not even for calibration.
        pretraining_epochs: epochs of `pretraining_step` before the detector's own.
        transform: images float [N, C, H, W] in [0, 1] -> what the network sees, [N, C', H', W'], or features
            [N, F]; deterministic in evaluation mode and exported with the detector.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    Options: ClassVar[type[Config]] = NoOptions
    needs_generated: ClassVar[bool] = True
    pretraining_epochs: int = 0
    transform: nn.Module

    def __init__(self, options: Any, *, channels: int, image_size: tuple[int, int]) -> None:
        self.options = options
        self.channels = channels
        self.image_size = image_size

    @classmethod
    def as_stored(cls, options: Mapping[str, Any], jpeg_quality: int | None) -> dict[str, Any]:
        """Return the options for images whose last encoding was JPEG of this quality, or lossless (None)."""
        return dict(options)

    def prepare(self, session: Session) -> None:
        """Create optimisers and hand every trainable part to ``session.prepare``, always in the same order."""

    def pretraining_step(self, session: Session, real: Tensor, generated: Tensor | None) -> None:
        """Train the method's own networks on one batch, before the detector sees any."""
        raise NotImplementedError(f"{self.name} asks for pre-training and does not say how.")

    def training_batch(self, session: Session, real: Tensor, generated: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what the network is trained on, and update the method's own networks if it has any.

        Args:
            session: for the backward passes of the method's own networks.
            real: float [n, C, H, W] in [0, 1].
            generated: float [m, C, H, W], or None for a method that needs none.

        Returns:
            The network's input [n + m, ...], without a graph, and labels float [n + m]; 1 means generated.
        """
        if generated is None:
            generated = self.simulate(real)
        images, labels = labelled(real, generated)
        with torch.no_grad():
            return self.transform(images), labels

    def simulate(self, real: Tensor) -> Tensor:
        """Return generated images made from real ones, both float [n, C, H, W] in [0, 1].

        Only methods with ``needs_generated = False`` do: their detectors are trained and calibrated on these.
        """
        raise NotImplementedError(f"{self.name} needs generated images and makes none.")

    def figures(self, real: Tensor, generated: Tensor | None) -> "dict[str, Figure]":
        """Return pictures of what the trained method does, by caption, for the report.

        Args:
            real: uint8 [N, C, H, W].
            generated: uint8 [M, C, H, W], or None for a method that needs none.
        """
        return {}


def labelled(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """Return both together, and their labels: 0 for real, 1 for generated.

    Example:
        >>> labelled(torch.zeros(1, 1, 2, 2), torch.ones(2, 1, 2, 2))[1]
        tensor([0., 1., 1.])
    """
    labels = torch.zeros(len(real) + len(generated), device=real.device)
    labels[len(real) :] = 1
    return torch.cat([real, generated]), labels
