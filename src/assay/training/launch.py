"""Running a training function here, or on Ray Train workers: the same function, the same result."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model
from torch import nn

from assay.errors import AssayError, UserError
from assay.files import safe_name
from assay.project import Project
from assay.training.checkpoints import PROGRESS, CheckpointFolder, weights_name
from assay.training.session import Precision, Session, Tracker
from assay.training.threads import available_cores

Train = Callable[[Session, dict[str, Any]], None]


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run leaves: its last checkpoint and everything it logged."""

    checkpoint: Path
    history: list[dict[str, float]]

    @classmethod
    def read(cls, checkpoint: Path) -> "TrainingResult":
        """Read the result from a checkpoint folder."""
        return cls(checkpoint, json.loads((checkpoint / PROGRESS).read_text())["history"])

    def load(self, model: nn.Module, index: int = 0) -> None:
        """Put the trained weights of the model prepared as number ``index`` into ``model``."""
        load_model(model, self.checkpoint / weights_name(index))

    def load_all(self, session: Session) -> None:
        """Put the trained weights of every model into those that ``session`` prepared in the same order."""
        for index, model in enumerate(session.models):
            self.load(model, index)


def run_name(step: str, *identity: Any) -> str:
    """Return the name of a training that depends on ``identity``, JSON values: the same again after a crash.

    Example:
        >>> run_name("pretraining", {"epochs": 8}, "9fb9a1", 0) == run_name("pretraining", {"epochs": 8}, "9fb9a1", 1)
        False
    """
    return f"{step}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]}"


def checkpoint_storage() -> str | Path:
    """Return where running trainings keep checkpoints: ``ASSAY_CHECKPOINTS``, else the project's state."""
    return os.environ.get("ASSAY_CHECKPOINTS") or Project.find().state / "training"


def launch(
    train: Train,
    config: dict[str, Any],
    *,
    storage: str | os.PathLike[str],
    name: str,
    workers: int = 0,
    seed: int = 0,
    precision: Precision = "auto",
    tracker: Tracker | None = None,
    max_failures: int = 2,
) -> TrainingResult:
    """Call ``train(session, config)`` and return its last checkpoint; called again, it continues.

    Args:
        train: the loop; it must call ``session.checkpoint`` at the end of every epoch.
        config: what the loop needs, small and plain: data goes by path, not by value.
        storage: folder of all runs' checkpoints; on Ray also ``s3://bucket/prefix``.
        name: the run's own folder in ``storage``.
        workers: 0 trains in this process, without Ray; n > 0 on n Ray Train workers.
        seed: of the Session.
        precision: of the Session.
        tracker: receives what is logged.
        max_failures: how many lost workers or nodes a Ray run survives.

    Raises:
        UserError: the training function refused its input, or the loss diverged.
        AssayError: the training function kept no checkpoint.
    """
    safe_name(name, "run name")
    if workers < 0:
        raise UserError(f"workers = {workers} is not valid: give 0 to train in this process, or a positive number.")
    if workers:
        from assay.training.ray import launch_on_ray

        checkpoint = launch_on_ray(
            train,
            config,
            storage=os.fspath(storage),
            name=name,
            workers=workers,
            session={"seed": seed, "precision": precision, "tracker": tracker},
            max_failures=max_failures,
        )
        return TrainingResult.read(checkpoint)
    if "://" in os.fspath(storage):
        raise UserError(f"Training in this process keeps checkpoints in a folder, not at {storage}: set workers to 1.")
    torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
    store = CheckpointFolder(Path(storage) / name)
    train(Session(store, seed=seed, precision=precision, tracker=tracker), config)
    checkpoints = store.all()
    if not checkpoints:
        raise AssayError(f"The training function of {name} ended without a checkpoint.")
    return TrainingResult.read(checkpoints[-1])


def forget(storage: str | os.PathLike[str], name: str) -> None:
    """Remove the checkpoints of a run that is finished with; none there is no error."""
    if "://" in os.fspath(storage):
        from assay.training.ray import filesystem

        files, root = filesystem(os.fspath(storage))
        files.delete_dir(f"{root}/{name}")
    else:
        shutil.rmtree(Path(storage) / safe_name(name, "run name"), ignore_errors=True)
