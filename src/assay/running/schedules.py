"""The recurring runs of a project: ``pipelines/schedules.yaml``, and making a server's recurring runs equal to it."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import Field

from assay.config import Config
from assay.errors import UserError
from assay.files import safe_name
from assay.project import Project
from assay.running.arguments import resolve_arguments
from assay.running.pipelines import load_pipeline
from assay.running.server import Record, Server
from assay.running.submit import Package, content_digest

FILE = "pipelines/schedules.yaml"

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT = timedelta(milliseconds=1)
_MARK = "assay-schedule:"


class Schedule(Config):
    """One recurring run."""

    name: str
    pipeline: str
    cron: str = ""
    """Five fields: minute, hour, day of the month, month, day of the week; in the file's time zone."""
    interval: str = ""
    """Instead of ``cron``: 30m, 6h, 1d; counted from ``start``, else from 1970."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Parameters as after ``--set``: ``training.epochs: 5``."""
    workers: int | None = Field(None, ge=0)
    enabled: bool = True
    catch_up: Literal["once", "never"] = "once"
    """Whether runs that were missed are made up for by one. A server always does ``once``."""
    max_concurrency: int = Field(1, ge=1, le=10)
    """Runs of this schedule at a time on a server; one machine never runs two."""
    jitter: int = Field(0, ge=0, le=86400)
    """Seconds at most by which a run on one machine starts later, drawn anew each time."""
    start: datetime | None = None
    end: datetime | None = None
    experiment: str = ""
    """Groups the runs on a server; default: the pipeline's name."""

    @property
    def settings(self) -> list[str]:
        """What would follow ``--set``."""
        return [f"{key}={json.dumps(value)}" for key, value in self.set.items()]


class Schedules(Config):
    """The whole file."""

    timezone: str = "UTC"
    schedules: list[Schedule] = Field(default_factory=list)

    @classmethod
    def read(cls, project: Project) -> "Schedules":
        """Read and check the file: keys, times, pipelines and parameters.

        Raises:
            UserError: something is wrong; the sentence names the file and the entry.
        """
        values = _load(project.root / FILE)
        entries = values.get("schedules")
        for number, entry in enumerate(entries if isinstance(entries, list) else [], 1):
            named = entry.get("name", f"entry {number}") if isinstance(entry, dict) else f"entry {number}"
            if not isinstance(entry, dict):
                raise UserError(f"{FILE}: {named} is {entry!r}: write name, pipeline, and cron or interval.")
            Schedule.parse(entry, where=f"{FILE}: {named}")
        read = cls.parse(values, where=FILE)
        zone_of(read.timezone)
        names: set[str] = set()
        for schedule in read.schedules:
            if schedule.name in names:
                raise UserError(f"{FILE}: two schedules are called {schedule.name}: give each a name of its own.")
            names.add(schedule.name)
            read.check(schedule, project)
        return read

    def check(self, schedule: Schedule, project: Project) -> None:
        """Check one schedule as ``assay run`` would check its pipeline and settings.

        Raises:
            UserError: something is wrong with it.
        """
        try:
            safe_name(schedule.name, "name of a schedule")
            self.calendar(schedule)
            resolve_arguments(load_pipeline(project, schedule.pipeline), project, schedule.settings, schedule.workers)
        except UserError as error:
            raise UserError(f"{FILE}: {schedule.name}: {error}") from error

    def calendar(self, schedule: Schedule) -> "Calendar":
        """Return when a schedule is due."""
        return Calendar(schedule, self.timezone)

    def find(self, name: str) -> Schedule:
        """Return the schedule of this name.

        Raises:
            UserError: there is none.
        """
        for schedule in self.schedules:
            if schedule.name == name:
                return schedule
        known = ", ".join(schedule.name for schedule in self.schedules) or "none"
        raise UserError(f"{name!r} is not a schedule of {FILE}: there are {known}.")


class Calendar:
    """When a schedule is due, in UTC.

    Raises:
        UserError: not exactly one of cron and interval, or one that is malformed.

    Example:
        >>> schedule = Schedule(name="a", pipeline="b", cron="30 2 * * mon-fri")
        >>> friday = datetime(2026, 1, 2, 12, tzinfo=UTC)
        >>> Calendar(schedule, "Europe/Rome").next(friday).isoformat()
        '2026-01-05T01:30:00+00:00'
    """

    def __init__(self, schedule: Schedule, timezone: str) -> None:
        if bool(schedule.cron) == bool(schedule.interval):
            raise UserError("it needs either cron or interval: write, for example, cron: 30 2 * * *")
        self.schedule = schedule
        self.timezone = timezone
        self.zone = zone_of(timezone)
        self.fields = parse_cron(schedule.cron) if schedule.cron else []
        self.interval = parse_interval(schedule.interval) if schedule.interval else timedelta()
        self.start, self.end = self._aware(schedule.start), self._aware(schedule.end)
        if self.start and self.end and self.end <= self.start:
            raise UserError("its end is not after its start: correct one of them.")

    def __str__(self) -> str:
        if self.interval:
            return f"every {self.schedule.interval}"
        return f"cron {self.schedule.cron} ({self.timezone})"

    def next(self, after: datetime) -> datetime | None:
        """Return the first due time after ``after``; nothing when the schedule has ended."""
        while True:
            later = (after.astimezone(UTC) + _MOMENT).astimezone(self.zone)
            due = self._trigger.get_next_fire_time(None, later)
            if due is None:
                return None
            # A time of day that comes twice when the clock is set back is due the first time, as with cron.
            if not (due.fold and self.fields and not self.fields[1].startswith("*")):
                return due.astimezone(UTC)
            after = due

    def latest(self, after: datetime, now: datetime) -> datetime | None:
        """Return the last due time in (``after``, ``now``]: what was missed, if anything was."""
        reach = timedelta(minutes=1)
        while True:  # look back further and further: a cron of every minute over a year has many times
            since = max(after, now - reach)
            due = self.next(since)
            if due is not None and due <= now:
                break
            if since == after:
                return None
            reach *= 4
        while (following := self.next(due)) is not None and following <= now:
            due = following
        return due

    @cached_property
    def _trigger(self) -> Any:
        from apscheduler.triggers.cron import CronTrigger
        from apscheduler.triggers.interval import IntervalTrigger

        if self.interval:  # in UTC: an interval knows no summer time
            seconds = int(self.interval.total_seconds())
            return IntervalTrigger(seconds=seconds, start_date=self.start or _EPOCH, end_date=self.end, timezone=UTC)
        minute, hour, day, month, weekday = self.fields
        return CronTrigger(
            minute=minute,
            hour=hour,
            day=day,
            month=month,
            day_of_week=weekday,
            start_date=self.start,
            end_date=self.end,
            timezone=self.zone,
        )

    def _aware(self, time: datetime | None) -> datetime | None:
        """Return ``time``, in the file's zone if it names none."""
        return time if time is None or time.tzinfo else time.replace(tzinfo=self.zone)


def parse_cron(text: str) -> list[str]:
    """Return the five fields in the form that APScheduler and Kubeflow Pipelines read alike.

    They number the days of the week differently, so days become names. Both days given mean *either* to cron and
    *both* to APScheduler, so that is refused.

    Raises:
        UserError: it is not a cron expression of five fields.

    Example:
        >>> parse_cron("*/15 8-18 * * 1-5")
        ['*/15', '8-18', '*', '*', 'mon,tue,wed,thu,fri']
    """
    parts = text.lower().split()
    if len(parts) != len(_FIELDS):
        raise UserError(f"cron {text!r} is not five fields: minute, hour, day of the month, month, day of the week.")
    parts[3] = _numbered(parts[3], _MONTHS, 1)
    parts[4] = _numbered(parts[4], _DAYS, 0)
    values = []
    for part, (what, low, high) in zip(parts, _FIELDS, strict=True):
        found = [_expand(item, low, high) for item in part.split(",")]
        if not all(found):
            raise UserError(f"cron {text!r}: {part!r} is not a {what} ({low} to {high}, *, a-b, */n, or a list).")
        values.append({value for item in found for value in item})
    if parts[2] != "*" and parts[4] != "*":
        raise UserError(f"cron {text!r} gives a day of the month and a day of the week: leave one of them *.")
    if parts[4] != "*":
        parts[4] = ",".join(_DAYS[day] for day in sorted({day % 7 for day in values[4]}))
    return parts


def parse_interval(text: str) -> timedelta:
    """Return ``30m``, ``6h`` or ``1d`` as a length of time.

    Raises:
        UserError: it is none, or nothing.
    """
    match = re.fullmatch(r"([1-9]\d{0,6})([smhd])", text.strip())
    if match is None:
        raise UserError(f"interval {text!r} is not a number with s, m, h or d: write, for example, 6h.")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _expand(item: str, low: int, high: int) -> list[int]:
    """Return the values of one item of a field; nothing if it is malformed."""
    match = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/([1-9]\d*))?", item)
    if match is None:
        return []
    first = int(match[1]) if match[1] else low
    last = int(match[2]) if match[2] else first if match[1] and not match[3] else high
    if not low <= first <= last <= high:
        return []
    return list(range(first, last + 1, int(match[3] or 1)))


def _numbered(text: str, names: Sequence[str], first: int) -> str:
    return re.sub(r"[a-z]+", lambda m: str(names.index(m[0]) + first) if m[0] in names else m[0], text)


def zone_of(name: str) -> tzinfo:
    """Return a time zone.

    Raises:
        UserError: the name is not known.
    """
    try:
        return UTC if name == "UTC" else ZoneInfo(name)  # not every machine has the database of the others
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UserError(f"{FILE}: timezone {name!r} is not known: write, for example, UTC or Europe/Rome.") from error


def _load(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: write the project's recurring runs there.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{FILE}{line} is not valid YAML: correct it.") from error
    if not isinstance(values, dict):
        raise UserError(f"{FILE} holds no settings: write timezone and schedules.")
    return values


@dataclass(frozen=True)
class Change:
    """What equality with the file takes for one schedule."""

    name: str
    action: Literal["create", "update", "delete", "unchanged"]
    summary: str = ""
    details: list[str] = field(default_factory=list)
    wanted: "Wanted | None" = None
    keep: Record | None = None
    """The recurring run that is as wanted, but perhaps for being switched on or off."""
    others: list[Record] = field(default_factory=list)
    """Recurring runs of this name that must go."""


@dataclass(frozen=True)
class Wanted:
    """A schedule as a server would keep it."""

    schedule: Schedule
    calendar: Calendar
    package: Package
    arguments: dict[str, Any]
    account: str

    @classmethod
    def all(cls, schedules: Schedules, project: Project, server: Server) -> "list[Wanted]":
        """Return the file's schedules with compiled pipelines and resolved arguments.

        Raises:
            UserError: the server reads cron in another time zone.
        """
        zone = server.address.timezone
        found = []
        for schedule in schedules.schedules:
            if schedule.cron and schedules.timezone != zone:
                raise UserError(
                    f"{FILE} is in {schedules.timezone} and the server reads cron in {zone}: write the file in {zone}, "
                    "or set CRON_SCHEDULE_TIMEZONE on the server and ASSAY_KFP_TIMEZONE here."
                )
            pipeline = load_pipeline(project, schedule.pipeline)
            arguments = resolve_arguments(pipeline, project, schedule.settings, schedule.workers)
            package = Package.of(pipeline, project)
            found.append(
                cls(schedule, schedules.calendar(schedule), package, arguments, server.address.service_account)
            )
        return found

    @property
    def facts(self) -> dict[str, Any]:
        """Everything but being enabled, in plain values, as ``_facts_of`` reads it from a server."""
        calendar = self.calendar
        return {
            "cron": " ".join(["0", *calendar.fields]) if calendar.fields else "",
            "interval": int(calendar.interval.total_seconds()),
            "start": _time(calendar.start),
            "end": _time(calendar.end),
            "max_concurrency": self.schedule.max_concurrency,
            "no_catchup": True,  # False would make up for every missed run, one by one
            "account": self.account,
            "parameters": self.arguments,
        }

    @property
    def experiment(self) -> str:
        """The name of the experiment."""
        return self.schedule.experiment or self.package.pipeline

    @property
    def digest(self) -> str:
        """Names all that is wanted but being enabled."""
        content = {**self.facts, "experiment": self.experiment, "version": self.package.digest}
        return content_digest(json.dumps(content, sort_keys=True))

    def create(self, server: Server, project: Project, *, enabled: bool, known: set[str]) -> Record:
        """Create the recurring run, with the version of the pipeline that this file means."""
        version, _ = self.package.upload(server)
        description = (
            f"From {FILE} at commit {self.package.commit}; changed by `assay schedule apply` alone.\n"
            f"{_MARK} {project_name(project)}/{self.schedule.name} {self.digest}"
        )

        def find() -> Record | None:
            mine = owned(server.recurring_runs(), project).get(self.schedule.name, [])
            new = [record for record in mine if record["recurring_run_id"] not in known]
            return next((record for record in new if _mark(record, project)[1] == self.digest), None)

        return server.create_recurring_run(
            find,
            version=version,
            parameters=self.arguments,
            display_name=self.schedule.name,
            description=description,
            experiment_id=server.experiment(self.experiment)["experiment_id"],
            trigger=self._trigger(),
            max_concurrency=str(self.schedule.max_concurrency),
            no_catchup=True,
            mode="ENABLE" if enabled else "DISABLE",
        )

    def _trigger(self) -> Any:
        from kfp_server_api import V2beta1CronSchedule, V2beta1PeriodicSchedule, V2beta1Trigger

        facts = self.facts
        times = {"start_time": self.calendar.start, "end_time": self.calendar.end}
        if facts["cron"]:
            return V2beta1Trigger(cron_schedule=V2beta1CronSchedule(cron=facts["cron"], **times))
        return V2beta1Trigger(
            periodic_schedule=V2beta1PeriodicSchedule(interval_second=str(facts["interval"]), **times)
        )


def plan(schedules: Schedules, project: Project, server: Server) -> list[Change]:
    """Return what makes the server's recurring runs equal to the file; nothing is changed.

    Only recurring runs that carry this project's mark count: what others made is never touched.
    """
    mine = owned(server.recurring_runs(), project)
    changes = []
    for wanted in Wanted.all(schedules, project, server):
        schedule, records = wanted.schedule, mine.pop(wanted.schedule.name, [])
        version = wanted.package.find(server) if records else None
        keep = next((record for record in records if _is_as_wanted(record, wanted, version, project)), None)
        others = [record for record in records if record is not keep]
        details: list[str] = []
        if keep is None and records:
            details = _differences(records[0], wanted, version)
        if keep is not None and others:
            details.append("remove what an apply that was cut off left")
        if (current := keep or (records[0] if records else None)) and _enabled(current) != schedule.enabled:
            details.append("enable" if schedule.enabled else "disable")
        action: Any = "create" if not records else "update" if details else "unchanged"
        summary = f"{schedule.pipeline}, {wanted.calendar}" + ("" if schedule.enabled else ", disabled")
        changes.append(Change(schedule.name, action, summary, details, wanted, keep, others))
    changes += [Change(name, "delete", others=records) for name, records in sorted(mine.items())]
    return changes


def apply(change: Change, project: Project, server: Server) -> None:
    """Make one change, in an order that can be cut off anywhere and taken up by the next apply.

    A server cannot alter a recurring run. The new one is created switched off, then the old one is deleted, then
    the new one is switched on: no moment has two that are on.
    """
    keep, wanted = change.keep, change.wanted
    if wanted is not None and keep is None:
        known = {record["recurring_run_id"] for record in change.others}
        enabled = wanted.schedule.enabled and not change.others
        keep = wanted.create(server, project, enabled=enabled, known=known)
    for record in change.others:
        server.delete_recurring_run(record["recurring_run_id"])
    if wanted is not None and keep is not None and _enabled(keep) != wanted.schedule.enabled:
        server.enable_recurring_run(keep["recurring_run_id"], wanted.schedule.enabled)


def owned(records: Sequence[Record], project: Project) -> dict[str, list[Record]]:
    """Return the recurring runs that carry this project's mark, by the name of their schedule."""
    found: dict[str, list[Record]] = {}
    for record in records:
        if name := _mark(record, project)[0]:
            found.setdefault(name, []).append(record)
    return found


def project_name(project: Project) -> str:
    """Return the name in ``pyproject.toml``: it tells this project's recurring runs from those of another."""
    try:
        content = tomllib.loads((project.root / "pyproject.toml").read_text(encoding="utf-8"))
        return safe_name(content["project"]["name"], "name of a project")
    except (KeyError, TypeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{project.root / 'pyproject.toml'} gives no project a name: add [project] name.") from error


def _mark(record: Record, project: Project) -> tuple[str, str]:
    """Return the schedule and the digest that a recurring run was made from, empty if it is not this project's."""
    pattern = rf"^{_MARK} {re.escape(project_name(project))}/(\S+) ([0-9a-f]+)$"
    match = re.search(pattern, record.get("description") or "", re.MULTILINE)
    return (match[1], match[2]) if match else ("", "")


def _is_as_wanted(record: Record, wanted: Wanted, version: Record | None, project: Project) -> bool:
    """Say whether a recurring run was made from just this, and its version is still there."""
    reference = record.get("pipeline_version_reference") or {}
    current = version is not None and reference.get("pipeline_version_id") == version["pipeline_version_id"]
    return current and _mark(record, project)[1] == wanted.digest


def _enabled(record: Record) -> bool:
    return record.get("status") == "ENABLED"


def _differences(record: Record, wanted: Wanted, version: Record | None) -> list[str]:
    """Return a line for each thing that would change."""
    before, after = _flat(_facts_of(record)), _flat(wanted.facts)
    if not wanted.account:
        del before["account"], after["account"]  # the server has filled in its own
    lines = [
        f"{key}: {_short(before.get(key))} → {_short(after.get(key))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    reference = record.get("pipeline_version_reference") or {}
    if version is None or reference.get("pipeline_version_id") != version["pipeline_version_id"]:
        lines.append(f"pipeline version → {wanted.package.version}")
    return lines or ["experiment, or a recurring run of before"]


def _facts_of(record: Record) -> dict[str, Any]:
    """Return what a server says of a recurring run in the shape of ``Wanted.facts``."""
    trigger = record.get("trigger") or {}
    cron, periodic = trigger.get("cron_schedule") or {}, trigger.get("periodic_schedule") or {}
    times = cron or periodic
    return {
        "cron": cron.get("cron", ""),
        "interval": int(periodic.get("interval_second") or 0),
        "start": _time(_parsed(times.get("start_time"))),
        "end": _time(_parsed(times.get("end_time"))),
        "max_concurrency": int(record.get("max_concurrency") or 1),
        "no_catchup": bool(record.get("no_catchup")),
        "account": record.get("service_account") or "",
        "parameters": (record.get("runtime_config") or {}).get("parameters") or {},
    }


def _parsed(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _time(time: datetime | None) -> str:
    return time.astimezone(UTC).isoformat() if time else ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}".removeprefix("parameters.")] = value
    return found


def _short(value: Any) -> str:
    text = "none" if value in (None, "", {}) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
