"""Training on Ray Train workers; the only file that imports Ray."""

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.fs

from assay.errors import AssayError, UserError
from assay.training.session import Session
from assay.training.threads import available_cores


class RayCheckpoints:
    """The checkpoint store of a Ray worker: every worker reports, the first one with the folder."""

    def save(self, write: Callable[[Path], None], epoch: int, metrics: dict[str, float]) -> None:
        """Let ``write`` fill a folder and keep it as the checkpoint of ``epoch``."""
        from ray import train

        report = {"epoch": epoch, **metrics}
        if train.get_context().get_world_rank() != 0:
            train.report(report)
            return
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            train.report(report, checkpoint=train.Checkpoint.from_directory(folder))

    def restore(self, read: Callable[[Path], None]) -> bool:
        """Give the newest checkpoint to ``read``; return whether there was one."""
        from ray import train

        checkpoint = train.get_checkpoint()
        if checkpoint is None:
            return False
        with checkpoint.as_directory() as folder:
            read(Path(folder))
        return True


def launch_on_ray(
    train: Callable[[Session, dict[str, Any]], None],
    config: dict[str, Any],
    *,
    storage: str,
    name: str,
    workers: int,
    session: dict[str, Any],
    max_failures: int,
) -> Path:
    """Run ``train`` on ``workers`` Ray Train workers and return the folder of the last checkpoint.

    ``RAY_ADDRESS`` names a cluster to join; without it, Ray starts here and is stopped afterwards.

    Raises:
        UserError: the training function refused its input, or the loss diverged.
        AssayError: more workers were lost than ``max_failures``, or no checkpoint was kept.
    """
    import ray

    files, root = filesystem(storage)
    started_here = not ray.is_initialized()
    if started_here:
        start(cores=max(available_cores(), workers))
    try:
        from ray.train import CheckpointConfig, FailureConfig, RunConfig
        from ray.train.torch import TorchTrainer

        trainer = TorchTrainer(
            _worker,
            train_loop_config={"train": train, "config": config, "session": session},
            scaling_config=_resources(workers),
            run_config=RunConfig(
                name=name,
                storage_path=root,
                storage_filesystem=files,
                failure_config=FailureConfig(max_failures=max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
            ),
        )
        result = _fit(trainer, name)
        if isinstance(result.return_value, str):
            raise UserError(result.return_value)
        if result.checkpoint is None:
            raise AssayError(f"The training function of {name} ended without a checkpoint.")
        if isinstance(files, pyarrow.fs.LocalFileSystem):
            return Path(result.checkpoint.path)
        copy = tempfile.mkdtemp(prefix=f"{name}-")
        atexit.register(shutil.rmtree, copy, ignore_errors=True)
        return Path(result.checkpoint.to_directory(copy))
    finally:
        if started_here:
            ray.shutdown()


def start(cores: int) -> None:
    """Join the cluster that ``RAY_ADDRESS`` names, or start Ray here, with the workers' chatter off."""
    import ray

    local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": cores, "include_dashboard": False}
    ray.init(**local, logging_level="warning", logging_config=ray.LoggingConfig(log_level="ERROR"))


def filesystem(storage: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return the file system of ``storage`` and the path in it.

    For S3 it honours ``AWS_ENDPOINT_URL``, so that a store other than Amazon's is found.

    Example:
        >>> filesystem("/tmp/runs")[1]
        '/tmp/runs'
    """
    if storage.startswith("s3://"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return pyarrow.fs.S3FileSystem(endpoint_override=endpoint or None), storage.removeprefix("s3://")
    if "://" in storage:
        return pyarrow.fs.FileSystem.from_uri(storage)
    return pyarrow.fs.LocalFileSystem(), str(Path(storage).resolve())


def _resources(workers: int) -> Any:
    """Share the processors among the workers; Ray gives each as many threads as it reserves processors."""
    import ray
    from ray.train import ScalingConfig

    use_gpu = ray.cluster_resources().get("GPU", 0) >= workers
    per_worker = {"CPU": max(1, available_cores() // workers)} | ({"GPU": 1} if use_gpu else {})
    return ScalingConfig(num_workers=workers, use_gpu=use_gpu, resources_per_worker=per_worker)


def _fit(trainer: Any, name: str) -> Any:
    from ray.train import TrainingFailedError

    try:
        return trainer.fit()
    except TrainingFailedError as error:
        cause = str(error).strip().splitlines()[-1]  # the last line of the first worker's traceback
        raise AssayError(f"The Ray run {name} failed: {cause}") from error


def _worker(loop: dict[str, Any]) -> str | None:
    """Train in this worker; return what the user must be told, which a retry would not change."""
    logging.getLogger("ray.train").setLevel(logging.WARNING)  # it prints every report of every worker
    try:
        loop["train"](Session(RayCheckpoints(), **loop["session"]), loop["config"])
    except UserError as error:
        return str(error)
    return None
