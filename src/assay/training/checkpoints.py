"""What a checkpoint holds, and the folder or object store that keeps the last few."""

import atexit
import json
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from assay.errors import UserError
from assay.files import atomic_folder, safe_name, write_json
from assay.storage import ObjectStore, is_remote

PROGRESS = "training.json"
_OPTIMIZERS = "optimizers.pt"
_CHECKPOINT = re.compile(r"epoch-\d{4,}")
_UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, SafetensorError, pickle.UnpicklingError)


@runtime_checkable
class Stateful(Protocol):
    """What has a state dictionary: an optimiser, a scheduler, a metric, an average of weights."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take the state back."""


class CheckpointStore(Protocol):
    """Where a run keeps its checkpoints; every process of the run reads it, the first one alone writes."""

    def save(self, write: Callable[[Path], None], epoch: int) -> None:
        """Let ``write`` fill a folder and keep it as the checkpoint of ``epoch``."""

    def restore(self, read: Callable[[Path], None]) -> bool:
        """Give the newest checkpoint to ``read``; return whether there was one."""

    def newest(self) -> Path | None:
        """Return a folder with the newest checkpoint, which stays while this process runs; None without one."""

    def forget(self) -> None:
        """Remove every checkpoint; none there is no error."""


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
        return sorted(p for p in self.path.glob("epoch-*") if _CHECKPOINT.fullmatch(p.name))

    def save(self, write: Callable[[Path], None], epoch: int) -> None:
        """Let ``write`` fill a folder and keep it as the checkpoint of ``epoch``."""
        with atomic_folder(self.path / _checkpoint_name(epoch)) as folder:
            write(folder)
        for old in self.all()[: -self.keep]:
            shutil.rmtree(old)

    def restore(self, read: Callable[[Path], None]) -> bool:
        """Give the newest checkpoint to ``read``; return whether there was one."""
        for unfinished in self.path.glob(".epoch-*"):  # of a process that was killed while it wrote
            shutil.rmtree(unfinished, ignore_errors=True)
        newest = self.newest()
        if newest is not None:
            read(newest)
        return newest is not None

    def newest(self) -> Path | None:
        """Return the newest checkpoint, None without one."""
        checkpoints = self.all()
        return checkpoints[-1] if checkpoints else None

    def forget(self) -> None:
        """Remove every checkpoint; none there is no error."""
        shutil.rmtree(self.path, ignore_errors=True)


class CheckpointObjects:
    """Checkpoints in an object store, below ``run/epoch-0001``, each readable whole or not at all.

    Args:
        store: of all runs' checkpoints.
        run: name of the run.
        keep: how many of the newest checkpoints stay.
    """

    def __init__(self, store: ObjectStore, run: str, keep: int = 2) -> None:
        self.store = store
        self.run = run
        self.keep = keep

    def all(self) -> list[str]:
        """Return the keys of the complete checkpoints, oldest first."""
        keys = self.store.keys(self.run)  # of whole folders only
        return [key for key in keys if _CHECKPOINT.fullmatch(key.removeprefix(f"{self.run}/"))]

    def save(self, write: Callable[[Path], None], epoch: int) -> None:
        """Let ``write`` fill a folder and keep it as the checkpoint of ``epoch``."""
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            self.store.put(Path(folder), f"{self.run}/{_checkpoint_name(epoch)}")
        for old in self.all()[: -self.keep]:
            self.store.delete(old)

    def restore(self, read: Callable[[Path], None]) -> bool:
        """Give the newest checkpoint to ``read``; return whether there was one."""
        checkpoints = self.all()
        if checkpoints:
            with tempfile.TemporaryDirectory() as folder:
                self.store.get(checkpoints[-1], Path(folder) / "checkpoint")
                read(Path(folder) / "checkpoint")
        return bool(checkpoints)

    def newest(self) -> Path | None:
        """Return a copy of the newest checkpoint, which goes when this process ends; None without one."""
        checkpoints = self.all()
        if not checkpoints:
            return None
        copy = Path(tempfile.mkdtemp(prefix=f"{self.run}-"))
        atexit.register(shutil.rmtree, copy, ignore_errors=True)
        self.store.get(checkpoints[-1], copy / "checkpoint")
        return copy / "checkpoint"

    def forget(self) -> None:
        """Remove every checkpoint; none there is no error."""
        self.store.delete(self.run)


def checkpoint_store(storage: str | os.PathLike[str], name: str) -> CheckpointFolder | CheckpointObjects:
    """Return where the run ``name`` keeps its checkpoints below ``storage``, a folder or ``s3://bucket/prefix``.

    Raises:
        UserError: the name could climb out of the storage, or the storage is of another kind.
    """
    safe_name(name, "run name")
    if is_remote(storage):
        return CheckpointObjects(ObjectStore(os.fspath(storage)), name)
    if "://" in os.fspath(storage):
        raise UserError(f"Checkpoints cannot be kept at {os.fspath(storage)}: give a folder or s3://BUCKET/PREFIX.")
    return CheckpointFolder(Path(storage) / name)


def weights_name(index: int = 0) -> str:
    """Return the file of the model that was prepared as number ``index``."""
    return "model.safetensors" if index == 0 else f"model_{index}.safetensors"


def _checkpoint_name(epoch: int) -> str:
    return f"epoch-{epoch + 1:04d}"
