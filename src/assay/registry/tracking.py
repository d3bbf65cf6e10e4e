"""The one place that starts MLflow: quiet, without pickle, and with a sentence when its server is away."""

import functools
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from filelock import FileLock

from assay.errors import AssayError, UserError
from assay.files import disk_errors
from assay.project import Project

_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_SETTINGS = {
    _RETRIES: "6",  # a server that comes back within a minute is waited for
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
_REACH_SECONDS = 5.0
_RIDE_OUT_SECONDS = 60.0
_CREATE_ATTEMPTS = 3
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_METRICS_PER_BATCH = 1000
T = TypeVar("T")


def import_mlflow() -> ModuleType:
    """Import MLflow with its chatter off, waits for its server of a minute, and pickled models refused.

    A setting that is already in the environment is kept, except the refusal of pickle.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    return mlflow


class Client:
    """``mlflow.MlflowClient``, whose failures are one sentence.

    Every method of ``MlflowClient`` is there under its own name.

    Raises:
        UserError: the tracking server does not answer, or its database cannot be opened.
    """

    def __init__(self, uri: str, state: Path) -> None:
        _wait_until_reachable(uri)
        mlflow = import_mlflow()
        self.uri = uri
        with mlflow_errors(uri), disk_errors(state):
            state.mkdir(parents=True, exist_ok=True)
            # Two processes that create the tables of one new SQLite file at the same moment break it.
            with FileLock(state / "mlflow.lock"):
                self._client = mlflow.MlflowClient(uri)
                self._client.search_experiments(max_results=1)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            with mlflow_errors(self.uri):
                return method(*args, **kwargs)

        return call

    def create(self, make: Callable[[], T], find: Callable[[], T | None]) -> T:
        """Do once what a repeated request would do twice.

        MLflow repeats a request whose answer was lost, though the server may have carried it out before it died.
        Here nothing is repeated before ``find`` has looked for what ``make`` makes.

        Raises:
            AssayError: it was not done after several attempts.
        """
        for attempt in range(1, _CREATE_ATTEMPTS + 1):
            try:
                with _no_retries():
                    return make()
            except AssayError:
                if (found := find()) is not None:  # waits for the server, as every other call
                    return found
                if attempt == _CREATE_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")


@contextmanager
def _no_retries() -> Iterator[None]:
    before = os.environ[_RETRIES]
    os.environ[_RETRIES] = "0"
    try:
        yield
    finally:
        os.environ[_RETRIES] = before


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Turn an exception of MLflow, its database or its HTTP client into one sentence.

    Raises:
        UserError: the server or the database is not there.
        AssayError: anything else that MLflow reports.
    """
    import requests
    import sqlalchemy.exc

    mlflow = import_mlflow()
    try:
        yield
    except mlflow.exceptions.MlflowException as error:
        if isinstance(error.__cause__, requests.RequestException) or "Max retries exceeded" in str(error):
            raise _unreachable(uri, "it stopped answering") from error
        first_line = str(error).strip().splitlines()[0].removesuffix(".")
        raise AssayError(f"MLflow at {public_uri(uri)} reports: {first_line}.") from error
    except requests.RequestException as error:
        raise _unreachable(uri, type(error).__name__) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        first_line = str(error).strip().splitlines()[0].removesuffix(".")
        raise UserError(f"The MLflow database {public_uri(uri)} cannot be used: {first_line}.") from error


def public_uri(uri: str) -> str:
    """Return ``uri`` without the password in it.

    Example:
        >>> public_uri("postgresql://assay:secret@db:5432/mlflow")
        'postgresql://assay@db:5432/mlflow'
    """
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", "@", 1) if password else uri


@dataclass
class MlflowTracker:
    """One MLflow run. It holds two strings and a path, so that it travels to a Ray worker.

    As a context manager it ends the run as ``FINISHED``, or as ``FAILED`` after an exception, unless the run
    was joined: then it belongs to whoever started it.
    """

    uri: str
    run_id: str
    state: Path
    joined: bool = False

    @property
    def client(self) -> Client:
        """The client of the run's tracking server, made once in each process."""
        if not hasattr(self, "_client"):
            self._client = Client(self.uri, self.state)
        return self._client

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_client"}

    def log(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record ``metrics`` at ``step``, all in one request."""
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        entities = [Metric(name, float(value), now, step) for name, value in metrics.items()]
        for start in range(0, len(entities), _METRICS_PER_BATCH):
            self.client.log_batch(self.run_id, metrics=entities[start : start + _METRICS_PER_BATCH])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.joined:
            return
        try:
            self.client.set_terminated(self.run_id, "FINISHED" if kind is None else "FAILED")
        except AssayError:
            if kind is None:  # the block's own error says more than a lost connection
                raise


def track_step(step: str, params: Mapping[str, Any]) -> AbstractContextManager[MlflowTracker | None]:
    """Start an MLflow run for a step of a pipeline; outside a pipeline run there is nothing to join, and none."""
    return start_run(step, params) if os.environ.get("ASSAY_RUN_ID") else nullcontext()


def start_run(
    name: str,
    params: Mapping[str, Any] | None = None,
    *,
    experiment: str = "",
    tags: Mapping[str, str] | None = None,
    project: Project | None = None,
) -> MlflowTracker:
    """Start an MLflow run, or join the one that ``MLFLOW_RUN_ID`` names.

    Args:
        name: of the run, such as ``pretrain``.
        params: plain or nested settings; nested keys are joined with dots. In a joined run they go under
            ``name``, since many steps may share that run.
        experiment: default ``ASSAY_PIPELINE``, else ``name``.
        tags: added to ``ASSAY_RUN_ID``, the git commit and the image.
        project: default the one around the current folder.

    Raises:
        UserError: the tracking server is not there, or ``MLFLOW_RUN_ID`` is not one of its runs.

    Example:
        >>> with start_run("pretrain", {"seed": 0}) as tracker:  # doctest: +SKIP
        ...     tracker.log({"loss": 0.3}, step=1)
    """
    project = project or Project.find()
    uri = project.tracking_uri
    client = Client(uri, project.state)
    every_tag = {
        "ASSAY_RUN_ID": os.environ.get("ASSAY_RUN_ID", ""),
        "git_commit": project.git_commit,
        "image": project.image,
        **(tags or {}),
    }
    run_id = os.environ.get("MLFLOW_RUN_ID", "")
    joined = bool(run_id)
    if joined:
        try:
            client.get_run(run_id)
        except UserError:
            raise
        except AssayError as error:
            raise UserError(
                f"MLFLOW_RUN_ID={run_id} is not a run of {public_uri(uri)}: unset it, or correct it."
            ) from error
    else:
        experiment_id = _experiment(client, experiment or os.environ.get("ASSAY_PIPELINE") or name, project)
        run_id = client.create_run(experiment_id, run_name=name).info.run_id

    from mlflow.entities import Param, RunTag

    flat = _flatten({name: params or {}} if joined else params or {})
    client.log_batch(
        run_id,
        params=[Param(key, str(value)) for key, value in flat.items()],
        tags=[RunTag(key, value) for key, value in every_tag.items() if value],
    )
    return MlflowTracker(uri, run_id, project.state, joined)


def _experiment(client: Client, name: str, project: Project) -> str:
    """Return the id of the experiment ``name``, made if it is new.

    A tracking server decides itself where artifacts go; without one they go to the project's state.
    """
    with FileLock(project.state / "mlflow.lock"):
        if (found := client.get_experiment_by_name(name)) is not None:
            return found.experiment_id
        served = urlsplit(client.uri).scheme in ("http", "https")
        location = None if served else (project.state / "mlartifacts" / name).as_uri()
        return client.create_experiment(name, artifact_location=location)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join the keys of nested mappings with dots; what MLflow allows in no name becomes an underscore."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[re.sub(r"[^\w\-. :/]", "_", f"{prefix}{key}")] = value
    return flat


def _wait_until_reachable(uri: str) -> None:
    """Make sure that a server is there; a step of a pipeline waits for one that is being restarted.

    Raises:
        UserError: nothing answers.
    """
    deadline = time.monotonic() + (_RIDE_OUT_SECONDS if os.environ.get("ASSAY_RUN_ID") else 0)
    while True:
        try:
            return _check_reachable(uri)
        except UserError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(1)


def _check_reachable(uri: str) -> None:
    """Ask a server once, within seconds: MLflow itself would try for minutes.

    Raises:
        UserError: nothing answers.
    """
    parts = urlsplit(uri)
    scheme = parts.scheme.split("+")[0]
    if scheme in ("http", "https"):
        import requests

        try:
            requests.get(f"{uri.rstrip('/')}/health", timeout=_REACH_SECONDS)
        except requests.RequestException as error:
            raise _unreachable(uri, type(error).__name__) from error
    elif scheme in _DATABASE_PORTS and parts.hostname:
        try:
            port = parts.port or _DATABASE_PORTS[scheme]
            socket.create_connection((parts.hostname, port), timeout=_REACH_SECONDS).close()
        except OSError as error:
            raise _unreachable(uri, error.strerror or type(error).__name__) from error


def _unreachable(uri: str, why: str) -> UserError:
    return UserError(
        f"The MLflow tracking server at {public_uri(uri)} cannot be reached ({why}): start it, "
        "or correct or unset MLFLOW_TRACKING_URI."
    )
