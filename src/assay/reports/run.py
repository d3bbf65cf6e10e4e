"""The page of a whole run: its graph, every task's metrics, figures and reports, and where it all came from."""

import os
import shutil
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

from assay.files import atomic_folder, atomic_write
from assay.reports.dag import Box, dag_svg
from assay.reports.html import render
from assay.reports.records import Run, State, Task
from assay.reports.values import format_duration, measurements

_LOG_TAIL = 25  # lines
_SELF_CONTAINED = "default-src 'none'"  # the content policy that `assay.reports.Report` writes
_WIDE = 800  # CSS pixels
_FIGURES = 6  # of one task, shown on the run's page; its own report has the rest


class Figure(NamedTuple):
    """A figure taken from a task's report."""

    source: str
    width: str
    caption: str

    @property
    def wide(self) -> bool:
        """Whether it is several panels side by side, too small to read in half the page."""
        return self.width.isdigit() and int(self.width) >= _WIDE


def write_run_report(run: Run, folder: Path) -> Path:
    """Write ``report.html`` into the run's folder, with copies of the tasks' reports in ``reports/``.

    The page and everything it shows work from the folder alone, without a network.
    """
    pages = _copy_pages(run, folder)
    states = {node.id: run.node_state(node.id) for node in run.nodes}
    boxes = [
        Box(
            node.id,
            node.title,
            node.depends,
            states[node.id].value,
            _note(run, node.id, states[node.id]),
            f"#task-{run.tasks_of(node.id)[0].name}" if run.tasks_of(node.id) else "",
        )
        for node in run.nodes
    ]
    page = render(
        "run.html",
        run=run,
        across=dag_svg(boxes),
        down=dag_svg(boxes, down=True),
        tasks=[_task(task, folder, pages.get(task.name, {})) for task in run.tasks],
        waiting=[node.title for node in run.nodes if not run.tasks_of(node.id)],
        parameters=list(_flat(run.parameters)),
        champion=champion(run),
    )
    path = folder / "report.html"
    atomic_write(path, page)
    return path


def champion(run: Run) -> str:
    """Return one line on what became of the champion; empty when the run has no gate.

    A promotion is a task with the metric ``champion_version`` or ``champion``; a gate is one with the output
    ``passed`` and, for people, ``reasons``.
    """
    done = [task for task in run.tasks if task.state in (State.SUCCEEDED, State.CACHED)]
    for task in reversed(done):
        version = task.metrics.get("champion_version", task.metrics.get("champion"))
        if isinstance(version, int | float) and "passed" not in task.outputs:
            name = run.parameters.get("model_name", run.pipeline)
            earlier = f", promoted by the earlier run {task.cached_from}" if task.cached_from else ""
            return f"Champion: {name} version {version:g}{earlier}"
    for task in done:
        if "passed" in task.outputs and task.outputs["passed"].value is False:
            reasons = task.outputs["reasons"].value if "reasons" in task.outputs else "The gate was not passed."
            return f"Not promoted. {reasons}"
    return ""


def embedded_figures(page: str) -> list[Figure]:
    """Return the charts of a page that ``assay.reports.Report`` wrote; other pages have none."""
    parser = _FigureParser()
    parser.feed(page)
    return parser.found


class _FigureParser(HTMLParser):
    """Collects ``<figure class="chart">`` with an image that is inside the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Figure] = []
        self._inside = self._in_caption = False
        self._image: dict[str, str | None] = {}
        self._caption = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "figure" and values.get("class") == "chart":
            self._inside, self._image, self._caption = True, {}, ""
        elif self._inside and tag == "img":
            self._image = values
        elif tag == "figcaption":
            self._in_caption = True

    def handle_data(self, data: str) -> None:
        if self._inside and self._in_caption:
            self._caption += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "figcaption":
            self._in_caption = False
        elif tag == "figure" and self._inside:
            self._inside = False
            source = self._image.get("src") or ""
            if source.startswith("data:image/"):
                self.found.append(Figure(source, self._image.get("width") or "", self._caption.strip()))


def _copy_pages(run: Run, folder: Path) -> dict[str, dict[str, str]]:
    """Copy the tasks' HTML artifacts to ``reports/``; return each task's {output: relative path}."""
    pages: dict[str, dict[str, str]] = {}
    with atomic_folder(folder / "reports") as target:
        for task in run.tasks:
            for name, output in task.outputs.items():
                source = Path(output.uri)
                if output.type != "system.HTML" or not source.exists():
                    continue
                stem = f"{task.name}-{name}"
                if source.is_dir():
                    shutil.copytree(source, target / stem)
                    pages.setdefault(task.name, {})[name] = f"reports/{stem}/index.html"
                else:
                    shutil.copyfile(source, target / f"{stem}.html")
                    pages.setdefault(task.name, {})[name] = f"reports/{stem}.html"
    return pages


def _task(task: Task, folder: Path, pages: Mapping[str, str]) -> dict[str, Any]:
    """Return what the page shows of a task."""
    log = folder / task.log
    text = log.read_text(encoding="utf-8", errors="replace") if task.log and log.is_file() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    texts = {
        name: (folder / page).read_text(encoding="utf-8", errors="replace")
        for name, page in pages.items()
        if (folder / page).is_file()
    }
    figures = [figure for page in texts.values() for figure in embedded_figures(page)]
    files = [
        (name, output.type.removeprefix("system."), os.path.relpath(output.uri, folder))
        for name, output in task.outputs.items()
        if output.uri and output.type not in ("system.HTML", "system.Metrics") and Path(output.uri).exists()
    ]
    return {
        "task": task,
        "measurements": measurements(task.metrics),
        "pages": pages,
        "frames": [name for name, page in texts.items() if _SELF_CONTAINED in page],
        "figures": figures[:_FIGURES],
        "files": files,
        "values": [(name, output.value) for name, output in task.outputs.items() if output.type == "parameter"],
        "log": task.log if text else "",
        "tail": "\n".join(lines[-_LOG_TAIL:]),
    }


def _note(run: Run, node: str, state: State) -> str:
    """Return the second line of a box: how long it took, or why there is nothing to time."""
    tasks = run.tasks_of(node)
    if not tasks:
        return {State.PENDING: "waiting", State.SKIPPED: "not run"}.get(state, state.value)
    note = "cached" if state == State.CACHED else format_duration(sum(task.seconds for task in tasks))
    return note if len(tasks) == 1 else f"{len(tasks)} × · {note}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the entries of nested dictionaries under dotted names."""
    for key, value in sorted(values.items()):
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "the defaults" if value == {} else value
