"""What a container costs over a child process, for each task of a pipeline."""

import shutil
import statistics

import docker
import pytest

from assay.project import Project
from tests.containers.conftest import ROOT, Place

TASKS = 6
STEPS = """
from kfp import dsl

from assay.project import Project


@dsl.component(base_image=Project.find().image, install_kfp_package=False)
def nothing(number: int):
    pass
"""
PIPELINE = f"""
from kfp import dsl

from components.nothing import nothing


@dsl.pipeline
def starting(first: int):
    before = None
    for number in range({TASKS}):
        task = nothing(number=first).set_caching_options(False)
        if before is not None:
            task.after(before)
        before = task
"""


@pytest.fixture
def place(tmp_path):
    image = Project.find(ROOT).image
    docker.from_env().images.get(image)
    place = Place(tmp_path / "place", image)
    (place.root / "components" / "nothing.py").write_text(STEPS)
    (place.root / "pipelines" / "starting.py").write_text(PIPELINE)
    yield place
    shutil.rmtree(place.root, ignore_errors=True)


def seconds_of_tasks(place, on):
    """Run the tasks one after the other; return how long each took from its start to its recorded end."""
    from assay.reports.records import Run

    place.assay("run", "starting", "--on", on, "--set", "first=1")
    newest = max((place.root / ".assay" / "runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    tasks = Run.read(newest.parent).tasks
    assert [task.state.value for task in tasks] == ["succeeded"] * TASKS
    return [task.seconds for task in tasks]


def test_container_start_against_subprocess_start(benchmark, place):
    seconds_of_tasks(place, "docker"), seconds_of_tasks(place, "local")  # both from warm disks

    def compare():
        return {on: statistics.median(seconds_of_tasks(place, on)) for on in ("local", "docker")}

    found = benchmark.pedantic(compare, rounds=1)
    over = found["docker"] - found["local"]
    print(
        f"\nAn empty task: {found['local']:.2f} s in a process, {found['docker']:.2f} s in a container "
        f"(+{over:.2f} s, ratio {found['docker'] / found['local']:.2f})"
    )
