"""What every calibrator shares: fitting on logits, transforming them, a folder on disk."""

import json
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from assay.calibration.losses import Loss, as_loss
from assay.calibration.optimise import FitReport, lbfgs
from assay.errors import UserError
from assay.evaluation.metric import Array, check_shapes
from assay.files import atomic_folder, disk_errors, write_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "calibrator.safetensors"

Logits = TypeVar("Logits", Tensor, Array)


class Calibrator(nn.Module):
    """A map from logits to calibrated logits; a softmax of them gives the calibrated probabilities.

    Fitting runs in float64 on the CPU. The parameters stay float64 and are cast to the dtype of the logits
    that are transformed.

    Attributes:
        num_classes: K; None before fitting.
        fit_report: how the last fit ended; None before fitting and after loading.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    registry: ClassVar[dict[str, type["Calibrator"]]] = {}

    num_classes: int | None = None
    fit_report: FitReport | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Calibrator.registry[cls.name] = cls

    @abstractmethod
    def build(self, num_classes: int) -> None:
        """Create the parameters for K classes at their initial values: those of the identity."""

    @abstractmethod
    def forward(self, logits: Tensor) -> Tensor:
        """Return calibrated logits [N, K] of logits [N, K]."""

    def fit(
        self,
        logits: Tensor | Array,
        labels: Tensor | Array,
        loss: str | Loss = "cross_entropy",
        *,
        seed: int = 0,
    ) -> Self:
        """Fit the parameters on held-out logits.

        One class (K = 1) leaves the identity. A class without rows does not count. Separable rows and labels
        without any relation to the logits have no finite optimum: temperatures then end within their bounds
        and other parameters where the gradient vanishes or the iterations end, as ``fit_report`` tells.

        Args:
            logits: [N, K], of samples that the classifier was not trained on.
            labels: [N].
            loss: a loss or its name in :data:`assay.calibration.losses.LOSSES`.
            seed: of the initial parameters, where they are random.

        Raises:
            UserError: there are no rows, the shapes do not fit, a logit is not finite, or a label is not a
                column; the sentence names the row.
        """
        z, y = check_logits(logits, labels)
        self.num_classes = z.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.build(self.num_classes)
            self.fit_report = self.double()._fit(z, y, as_loss(loss))
        return self

    def _fit(self, logits: Tensor, labels: Tensor, loss: Loss) -> FitReport:
        return lbfgs(lambda: self(logits), list(self.parameters()), labels, loss)

    def transform(self, logits: Logits) -> Logits:
        """Return calibrated logits [N, K], as a tensor or array like the one that came in.

        Raises:
            UserError: the calibrator was not fitted, or the logits have another number of columns.
        """
        z = torch.as_tensor(logits)
        if self.num_classes is None:
            raise UserError(f"{self.title} has not been fitted: call fit(logits, labels) first.")
        if z.ndim != 2 or z.shape[1] != self.num_classes:
            raise UserError(
                f"The logits have shape {list(z.shape)}: {self.title} was fitted on K = {self.num_classes}."
            )
        with torch.no_grad():
            calibrated = self(z)
        return calibrated if isinstance(logits, Tensor) else calibrated.numpy()

    def save(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``calibrator.safetensors`` into a folder, atomically."""
        if self.num_classes is None:
            raise UserError(f"{self.title} has not been fitted: there is nothing to save.")
        with atomic_folder(folder) as target:
            write_json(target / CONFIG_FILE, {"calibrator": self.name, "num_classes": self.num_classes})
            with disk_errors(target):
                save_file(self.state_dict(), target / WEIGHTS_FILE)

    @staticmethod
    def load(folder: str | Path) -> "Calibrator":
        """Read what :meth:`save` wrote, whichever calibrator it is.

        Raises:
            UserError: the folder does not hold a calibrator.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / CONFIG_FILE).read_text())
            calibrator = Calibrator.registry[config["calibrator"]]()
            calibrator.num_classes = int(config["num_classes"])
            calibrator.build(calibrator.num_classes)
            calibrator.double().load_state_dict(load_file(folder / WEIGHTS_FILE))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise UserError(
                f"{folder} does not hold a calibrator: give a folder with {CONFIG_FILE} and "
                f"{WEIGHTS_FILE} as `save` writes it."
            ) from error
        return calibrator


def check_logits(logits: Tensor | Array, labels: Tensor | Array, what: str = "logits") -> tuple[Tensor, Tensor]:
    """Return float64 logits and int64 labels on the CPU, or say what is wrong with which row.

    Raises:
        UserError: see :func:`assay.evaluation.metric.check_shapes`, or a value is NaN or infinite.

    Example:
        >>> check_logits(np.array([[0.0, 1.0], [np.nan, 0.0]]), np.array([0, 1]))
        Traceback (most recent call last):
        ...
        assay.errors.UserError: Row 1 of the logits holds nan: remove the row or find out why the model ...
    """
    z, y = (
        value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value) for value in (logits, labels)
    )
    check_shapes(z, y, what)
    finite = np.isfinite(z)
    if not finite.all():
        row = int((~finite).any(axis=1).argmax())
        value = z[row][~finite[row]][0]
        raise UserError(f"Row {row} of the {what} holds {value}: remove the row or find out why the model gave it.")
    return torch.from_numpy(z.astype(np.float64)), torch.from_numpy(y.astype(np.int64))
