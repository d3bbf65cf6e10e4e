import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml

from assay.errors import AssayError, UserError
from assay.project import Project
from assay.running.schedules import (
    FILE,
    Calendar,
    Schedule,
    Schedules,
    apply,
    parse_cron,
    parse_interval,
    plan,
)
from assay.running.server import Address, Server
from tests.running.kfp_server import serve

ROOT = Path(__file__).parents[2]
NIGHTLY = {"name": "nightly", "pipeline": "example", "cron": "30 2 * * 1-5", "set": {"making.colour": "blue"}}
HOURLY = {"name": "hourly", "pipeline": "example", "interval": "6h", "max_concurrency": 2}


@pytest.fixture
def kfp():
    yield from serve()


@pytest.fixture
def server(kfp):
    return Server(Address(kfp.url), timeout=2, patience=(0.01, 0.01))


@pytest.fixture
def write(example):
    def write(*entries, **rest) -> Schedules:
        (example.root / FILE).write_text(yaml.safe_dump({**rest, "schedules": list(entries)}))
        return Schedules.read(example)

    return write


@pytest.fixture
def sync(example, server):
    """Apply a file, and return what was done to which schedule."""

    def sync(schedules: Schedules) -> dict[str, str]:
        changes = plan(schedules, example, server)
        for change in changes:
            if change.action != "unchanged":
                apply(change, example, server)
        return {change.name: change.action for change in changes}

    return sync


# The file


def test_the_projects_own_file_is_valid():
    schedules = Schedules.read(Project(ROOT))
    assert {schedule.pipeline for schedule in schedules.schedules} >= {"classification", "forensics"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"crn": "0 2 * * *"}, "pipelines/schedules.yaml: nightly.crn is not a setting"),
        ({"pipeline": "exmple"}, "pipelines/schedules.yaml: nightly: 'exmple' is not a pipeline"),
        ({"set": {"making.shape": "round"}}, "making.shape is not a setting"),
        ({"set": {"scal": 3}}, "did you mean scale"),
        ({"set": {"scale": "three"}}, "scale = 'three' does not fit"),
        ({"workers": -1}, "nightly.workers = -1 is not valid"),
        ({"catch_up": "always"}, "nightly.catch_up = 'always' is not valid"),
        ({"cron": "0 2 * *"}, "nightly: cron '0 2 * *' is not five fields"),
        ({"cron": ""}, "nightly: it needs either cron or interval"),
        ({"interval": "6h"}, "nightly: it needs either cron or interval"),
        ({"name": "../up"}, "'../up' is not a valid name of a schedule"),
        ({"start": "2026-02-01", "end": "2026-01-01"}, "nightly: its end is not after its start"),
        ({"max_concurrency": 11}, "nightly.max_concurrency = 11 is not valid"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_file_and_entry(write, change, sentence):
    with pytest.raises(UserError) as caught:
        write(HOURLY, {**NIGHTLY, **change})
    assert sentence in str(caught.value)
    assert FILE in str(caught.value)


def test_the_file_as_a_whole_is_checked(example, write):
    with pytest.raises(UserError, match="two schedules are called nightly"):
        write(NIGHTLY, NIGHTLY)
    with pytest.raises(UserError, match="timezone 'Mars/Olympus' is not known"):
        write(NIGHTLY, timezone="Mars/Olympus")
    with pytest.raises(UserError, match=r"schedules\.yaml\.zone is not a setting"):
        write(NIGHTLY, zone="UTC")
    with pytest.raises(UserError, match="entry 1 is 'nightly'"):
        write("nightly")
    (example.root / FILE).write_text("schedules:\n  - name: [\n")
    with pytest.raises(UserError, match=r"schedules\.yaml, line \d+ is not valid YAML"):
        Schedules.read(example)
    (example.root / FILE).unlink()
    with pytest.raises(UserError, match="does not exist"):
        Schedules.read(example)


# Times


def _classic(text: str, time: datetime) -> bool:
    """Say whether a cron expression of plain numbers, lists and * matches, as crontab(5) defines it."""
    values = (time.minute, time.hour, time.day, time.month, time.isoweekday() % 7)
    for part, value, modulus in zip(text.split(), values, (60, 24, 32, 13, 7), strict=True):
        if part != "*" and value not in {int(item) % modulus for item in part.split(",")}:
            return False
    return True


@pytest.mark.parametrize(
    "text", ["0,30 2 * * *", "5 * * * 0", "0 12 * * 1,7", "15 3 1,31 * *", "0 0 29 2 *", "59 23 * * 6"]
)
def test_due_times_are_those_of_cron(text):
    """Counted out hour by hour: APScheduler numbers the days of the week from Monday, cron from Sunday."""
    calendar = Calendar(Schedule(name="a", pipeline="b", cron=text), "UTC")
    now = datetime(2027, 12, 30, 1, 59, tzinfo=UTC)
    minutes = sorted({int(item) for item in text.split()[0].split(",")})
    for _ in range(4):
        expected = now.replace(second=0) + timedelta(minutes=1)
        while not _classic(text, expected):
            following = [m for m in minutes if m > expected.minute]
            expected = (
                expected.replace(minute=following[0])
                if following
                else expected.replace(minute=minutes[0]) + timedelta(hours=1)
            )
        assert calendar.next(now) == expected
        now = expected


def test_cron_is_written_so_that_the_server_and_apscheduler_read_it_alike():
    assert parse_cron("*/10 1-5/2 * JAN-mar sun") == ["*/10", "1-5/2", "*", "1-3", "sun"]
    assert parse_cron("0 0 * * 5-7") == ["0", "0", "*", "*", "sun,fri,sat"]
    for wrong in ("60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *", "*/0 * * * *"):
        with pytest.raises(UserError, match="is not a"):
            parse_cron(wrong)
    for wrong in ("0 0 1 * mon", "@daily", "0 0 L * *", "0 0 * * mon#1"):
        with pytest.raises(UserError, match="cron"):
            parse_cron(wrong)


def test_intervals():
    assert parse_interval("90m") == timedelta(minutes=90)
    for wrong in ("0h", "1.5h", "6 hours", "-1h", ""):
        with pytest.raises(UserError, match="interval"):
            parse_interval(wrong)
    calendar = Calendar(Schedule(name="a", pipeline="b", interval="6h"), "Europe/Rome")
    assert calendar.next(datetime(2026, 3, 29, 0, 30, tzinfo=UTC)) == datetime(2026, 3, 29, 6, tzinfo=UTC)
    start = datetime(2026, 1, 1, 12, 34)
    calendar = Calendar(Schedule(name="a", pipeline="b", interval="1d", start=start), "Europe/Rome")
    assert calendar.next(datetime(2026, 1, 5, tzinfo=UTC)) == datetime(2026, 1, 5, 11, 34, tzinfo=UTC)


def test_summer_time_neither_doubles_nor_loses_a_run():
    rome = ZoneInfo("Europe/Rome")
    calendar = Calendar(Schedule(name="a", pipeline="b", cron="30 2 * * *"), "Europe/Rome")
    for first in (datetime(2026, 3, 27), datetime(2026, 10, 23)):
        now, days = first.replace(tzinfo=rome), []
        while len(days) < 5:
            now = calendar.next(now)
            days.append(now.astimezone(rome).date())
        assert days == [first.date() + timedelta(days=day) for day in range(5)]
    quarterly = Calendar(Schedule(name="a", pipeline="b", cron="*/15 * * * *"), "Europe/Rome")
    now = datetime(2026, 10, 25, 0, 10, tzinfo=UTC)
    for _ in range(12):
        now, before = quarterly.next(now), now
        assert now - before <= timedelta(minutes=15)


def test_the_last_missed_time_is_found_however_long_the_machine_was_off():
    now = datetime(2026, 6, 1, 12, 0, 30, tzinfo=UTC)
    minutely = Calendar(Schedule(name="a", pipeline="b", cron="* * * * *"), "UTC")
    assert minutely.latest(now - timedelta(days=3000), now) == now.replace(second=0)
    assert minutely.latest(now - timedelta(seconds=20), now) is None
    yearly = Calendar(Schedule(name="a", pipeline="b", cron="0 0 1 1 *"), "UTC")
    assert yearly.latest(now - timedelta(days=400), now) == datetime(2026, 1, 1, tzinfo=UTC)
    assert yearly.latest(now - timedelta(days=30), now) is None
    ended = Calendar(Schedule(name="a", pipeline="b", cron="0 0 * * *", end=datetime(2026, 5, 1)), "UTC")
    assert ended.next(now) is None
    assert ended.latest(now - timedelta(days=400), now) == datetime(2026, 5, 1, tzinfo=UTC)


# A server


def test_apply_makes_the_server_equal_and_a_second_apply_does_nothing(kfp, write, sync):
    schedules = write(NIGHTLY, {**HOURLY, "enabled": False, "start": "2027-01-01T00:00:00"})
    assert sync(schedules) == {"nightly": "create", "hourly": "create"}
    by_name = {record["display_name"]: record for record in kfp.recurring.values()}
    nightly, hourly = by_name["nightly"], by_name["hourly"]
    assert nightly["trigger"] == {"cron_schedule": {"cron": "0 30 2 * * mon,tue,wed,thu,fri"}}
    assert hourly["trigger"]["periodic_schedule"]["interval_second"] == "21600"
    assert hourly["trigger"]["periodic_schedule"]["start_time"].startswith("2027-01-01T00:00:00")
    assert nightly["runtime_config"]["parameters"]["making"] == {"colour": "blue"}
    assert (nightly["status"], hourly["status"]) == ("ENABLED", "DISABLED")
    assert (nightly["no_catchup"], hourly["max_concurrency"]) == (True, "2")
    assert nightly["pipeline_version_reference"]["pipeline_version_id"] in kfp.versions, "pinned, not always the latest"
    before = len(kfp.requests)
    assert sync(schedules) == {"nightly": "unchanged", "hourly": "unchanged"}
    assert all("_list_" in name for name in kfp.requests[before:])
    assert len(kfp.versions) == 1


def test_a_diff_changes_nothing(kfp, write, example, server):
    changes = plan(write(NIGHTLY), example, server)
    assert [change.action for change in changes] == ["create"]
    assert all("_list_" in name for name in kfp.requests)


def test_what_changed_is_shown_and_replaced_and_what_left_the_file_is_deleted(kfp, write, sync, example, server):
    sync(write(NIGHTLY, HOURLY))
    before = set(kfp.recurring)
    changed = write({**NIGHTLY, "cron": "0 3 * * *", "set": {"making.colour": "green", "scale": 5}})
    changes = {change.name: change for change in plan(changed, example, server)}
    assert changes["nightly"].details == [
        "cron: 0 30 2 * * mon,tue,wed,thu,fri → 0 0 3 * * *",
        "making.colour: blue → green",
        "scale: 2 → 5",
    ]
    assert changes["hourly"].action == "delete"
    sync(changed)
    (record,) = kfp.recurring.values()
    assert record["recurring_run_id"] not in before
    assert record["status"] == "ENABLED"
    assert record["runtime_config"]["parameters"]["scale"] == 5


def test_switching_on_and_off_is_done_in_place(kfp, write, sync):
    sync(write(NIGHTLY))
    (identity,) = kfp.recurring
    kfp.recurring[identity]["status"] = "DISABLED"  # somebody did so in the user interface
    assert sync(write(NIGHTLY)) == {"nightly": "update"}
    assert kfp.recurring[identity]["status"] == "ENABLED"
    assert sync(write({**NIGHTLY, "enabled": False})) == {"nightly": "update"}
    assert [record["status"] for record in kfp.recurring.values()] == ["DISABLED"]
    assert list(kfp.recurring) == [identity]


def test_new_content_of_the_pipeline_is_pinned_anew(kfp, write, sync, monkeypatch):
    from assay.running.pipelines import to_yaml

    sync(write(NIGHTLY))
    monkeypatch.setattr("assay.running.submit.to_yaml", lambda pipeline: to_yaml(pipeline) + "# changed\n")
    assert sync(write(NIGHTLY)) == {"nightly": "update"}
    (record,) = kfp.recurring.values()
    assert record["pipeline_version_reference"]["pipeline_version_id"] == list(kfp.versions)[-1]


def test_what_others_made_is_never_touched(kfp, write, sync):
    sync(write(NIGHTLY))
    (mine,) = kfp.recurring.values()
    others = {
        "no-mark": {**mine, "recurring_run_id": "no-mark", "description": ""},
        "another-project": {
            **mine,
            "recurring_run_id": "another-project",
            "description": mine["description"].replace("assay-schedule: example/", "assay-schedule: other/"),
        },
    }
    kfp.recurring |= others
    assert sync(write()) == {"nightly": "delete"}
    assert kfp.recurring == others


@pytest.mark.parametrize("kind", ["503", "reset after", "silence after"])
@pytest.mark.parametrize("operation", ["create", "delete", "enable"])
def test_an_apply_that_is_cut_off_anywhere_loses_and_doubles_nothing(kfp, example, write, sync, operation, kind):
    sync(write(NIGHTLY))
    changed = write({**NIGHTLY, "cron": "0 3 * * *"})
    kfp.fail(f"recurring_run_service_{operation}", kind, times=100)
    short = Server(Address(kfp.url), timeout=0.3, patience=(0.01,))
    (change,) = plan(changed, example, short)
    try:
        apply(change, example, short)
    except AssayError:
        on = [record for record in kfp.recurring.values() if record["status"] == "ENABLED"]
        assert len(on) <= 1
        assert kfp.recurring, "at every moment the schedule is there"
    kfp.faults.clear()
    sync(changed)
    (record,) = kfp.recurring.values()
    assert record["status"] == "ENABLED"
    assert record["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert sync(changed) == {"nightly": "unchanged"}


def test_the_servers_time_zone_must_be_the_files(kfp, example, write):
    schedules = write(NIGHTLY, timezone="Europe/Rome")
    with pytest.raises(UserError, match="in Europe/Rome and the server reads cron in UTC"):
        plan(schedules, example, Server(Address(kfp.url)))
    (change,) = plan(schedules, example, Server(Address(kfp.url, timezone="Europe/Rome")))
    assert "(Europe/Rome)" in change.summary
    assert plan(write(HOURLY, timezone="Europe/Rome"), example, Server(Address(kfp.url)))


# The command line


def _assay(example, kfp, *words):
    environment = {**os.environ, "ASSAY_PROJECT": str(example.root), "ASSAY_KFP_HOST": kfp.url if kfp else ""}
    command = [sys.executable, "-m", "assay.cli", "schedule", *words]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


def test_diff_and_apply_on_the_command_line(kfp, example, write):
    write(NIGHTLY)
    shown = _assay(example, kfp, "diff")
    assert shown.returncode == 0
    assert "+ nightly  example, cron 30 2 * * 1-5 (UTC)" in shown.stdout
    assert "1 to create, 0 to update, 0 to delete, 0 unchanged." in shown.stdout
    unasked = _assay(example, kfp, "apply")
    assert (unasked.returncode, kfp.recurring) == (2, {})
    assert "add --yes" in unasked.stderr
    applied = _assay(example, kfp, "apply", "--yes")
    assert applied.stdout.splitlines()[-1] == "nightly: created"
    assert "1 unchanged" in _assay(example, kfp, "apply").stdout, "with nothing to do nobody is asked"


def test_without_a_server_diff_tells_what_this_machine_would_do(example, write):
    write(NIGHTLY, HOURLY)
    shown = _assay(example, None, "diff")
    assert shown.returncode == 0
    assert "this machine's scheduler" in shown.stdout
    assert "+ nightly  example, cron 30 2 * * 1-5 (UTC); next " in shown.stdout
    refused = _assay(example, None, "apply")
    assert refused.returncode == 2
    assert "set ASSAY_KFP_HOST" in refused.stderr
