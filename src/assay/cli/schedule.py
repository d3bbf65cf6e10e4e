"""``assay submit``, ``assay runs follow`` and ``assay schedule``: runs on a server, and recurring runs."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.run import Settings
from assay.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from assay.running.schedules import Change
    from assay.running.server import Server

schedule = typer.Typer(help="The recurring runs in pipelines/schedules.yaml: diff, apply, run.", no_args_is_help=True)

Host = Annotated[
    str, typer.Option("--host", help="The address of the Kubeflow Pipelines server; default ASSAY_KFP_HOST.")
]


def submit(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="A file in pipelines/, without .py.")],
    settings: Settings = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Ray Train workers for training; 0 trains in the task's process.")
    ] = None,
    experiment: Annotated[str, typer.Option(help="Groups the runs; default: the pipeline's name.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Show the steps until the run ends; fail if it fails.")] = False,
    host: Host = "",
) -> None:
    """Start a run on a Kubeflow Pipelines server; the pipeline is uploaded if its content is new there."""
    from assay.running.submit import submit

    server = _server(host)
    run = submit(pipeline, server, settings=settings or [], workers=workers, experiment=experiment)
    if wait:
        _follow(run, server)


def follow(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The id of a run on the server.")], host: Host = ""
) -> None:
    """Show the steps of a run on a Kubeflow Pipelines server until it ends; fail if it fails."""
    _follow(run_id, _server(host))


@schedule.command()
def diff(host: Host = "") -> None:
    """Show what the file would change: on the server, or on this machine where no server is named."""
    from rich.console import Console

    from assay.project import Project
    from assay.running.scheduler import plan_here
    from assay.running.schedules import Schedules, plan

    project = Project.find()
    schedules = Schedules.read(project)
    console = Console()
    if _has_server(host):
        server = _server(host)
        changes = plan(schedules, project, server)
        where = f"the recurring runs of {server.address.host}"
    else:
        changes = plan_here(schedules, project)
        where = "this machine's scheduler (`assay schedule run`; ASSAY_KFP_HOST names no server)"
    _print_changes(changes, where, console)


@schedule.command()
def apply(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    host: Host = "",
) -> None:
    """Make the server's recurring runs equal to the file; those that others made stay."""
    from rich.console import Console

    from assay.project import Project
    from assay.running.schedules import Schedules, plan
    from assay.running.schedules import apply as apply_change
    from assay.running.submit import warn_of_local_image

    if not _has_server(host):
        raise UserError(
            "No Kubeflow Pipelines server is named: set ASSAY_KFP_HOST, or add --host ADDRESS; "
            "on one machine `assay schedule run` applies the file when it starts."
        )
    project = Project.find()
    schedules = Schedules.read(project)
    server = _server(host)
    console = Console()
    changes = plan(schedules, project, server)
    _print_changes(changes, f"the recurring runs of {server.address.host}", console)
    pending = [change for change in changes if change.action != "unchanged"]
    if not pending:
        return
    warn_of_local_image(project, console)
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("Nothing was changed, as nobody can be asked here: add --yes.")
        typer.confirm("Make these changes?", abort=True)
    for change in pending:
        apply_change(change, project, server)
        typer.echo(f"{change.name}: {change.action}d")


@schedule.command("run")
def run_schedules(
    once: Annotated[str, typer.Option(metavar="NAME", help="Run this schedule now, and end.")] = "",
    parallel: Annotated[int, typer.Option(min=1, help="Runs of different schedules at a time.")] = 1,
) -> None:
    """Run the file on this machine until it is stopped; every run is an `assay run`."""
    from assay.project import Project
    from assay.running.scheduler import Scheduler
    from assay.running.schedules import Schedules

    project = Project.find()
    scheduler = Scheduler(project, Schedules.read(project), parallel=parallel)
    if once:
        scheduler.run_now(once)
    else:
        scheduler.serve()


def _has_server(host: str) -> bool:
    return bool(host or os.environ.get("ASSAY_KFP_HOST"))


def _server(host: str) -> "Server":
    from assay.project import Project
    from assay.running.server import Address, Server

    return Server(Address.from_environment(host, Project.find()))


def _follow(run_id: str, server: "Server") -> None:
    from assay.running.submit import follow

    try:
        follow(run_id, server)
    except KeyboardInterrupt:
        typer.echo(f"\nThe run goes on at the server; `assay runs follow {run_id}` shows it again.", err=True)
        raise typer.Exit(130) from None


def _print_changes(changes: "Sequence[Change]", where: str, console: "Console") -> None:
    """Print one line for each schedule, what changes in it, and the count."""
    signs = {"create": "+", "update": "~", "delete": "-", "unchanged": " "}
    colours = {"create": "green", "update": "yellow", "delete": "red", "unchanged": None}
    console.print(f"pipelines/schedules.yaml against {where}:\n", markup=False, highlight=False, soft_wrap=True)
    for change in changes:
        line = f"{signs[change.action]} {change.name}  {change.summary}".rstrip()
        console.print(line, style=colours[change.action], markup=False, highlight=False, soft_wrap=True)
        for detail in change.details:
            console.print(f"      {detail}", markup=False, highlight=False, soft_wrap=True)
    counts = {action: sum(change.action == action for change in changes) for action in signs}
    console.print(
        f"\n{counts['create']} to create, {counts['update']} to update, {counts['delete']} to delete, "
        f"{counts['unchanged']} unchanged.",
        highlight=False,
    )
