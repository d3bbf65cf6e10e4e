"""Running ``pipelines/schedules.yaml`` on one machine: APScheduler keeps the time, each run is an ``assay run``.

Every schedule has one job at a time, for its next due time; the one after is worked out when that run has ended. So a
schedule never overlaps with itself, and what fell due meanwhile is a missed run, to which the catch-up rule applies
as it does after a restart. A lock that the child process inherits holds the same across processes.
"""

import contextlib
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ValidationError
from rich.console import Console

from assay.errors import AssayError, UserError
from assay.files import disk_errors, write_json
from assay.project import Project
from assay.reports.records import Run, State
from assay.reports.values import format_duration
from assay.running.history import list_runs
from assay.running.schedules import FILE, Change, Schedule, Schedules, zone_of

_GRACE = 30.0  # seconds that a run has to stop its tasks, before it is killed
_HEARTBEAT = 30  # seconds; also bounds how late a job is after the clock jumped or the machine slept
_BUSY = 5.0  # seconds before looking again whether another process has finished a run of the schedule
_WRONG_CLOCK = timedelta(days=1)  # a due time that far ahead was written while the clock was wrong


class Entry(BaseModel):
    """One run in the log; it is written when the run starts and again when it has ended."""

    schedule: str
    due: datetime
    started: datetime
    finished: datetime | None = None
    state: State = State.RUNNING
    run: str = ""
    error: str = ""
    pid: int = 0


class Log:
    """What ran, as JSON lines that are only ever appended: ``<state>/schedules/log.jsonl``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log.jsonl"

    def append(self, entry: Entry) -> None:
        """Add a line, on the disk before this returns."""
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
                torn = file.read(1) not in (b"\n", b"")  # the machine stopped in the middle of a line
                file.write((b"\n" if torn else b"") + entry.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

    def entries(self) -> list[Entry]:
        """Return the last word on each run, in the order of their starts; torn lines are left out."""
        found: dict[tuple[str, datetime], Entry] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in self.path.read_bytes().splitlines():
                with contextlib.suppress(ValidationError):
                    entry = Entry.model_validate_json(line)
                    found[entry.schedule, entry.started] = entry
        return list(found.values())

    def last(self, schedule: str) -> Entry | None:
        """Return the newest run of a schedule."""
        return next((entry for entry in reversed(self.entries()) if entry.schedule == schedule), None)

    def handled(self, schedule: str, since: datetime, now: datetime) -> datetime:
        """Return the time up to which nothing of a schedule is owed; at least ``since``.

        A run that was interrupted, or whose process was killed, is still owed.
        """
        cut_off = (State.RUNNING, State.INTERRUPTED)
        dues = [entry.due for entry in self.entries() if entry.schedule == schedule and entry.state not in cut_off]
        return max([since, *(due for due in dues if due < now + _WRONG_CLOCK)])


def folder(project: Project) -> Path:
    """Return the scheduler's folder: what it applied, its log, the output of each schedule's last run."""
    return project.state / "schedules"


def plan_here(schedules: Schedules, project: Project) -> list[Change]:
    """Return how the file differs from what the scheduler of this machine last applied, with next and last runs."""
    applied = _applied(project)
    log, now = Log(folder(project)), datetime.now(UTC)
    changes = []
    for schedule in schedules.schedules:
        calendar = schedules.calendar(schedule)
        before, after = applied.pop(schedule.name, None), _definition(schedules, schedule)
        details = []
        if before is not None and before["definition"] != after:
            old = before["definition"]
            keys = sorted(key for key in old.keys() | after.keys() if old.get(key) != after.get(key))
            details = [f"{key}: {old.get(key)} → {after.get(key)}" for key in keys]
        action: Any = "create" if before is None else "update" if details else "unchanged"
        due = calendar.next(now) if schedule.enabled else None
        following = f"next {due.astimezone(calendar.zone):%a %Y-%m-%d %H:%M %Z}" if due else "no next run"
        if before and schedule.enabled:
            missed = calendar.latest(log.handled(schedule.name, datetime.fromisoformat(before["since"]), now), now)
            if missed and schedule.catch_up == "once" and not details:
                following = f"missed {missed.astimezone(calendar.zone):%a %Y-%m-%d %H:%M %Z}, runs at once"
        summary = f"{schedule.pipeline}, {calendar}{'' if schedule.enabled else ', disabled'}; {following}"
        if last := log.last(schedule.name):
            summary += f"; last {last.started.astimezone(calendar.zone):%Y-%m-%d %H:%M} {last.state.value}"
        changes.append(Change(schedule.name, action, summary, details))
    return changes + [Change(name, "delete") for name in sorted(applied)]


def apply_here(schedules: Schedules, project: Project) -> dict[str, datetime]:
    """Remember the file as applied, and return since when each schedule has been what it is."""
    applied, now = _applied(project), datetime.now(UTC)
    since = {}
    for schedule in schedules.schedules:
        before = applied.get(schedule.name)
        same = before is not None and before["definition"] == _definition(schedules, schedule)
        since[schedule.name] = datetime.fromisoformat(before["since"]) if before and same else now
    content = {
        schedule.name: {"since": since[schedule.name].isoformat(), "definition": _definition(schedules, schedule)}
        for schedule in schedules.schedules
    }
    write_json(folder(project) / "applied.json", content)
    return since


class Scheduler:
    """The schedules of one project on this machine.

    Args:
        project: whose pipelines run.
        schedules: its file.
        console: where starts and ends are printed.
        parallel: runs of different schedules at a time.
    """

    def __init__(
        self, project: Project, schedules: Schedules, console: Console | None = None, parallel: int = 1
    ) -> None:
        self._project = project
        self._schedules = schedules
        self._console = console or Console()
        self._parallel = parallel
        self._log = Log(folder(project))
        self._owed_since: dict[str, datetime] = {}
        self._children = _Children()
        self._scheduler: Any = None

    def serve(self) -> None:
        """Run what is due until SIGINT, SIGTERM or SIGHUP, then stop what is running.

        Raises:
            UserError: a scheduler of this project runs already.
        """
        from apscheduler.executors.pool import ThreadPoolExecutor
        from apscheduler.schedulers.background import BackgroundScheduler

        stop = threading.Event()
        with _signals(lambda *_: stop.set()), self._only_one():
            since = apply_here(self._schedules, self._project)
            executors = {"default": ThreadPoolExecutor(self._parallel), "heartbeat": ThreadPoolExecutor(1)}
            self._scheduler = BackgroundScheduler(executors=executors, timezone=UTC)
            # Every wake-up looks at the clock: the wait for a far due time would not notice that it was set.
            heartbeat = {"seconds": _HEARTBEAT, "executor": "heartbeat", "misfire_grace_time": None, "coalesce": True}
            self._scheduler.add_job(lambda: None, "interval", **heartbeat)
            now = datetime.now(UTC)
            for schedule in self._schedules.schedules:
                if schedule.enabled:
                    self._owed_since[schedule.name] = self._log.handled(schedule.name, since[schedule.name], now)
                    self._await_next(schedule)
            self._scheduler.start()
            try:
                while not stop.wait(0.5):
                    pass
            finally:
                self._say("stopping")
                self._children.stop()
                self._scheduler.shutdown(wait=True)

    def run_now(self, name: str) -> Entry:
        """Run one schedule at once, its output on this terminal.

        Raises:
            UserError: there is no such schedule.
            AssayError: a run of it is going on, or this one failed.
        """
        schedule, now = self._schedules.find(name), datetime.now(UTC)
        with _signals(lambda *_: self._children.stop(wait=False)), self._lock(schedule) as lock:
            if lock is None:
                raise AssayError(f"A run of {name} is going on: wait for its end; `assay runs list` shows it.")
            self._recover(schedule)
            entry = self._execute(schedule, now, lock, output=None)
        if entry.state == State.INTERRUPTED:
            raise KeyboardInterrupt
        if entry.state != State.SUCCEEDED:
            raise AssayError(entry.error)
        return entry

    def _await_next(self, schedule: Schedule) -> None:
        """Plan a schedule's next run: a missed one at once, if the rule says so, else at its next due time."""
        calendar, now = self._schedules.calendar(schedule), datetime.now(UTC)
        owed_since = self._owed_since[schedule.name]
        due, at = calendar.latest(owed_since, now), now
        if due is not None and schedule.catch_up == "once":
            self._say(f"{schedule.name} missed its run of {self._clock(due)} and makes up for it now")
        else:
            if due is not None:
                self._say(f"{schedule.name} missed its run of {self._clock(due)} and leaves it out")
            due = calendar.next(max(now, owed_since))
            if due is None:
                self._say(f"{schedule.name} has no further run")
                return
            at = due
            self._say(f"{schedule.name} runs next at {self._clock(due)}")
        self._plan(schedule, due, at + timedelta(seconds=random.uniform(0, schedule.jitter)))  # noqa: S311

    def _plan(self, schedule: Schedule, due: datetime, at: datetime) -> None:
        if self._children.stopping:
            return
        # No time is too late: what to do about a late run is for the catch-up rule alone.
        self._scheduler.add_job(self._fire, "date", run_date=at, args=(schedule, due), misfire_grace_time=None)

    def _fire(self, schedule: Schedule, due: datetime) -> None:
        """Run a schedule that is due, then plan the next; nothing that goes wrong stops the scheduler."""
        try:
            with self._lock(schedule) as lock:
                if lock is None:
                    self._plan(schedule, due, datetime.now(UTC) + timedelta(seconds=_BUSY))
                    return
                self._recover(schedule)
                if due > self._log.handled(schedule.name, self._owed_since[schedule.name], datetime.now(UTC)):
                    output = folder(self._project) / f"{schedule.name}.log"
                    entry = self._execute(schedule, due, lock, output)
                    took = format_duration((entry.finished - entry.started).total_seconds()) if entry.finished else ""
                    self._say(f"{schedule.name} {entry.state.value} in {took}  {entry.run}  {entry.error}".rstrip())
        except Exception as error:
            self._say(f"{schedule.name} could not run: {error}")
        if not self._children.stopping:
            self._owed_since[schedule.name] = max(due, self._owed_since[schedule.name])
            self._await_next(schedule)

    def _execute(self, schedule: Schedule, due: datetime, lock: int, output: Path | None) -> Entry:
        """Run the pipeline in a child process, and log its start and its end."""
        entry = Entry(schedule=schedule.name, due=due, started=datetime.now(UTC))
        words = ["run", schedule.pipeline]
        for setting in schedule.settings:
            words += ["--set", setting]
        if schedule.workers is not None:
            words += ["--workers", str(schedule.workers)]
        command = [sys.executable, "-m", "assay.cli", *words]
        with contextlib.ExitStack() as stack:
            file: IO[bytes] | None = None
            if output is not None:
                with disk_errors(output):
                    file = stack.enter_context(output.open("wb"))
            process = self._children.start(command, self._project, file, lock)
            if process is not None:
                entry.pid = process.pid
                self._log.append(entry)
                if output is not None:
                    self._say(f"{schedule.name} started (due {self._clock(due)})")
                process.wait()
                self._children.ended(process)
        return self._conclude(entry, process.returncode if process else None, output)

    def _conclude(self, entry: Entry, code: int | None, output: Path | None) -> Entry:
        """Log how a run ended: by its own record, else by the exit code."""
        entry.finished = datetime.now(UTC)
        run = self._run_of(entry)
        entry.run = run.id if run else ""
        entry.error = run.error if run else _last_error(output)
        if code == 0:
            entry.state = State.SUCCEEDED
        elif self._children.stopping or code is None or code == 130:
            entry.state = State.INTERRUPTED
        else:
            entry.state = State.FAILED
            entry.error = entry.error or f"assay run ended with code {code}."
        if entry.pid:
            self._log.append(entry)
        return entry

    def _recover(self, schedule: Schedule) -> None:
        """Close the entry of a run whose scheduler was killed; its lock is free, so the run has ended."""
        entry = self._log.last(schedule.name)
        if entry is None or entry.state != State.RUNNING:
            return
        run = self._run_of(entry)
        ended = run is not None and run.state in (State.SUCCEEDED, State.FAILED)
        entry.state = run.state if run and ended else State.INTERRUPTED
        entry.finished = run.finished if run else datetime.now(UTC)
        entry.run, entry.error = (run.id, run.error) if run else ("", "The scheduler was killed during this run.")
        self._log.append(entry)

    def _run_of(self, entry: Entry) -> Run | None:
        """Return the record of the run that the entry's process made."""
        runs = list_runs(self._project)
        return next((run for run in runs if run.pid == entry.pid and run.started >= entry.started), None)

    @contextlib.contextmanager
    def _lock(self, schedule: Schedule) -> Iterator[int | None]:
        """Yield a locked file of this schedule, or nothing if another process (or the run it left) holds it."""
        with _locked(folder(self._project) / f"{schedule.name}.lock") as handle:
            yield handle

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        path = folder(self._project) / "scheduler.lock"
        with _locked(path) as handle:
            if handle is None:
                raise UserError(f"A scheduler of this project runs already ({path} is locked): stop it first.")
            yield

    def _clock(self, time: datetime) -> str:
        return f"{time.astimezone(zone_of(self._schedules.timezone)):%a %Y-%m-%d %H:%M:%S %Z}"

    def _say(self, text: str) -> None:
        now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        with contextlib.suppress(OSError):  # the terminal may be gone; the log tells
            self._console.print(f"{now}  {text}", markup=False, highlight=False, soft_wrap=True)


@dataclass
class _Children:
    """The runs that are going on, and how they are stopped."""

    stopping: bool = False
    _processes: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(
        self, command: Sequence[str], project: Project, output: IO[bytes] | None, lock: int
    ) -> "subprocess.Popen[bytes] | None":
        """Start a run in a process group of its own; nothing once everything stops."""
        environment = {**os.environ, "ASSAY_PROJECT": str(project.root), "ASSAY_HOME": str(project.state)}
        with self._lock:
            if self.stopping:
                return None
            process = subprocess.Popen(
                command,
                cwd=project.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                start_new_session=True,
                pass_fds=(lock,),  # the lock outlives this process with the run
            )
            self._processes.add(process)
            if self.stopping:  # the signal came since the line before the start
                _signal_group(process, signal.SIGTERM)
            return process

    def ended(self, process: "subprocess.Popen[bytes]") -> None:
        """Forget a run that has ended."""
        with self._lock:
            self._processes.discard(process)

    def stop(self, wait: bool = True) -> None:
        """Ask every run to stop its tasks; after the grace period kill it."""
        with contextlib.ExitStack() as stack:
            if wait:  # a signal handler must not wait for a lock that its own thread holds
                stack.enter_context(self._lock)
            self.stopping = True
            processes = list(self._processes)
        for process in processes:
            _signal_group(process, signal.SIGTERM)
        if not wait:
            timer = threading.Timer(_GRACE, self._kill, args=(processes,))
            timer.daemon = True
            timer.start()
            return
        end = time.monotonic() + _GRACE
        for process in processes:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal_group(process, signal.SIGKILL)

    @staticmethod
    def _kill(processes: "Sequence[subprocess.Popen[bytes]]") -> None:
        for process in processes:
            _signal_group(process, signal.SIGKILL)


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


@contextlib.contextmanager
def _signals(handler: Any) -> Iterator[None]:
    """Handle the signals that ask this process to end, but those that it was started to ignore (nohup)."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int | None]:
    """Yield a handle that holds a lock on ``path`` for itself and whoever inherits it, or nothing."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _definition(schedules: Schedules, schedule: Schedule) -> dict[str, Any]:
    """Return what makes a schedule on this machine what it is."""
    return {**schedule.model_dump(mode="json", exclude={"name"}), "timezone": schedules.timezone}


def _applied(project: Project) -> dict[str, dict[str, Any]]:
    path = folder(project) / "applied.json"
    try:
        content = json.loads(path.read_bytes())
        for entry in content.values():
            datetime.fromisoformat(entry["since"])
            dict(entry["definition"])
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not what a scheduler wrote: remove it; {FILE} is then applied anew.") from error
    return dict(content)


def _last_error(output: Path | None) -> str:
    """Return the sentence that ``assay run`` ended with, if it stopped before it had a record."""
    if output is None or not output.is_file():
        return ""
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), "")
