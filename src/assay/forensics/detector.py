"""The detector: plain images in, calibrated probability of being generated out, whatever the method."""

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from assay.data.cnndetection import DETECTION_CLASSES
from assay.errors import UserError
from assay.files import atomic_folder, refuse_pickles, write_json
from assay.forensics.config import DetectorConfig
from assay.forensics.decision import Decision
from assay.models.backbones import create_backbone, feature_size

CLASS_NAMES = list(DETECTION_CLASSES)
KIND = "generated-image-detector"
_CONFIG_FILE = "config.json"
_WEIGHTS_FILE = "model.safetensors"


class Detector(nn.Module):
    """Transform, network and calibration in one module: ``sigmoid(slope * network(transform(x)) + offset)``.

    Args:
        config: the method and its options.
        channels: of the images.
        image_size: height and width of the images in pixels.
        transform: the method's own, when it is being trained; default: an untrained one.

    Attributes:
        decision: from probabilities to real, generated or unsure; None before calibration.

    Example:
        >>> detector = Detector(DetectorConfig(method="rgb"), channels=1, image_size=(28, 28)).eval()
        >>> detector(torch.zeros(3, 1, 28, 28, dtype=torch.uint8)).shape
        torch.Size([3, 2])
    """

    slope: Tensor
    offset: Tensor

    def __init__(
        self,
        config: DetectorConfig,
        channels: int,
        image_size: tuple[int, int],
        transform: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.channels = channels
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.transform = transform or create_method(config, channels, self.image_size).transform
        with torch.no_grad():
            seen = self.transform.eval()(torch.zeros(1, channels, *self.image_size))
        self.network = _linear(seen.shape[1]) if seen.ndim == 2 else _Network(config.backbone, seen.shape)
        self.register_buffer("slope", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))
        self.decision: Decision | None = None

    @property
    def class_names(self) -> list[str]:
        """One name for each column of the probabilities."""
        return list(CLASS_NAMES)

    @property
    def metadata(self) -> dict[str, Any]:
        """What must travel with the exported model: the method and the decision."""
        decision = {} if self.decision is None else {"decision": self.decision.as_dict()}
        return {"method": self.config.method, **decision}

    def logits(self, images: Tensor) -> Tensor:
        """Return the network's logits [N], before calibration, of uint8 or float [0, 1] images [N, C, H, W]."""
        if not images.is_floating_point():
            images = images.float() / 255
        return self.network(self.transform(images)).squeeze(1).float()

    def forward(self, images: Tensor) -> Tensor:
        """Return calibrated probabilities of real and generated, float32 [N, 2]."""
        generated = self.calibrate(self.logits(images))
        return torch.stack([1 - generated, generated], dim=1)

    def calibrate(self, logits: Tensor) -> Tensor:
        """Return the calibrated probability of being generated, in the precision of the logits [N]."""
        return torch.sigmoid(self.slope.to(logits) * logits + self.offset.to(logits))

    @torch.no_grad()
    def score(self, images: Tensor, batch_size: int = 512) -> np.ndarray:
        """Return the calibrated probability of being generated, float64 [N], of images uint8 [N, C, H, W].

        Raises:
            UserError: the images have another size or number of channels than the detector was made for.
        """
        expected = (self.channels, *self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise UserError(
                f"The detector takes images [N, {', '.join(map(str, expected))}], not {list(images.shape)}: "
                "resize or convert them first."
            )
        self.eval()
        # In double precision sure scores stay apart; rounded to 1 they could not be ranked.
        parts = [
            self.calibrate(self.logits(part.to(self.slope.device)).double()).cpu() for part in images.split(batch_size)
        ]
        return torch.cat(parts).numpy() if parts else np.zeros(0)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``, atomically."""
        description = {
            "kind": KIND,
            "config": self.config.model_dump(),
            "channels": self.channels,
            "image_size": list(self.image_size),
            "decision": None if self.decision is None else self.decision.as_dict(),
        }
        with atomic_folder(folder) as target:
            write_json(target / _CONFIG_FILE, description)
            save_model(self, str(target / _WEIGHTS_FILE))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load what :meth:`save_pretrained` wrote, in evaluation mode.

        Raises:
            UserError: the folder does not hold a detector, it is damaged, or a pickle is in it.
        """
        folder = Path(folder)
        refuse_pickles(folder)
        try:
            description = json.loads((folder / _CONFIG_FILE).read_text())
            if description["kind"] != KIND:
                raise ValueError(f"it is a {description['kind']}")
            config = DetectorConfig.parse(description["config"], where="detector")
            detector = cls(config, description["channels"], tuple(description["image_size"]))
            load_model(detector, folder / _WEIGHTS_FILE)
            if description["decision"]:
                detector.decision = Decision(**description["decision"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            reason = (str(error).strip().splitlines() or [repr(error)])[0]
            raise UserError(
                f"{folder} is not a detector of generated images ({reason}): train one with the detector training."
            ) from error
        return detector.eval()


class _Network(nn.Module):
    """Standardised input, a backbone that keeps the resolution at first, and one logit.

    The input is standardised by its running statistics, so that pixels, spectra and residuals, whose scales
    differ by orders of magnitude, meet the same network under the same learning rate. [ours]
    """

    def __init__(self, backbone: str, input_shape: torch.Size) -> None:
        super().__init__()
        channels, height, width = input_shape[1:]
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.backbone = create_backbone(backbone, channels=channels, image_size=max(height, width))
        self.head = nn.Linear(feature_size(self.backbone.config), 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits [N, 1] of transformed images [N, C', H', W']."""
        return self.head(self.backbone(self.norm(inputs)).pooler_output.flatten(1))


def _linear(features: int) -> nn.Module:
    """Return standardisation and a linear layer: what a logistic regression is fitted into."""
    return nn.Sequential(nn.BatchNorm1d(features, affine=False), nn.Linear(features, 1))


def create_method(config: DetectorConfig, channels: int, image_size: tuple[int, int]) -> Any:
    """Return the untrained method that ``config`` names, with its options."""
    from assay.forensics.methods import METHODS

    method = METHODS[config.method]
    options = method.Options.parse(config.options, where=f"options of {config.method}")
    return method(options, channels=channels, image_size=image_size)
