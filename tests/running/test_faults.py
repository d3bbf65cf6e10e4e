"""What a run survives on one machine: a full disk, and a machine that goes down. Nothing is lost."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.reports.records import Run
from assay.running.history import list_runs

COMMAND = "from assay.cli import main; main()"


def assay(example, *words: str, mood: str = "", **options) -> subprocess.Popen:
    """Start the command in the example project, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        cwd=example.root,
        env={**os.environ, "EXAMPLE": mood},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def test_a_machine_that_goes_down_loses_no_finished_task(example):
    scale = "scale=70"
    with assay(example, "run", "example", "--set", scale, mood="sleep in train") as first:
        child = sleeping(example.state / "runs")
        os.killpg(first.pid, signal.SIGKILL)
        first.wait(timeout=20)
    assert ends(child), "no task may go on without its run: the next run would meet it at the same checkpoint"
    killed = list_runs(example)[0]
    assert killed.state == "interrupted"
    assert {task.name: task.state.value for task in killed.tasks} in (
        {"make": "succeeded", "train": "interrupted"},
        {"make": "cached", "train": "interrupted"},
    )

    with assay(example, "run", "example", "--set", scale) as second:
        output, _ = second.communicate(timeout=120)
    assert second.returncode == 0, output
    continued = list_runs(example)[0]
    states = {task.name: task.state.value for task in continued.tasks}
    assert states["make"] == "cached"
    assert states["train"] == "succeeded"


def test_a_full_disk_is_one_sentence_and_the_same_command_continues(example, monkeypatch, tmp_path):
    with small_disk(tmp_path / "disk", "2m") as disk:
        monkeypatch.setenv("ASSAY_HOME", str(disk))
        ballast = disk / "ballast"
        with assay(example, "run", "example", mood="sleep in train") as first:
            child = sleeping(disk / "runs")
            with contextlib.suppress(OSError), ballast.open("wb") as file:
                while True:
                    file.write(bytes(1 << 12))
                    file.flush()
            os.kill(child, signal.SIGKILL)  # the task ends, and its end cannot be written down
            output, _ = first.communicate(timeout=60)
        sentence = [line for line in output.splitlines() if line.startswith("error: ")]
        assert first.returncode == 2, output
        assert len(sentence) == 1
        assert "the disk is full: free some space" in sentence[0]
        assert "Traceback" not in output

        ballast.unlink()
        with assay(example, "run", "example") as second:
            output, _ = second.communicate(timeout=120)
        assert second.returncode == 0, output
        newest = max((disk / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
        states = {task.name: task.state.value for task in Run.read(newest).tasks}
        assert states["make"] == "cached"
        assert states["train"] == "succeeded"
        assert not list(disk.rglob(".*.new")), "nothing half-written stays"


def test_a_component_that_fills_the_disk_is_one_sentence(example, monkeypatch, tmp_path):
    with small_disk(tmp_path / "disk", "2m") as disk:
        monkeypatch.setenv("ASSAY_HOME", str(disk))
        with assay(example, "run", "example", "--set", "amount=900000") as process:
            output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert "the disk is full: free some space" in output.splitlines()[-1]


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """Mount a file system of that size."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def sleeping(runs: Path) -> int:
    """Wait until the newest run's task says that it sleeps; return its process."""
    for _ in range(300):
        time.sleep(0.1)
        logs = sorted(runs.glob("*/logs/train.log"), key=lambda path: path.stat().st_mtime)
        lines = logs[-1].read_text().splitlines() if logs else []
        if words := [line.split() for line in lines if line.startswith("asleep")]:
            return int(words[-1][-1])
    raise AssertionError("the task did not start")


def ends(pid: int) -> bool:
    """Say whether a process is gone within seconds; one that only waits to be reaped is."""
    for _ in range(50):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False
