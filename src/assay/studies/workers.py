"""Running the independent jobs of a study on several processes, with progress."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from assay.training.progress import track

Result = TypeVar("Result")


class Workers:
    """A pool of processes with one thread each; with a single process everything runs in the calling one.

    Small networks on small images gain next to nothing from a second thread, and a whole core from a second job.

    Args:
        processes: how many.

    Example:
        >>> with Workers(1) as workers:
        ...     workers.map(pow, [(2, 3), (3, 2)], title="powers")
        [8, 9]
    """

    def __init__(self, processes: int) -> None:
        # Forking is not safe beside torch's threads.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, context, _start) if processes > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], *, title: str) -> list[Result]:
        """Return ``function(*job)`` of every job, in order, showing how many are done.

        What a job prints on standard error is dropped: the lines of several processes would be mixed up.

        Raises:
            Exception: what a job raised; jobs that have not begun are dropped when the pool is left.
        """
        if self._pool is None:
            return [_quietly(function, *job) for job in track(jobs, title=title)]
        futures = [self._pool.submit(_quietly, function, *job) for job in jobs]
        return [future.result() for future in track(futures, title=title)]

    def run(self, function: Callable[..., object], jobs: Sequence[tuple[Any, ...]], *, title: str) -> None:
        """Call ``function(*job)`` of every job for its effect, as `map` does; results stay where they were made."""
        self.map(_discarding, [(function, *job) for job in jobs], title=title)


def _discarding(function: Callable[..., object], *job: Any) -> None:
    function(*job)


def _start() -> None:
    import torch

    torch.set_num_threads(1)


def _quietly(function: Callable[..., Result], *job: Any) -> Result:
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        return function(*job)
