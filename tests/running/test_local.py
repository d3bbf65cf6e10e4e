"""Real runs of kfp.local: order, cache, failure, continuing, loops, interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assay.errors import UserError
from assay.reports.records import Run


@pytest.fixture(scope="module")
def first(run_example):
    return run_example()


@pytest.fixture(scope="module")
def second(run_example, first):
    return run_example()


@pytest.fixture(scope="module")
def failed(run_example, first):
    return run_example("scale=5", mood="user error")


ALL = {"make", "train", "turn.0", "turn.1", "turn.2", "decide", "promote"}


def test_every_task_runs_once_with_its_own_log(first):
    assert first.error is None
    assert first.states == dict.fromkeys(ALL, "succeeded")
    for number, item in enumerate((7, 8, 9)):
        log = (first.folder / "logs" / f"turn.{number}.log").read_text()
        assert [line for line in log.splitlines() if line.startswith("this is item")] == [f"this is item {item}"]
        assert first.task(f"turn.{number}").label == f"turn [{item}]"


def test_a_loop_shares_the_cores_among_its_turns(first):
    cores = len(os.sched_getaffinity(0))
    assert first.task("train").metrics["threads"] == str(cores)
    assert first.task("turn.0").metrics["threads"] == str(max(1, cores // 2))


def test_the_record_and_the_outputs_lie_in_the_run_folder(first):
    record = json.loads((first.folder / "run.json").read_text())
    assert record["state"] == "succeeded"
    assert record["parameters"] == {
        "amount": 3, "scale": 2, "workers": 0, "making": {"colour": "red"}, "items": [7, 8, 9],
    }  # fmt: skip
    assert list(first.task("make").metrics) == ["share", "share_low", "share_high", "colour", "amount"]
    assert first.task("train").metrics["run"] == first.run.id
    weights = first.folder / "artifacts" / "train" / "model" / "weights.txt"
    assert weights.read_text() == "6"
    assert first.task("train").outputs["model"].uri == str(weights.parent)
    assert {path.name for path in first.folder.iterdir()} == {
        "run.json", "pipeline.yaml", "logs", "artifacts", "report.html", "reports",
    }  # fmt: skip


def test_the_output_is_a_line_for_each_event_then_metrics_champion_and_report(first):
    lines = first.output.splitlines()
    assert sum(line.endswith("started") for line in lines) == len(ALL)
    assert "0.5000 [0.4000, 0.6000]" in first.output
    assert "Champion: example version 3" in lines
    assert lines[-1] == f"Report: {first.folder / 'report.html'}"
    assert "executor_input" not in first.output


def test_an_unchanged_run_is_all_cache_hits(first, second):
    assert second.states == dict.fromkeys(ALL, "cached")
    assert second.run.seconds < 20
    assert second.task("train").cached_from == first.run.id
    assert f"Champion: example version 3, promoted by the earlier run {first.run.id}" in second.output
    assert second.task("train").cached_seconds == pytest.approx(first.task("train").seconds, abs=0.5)
    assert second.task("train").metrics == first.task("train").metrics
    log = (second.folder / second.task("turn.1").log).resolve()
    assert log == (first.folder / "logs" / "turn.1.log").resolve()


def test_a_setting_reruns_only_what_depends_on_its_content(run_example, second):
    changed = run_example("making.colour=blue")
    assert changed.task("make").metrics["colour"] == "blue"
    reran = {name for name, state in changed.states.items() if state == "succeeded"}
    assert reran == {"make"}, "the numbers are the same bytes, so nothing that reads them runs again"
    changed = run_example("scale=4", "items=[7, 5]")
    reran = {name for name, state in changed.states.items() if state == "succeeded"}
    assert reran == {"train", "decide", "turn.0", "turn.1"}


def test_a_changed_or_vanished_output_is_computed_again(run_example, first, second):
    weights = first.folder / "artifacts" / "train" / "model" / "weights.txt"
    weights.unlink()
    again = run_example()
    assert again.states["train"] == "succeeded"
    assert again.states["make"] == "cached"
    assert again.states["turn.0"] == "cached", "the new model holds the same bytes as the one that vanished"


def test_a_users_mistake_is_its_sentence_without_a_traceback(failed):
    assert isinstance(failed.error, UserError)
    assert str(failed.error) == "numbers.txt holds no numbers: write some."
    assert failed.run.state == "failed"
    assert failed.run.error == str(failed.error)
    assert failed.run.failed_task == "train"
    assert failed.states == {"make": "cached", "train": "failed"}
    assert failed.run.node_state("decide") == "skipped"
    assert "Traceback" not in failed.output
    assert str(failed.folder / "logs" / "train.log") in failed.output


def test_a_failed_run_continues_where_it_failed(run_example, failed):
    continued = run_example("scale=5")
    assert continued.error is None
    assert continued.states["make"] == "cached"
    assert continued.states["train"] == "succeeded"


def test_a_bug_shows_the_last_lines_and_the_log(run_example):
    result = run_example("scale=6", mood="bug")
    assert result.error.exit_code == 1
    assert "ValueError: a bug" in result.output
    shown = result.output.split("The last lines of train:")[1].split("\n\n")[0].strip().splitlines()
    assert len(shown) <= 15
    assert str(result.folder / "logs" / "train.log") in str(result.error)


def test_a_secret_that_a_task_prints_is_in_no_file_and_on_no_screen(run_example, monkeypatch, capfd):
    canary = "canary-4711"
    monkeypatch.setenv("EXAMPLE_API_KEY", canary)
    monkeypatch.setenv("EXAMPLE_STORE", f"s3+http://me:{canary}@127.0.0.1:1/bucket")
    result = run_example("scale=7", mood="print everything")
    log = (result.folder / "logs" / "train.log").read_text()
    assert "'EXAMPLE_API_KEY': '***'" in log
    assert "no answer from s3+http://me:***@127.0.0.1:1/bucket" in log
    shown = result.output + str(result.error) + "".join(capfd.readouterr())
    assert canary not in shown
    files = [path for path in result.folder.rglob("*") if path.is_file()]
    assert [path for path in files if canary.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(("place", "count"), [("train", 1), ("turn", 2)], ids=["alone", "in a loop"])
def test_an_interrupt_stops_every_child_and_is_recorded(example, place, count):
    command = f"from assay.running.local import run_locally as run; run('example', settings=['scale={90 + count}'])"
    with subprocess.Popen(
        [sys.executable, "-c", command],
        cwd=example.root,
        env={**os.environ, "EXAMPLE": f"sleep in {place}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        asleep = _sleeping_tasks(example.state / "runs", f"{place}*.log", count)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
    assert all(_is_gone(child) for child in asleep.values())
    run = Run.read(next(iter(asleep)).parents[1])
    assert run.state == "interrupted"
    assert "run the same command again" in run.error
    interrupted = {task.name for task in run.tasks if task.state == "interrupted"}
    assert interrupted == {log.stem for log in asleep}, "and no turn of a loop started after the signal"


def _sleeping_tasks(runs: Path, pattern: str, count: int) -> dict[Path, int]:
    """Wait until so many tasks say that they sleep; return their logs and processes."""
    for _ in range(300):
        time.sleep(0.1)
        lines = {log: log.read_text().splitlines() for log in runs.glob(f"*/logs/{pattern}")}
        words = {log: line.split() for log, found in lines.items() for line in found if line.startswith("asleep")}
        if len(words) == count:
            return {log: int(line[-1]) for log, line in words.items()}
    raise AssertionError("the tasks did not start")


def _is_gone(pid: int) -> bool:
    """Say whether a process has ended; one that only waits to be reaped has."""
    for _ in range(50):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False
