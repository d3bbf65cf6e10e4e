"""A classifier with its calibrator: images in, calibrated probabilities out."""

import json
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from assay.calibration.calibrator import CONFIG_FILE, Calibrator
from assay.errors import UserError
from assay.files import atomic_folder, write_json
from assay.models import ImageClassifier

_KIND = "calibrated-classifier"


class CalibratedClassifier(nn.Module):
    """What is evaluated, registered and served: ``softmax(calibrator(classifier(images)))``.

    Args:
        classifier: images -> logits [N, K].
        calibrator: fitted on K classes.

    Raises:
        UserError: the calibrator is for another number of classes.

    Example:
        >>> from assay.calibration import TemperatureScaling
        >>> scaling = TemperatureScaling().fit(torch.eye(2), torch.tensor([0, 0]))
        >>> model = CalibratedClassifier(ImageClassifier(num_classes=2, image_size=8), scaling).eval()
        >>> model(torch.zeros(3, 1, 8, 8, dtype=torch.uint8)).sum(dim=1)
        tensor([1., 1., 1.], grad_fn=<SumBackward1>)
    """

    def __init__(self, classifier: ImageClassifier, calibrator: Calibrator) -> None:
        super().__init__()
        if calibrator.num_classes != len(classifier.class_names):
            raise UserError(
                f"The calibrator is fitted on {calibrator.num_classes} classes and the classifier has "
                f"{len(classifier.class_names)}: fit it on the logits of this classifier."
            )
        self.classifier = classifier
        self.calibrator = calibrator

    @property
    def class_names(self) -> list[str]:
        """One name for each column of the probabilities."""
        return self.classifier.class_names

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities, float32 [N, K], of images as the classifier takes them."""
        return torch.softmax(self.calibrator(self.classifier(images)), dim=1)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json``, ``classifier/`` and ``calibrator/``, atomically."""
        with atomic_folder(folder) as target:
            write_json(target / CONFIG_FILE, {"kind": _KIND, "class_names": self.class_names})
            self.classifier.save_pretrained(target / "classifier")
            self.calibrator.save(target / "calibrator")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load what :meth:`save_pretrained` wrote, in evaluation mode.

        Raises:
            UserError: the folder does not hold a calibrated classifier.
        """
        folder = Path(folder)
        if not is_calibrated(folder):
            raise UserError(f"{folder} is not a calibrated classifier: make one with the calibration step.")
        classifier = ImageClassifier.from_pretrained(folder / "classifier")
        return cls(classifier, Calibrator.load(folder / "calibrator")).eval()


def is_calibrated(folder: Path) -> bool:
    """Say whether a model folder holds a calibrated classifier."""
    try:
        return json.loads((folder / CONFIG_FILE).read_text()).get("kind") == _KIND
    except (OSError, ValueError, AttributeError):
        return False


def load_classifier(folder: str | Path) -> nn.Module:
    """Load a calibrated or a plain classifier as a module from images to probabilities, in evaluation mode.

    Raises:
        UserError: the folder holds neither.
    """
    if is_calibrated(Path(folder)):
        return CalibratedClassifier.from_pretrained(folder)
    return nn.Sequential(ImageClassifier.from_pretrained(folder), nn.Softmax(dim=1)).eval()
