import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from assay.errors import AssayError
from assay.reports.records import State
from assay.running.history import find_run, list_runs
from assay.running.scheduler import Entry, Log, Scheduler, apply_here, folder, plan_here
from assay.running.schedules import FILE, Schedules

PIPELINE = """
from kfp import dsl


@dsl.component(base_image="example-python:1", install_kfp_package=False)
def work(seconds: float, fail: bool, diary: str):
    import os
    import time

    from assay.errors import UserError

    with open(diary, "a") as file:
        print("start", os.getpid(), file=file, flush=True)
        time.sleep(seconds)
        if fail:
            raise UserError("the numbers are missing: write some.")
        print("end", os.getpid(), file=file, flush=True)


@dsl.pipeline(name="tiny")
def tiny(seconds: float = 0.0, fail: bool = False, diary: str = ""):
    work(seconds=seconds, fail=fail, diary=diary).set_caching_options(False)
"""

HOUR = timedelta(hours=1)


@pytest.fixture
def tiny(example, tmp_path, monkeypatch):
    """The example project with a state of its own, and a pipeline of one short step."""
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "state"))
    (example.root / "pipelines" / "tiny.py").write_text(PIPELINE)
    return example


@pytest.fixture
def diary(tmp_path):
    return tmp_path / "diary.txt"


@pytest.fixture
def write(tiny, diary) -> Callable[..., Schedules]:
    """Write a schedule ``job`` of the pipeline ``tiny``, and what else is given."""

    def write(*others: dict, **options) -> Schedules:
        settings = {"diary": str(diary), **options.pop("set", {})}
        entries = [{"name": "job", "pipeline": "tiny", **options, "set": settings}]
        entries += [{"pipeline": "tiny", **other, "set": {"diary": str(diary), **other["set"]}} for other in others]
        (tiny.root / FILE).write_text(yaml.safe_dump({"schedules": entries}))
        return Schedules.read(tiny)

    return write


@pytest.fixture
def start(tiny):
    """Start `assay schedule run` as a process of its own; it is stopped at the end of the test."""
    processes = []

    def start(*words: str) -> subprocess.Popen:
        environment = {**os.environ, "ASSAY_PROJECT": str(tiny.root)}
        command = [sys.executable, "-m", "assay.cli", "schedule", "run", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes.append(subprocess.Popen(command, env=environment, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.terminate()
            process.communicate(timeout=40)
        process.kill()


def _until(condition: Callable[[], object], seconds: float = 60) -> object:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return found


def _log(tiny) -> list[Entry]:
    return Log(folder(tiny)).entries()


def _ended(tiny, name: str, count: int = 1) -> list[Entry]:
    found = [entry for entry in _log(tiny) if entry.schedule == name and entry.finished]
    return found if len(found) >= count else []


def _words(diary) -> list[str]:
    return [line.split()[0] for line in diary.read_text().splitlines()] if diary.exists() else []


def _since(tiny, schedules: Schedules, age: timedelta) -> None:
    """Make the schedules as old as if they had been applied that long ago."""
    apply_here(schedules, tiny)
    path = folder(tiny) / "applied.json"
    content = json.loads(path.read_text())
    for entry in content.values():
        entry["since"] = (datetime.now(UTC) - age).isoformat()
    path.write_text(json.dumps(content))


def _last_hour() -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


# Processes


def test_runs_repeat_without_overlap_and_a_failing_one_stops_nothing(tiny, write, start, diary):
    write({"name": "bad", "interval": "1s", "set": {"fail": True}}, interval="1s", set={"seconds": 0.3})
    process = start("--parallel", "2")
    good, bad = _until(lambda: _ended(tiny, "job", 2)), _until(lambda: _ended(tiny, "bad", 2))
    process.terminate()
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 0
    assert "Traceback" not in output
    assert [entry.state for entry in good[:2]] == [State.SUCCEEDED, State.SUCCEEDED]
    assert [(entry.state, entry.error) for entry in bad[:2]] == [
        (State.FAILED, "the numbers are missing: write some.")
    ] * 2
    assert find_run(tiny, good[0].run).state == "succeeded"
    assert find_run(tiny, bad[0].run).state == "failed"
    for first, second in itertools.pairwise(good):
        assert second.started >= first.finished
        assert second.due > first.due
    assert all(entry.finished for entry in _log(tiny)), "the end of every run that started is logged"


def test_sigterm_stops_the_run_and_a_restart_makes_up_for_it(tiny, write, start, diary):
    schedules = write(cron="0 * * * *", set={"seconds": 60.0})
    _since(tiny, schedules, 3 * HOUR)
    due = _last_hour()
    process = start()
    _until(lambda: "start" in _words(diary))
    assert _second_scheduler(start).endswith("stop it first.\n")
    process.terminate()
    process.communicate(timeout=40)
    (entry,) = _log(tiny)
    assert (process.returncode, entry.state) == (0, State.INTERRUPTED)
    assert due <= entry.due <= _last_hour(), "the last of three missed runs, once"
    worker = int(diary.read_text().split()[1])
    _until(lambda: _is_gone(worker), seconds=10)
    assert "runs at once" in plan_here(schedules, tiny)[0].summary
    assert plan_here(schedules, tiny)[0].action == "unchanged"
    assert list_runs(tiny)[0].state == "interrupted"


def _is_gone(pid: int) -> bool:
    """Say whether a process has ended; one that only waits to be reaped has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _second_scheduler(start) -> str:
    output, _ = start().communicate(timeout=40)
    return output


def test_a_run_outlives_a_killed_scheduler_and_is_not_repeated(tiny, write, start, diary):
    _since(tiny, write(cron="0 * * * *", set={"seconds": 4.0}), HOUR)
    process = start()
    _until(lambda: "start" in _words(diary))
    process.kill()
    process.communicate(timeout=20)
    assert _log(tiny)[0].state == State.RUNNING
    process = start()
    _until(lambda: _ended(tiny, "job"))
    process.terminate()
    process.communicate(timeout=40)
    (entry,) = _log(tiny)
    assert entry.state == State.SUCCEEDED
    assert find_run(tiny, entry.run).state == "succeeded"
    assert _words(diary) == ["start", "end"]


def test_once_runs_one_schedule_and_ends_as_it_does(tiny, write, start, diary):
    write({"name": "bad", "cron": "0 0 1 1 *", "set": {"fail": True}}, cron="0 0 1 1 *")
    process = start("--once", "job")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Report: " in output
    process = start("--once", "bad")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.splitlines()[-1] == "error: the numbers are missing: write some."
    assert start("--once", "none").communicate(timeout=60)[0].startswith("error: 'none' is not a schedule of")
    assert [entry.state for entry in _log(tiny)] == [State.SUCCEEDED, State.FAILED]


# The rules, without waiting


class _Planned(Scheduler):
    """Notes what would be run instead of waiting for it."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.planned = []

    def _plan(self, schedule, due, at) -> None:
        self.planned.append((due, at))

    def next(self, schedule, owed_since: datetime) -> tuple[datetime, datetime]:
        self._owed_since[schedule.name] = owed_since
        self._await_next(schedule)
        return self.planned[-1]


def _planned(tiny, schedules) -> _Planned:
    return _Planned(tiny, schedules, Console(file=io.StringIO()))


def test_a_missed_run_is_made_up_for_once_or_left_out(tiny, write):
    for rule, expected in (("once", _last_hour()), ("never", _last_hour() + HOUR)):
        schedules = write(cron="0 * * * *", catch_up=rule)
        now = datetime.now(UTC)
        due, at = _planned(tiny, schedules).next(schedules.schedules[0], now - 50 * HOUR)
        assert due == expected
        assert at == due or (rule == "once" and abs(at - now) < timedelta(seconds=5))
        due, at = _planned(tiny, schedules).next(schedules.schedules[0], now)
        assert due == at == _last_hour() + HOUR, "nothing was missed"


def test_jitter_only_delays_and_differs(tiny, write):
    schedules = write(cron="0 * * * *", jitter=600)
    planned = _planned(tiny, schedules)
    found = [planned.next(schedules.schedules[0], datetime.now(UTC)) for _ in range(20)]
    delays = {(at - due).total_seconds() for due, at in found}
    assert len(delays) > 10
    assert all(0 <= delay <= 600 for delay in delays)


def test_a_clock_that_is_set_back_repeats_nothing(tiny, write):
    schedules = write(cron="0 * * * *")
    ahead = _last_hour() + HOUR  # ran at that time, then the clock was set back
    due, _ = _planned(tiny, schedules).next(schedules.schedules[0], ahead)
    assert due == ahead + HOUR


def test_the_log_says_what_is_owed(tmp_path):
    log, now = Log(tmp_path), datetime(2026, 1, 10, 12, tzinfo=UTC)
    since = now - 5 * HOUR

    def add(hours: float, state: State) -> None:
        time = now - hours * HOUR
        log.append(Entry(schedule="a", due=time, started=time, state=State.RUNNING))
        if state != State.RUNNING:
            log.append(Entry(schedule="a", due=time, started=time, finished=time, state=state))

    assert log.handled("a", since, now) == since
    add(4, State.SUCCEEDED)
    add(3, State.FAILED)
    add(2, State.INTERRUPTED)
    add(1, State.RUNNING)
    assert log.handled("a", since, now) == now - 3 * HOUR, "what was cut off is owed still"
    assert log.handled("b", since, now) == since
    assert [entry.state.value for entry in log.entries()] == ["succeeded", "failed", "interrupted", "running"]
    add(-1000, State.SUCCEEDED)
    assert log.handled("a", since, now) == now - 3 * HOUR, "written while the clock was wrong"


def test_a_line_that_was_torn_harms_no_other(tmp_path):
    log, now = Log(tmp_path), datetime(2026, 1, 10, tzinfo=UTC)
    log.append(Entry(schedule="a", due=now, started=now))
    with log.path.open("a") as file:
        file.write('{"schedule": "a", "du')
    log.append(Entry(schedule="b", due=now, started=now))
    assert [entry.schedule for entry in log.entries()] == ["a", "b"]


def test_what_this_machine_would_do_is_compared_with_what_it_applied(tiny, write):
    schedules = write(cron="0 * * * *")
    assert [change.action for change in plan_here(schedules, tiny)] == ["create"]
    apply_here(schedules, tiny)
    assert [change.action for change in plan_here(schedules, tiny)] == ["unchanged"]
    changed = write({"name": "new", "cron": "0 0 * * *", "set": {}}, cron="5 * * * *")
    job, new = plan_here(changed, tiny)
    assert (job.action, job.details, new.action) == ("update", ["cron: 0 * * * * → 5 * * * *"], "create")
    apply_here(changed, tiny)
    assert [(change.name, change.action) for change in plan_here(schedules, tiny)] == [
        ("job", "update"),
        ("new", "delete"),
    ]


def test_a_schedule_that_changes_owes_nothing_from_before(tiny, write):
    schedules = write(cron="0 * * * *")
    _since(tiny, schedules, 100 * HOUR)
    assert apply_here(schedules, tiny)["job"] < datetime.now(UTC) - 99 * HOUR
    assert apply_here(write(cron="5 * * * *"), tiny)["job"] > datetime.now(UTC) - HOUR


def test_a_run_that_goes_on_elsewhere_is_not_doubled_by_once(tiny, write):
    from assay.running.scheduler import _locked

    schedules = write(cron="0 * * * *")
    scheduler = Scheduler(tiny, schedules, Console(file=io.StringIO()))
    with _locked(folder(tiny) / "job.lock"), pytest.raises(AssayError, match="A run of job is going on"):
        scheduler.run_now("job")


def test_signals_are_handled_as_before_when_the_scheduler_ends(tiny, write):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(AssayError):
        Scheduler(tiny, write(cron="0 * * * *"), Console(file=io.StringIO())).run_now("none")
    assert signal.getsignal(signal.SIGTERM) == before
