"""Ends the tasks of a run whose own process was killed, as the end of the machine would.

Each task has a process group or a container of its own, so killing the run does not reach it; a task that went on
would meet the next run at the same checkpoint. The run tells this process, over a pipe that closes when the run dies,
which of them live. It is started as a script and imports nothing of Assay, so it costs the run some hundredths of a
second.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable

_REMOVE = """
import contextlib, docker, sys
for name in sys.argv[1:]:
    with contextlib.suppress(docker.errors.NotFound):
        docker.from_env().containers.get(name).remove(force=True, v=True)
"""


class Reaper:
    """The run's side: a process that ends everything that was added and not removed when this one dies."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", __file__]
        self._lock = threading.Lock()
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1, start_new_session=True)

    def add(self, task: int | str) -> None:
        """Note that a process group (its number) or a container (its name) lives."""
        self._tell(f"+{task}")

    def remove(self, task: int | str) -> None:
        """Note that it has ended: its number may come to mean another."""
        self._tell(f"-{task}")

    def close(self) -> None:
        """End the reaper; what is still noted is killed."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()

    def _tell(self, line: str) -> None:
        with self._lock, contextlib.suppress(BrokenPipeError):  # without a reaper a run is as good while it lives
            self._process.stdin.write(line + "\n")  # type: ignore[union-attr]


def reap(lines: Iterable[str]) -> None:
    """Keep account of groups and containers until ``lines`` end, then kill those that are left."""
    tasks = set()
    for line in lines:
        task = line[1:].strip()
        tasks.add(task) if line[0] == "+" else tasks.discard(task)
    groups = {task for task in tasks if task.isdecimal()}
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(group), signal.SIGKILL)
    if containers := tasks - groups:
        subprocess.run([sys.executable, "-c", _REMOVE, *containers], check=False)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    reap(sys.stdin)
