import os
import subprocess
from datetime import UTC, datetime

import pytest

from assay.errors import UserError
from assay.project import Project
from assay.reports.records import Run, State, Task
from assay.running.history import find_run, list_runs, run_folder


@pytest.fixture
def history(project) -> Project:
    place = Project(project)
    for day in (1, 3, 2):
        run = Run(id=f"demo-2026110{day}-aa{day}", pipeline="demo", started=datetime(2026, 11, day, tzinfo=UTC))
        run.write(run_folder(place, run.id))
    broken = run_folder(place, "demo-broken")
    broken.mkdir()
    (broken / "run.json").write_text("{")
    return place


def test_runs_are_listed_newest_first_and_broken_records_left_out(history):
    assert [run.started.day for run in list_runs(history)] == [3, 2, 1]


def test_a_run_is_found_by_id_by_its_start_or_as_the_latest(history):
    assert find_run(history).started.day == 3
    assert find_run(history, "demo-20261102").started.day == 2
    assert find_run(history, "demo-20261101-aa1").started.day == 1


def test_a_run_whose_process_was_killed_is_interrupted(history):
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    for name, pid in (("killed", gone.pid), ("alive", os.getpid())):
        task = Task(name="a", node="a", title="A", state=State.RUNNING, started=datetime(2026, 11, 5, tzinfo=UTC))
        run = Run(id=name, pipeline="demo", state=State.RUNNING, pid=pid, tasks=[task])
        run.write(run_folder(history, name))
    assert find_run(history, "alive").state == "running"
    killed = find_run(history, "killed")
    assert (killed.state, killed.tasks[0].state) == ("interrupted", "interrupted")
    assert killed.finished is not None


@pytest.mark.parametrize("name", ["demo-2026", "other", "../../etc", ""])
def test_an_unclear_or_wrong_id_is_refused(history, name):
    with pytest.raises(UserError):
        find_run(history, name)


def test_no_runs_says_how_to_start_one(project):
    with pytest.raises(UserError, match="assay run PIPELINE"):
        find_run(Project(project))
