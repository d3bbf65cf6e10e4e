"""Running a pipeline on this machine, and keeping the record of the run."""

import errno
import hashlib
import os
import re
import secrets
import shlex
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console

from assay.errors import AssayError, UserError
from assay.files import DISK_FULL, atomic_write, disk_errors
from assay.project import Project
from assay.reports.records import Output, Run, State, Task
from assay.reports.run import champion, write_run_report
from assay.running.arguments import resolve_arguments
from assay.running.content_cache import Origin
from assay.running.display import Display, print_metrics
from assay.running.graph import pipeline_nodes
from assay.running.history import run_folder
from assay.running.kfp_local import execute
from assay.running.pipelines import Pipeline, load_pipeline, to_yaml

if TYPE_CHECKING:
    from assay.running.docker import Containers

_TAIL = 15  # lines of a failed task's log that are printed
_SENTENCE = re.compile(r"assay\.(?:\w+\.)*(\w+): (.+)")
_NOISE = re.compile(r"\[KFP Executor|\s|[{}]|.*Warning: ")  # KFP's lines on a task's input; warnings


def run_locally(
    name: str,
    *,
    settings: Sequence[str] = (),
    workers: int | None = None,
    in_containers: bool = False,
    console: Console | None = None,
    project: Project | None = None,
) -> Run:
    """Run ``pipelines/<name>.py`` with ``kfp.local``; steps whose inputs are unchanged come from the cache.

    The cache is one for processes and containers: the image's tag, which is in every key, names the library's
    source and the lock, and both ways give the same numbers.

    Args:
        name: the pipeline.
        settings: ``key=value`` pairs over its defaults.
        workers: for training, if the pipeline has that parameter.
        in_containers: run each step in a container of its image, not in a child process.
        console: where progress and results are printed.
        project: default: the one around the current folder.

    Raises:
        UserError: a wrong name or setting, a task stopped with a sentence about its input, or docker or an
            image is not there.
        AssayError: a task failed in another way; its last lines were printed.
        KeyboardInterrupt: the run was interrupted; its record says so.
    """
    console = console or Console()
    project = project or Project.find()
    pipeline = load_pipeline(project, name)
    arguments = resolve_arguments(pipeline, project, settings, workers)
    run = Run(
        id=f"{pipeline.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        pipeline=pipeline.name,
        state=State.RUNNING,
        parameters=arguments,
        revision=str(arguments.get("revision", "")),
        git_commit=project.git_commit,
        image=project.image,
        tracking_uri=_without_password(project.tracking_uri),
        command=_command(pipeline.name, settings, workers, in_containers),
        pid=os.getpid(),
        nodes=pipeline_nodes(pipeline.spec),
    )
    containers = _containers(project, pipeline, run) if in_containers else None
    recorder = _Recorder(run, run_folder(project, run.id), console)
    return recorder.execute(project, pipeline, containers)


class _Recorder:
    """Writes the run's folder as its tasks start, print and end (from whichever thread)."""

    def __init__(self, run: Run, folder: Path, console: Console) -> None:
        self.run = run
        self.folder = folder
        self.display = Display(run, console)
        self._console = console
        self._tasks: dict[str, Task] = {}
        self._lock = threading.Lock()
        self._titles = {node.id: node.title for node in run.nodes}

    def execute(self, project: Project, pipeline: Pipeline, containers: "Containers | None" = None) -> Run:
        """Execute, record, report, print."""
        with disk_errors(self.folder):
            (self.folder / "logs").mkdir(parents=True)
        atomic_write(self.folder / "pipeline.yaml", to_yaml(pipeline))
        self.run.write(self.folder)
        self._console.print(f"Run {self.run.id}", style="bold", highlight=False)
        error: BaseException | None = None
        try:
            with self.display:
                succeeded = execute(
                    pipeline.spec,
                    self.run.parameters,
                    artifacts=self.folder / "artifacts",
                    cache_root=project.state / "cache" / _digest(project.tracking_uri),
                    run=self.run.id,
                    environment=_environment(project, self.run),
                    observer=self,
                    log=self.folder / "logs" / "kfp.log",
                    containers=containers,
                )
            self.run.state = State.SUCCEEDED if succeeded else State.FAILED
        except KeyboardInterrupt as caught:
            self.run.state, error = State.INTERRUPTED, caught
        except Exception as caught:
            self.run.state, error = State.FAILED, caught
        self.run.finished = datetime.now(UTC)
        if self.run.state == State.FAILED and error is None:
            error = self._explain()
        if self.run.state == State.INTERRUPTED:
            self.run.error = "Interrupted; run the same command again to continue."
        else:
            self.run.error = str(error or "")
        self.run.write(self.folder)
        report = write_run_report(self.run, self.folder)
        self._conclude(report)
        if error is not None:
            raise error
        return self.run

    def started(self, name: str, node: str, turn: str) -> Path:
        """Record the start of a task."""
        title = self._titles.get(node, name)
        log = f"logs/{name}.log"
        task = Task(
            name=name, node=node, title=title, turn=turn, state=State.RUNNING, started=datetime.now(UTC), log=log
        )
        with self._lock:
            self._tasks[name] = task
            self.run.tasks.append(task)
            self.run.write(self.folder)
            self.display.started(task)
        return self.folder / log

    def line(self, name: str, text: str) -> None:
        """Keep a task's last telling line as its progress."""
        if text and not _NOISE.match(text):
            with self._lock:
                self._tasks[name].progress = text.strip()[:200]
                self.display.line(self._tasks[name])

    def finished(self, name: str, state: State, outputs: dict[str, Output], origin: Origin | None) -> None:
        """Record the end of a task."""
        with self._lock:
            task = self._tasks[name]
            task.state, task.outputs, task.finished = state, outputs, datetime.now(UTC)
            if origin is not None:
                task.cached_from, task.cached_seconds = origin.run, origin.seconds
                task.log = os.path.relpath(self.folder.parent / origin.run / task.log, self.folder)
            self.run.write(self.folder)
            self.display.finished(task)

    def _explain(self) -> AssayError:
        """Return the error of the first failed task: its own sentence, or a pointer to its printed log."""
        task = next(task for task in self.run.tasks if task.state == State.FAILED)
        self.run.failed_task = task.name
        log = self.folder / task.log
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        sentences = [match for match in map(_SENTENCE.fullmatch, lines[-50:]) if match]
        if not sentences or os.environ.get("ASSAY_DEBUG"):
            self._print(f"\nThe last lines of {task.label}:")
            for line in [line for line in lines if line.strip()][-_TAIL:]:
                self._print(f"  {line}")
        if sentences:
            kind, sentence = sentences[-1].groups()
            self._print(f"\n{task.label} stopped; its log is {log}")
            return UserError(sentence) if kind == "UserError" else AssayError(sentence)
        if any(os.strerror(errno.ENOSPC) in line for line in lines[-_TAIL:]):
            return UserError(f"{task.label} cannot write: {DISK_FULL}; its log is {log}.")
        return AssayError(f"{task.label} failed: its whole log is {log}.")

    def _conclude(self, report: Path) -> None:
        if self.run.state == State.SUCCEEDED:
            print_metrics(self.run, self._console)
        if line := champion(self.run):
            self._print(f"\n{line}")
        self._print(f"\nReport: {report}")

    def _print(self, text: str) -> None:
        """Print text as it is: names and paths are no markup, and a path is one line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _containers(project: Project, pipeline: Pipeline, run: Run) -> "Containers":
    """Return the containers of a run; what earlier runs that were killed left is removed."""
    from assay.running.docker import Containers

    containers = Containers(project, run.id, _environment(project, run))
    executors = pipeline.spec["deploymentSpec"]["executors"].values()
    containers.require(executor["container"]["image"] for executor in executors if "container" in executor)
    containers.clear()
    return containers


def _environment(project: Project, run: Run) -> dict[str, str]:
    """Return the variables that every task sees."""
    paths = [str(project.root), *filter(None, [os.environ.get("PYTHONPATH")])]
    cores = str(len(os.sched_getaffinity(0)))
    return {
        "ASSAY_PROJECT": str(project.root),
        "ASSAY_HOME": str(project.state),
        "ASSAY_RUN_ID": run.id,
        "ASSAY_PIPELINE": run.pipeline,
        "ASSAY_GIT_COMMIT": run.git_commit,
        "ASSAY_IMAGE": run.image,
        "MLFLOW_TRACKING_URI": project.tracking_uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore::DeprecationWarning,ignore::FutureWarning"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", cores),
    }


def _command(name: str, settings: Sequence[str], workers: int | None, in_containers: bool) -> str:
    """Return the command that repeats the run."""
    words = ["assay", "run", name, *(["--on", "docker"] if in_containers else [])]
    for setting in settings:
        words += ["--set", setting]
    return shlex.join(words if workers is None else [*words, "--workers", str(workers)])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_password(uri: str) -> str:
    """Return the address without user and password: records and reports are shared."""
    parts = urlsplit(uri)
    return uri if "@" not in parts.netloc else parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
