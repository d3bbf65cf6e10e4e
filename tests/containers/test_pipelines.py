"""The project's own pipelines in containers: the same numbers as in processes, from the same seeds."""

import json
import os

import pytest

from tests.pipelines.conftest import Example
from tests.pipelines.test_end_to_end import SETTINGS as CLASSIFICATION
from tests.pipelines.test_forensics import SETTINGS as FORENSICS

pytestmark = pytest.mark.containers

SHORTER = {"classification": ["training.epochs=2"], "forensics": ['methods=["rgb", "fingerprint"]']}
# A time; and the size of an exported program, which names the files of the source that it came from.
ELSEWHERE = ("latency", "size_mb")


@pytest.fixture(scope="module")
def examples(tmp_path_factory, image) -> tuple[Example, Example]:
    """The same project twice: one for processes, one for containers, each with a cache of its own."""
    found = Example(tmp_path_factory.mktemp("processes")), Example(tmp_path_factory.mktemp("containers"))
    for example in found:
        # With as many threads either way, sums are formed in the same order.
        example.environment = {"ASSAY_IMAGE": image, "OMP_NUM_THREADS": "1"}
        example.assay("data", "import", "photos", "--name", "digits")
    return found


@pytest.mark.parametrize(("pipeline", "settings"), [("classification", CLASSIFICATION), ("forensics", FORENSICS)])
def test_containers_give_every_number_that_processes_give(examples, client, pipeline, settings):
    options = [word for setting in [*settings, *SHORTER[pipeline]] for word in ("--set", setting)]
    processes, containers = examples
    processes.assay("run", pipeline, *options)
    containers.assay("run", pipeline, "--on", "docker", *options)
    here, there = processes.newest(), containers.newest()
    ran = [task for task in there["tasks"] if task["title"] not in ("Import data", "Validate data")]  # once for both
    assert {task["state"] for task in ran} == {"succeeded"}
    assert "--on docker" in there["command"]
    assert numbers(there) == numbers(here)
    assert len(numbers(here)) > 30
    assert client.containers.list(all=True, filters={"label": f"assay.run={there['id']}"}) == []
    assert {path.lstat().st_uid for path in containers.root.rglob("*")} == {os.getuid()}
    assert not containers.files_with_the_canary()


def numbers(run: dict) -> dict[str, str]:
    """Return every number of a run that a different place may not change."""
    found = {}
    for task in run["tasks"]:
        for name, output in task["outputs"].items():
            values = output["metadata"] if output["type"] != "parameter" else {"value": output["value"]}
            for key, value in values.items():
                if isinstance(value, int | float) and not key.startswith(ELSEWHERE):
                    found[f"{task['title']} {task['turn']} {name} {key}"] = json.dumps(value)
    return found
