"""The settings of the calibration step and of ``assay calibrate``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from assay.config import Config
from assay.errors import UserError

CalibratorName = Literal["ts", "cts", "ets", "ets_logits", "pts", "vs", "ms"]
PeerName = Literal["isotonic", "histogram"]
LossName = Literal["cross_entropy", "class_balanced", "label_smoothing", "focal", "sctl_nd", "sctl_mm", "sctl_cm"]


class CalibrationConfig(Config):
    """Which calibrator is folded into the model, and which ones stand beside it in the report's table.

    Attributes:
        calibrator: the one that is kept.
        loss: what it is fitted with.
        normalisation: of the class losses, for the loss ``sctl``.
        calibrators: rows of the table; the kept one is always among them.
        losses: each calibrator is fitted with each of these.
        peers: non-parametric calibrators in the table.
        replicates: bootstrap replicates of every interval.
        confidence: coverage of every interval.
        seed: of the resampling, and of the layers of ``pts``.

    Example:
        >>> CalibrationConfig.parse({"loss": "sctl", "normalisation": "mm"}, where="calibration").loss_name
        'sctl_mm'
    """

    calibrator: CalibratorName = "ts"
    loss: Literal["cross_entropy", "class_balanced", "label_smoothing", "focal", "sctl"] = "sctl"
    normalisation: Literal["nd", "mm", "cm"] = "nd"
    calibrators: tuple[CalibratorName, ...] = ("ts", "cts", "ets", "vs")
    losses: tuple[LossName, ...] = (
        "cross_entropy", "class_balanced", "label_smoothing", "focal", "sctl_nd", "sctl_mm", "sctl_cm",
    )  # fmt: skip
    peers: tuple[PeerName, ...] = ("isotonic", "histogram")
    replicates: Annotated[int, Field(ge=2, le=100_000)] = 1000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def loss_name(self) -> str:
        """The key of the loss in :data:`assay.calibration.losses.LOSSES`."""
        return f"sctl_{self.normalisation}" if self.loss == "sctl" else self.loss


def read_settings(path: Path) -> dict[str, Any]:
    """Read the settings in a YAML file; :meth:`CalibrationConfig.parse` checks them.

    Raises:
        UserError: the file cannot be read, or does not hold a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not YAML"
        raise UserError(f"{path} cannot be read ({reason}): give a file with lines such as `loss: focal`.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} does not hold settings: write lines such as `loss: focal`.")
    return values
