"""A small project with real KFP components, and one way to run it."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

import assay
from assay.project import Project
from assay.reports.records import Run, Task

STEPS = """
from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output

step = lambda function: dsl.component(base_image="example-python:1", install_kfp_package=False)(function)


@step
def make(amount: int, config: dict, data: Output[Dataset], metrics: Output[Metrics]):
    from pathlib import Path

    Path(data.path).mkdir(parents=True)
    (Path(data.path) / "numbers.txt").write_text(" ".join(map(str, range(amount))))
    Path(metrics.path).write_text('{"share": 1, "share_low": 1, "share_high": 1, "colour": 1, "amount": 1}')
    metrics.metadata.update({"amount": amount, "share_low": 0.4, "share_high": 0.6, "share": 0.5, **config})


@step
def train(data: Input[Dataset], scale: int, model: Output[Model], report: Output[HTML], metrics: Output[Metrics]):
    import os
    import time
    from pathlib import Path

    from assay.errors import UserError
    from assay.reports import Report

    mood = os.environ.get("EXAMPLE", "")
    if mood == "user error":
        raise UserError("numbers.txt holds no numbers: write some.")
    if mood == "bug":
        raise ValueError("a bug")
    if mood == "print everything":
        print("the whole environment:", dict(os.environ), flush=True)
        raise ValueError(f"no answer from {os.environ['EXAMPLE_STORE']}")
    if mood == "sleep in train":
        print("asleep as", os.getpid(), flush=True)
        time.sleep(60)
    numbers = (Path(data.path) / "numbers.txt").read_text().split()
    Path(model.path).mkdir(parents=True)
    (Path(model.path) / "weights.txt").write_text(str(scale * len(numbers)))
    Report("Training").metrics({"scale": scale}).write(report.path)
    metrics.metadata.update({"run": os.environ["ASSAY_RUN_ID"], "threads": os.environ["OMP_NUM_THREADS"]})


@step
def turn(model: Input[Model], item: int, metrics: Output[Metrics]):
    import os
    import time

    print("this is item", item, flush=True)
    if os.environ.get("EXAMPLE") == "sleep in turn":
        print("asleep as", os.getpid(), flush=True)
        time.sleep(60)
    metrics.metadata.update({"item": item, "threads": os.environ["OMP_NUM_THREADS"]})


@step
def decide(model: Input[Model]) -> NamedTuple("Verdict", [("passed", bool), ("version", int)]):
    return (True, 3)


@step
def promote(metrics: Output[Metrics]):
    metrics.metadata["champion_version"] = 3


@step
def quote() -> str:
    return "it's"
"""

PIPELINE = """
from kfp import dsl

from components.steps import decide, make, promote, train, turn

CONFIGS = {"making": "components.settings:Making"}


@dsl.pipeline(name="example")
def example(
    amount: int = 3,
    scale: int = 2,
    workers: int = 0,
    making: dict = {"colour": "red"},
    items: list = [7, 8, 9],
):
    made = make(amount=amount, config=making)
    made.set_display_name("Make numbers").set_cpu_limit("2").set_memory_limit("1G").set_retry(2)
    trained = train(data=made.outputs["data"], scale=scale)
    with dsl.ParallelFor(items) as item:
        turn(model=trained.outputs["model"], item=item)
    decided = decide(model=trained.outputs["model"])
    with dsl.If(decided.outputs["passed"] == True):
        promote()
"""

SETTINGS = """
from assay.config import Config


class Making(Config):
    colour: str = "red"
    shade: int = 1
"""

QUOTED = """
from kfp import dsl

from components.steps import promote, quote


@dsl.pipeline(name="quoted")
def quoted():
    with dsl.If(quote().output == "x"):
        promote()
"""


def write_example(root: Path) -> Path:
    """Write the example project; the same at every place."""
    files = {
        "pyproject.toml": "[project]\nname = 'example'\nversion = '0'\n",
        "components/__init__.py": "",
        "components/steps.py": STEPS,
        "components/settings.py": SETTINGS,
        "pipelines/example.py": PIPELINE,
        "pipelines/quoted.py": QUOTED,
        "pipelines/broken.py": "import a_package_that_is_not_there\n",
        "pipelines/empty.py": "",
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@dataclass
class Result:
    """A run as a user sees it: the record, what was printed, and the error that ended it."""

    run: Run
    folder: Path
    output: str
    error: Exception | None

    def task(self, name: str) -> Task:
        return next(task for task in self.run.tasks if task.name == name)

    @property
    def states(self) -> dict[str, str]:
        return {task.name: task.state.value for task in self.run.tasks}


Runner = Callable[..., Result]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The example project; everything that loading its pipelines changes in this process is undone."""
    root = write_example(tmp_path_factory.mktemp("example") / "project")
    path, environment = sys.path[:], dict(os.environ)
    mine = ("pipelines", "components")
    loaded = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in mine}
    os.environ["ASSAY_HOME"] = str(root / ".assay")
    os.environ["PYTHONPATH"] = str(Path(assay.__file__).parents[1])
    for name in ("MLFLOW_TRACKING_URI", "OMP_NUM_THREADS"):
        os.environ.pop(name, None)
    yield Project(root)
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(environment)
    for name in [name for name in sys.modules if name.partition(".")[0] in mine]:
        del sys.modules[name]
    sys.modules.update(loaded)


@pytest.fixture(scope="module")
def run_example(example: Project) -> Runner:
    """Run a pipeline of the example project, with ``mood`` in the tasks' environment."""
    from assay.running.history import list_runs, run_folder
    from assay.running.local import run_locally

    def run(*settings: str, mood: str = "", name: str = "example") -> Result:
        output, error = io.StringIO(), None
        os.environ["EXAMPLE"] = mood
        try:
            run_locally(name, settings=settings, console=Console(file=output, width=120), project=example)
        except Exception as caught:
            error = caught
        finally:
            del os.environ["EXAMPLE"]
        record = list_runs(example)[0]
        return Result(record, run_folder(example, record.id), output.getvalue(), error)

    return run
