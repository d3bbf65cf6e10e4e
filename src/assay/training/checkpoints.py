"""What a checkpoint holds, and the folder that keeps the last few."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from assay.errors import UserError
from assay.files import atomic_folder, write_json

PROGRESS = "training.json"
_OPTIMIZERS = "optimizers.pt"
_UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, SafetensorError, pickle.UnpicklingError)


@runtime_checkable
class Stateful(Protocol):
    """What has a state dictionary: an optimiser, a scheduler, a metric, an average of weights."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take the state back."""


class CheckpointStore(Protocol):
    """Where a Session keeps its checkpoints: a folder, or Ray's storage."""

    def save(self, write: Callable[[Path], None], epoch: int, metrics: dict[str, float]) -> None:
        """Let ``write`` fill a folder and keep it as the checkpoint of ``epoch``."""

    def restore(self, read: Callable[[Path], None]) -> bool:
        """Give the newest checkpoint to ``read``; return whether there was one."""


@dataclass
class TrainingState:
    """Everything that a continued run needs.

    Random generators are not part of it: a Session seeds them at the start of every epoch from the seed,
    the epoch and the rank, so that a checkpoint between epochs has none to keep.
    """

    models: list[nn.Module] = field(default_factory=list)
    others: list[Stateful] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    epochs_done: int = 0

    def write(self, folder: Path) -> None:
        """Write weights as safetensors, progress as JSON, and optimisers for the restricted unpickler."""
        for index, model in enumerate(self.models):
            save_model(model, str(folder / weights_name(index)))
        torch.save([other.state_dict() for other in self.others], folder / _OPTIMIZERS)
        write_json(folder / PROGRESS, {"epochs_done": self.epochs_done, "history": self.history})

    def read(self, folder: Path) -> None:
        """Take back what `write` wrote; nothing in the folder can execute.

        Raises:
            UserError: the checkpoint is damaged or belongs to other models.
        """
        try:
            for index, model in enumerate(self.models):
                load_model(model, folder / weights_name(index))
            states = torch.load(folder / _OPTIMIZERS, map_location="cpu", weights_only=True)
            for other, state in zip(self.others, states, strict=True):
                other.load_state_dict(state)
            progress = json.loads((folder / PROGRESS).read_text())
            self.epochs_done, self.history = progress["epochs_done"], progress["history"]
        except _UNREADABLE as error:
            raise UserError(
                f"The checkpoint {folder} cannot be continued from ({type(error).__name__}): "
                "remove it to train from the start."
            ) from error


class CheckpointFolder:
    """Checkpoints as folders ``epoch-0001``, each appearing whole or not at all.

    Args:
        path: the folder of one run.
        keep: how many of the newest checkpoints stay.
    """

    def __init__(self, path: Path, keep: int = 2) -> None:
        self.path = path
        self.keep = keep

    def all(self) -> list[Path]:
        """Return the complete checkpoints, oldest first."""
        return sorted(p for p in self.path.glob("epoch-*") if re.fullmatch(r"epoch-\d{4,}", p.name))

    def save(self, write: Callable[[Path], None], epoch: int, metrics: dict[str, float]) -> None:
        """Let ``write`` fill a folder and keep it as the checkpoint of ``epoch``."""
        with atomic_folder(self.path / f"epoch-{epoch + 1:04d}") as folder:
            write(folder)
        for old in self.all()[: -self.keep]:
            shutil.rmtree(old)

    def restore(self, read: Callable[[Path], None]) -> bool:
        """Give the newest checkpoint to ``read``; return whether there was one."""
        for unfinished in self.path.glob(".epoch-*"):  # of a process that was killed while it wrote
            shutil.rmtree(unfinished, ignore_errors=True)
        checkpoints = self.all()
        if checkpoints:
            read(checkpoints[-1])
        return bool(checkpoints)


def weights_name(index: int = 0) -> str:
    """Return the file of the model that was prepared as number ``index``."""
    return "model.safetensors" if index == 0 else f"model_{index}.safetensors"
