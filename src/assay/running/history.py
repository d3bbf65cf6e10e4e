"""The runs that this project has had: finding, listing and opening them."""

import os
from datetime import UTC, datetime
from pathlib import Path

from assay.errors import UserError
from assay.files import safe_name
from assay.project import Project
from assay.reports.records import Run, State


def runs_folder(project: Project) -> Path:
    """Return the folder with one folder for each run."""
    return project.state / "runs"


def run_folder(project: Project, run_id: str) -> Path:
    """Return a run's folder, whether it exists or not.

    Raises:
        UserError: the id could leave the folder of runs.
    """
    return runs_folder(project) / safe_name(run_id, "run id")


def list_runs(project: Project) -> list[Run]:
    """Return the readable runs, newest first."""
    found = []
    for path in runs_folder(project).glob("*/run.json"):
        try:
            run = Run.read(path.parent)
        except UserError:
            continue  # half-removed or from another version: nothing to list
        if run.state == State.RUNNING and not is_alive(run.pid):
            _mark_killed(run, path)
        found.append(run)
    return sorted(found, key=lambda run: run.started, reverse=True)


def is_alive(pid: int) -> bool:
    """Say whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError) as error:
        return isinstance(error, PermissionError)
    return True


def _mark_killed(run: Run, record: Path) -> None:
    """Show a run whose process is gone as interrupted when it last wrote its record."""
    run.finished = datetime.fromtimestamp(record.stat().st_mtime, UTC)
    run.state = State.INTERRUPTED
    for task in run.tasks:
        if task.state == State.RUNNING:
            task.state, task.finished = State.INTERRUPTED, run.finished


def find_run(project: Project, run_id: str = "latest") -> Run:
    """Return a run by id, by an unambiguous start of it, or the latest.

    Raises:
        UserError: none matches, or several do.
    """
    runs = list_runs(project)
    if not runs:
        raise UserError(f"There are no runs in {runs_folder(project)}: start one with `assay run PIPELINE`.")
    if run_id == "latest":
        return runs[0]
    exact = [run for run in runs if run.id == run_id]
    matching = exact or [run for run in runs if run.id.startswith(safe_name(run_id, "run id"))]
    if len(matching) == 1:
        return matching[0]
    problem = f"{len(matching)} runs start with {run_id!r}" if matching else f"There is no run {run_id!r}"
    raise UserError(f"{problem}: `assay runs list` names them.")
