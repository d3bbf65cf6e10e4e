"""Model artifacts of every kind, loaded by what their ``config.json`` says they are."""

import json
from pathlib import Path

from torch import nn

from assay.errors import UserError
from assay.files import refuse_pickles


def load_model(folder: str | Path) -> nn.Module:
    """Load a model artifact as a module from uint8 images [N, C, H, W] to probabilities [N, K], for evaluation.

    Raises:
        UserError: the folder holds no model whose kind is known, a damaged one, or a pickle.
    """
    refuse_pickles(folder)
    config = Path(folder) / "config.json"
    try:
        kind = json.loads(config.read_text()).get("kind")
    except (OSError, ValueError, AttributeError):
        raise UserError(f"{folder} is not a model: it has no config.json that can be read; train it again.") from None
    if kind == "calibrated-classifier":
        from assay.calibration import CalibratedClassifier

        return CalibratedClassifier.from_pretrained(folder)
    if kind == "generated-image-detector":
        from assay.forensics import Detector

        return Detector.from_pretrained(folder)
    named = f"of the kind {kind!r}" if kind else "of no kind"
    raise UserError(f"{config} is {named}: give the folder of a calibrated-classifier or a generated-image-detector.")
