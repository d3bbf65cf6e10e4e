"""Submitting a pipeline to a Kubeflow Pipelines server, and following its run."""

import hashlib
import secrets
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from assay.errors import AssayError
from assay.project import Project
from assay.running.arguments import resolve_arguments
from assay.running.pipelines import Pipeline, load_pipeline, to_yaml
from assay.running.server import Record, Server, Unavailable

_ENDED = {"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"}
_OUTAGE = 600.0  # seconds that following a run rides out without an answer


@dataclass(frozen=True)
class Package:
    """A compiled pipeline as a server keeps it: a version is known by the digest of its content.

    Args:
        pipeline: its name on the server.
        version: the commit and the digest of the content.
        content: the IR YAML.
        commit: of the project.
    """

    pipeline: str
    version: str
    content: str
    commit: str

    @classmethod
    def of(cls, pipeline: Pipeline, project: Project) -> "Package":
        """Name the content of ``pipeline``."""
        content = to_yaml(pipeline)
        commit = project.git_commit
        short = commit[:12] + ("-dirty" if commit.endswith("-dirty") else "")
        return cls(pipeline.name.replace("_", "-"), f"{short}-{content_digest(content)}", content, commit)

    @property
    def digest(self) -> str:
        """The part of the version that names its content."""
        return self.version.rpartition("-")[2]

    def find(self, server: Server) -> Record | None:
        """Return the version that holds this content, if the server has it."""
        pipeline = server.find_pipeline(self.pipeline)
        return server.find_version(pipeline["pipeline_id"], self.digest) if pipeline else None

    def upload(self, server: Server) -> tuple[Record, bool]:
        """Return the version that holds this content, and whether it is new."""
        pipeline = server.pipeline(self.pipeline)
        if found := server.find_version(pipeline["pipeline_id"], self.digest):
            return found, False
        with tempfile.TemporaryDirectory(prefix="assay-") as folder:
            file = Path(folder) / f"{self.pipeline}.yaml"
            file.write_text(self.content, encoding="utf-8")
            description = f"Uploaded by assay from commit {self.commit}"
            return server.upload_version(pipeline["pipeline_id"], self.version, file, description), True


def content_digest(content: str) -> str:
    """Return twelve hex digits that name ``content``."""
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def submit(
    name: str,
    server: Server,
    *,
    settings: Sequence[str] = (),
    workers: int | None = None,
    experiment: str = "",
    console: Console | None = None,
    project: Project | None = None,
) -> str:
    """Start a run of ``pipelines/<name>.py`` on a server, with the arguments that ``assay run`` would use.

    Args:
        name: the pipeline.
        server: where it runs.
        settings: ``key=value`` pairs over its defaults.
        workers: for training, if the pipeline has that parameter.
        experiment: groups runs; default: the pipeline's name.
        console: where the ids are printed.
        project: default: the one around the current folder.

    Returns:
        The id of the run.

    Raises:
        UserError: a wrong name or setting.
        AssayError: the server refuses, or cannot be reached.
    """
    console = console or Console()
    project = project or Project.find()
    pipeline = load_pipeline(project, name)
    arguments = resolve_arguments(pipeline, project, settings, workers)
    warn_of_local_image(project, console)
    package = Package.of(pipeline, project)
    version, new = package.upload(server)
    _print(console, f"Version {version.get('display_name') or package.version}{' uploaded' if new else ''}")
    group = server.experiment(experiment or package.pipeline)
    run = server.create_run(
        f"{package.pipeline}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        version,
        group["experiment_id"],
        arguments,
        f"Submitted by assay from commit {package.commit}",
    )
    _print(console, f"Run {run['run_id']} ({run.get('display_name', '')})")
    _print(console, server.run_url(run["run_id"]))
    return str(run["run_id"])


def follow(run_id: str, server: Server, console: Console | None = None, every: float = 5.0) -> None:
    """Print the steps of a run as their states change, until it ends.

    Args:
        run_id: of the run.
        server: where it runs.
        console: where the states are printed.
        every: seconds between two looks; the first ones come sooner.

    Raises:
        AssayError: the run did not succeed, or the server gave no answer for ten minutes.
        KeyboardInterrupt: the user stopped looking; the run goes on.
    """
    console = console or Console()
    shown: dict[str, str] = {}
    heard = time.monotonic()
    pause = min(0.5, every)
    while True:
        try:
            run = server.run(run_id)
        except Unavailable as error:
            if time.monotonic() - heard > _OUTAGE:
                raise
            _print(console, f"{_clock()}  {error} Still waiting.")
        else:
            heard = time.monotonic()
            _show_changes(run, shown, console)
            if run.get("state") in _ENDED:
                break
        time.sleep(pause)
        pause = min(2 * pause, every)
    if run["state"] not in ("SUCCEEDED", "SKIPPED"):
        reason = (run.get("error") or {}).get("message") or "the failed step's log tells why"
        raise AssayError(
            f"The run {run_id} ended as {run['state'].lower()}: {reason.rstrip('.')}; see {server.run_url(run_id)}"
        )


def warn_of_local_image(project: Project, console: Console) -> None:
    """Say so when the steps name an image that only this machine has."""
    if project.image.startswith("assay-python:"):
        _print(
            console,
            f"Note: the steps run in the image {project.image}, which the cluster must have; "
            "ASSAY_IMAGE names another, best by its digest.",
        )


def _show_changes(run: Record, shown: dict[str, str], console: Console) -> None:
    """Print each step, and last the run, whose state is not the one that was printed."""
    details = (run.get("run_details") or {}).get("task_details") or []
    states = {
        task.get("task_id") or task.get("display_name", ""): (task.get("display_name", ""), task.get("state", ""))
        for task in details
        if task.get("state") and task.get("display_name") not in ("", "root", None)
    }
    states[""] = (f"Run {run.get('run_id', '')}", run.get("state", ""))
    for key, (title, state) in states.items():
        if state and state != "RUNTIME_STATE_UNSPECIFIED" and shown.get(key) != state:
            shown[key] = state
            _print(console, f"{_clock()}  {title}  {state.lower()}")


def _clock() -> str:
    return f"{datetime.now():%H:%M:%S}"


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
