"""``assay run``, ``assay compile`` and ``assay runs``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from assay.errors import UserError

runs = typer.Typer(help="The runs of this project: list, show, open.", no_args_is_help=True)

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a parameter; the value is YAML. A dotted key sets one entry: --set training.epochs=5.",
    ),
]
RunId = Annotated[str, typer.Argument(metavar="[RUN]", help="A run's id, the start of one, or `latest`.")]


def run(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="A file in pipelines/, without .py.")],
    settings: Settings = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Ray Train workers for training; 0 trains in the task's process.")
    ] = None,
    on: Annotated[
        Literal["local", "docker", "cluster"],
        typer.Option(
            help="Where each step runs: in a process of this machine, in a container (see `make images`), or on the "
            "Kubeflow Pipelines server that ASSAY_KFP_HOST names, as `assay submit --wait` does."
        ),
    ] = "local",
) -> None:
    """Run a pipeline; steps whose inputs did not change come from the cache."""
    if on == "cluster":
        from assay.cli.schedule import submit

        submit(pipeline, settings, workers, wait=True)
        return
    from assay.running.local import run_locally

    run_locally(pipeline, settings=settings or [], workers=workers, in_containers=on == "docker")


def compile_to_yaml(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="A file in pipelines/, without .py.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; default PIPELINE.yaml.")
    ] = None,
    settings: Settings = None,
) -> None:
    """Compile a pipeline to the IR YAML of Kubeflow Pipelines, with the data revision pinned."""
    from assay.running.compile import compile_pipeline

    typer.echo(compile_pipeline(pipeline, output, settings or []))


@runs.command("list")
def list_all(
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many, newest first.")] = 20,
) -> None:
    """List the runs, newest first."""
    from rich.console import Console
    from rich.table import Column, Table

    from assay.project import Project
    from assay.reports.values import format_duration
    from assay.running.history import list_runs

    found = list_runs(Project.find())
    widest = max((len(record.id) for record in found[:count]), default=0)
    run = Column("run", min_width=widest)  # an id is there to be copied
    table = Table(run, "state", "started", "took", "tasks", box=None, header_style="dim", padding=(0, 2, 0, 0))
    for record in found[:count]:
        cached = sum(task.state.value == "cached" for task in record.tasks)
        started = f"{record.started.astimezone():%Y-%m-%d %H:%M}"
        tasks = f"{len(record.tasks)} ({cached} cached)"
        table.add_row(record.id, record.state.value, started, format_duration(record.seconds), tasks)
    console = Console()
    console.print(table if found else "There are no runs yet: start one with `assay run PIPELINE`.")


@runs.command()
def show(run_id: RunId = "latest") -> None:
    """Show a run's tasks, metrics and lineage."""
    from rich.console import Console

    from assay.project import Project
    from assay.reports.run import champion
    from assay.running.display import print_metrics, tasks_table
    from assay.running.history import find_run, run_folder

    project = Project.find()
    record = find_run(project, run_id)
    console = Console(highlight=False)
    console.print(f"[bold]{record.id}[/bold]  {record.state.value}")
    for name, value in (
        ("data", record.revision),
        ("commit", record.git_commit),
        ("image", record.image),
        ("command", record.command),
        ("error", record.error),
    ):
        if value:
            console.print(f"{name:8} {value}", markup=False, soft_wrap=True)
    console.print()
    console.print(tasks_table(record))
    print_metrics(record, console)
    if line := champion(record):
        console.print(f"\n{line}")
    console.print(f"\nReport: {run_folder(project, record.id) / 'report.html'}", markup=False, soft_wrap=True)


@runs.command("open")
def open_report(
    run_id: RunId = "latest",
    browser: Annotated[bool, typer.Option(help="Open the report in a browser, if there is one.")] = True,
) -> None:
    """Print the path of a run's report, and open it in a browser."""
    import webbrowser

    from assay.project import Project
    from assay.running.history import find_run, run_folder

    project = Project.find()
    report = run_folder(project, find_run(project, run_id).id) / "report.html"
    if not report.is_file():
        raise UserError(f"{report} does not exist yet: the run is going on, or was cut off; `assay runs show` tells.")
    typer.echo(report)
    if browser:
        webbrowser.open(report.as_uri())
