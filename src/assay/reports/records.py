"""What is known of one run: the content of its ``run.json``, which the runner writes and the reports read."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from assay.errors import UserError
from assay.files import write_json


class State(StrEnum):
    """The state of a task or of a run."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CACHED = "cached"
    FAILED = "failed"
    SKIPPED = "skipped"
    INTERRUPTED = "interrupted"


class Node(BaseModel):
    """A step of the pipeline as written; inside a loop it stands for several tasks."""

    model_config = ConfigDict(extra="forbid")

    id: str
    title: str
    depends: list[str] = []
    loop: bool = False
    conditional: bool = False


class Output(BaseModel):
    """One output of a task: an artifact (its KFP type, place and metadata) or a parameter's value."""

    model_config = ConfigDict(extra="forbid")

    type: str
    uri: str = ""
    metadata: dict[str, Any] = {}
    value: Any = None


class Task(BaseModel):
    """One execution of a step; ``log`` is relative to the run's folder, times are UTC."""

    model_config = ConfigDict(extra="forbid")

    name: str
    node: str
    title: str
    turn: str = ""
    """Which turn of its loop this is: the item, or its number."""
    state: State = State.PENDING
    started: datetime | None = None
    finished: datetime | None = None
    log: str = ""
    progress: str = ""
    outputs: dict[str, Output] = {}
    cached_from: str = ""
    """The run that computed these outputs, if this one found them in the cache."""
    cached_seconds: float | None = None
    """How long that took."""

    @property
    def label(self) -> str:
        """The title, with the turn of the loop where there is one."""
        return f"{self.title} [{self.turn}]" if self.turn else self.title

    @property
    def seconds(self) -> float:
        """Elapsed time, up to now for a task that runs."""
        return _elapsed(self.started, self.finished)

    @property
    def metrics(self) -> dict[str, Any]:
        """The metadata of every metrics artifact, joined."""
        found = [output.metadata for output in self.outputs.values() if output.type == "system.Metrics"]
        return {name: value for metrics in found for name, value in metrics.items()}


class Run(BaseModel):
    """One execution of a pipeline.

    Example:
        >>> run = Run(id="demo-1", pipeline="demo", nodes=[Node(id="a", title="A")])
        >>> run.state.value, run.node_state("a").value
        ('pending', 'pending')
    """

    model_config = ConfigDict(extra="forbid")

    id: str
    pipeline: str
    state: State = State.PENDING
    started: datetime = Field(default_factory=lambda: datetime.now(UTC))
    finished: datetime | None = None
    parameters: dict[str, Any] = {}
    revision: str = ""
    git_commit: str = ""
    image: str = ""
    tracking_uri: str = ""
    command: str = ""
    pid: int = 0
    """The process that runs it."""
    error: str = ""
    failed_task: str = ""
    nodes: list[Node] = []
    tasks: list[Task] = []

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a run's record.

        Raises:
            UserError: there is none, or it is not readable.
        """
        path = folder / "run.json"
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise UserError(f"{path} does not exist: `assay runs list` names the runs there are.") from error
        except (ValidationError, OSError) as error:
            raise UserError(f"{path} is not the record of a run: remove its folder and run again.") from error

    def write(self, folder: Path) -> None:
        """Write the record to ``run.json``, atomically."""
        write_json(folder / "run.json", self.model_dump(mode="json"))

    @property
    def seconds(self) -> float:
        """Elapsed time, up to now for a run that goes on."""
        return _elapsed(self.started, self.finished)

    def tasks_of(self, node: str) -> list[Task]:
        """Return the executions of a step: one, or one for each turn of a loop."""
        return [task for task in self.tasks if task.node == node]

    def node_state(self, node: str) -> State:
        """Return the state of a step: that of its worst task, and pending or skipped when it has none."""
        states = {task.state for task in self.tasks_of(node)}
        order = (State.FAILED, State.INTERRUPTED, State.RUNNING, State.SUCCEEDED, State.CACHED)
        for state in order:
            if state in states:
                return state
        return State.PENDING if self.state in (State.PENDING, State.RUNNING) else State.SKIPPED


def _elapsed(started: datetime | None, finished: datetime | None) -> float:
    if started is None:
        return 0.0
    return max(0.0, ((finished or datetime.now(UTC)) - started).total_seconds())
