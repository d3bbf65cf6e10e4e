"""Running a training function here, or on Ray Train workers: the same function, the same result."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model
from torch import nn

from assay.errors import AssayError, UserError
from assay.project import Project
from assay.storage import is_remote
from assay.training.checkpoints import PROGRESS, checkpoint_store, weights_name
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
    stream: str = "",
) -> TrainingResult:
    """Call ``train(session, config)`` and return its last checkpoint; called again, it continues.

    The same run may go on elsewhere: a checkpoint of this process is continued by Ray workers, and the other way.

    Args:
        train: the loop; it must call ``session.checkpoint`` at the end of every epoch.
        config: what the loop needs, small and plain: data goes by path, not by value. To travel to a cluster it
            holds JSON, `Config` models and `DataFolder` only.
        storage: of all runs' checkpoints: a folder, or ``s3://bucket/prefix``.
        name: the run's own folder in ``storage``.
        workers: 0 trains in this process, without Ray; n > 0 on n Ray Train workers, or with
            ``ASSAY_MIN_WORKERS`` on as many from that number to n as the cluster has room for; with
            ``ASSAY_RAY_JOB`` on those of a cluster that Kubernetes makes (see `RayJobSettings`).
        seed: of the Session.
        precision: of the Session.
        tracker: receives what is logged.
        max_failures: how many times lost workers or nodes of a Ray run are replaced.
        stream: ``KEY/SPLIT``: Ray Data streams that split of the `DataFolder` that ``config`` has under that key.

    Raises:
        UserError: the training function refused its input, or the loss diverged.
        AssayError: the training function kept no checkpoint.
    """
    store = checkpoint_store(storage, name)
    if workers < 0:
        raise UserError(f"workers = {workers} is not valid: give 0 to train in this process, or a positive number.")
    session = {"seed": seed, "precision": precision, "tracker": tracker}
    elsewhere = bool(workers and os.environ.get("ASSAY_RAY_JOB"))
    if workers:
        from assay.training.ray import launch_on_ray
        from assay.training.rayjob import launch_on_kubernetes

        start = launch_on_kubernetes if elsewhere else launch_on_ray
        start(
            train,
            config,
            storage=os.fspath(storage) if is_remote(storage) else str(Path(storage).resolve()),
            name=name,
            workers=(fewest_workers(workers), workers),
            session=session,
            max_failures=max_failures,
            stream=stream,
        )
    else:
        torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
        train(Session(store, seed=seed, precision=precision, tracker=tracker), config)
    checkpoint = store.newest()
    if checkpoint is None:
        raise AssayError(f"The training function of {name} ended without a checkpoint.")
    result = TrainingResult.read(checkpoint)
    if elsewhere and tracker is not None:  # the tracker is known here, and not to the pods of a RayJob
        for record in result.history:
            tracker.log({key: value for key, value in record.items() if key != "step"}, int(record["step"]))
    return result


def fewest_workers(workers: int) -> int:
    """Return how few of ``workers`` may go on without the others: ``ASSAY_MIN_WORKERS``, else all of them.

    Raises:
        UserError: it is not a positive number.
    """
    text = os.environ.get("ASSAY_MIN_WORKERS") or str(workers)
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"ASSAY_MIN_WORKERS={text} is not valid: give a positive number.")
    return min(int(text), workers)


def forget(storage: str | os.PathLike[str], name: str) -> None:
    """Remove the checkpoints of a run that is finished with; none there is no error."""
    checkpoint_store(storage, name).forget()
