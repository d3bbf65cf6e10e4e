"""What a run shows while it goes on: a live table on a terminal, plain lines elsewhere."""

import time
from datetime import datetime
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from assay.reports.records import Node, Run, State, Task
from assay.reports.values import format_duration, measurements

_STYLES = {
    State.PENDING: ("○", "dim"),
    State.RUNNING: ("◐", "cyan"),
    State.SUCCEEDED: ("✓", "green"),
    State.CACHED: ("↺", "green"),
    State.FAILED: ("✕", "bold red"),
    State.SKIPPED: ("–", "dim"),
    State.INTERRUPTED: ("■", "yellow"),
}
_LINE_EVERY = 5.0  # seconds between plain lines of one task


class Display:
    """Shows a run's steps; a context manager, told of changes by ``started``, ``line`` and ``finished``."""

    def __init__(self, run: Run, console: Console) -> None:
        self._run = run
        self._console = console
        self._spinner = Spinner("dots", style="cyan")
        self._shown: dict[str, float] = {}
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()
            self._console.print(self._table())

    def started(self, task: Task) -> None:
        """Show the start of a task."""
        self._shown[task.name] = time.monotonic()
        self._plain(f"{task.label} started")

    def line(self, task: Task) -> None:
        """Show a task's latest line; without a terminal, at most one in five seconds."""
        if not self._console.is_terminal and time.monotonic() - self._shown[task.name] >= _LINE_EVERY:
            self._shown[task.name] = time.monotonic()
            self._plain(f"{task.label}: {task.progress}")

    def finished(self, task: Task) -> None:
        """Show the end of a task."""
        cached = task.state == State.CACHED
        took = "nothing changed, result from the cache" if cached else format_duration(task.seconds)
        self._plain(f"{task.label} {task.state.value} ({took})")

    def _plain(self, text: str) -> None:
        if not self._console.is_terminal:
            self._console.print(f"{datetime.now():%H:%M:%S}  {text}", markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> RenderableType:
        return tasks_table(self._run, self._spinner)


def tasks_table(run: Run, spinner: RenderableType | None = None) -> RenderableType:
    """Return one row for each step: state, title, elapsed time and the last telling line.

    Args:
        run: the record to show.
        spinner: drawn instead of the icon of a step that is going on.
    """
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=2)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, ratio=1, overflow="ellipsis", style="dim")
    for node in run.nodes:
        table.add_row(*_row(run, node, spinner))
    return table


def _row(run: Run, node: Node, spinner: RenderableType | None) -> tuple[RenderableType, ...]:
    tasks = run.tasks_of(node.id)
    state = run.node_state(node.id)
    icon, style = _STYLES[state]
    mark = spinner if spinner and state == State.RUNNING else Text(icon, style=style)
    if not tasks:
        return mark, Text(node.title, style="dim"), "", ""
    latest = max(tasks, key=lambda task: task.started.timestamp() if task.started else 0.0)
    note = latest.progress if latest.state == State.RUNNING else state.value
    if node.loop:
        done = sum(task.state in (State.SUCCEEDED, State.CACHED) for task in tasks)
        note = f"{done}/{len(tasks)}  {note}"
    return mark, Text(node.title), format_duration(sum(task.seconds for task in tasks)), Text(note)


def print_metrics(run: Run, console: Console) -> None:
    """Print every task's metrics, one line each, with the interval beside the value."""
    table = Table("task", "metric", "value", box=None, header_style="dim", padding=(0, 2, 0, 0))
    for task in run.tasks:
        for number, item in enumerate(measurements(task.metrics)):
            table.add_row(Text(task.label if number == 0 else ""), item.name.replace("_", " "), Text(str(item)))
    if table.row_count:
        console.print()
        console.print(table)
