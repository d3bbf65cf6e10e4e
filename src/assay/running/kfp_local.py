"""The adapter to ``kfp.local``: the one file that knows its internals.

KFP keeps the order of the tasks, loops, conditions, placeholders and outputs. Replaced for the length of a
run are: the execution of one task (wrapped, so that its start, end and state are known, in loops too, and that a
task without its outputs is a failure), the child process or the container (its output to its own log, stopped on
Ctrl-C), the cache, and the printing, which is loud and not safe across threads.
"""

import contextlib
import inspect
import json
import logging
import math
import os
import re
import signal
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from google.protobuf import json_format  # type: ignore[import-untyped]
from kfp import __version__ as kfp_version
from kfp import dsl, local
from kfp.local import (
    cache,
    docker_task_handler,
    logging_utils,
    pipeline_orchestrator,
    status,
    subprocess_task_handler,
    task_dispatcher,
)
from kfp.local.orchestrator import task_executor
from kfp.local.orchestrator.enhanced_dag_orchestrator import ConditionEvaluator
from kfp.pipeline_spec import pipeline_spec_pb2

from assay.errors import AssayError
from assay.files import disk_errors
from assay.redaction import Redactor
from assay.reports.records import Output, State
from assay.running.archive import Archive
from assay.running.content_cache import ContentCache, Origin, is_written
from assay.running.graph import dags, node_id
from assay.running.reaper import Reaper

if TYPE_CHECKING:
    from assay.running.docker import Containers

_GRACE = 5.0  # seconds between asking a child to stop and killing it
_LONGEST_ITEM = 40  # characters of a loop's item that is shown as it is
_LOOP_PARALLELISM = 2  # tasks of a ParallelFor that KFP runs at a time


class Observer(Protocol):
    """Told what happens, from whichever thread a task runs in."""

    def started(self, name: str, node: str, turn: str) -> Path:
        """Note the start of a task, in which turn of its loop; return the file for its output."""

    def line(self, name: str, text: str) -> None:
        """Note a line that the task printed."""

    def finished(self, name: str, state: State, outputs: dict[str, Output], origin: Origin | None) -> None:
        """Note the end of a task; ``origin`` is set when its outputs came from the cache."""


def execute(
    spec: Mapping[str, Any],
    arguments: Mapping[str, Any],
    *,
    artifacts: Path,
    cache_root: Path,
    run: str,
    environment: Mapping[str, str],
    observer: Observer,
    log: Path,
    containers: "Containers | None" = None,
) -> bool:
    """Run a compiled pipeline here, one child process or container per task, and say whether every task succeeded.

    Args:
        spec: the IR as plain data.
        arguments: the pipeline's parameters.
        artifacts: the folder for outputs.
        cache_root: the folder of the cache's entries.
        run: the id of the run.
        environment: variables for the children, over this process's own.
        observer: told of every start, line and end.
        log: the file for KFP's own messages.
        containers: where the tasks run; None is child processes.

    Raises:
        AssayError: a condition cannot be evaluated, or KFP is not the version that this adapter knows.
        KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP came; every child was stopped.
    """
    check_internals()
    prepared = _prepared(spec)
    execution = _Execution(ContentCache(cache_root, run, Archive.from_environment()), environment, observer, containers)
    replacements: list[tuple[Any, str, Any]] = [
        (task_executor, "execute_single_task", execution.wrap(task_executor.execute_single_task)),
        (task_dispatcher, "run_single_task_implementation", execution.complete(_run_task)),
        (subprocess_task_handler, "run_local_subprocess", execution.run_subprocess),
        (docker_task_handler, "run_docker_container", execution.run_container),
        (cache, "get_local_cache", lambda: execution.cache),
        (ConditionEvaluator, "_resolve_pipeline_channel", staticmethod(_resolver(prepared))),
        (logging_utils, "local_logger_context", contextlib.nullcontext),
        (logging_utils, "indented_print", contextlib.nullcontext),
        (logging_utils, "print_horizontal_line", lambda: None),
    ]
    message = json_format.ParseDict(prepared, pipeline_spec_pb2.PipelineSpec())
    with contextlib.ExitStack() as stack:
        stack.callback(execution.reaper.close)
        for owner, name, value in replacements:
            stack.enter_context(_replaced(owner, name, value))
        stack.enter_context(execution.messages_to(log))
        stack.enter_context(execution.stopped_by_signals())
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-", ignore_cleanup_errors=True))
        execution.environment["TMPDIR"] = scratch
        workspace = str(Path(scratch) / "workspace")
        runner: Any = local.SubprocessRunner(use_venv=False)
        if containers is not None:
            stack.callback(containers.close)
            runner = local.DockerRunner()
        local.init(runner, str(artifacts), workspace, raise_on_error=False, enable_caching=True)
        try:
            pipeline_orchestrator.run_local_pipeline(message, dict(arguments))
        except Exception as error:
            execution.note(error)
    if execution.error is not None:
        raise execution.error
    return not execution.failed


_run_task = task_dispatcher.run_single_task_implementation


def check_internals() -> None:
    """Check that the functions this adapter replaces are the ones it was written for.

    Raises:
        AssayError: the installed KFP differs.
    """
    expected: dict[Callable[..., Any], str] = {
        task_executor.execute_single_task: "task_name task_spec pipeline_resource_name components executors "
        "io_store pipeline_root runner unique_pipeline_id fail_stack",
        _run_task: "pipeline_resource_name component_name component_spec executor_spec arguments pipeline_root "
        "runner raise_on_error block_input_artifact unique_pipeline_id",
        subprocess_task_handler.run_local_subprocess: "full_command env_vars",
        docker_task_handler.run_docker_container: "client image command volumes container_run_args",
        pipeline_orchestrator.run_local_pipeline: "pipeline_spec arguments",
        cache.LocalCache.compute_key: "self component_name image full_command arguments env_vars custom_cache_key",
        cache.LocalCache.get: "self key",
        cache.LocalCache.put: "self key outputs",
        cache.get_local_cache: "",
        ConditionEvaluator._resolve_pipeline_channel: "channel_ref io_store",
        logging_utils.local_logger_context: "",
        logging_utils.print_horizontal_line: "",
    }
    for function, parameters in expected.items():
        if list(inspect.signature(function).parameters) != parameters.split():
            raise AssayError(
                f"kfp {kfp_version} has another {function.__qualname__} than this version of Assay knows: "
                "install the versions of requirements.lock."
            )


class _Execution:
    """The state of one run across KFP's threads."""

    def __init__(
        self,
        content: ContentCache,
        environment: Mapping[str, str],
        observer: Observer,
        containers: "Containers | None" = None,
    ) -> None:
        self.cache = content
        self.environment = dict(environment)
        self.reaper = Reaper()
        self._redact = Redactor({**os.environ, **environment})
        self.error: Exception | None = None
        self.failed = False
        self._observer = observer
        self._containers = containers
        self._stopping = False
        self._processes: set[subprocess.Popen[str]] = set()
        self._names: set[str] = set()
        self._lock = threading.Lock()
        self._task = threading.local()

    def wrap(self, execute_single_task: Callable[..., Any]) -> Callable[..., Any]:
        """Return KFP's execution of one task, observed, with outputs in a folder of the task's own."""

        def observed(**task: Any) -> tuple[dict[str, Any], Any]:
            if self._stopping:
                raise KeyboardInterrupt
            turns = re.findall(r"-iteration-(\d+)", task["pipeline_resource_name"])
            name = self._unique(".".join([task["task_name"], *turns]))
            component = task["task_spec"].component_ref.name.removeprefix("comp-")
            task["pipeline_resource_name"] = "" if name == component else name
            self._task.name, self._task.in_loop = name, bool(turns)
            turn = ", ".join(_loop_items(task["task_spec"], task["io_store"]) or turns)
            self._task.log = self._observer.started(name, task["task_spec"].task_info.name, turn)
            self.cache.begin()
            try:
                outputs, end = execute_single_task(**task)
            except BaseException as error:
                interrupted = self._stopping or isinstance(error, KeyboardInterrupt)
                self.note(error)
                self._finish(name, State.INTERRUPTED if interrupted else State.FAILED, {})
                raise
            if end != status.Status.SUCCESS:
                self._finish(name, State.INTERRUPTED if self._stopping else State.FAILED, {})
            else:
                self._finish(name, State.CACHED if self.cache.origin else State.SUCCEEDED, outputs)
            return outputs, end

        return observed

    def complete(self, run_task: Callable[..., Any]) -> Callable[..., Any]:
        """Return KFP's running of one task, which fails it if a declared output is absent and caches it otherwise."""

        def completed(**task: Any) -> tuple[dict[str, Any], Any]:
            self._task.resources = task["executor_spec"].container.resources
            outputs, end = run_task(**task)
            absent = _absent(task["component_spec"], outputs) if end == status.Status.SUCCESS else []
            if not absent:
                return outputs, end
            problem = AssayError(f"{self._task.name} ended well, but without its output {' and '.join(absent)}.")
            with disk_errors(self._task.log), self._task.log.open("a", encoding="utf-8") as log:
                self._record_line(log, _as_line(problem))
            return {}, status.Status.FAILURE

        return completed

    def _variables(self, env_vars: Mapping[str, str] | None) -> dict[str, str]:
        """Return a task's variables; the tasks of a loop, which run side by side, share the threads."""
        environment = {**self.environment, **(env_vars or {})}
        if self._task.in_loop and "OMP_NUM_THREADS" not in os.environ:
            threads = int(environment.get("OMP_NUM_THREADS", "1"))
            environment["OMP_NUM_THREADS"] = str(max(1, threads // _LOOP_PARALLELISM))
        return environment

    def run_container(
        self, client: Any, image: str, command: list[str], volumes: dict[str, Any], **container_run_args: Any
    ) -> int:
        """Run a task's command in a container, its output to the task's log."""
        from assay.running.docker import Limits

        if self._containers is None:
            raise AssayError("KFP asked for a container in a run without containers.")
        with disk_errors(self._task.log), self._task.log.open("a", encoding="utf-8") as log:
            container = self._containers.name(self._task.name)
            self.reaper.add(container)
            try:
                return self._containers.run(
                    self._task.name,
                    image,
                    command,
                    volumes=volumes,
                    environment=self._variables(container_run_args.get("environment")),
                    scratch=Path(self.environment["TMPDIR"]),
                    limits=Limits.of(self._task.resources),
                    line=lambda text: self._record_line(log, text),
                )
            except AssayError as problem:
                self._record_line(log, _as_line(problem))
                return 1
            finally:
                self.reaper.remove(container)

    def run_subprocess(self, full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        """Run a task's command in a process group of its own, its output to the task's log."""
        environment = {**os.environ, **self._variables(env_vars)}
        with disk_errors(self._task.log), self._task.log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                full_command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                bufsize=1,
                env=environment,
                start_new_session=True,
            )
            self._processes.add(process)
            self.reaper.add(process.pid)
            try:
                if self._stopping:  # the signal came between the start and the line above
                    _signal_group(process, signal.SIGTERM)
                for line in process.stdout or ():
                    self._record_line(log, line)
                return process.wait()
            finally:
                _stop(process)
                self._processes.discard(process)
                self.reaper.remove(process.pid)

    def _record_line(self, log: TextIO, line: str) -> None:
        """Write a line that the task printed to its log, and show it; without the secrets of its environment."""
        line = self._redact(line)
        log.write(line)
        log.flush()
        self._observer.line(self._task.name, line.rstrip())

    @contextlib.contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """Stop every child and raise KeyboardInterrupt when the user or the system asks this process to end."""

        def stop(*_: Any) -> None:
            if self._stopping:
                return  # what was started is being stopped, and killed if it does not stop
            self._stopping = True
            for process in list(self._processes):
                _signal_group(process, signal.SIGTERM)
            if self._containers is not None:  # not in this thread, which may be in the middle of a call to docker
                threading.Thread(target=self._containers.stop, args=("SIGTERM",), daemon=True).start()
            killer = threading.Timer(_GRACE, self._kill_all)
            killer.daemon = True
            killer.start()
            raise KeyboardInterrupt

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, stop) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def messages_to(self, log: Path) -> Iterator[None]:
        """Send KFP's messages (it logs to the root logger) to a file, and make a failed condition an error.

        KFP only warns of a condition that it cannot evaluate, runs no branch, and succeeds.
        """
        execution = self

        class Messages(logging.FileHandler):
            def emit(self, record: logging.LogRecord) -> None:
                super().emit(record)
                if record.levelno >= logging.WARNING and record.module == "enhanced_dag_orchestrator":
                    message = record.getMessage()
                    if message.startswith(("Condition evaluation failed", "Could not resolve")):
                        error = AssayError(f"KFP cannot decide a condition of this pipeline: {message}.")
                        execution.note(error)
                        raise error

        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        with disk_errors(log):
            messages = Messages(log, delay=True)
        messages.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root.handlers[:] = [messages]
        root.setLevel(logging.INFO)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*have no effect in the current local runner.*")
                yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            messages.close()

    def _finish(self, name: str, state: State, outputs: Mapping[str, Any]) -> None:
        self.failed |= state in (State.FAILED, State.INTERRUPTED)
        found = {key: _output(value) for key, value in outputs.items()}
        self._observer.finished(name, state, found, self.cache.origin if state == State.CACHED else None)

    def note(self, error: BaseException) -> None:
        """Keep the first error: KFP swallows what is raised inside a loop."""
        if isinstance(error, Exception) and self.error is None:
            self.error = error

    def _unique(self, name: str) -> str:
        """Return ``name``, or the first of name-2, name-3, ... that no task of this run has."""
        with self._lock:
            found, number = name, 1
            while found in self._names:
                number += 1
                found = f"{name}-{number}"
            self._names.add(found)
            return found

    def _kill_all(self) -> None:
        for process in list(self._processes):
            _signal_group(process, signal.SIGKILL)
        if self._containers is not None:
            self._containers.stop("SIGKILL")


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _prepared(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy without retries, in which each task's display name is the id of its node.

    On a cluster a retry helps against a lost machine; here it would repeat the user's mistake.
    """
    message = json_format.ParseDict(dict(spec), pipeline_spec_pb2.PipelineSpec())
    copy: dict[str, Any] = json_format.MessageToDict(message)
    for name, dag in dags(copy).items():
        for task_name, task in dag["tasks"].items():
            task.pop("retryPolicy", None)
            task["taskInfo"] = {**task.get("taskInfo", {}), "name": node_id(name, task_name)}
    return copy


def _resolver(spec: Mapping[str, Any]) -> Callable[[str, Any], Any]:
    """Return how a condition finds the value of a channel: by the producer that the task's inputs name.

    KFP guesses the producer from the channel's name, finds only outputs called ``Output``, and takes any other
    condition for false.
    """
    producers = {
        channel: source["taskOutputParameter"]
        for dag in dags(spec).values()
        for task in dag["tasks"].values()
        for channel, source in task.get("inputs", {}).get("parameters", {}).items()
        if "taskOutputParameter" in source
    }
    guess = ConditionEvaluator._resolve_pipeline_channel

    def resolve(channel: str, values: Any) -> Any:
        source = producers.get(channel)
        if source is None:
            return guess(channel, values)
        return values.get_task_output(source["producerTask"], source["outputParameterKey"])

    return resolve


def _loop_items(task: Any, values: Any) -> list[str]:
    """Return the items of the loops around a task that it gets as parameters, where they are short and plain."""
    channels = [entry.component_input_parameter for entry in task.inputs.parameters.values()]
    items = [values.get_parent_input(channel) for channel in channels if channel.endswith("-loop-item")]
    plain = all(isinstance(item, str | int | float) and len(str(item)) <= _LONGEST_ITEM for item in items)
    return [str(_json(item)) for item in items] if plain else []


def _absent(component: Any, outputs: Mapping[str, Any]) -> list[str]:
    """Return the names of the declared outputs that a task did not write; a metrics file is KFP's to write."""
    declared = component.output_definitions
    absent = [name for name in declared.parameters if name not in outputs]
    for name in declared.artifacts:
        found = outputs.get(name)
        artifacts = found if isinstance(found, list) else [found]
        if not all(isinstance(artifact, dsl.Artifact) and is_written(artifact) for artifact in artifacts):
            absent.append(name)
    return sorted(absent)


def _as_line(error: AssayError) -> str:
    """Return a line for a task's log that says what an error raised by the task itself would say."""
    return f"{type(error).__module__}.{type(error).__qualname__}: {error}\n"


def _output(value: Any) -> Output:
    if isinstance(value, dsl.Artifact):
        metadata = {name: _json(value.metadata[name]) for name in _in_order(value)}
        return Output(type=value.schema_title, uri=value.uri, metadata=metadata)
    if isinstance(value, list) and value and isinstance(value[0], dsl.Artifact):
        return Output(type="list", value=[item.uri for item in value])
    return Output(type="parameter", value=_json(value))


def _in_order(artifact: dsl.Artifact) -> list[str]:
    """Return the names of an artifact's metadata as its JSON file has them, then the others by name.

    Protobuf, through which KFP passes metadata, keeps no order.
    """
    try:
        content = json.loads(Path(artifact.uri).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = {}
    place = {name: number for number, name in enumerate(content)} if isinstance(content, dict) else {}
    return sorted(artifact.metadata, key=lambda name: (place.get(name, len(place)), name))


def _json(value: Any) -> Any:
    """Return plain data that JSON can hold: whole floats as integers, no NaN or infinity."""
    if isinstance(value, Mapping):
        return {str(key): _json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json(entry) for entry in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() else value
    return value if isinstance(value, str | int | bool | None) else str(value)


def _signal_group(process: subprocess.Popen[str], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _stop(process: subprocess.Popen[str]) -> None:
    """Leave nothing of a child behind: ask its group to end, then kill it."""
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    _signal_group(process, signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()
