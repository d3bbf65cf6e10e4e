"""What a task in a container sees and may do, how it fails, and that nothing of it is left."""

import json
import os
import signal
import time
from pathlib import Path

import docker
import pytest

pytestmark = pytest.mark.containers

CANARY = "canary-4711-secret"


@pytest.fixture(autouse=True)
def nothing_is_left(client: docker.DockerClient, place):
    yield
    assert client.containers.list(all=True, filters={"label": f"assay.state={place.root / '.assay'}"}) == []
    assert place.not_mine() == []


def newest(place) -> dict:
    runs = sorted((place.root / ".assay" / "runs").glob("*/run.json"), key=os.path.getmtime)
    return json.loads(runs[-1].read_text())


def test_a_task_sees_the_project_and_can_write_only_what_it_must(place):
    place.assay("run", "looking", "--on", "docker", AWS_SECRET_ACCESS_KEY=CANARY, UNRELATED="x", HTTPS_PROXY="http://p")
    (task,) = newest(place)["tasks"]
    seen = json.loads(Path(task["outputs"]["data"]["uri"]).read_text())
    assert task["outputs"]["user"]["value"] == place.user
    assert int(seen["capabilities"], 16) == 0 and seen["new_privileges"] == "1"
    assert seen["root"] == seen["project"] == "Read-only file system"
    assert seen["home"] == ""
    assert seen["services"] == []  # the servers' own files and passwords
    assert seen["threads"] == "1"  # set_cpu_limit("1")
    assert seen["shared"] // 1_000_000 == 300  # half of set_memory_limit("600M")
    assert {"AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY"} <= set(seen["variables"])
    assert not {"UNRELATED", "COLUMNS"} & set(seen["variables"])
    assert "look cached" in place.assay("run", "looking", "--on", "docker")
    files = [path for path in place.root.rglob("*") if path.is_file()]
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_a_task_out_of_memory_ends_in_one_sentence(place):
    told = place.assay("run", "filling", "--on", "docker", expect=1).splitlines()[-1]
    assert told == (
        "error: fill ran out of memory: its container had 0.3 GB: raise its memory in pipelines/, "
        "or make the step need less (a smaller batch or model)."
    )
    assert newest(place)["failed_task"] == "fill"
    place.assay("run", "filling", "--on", "docker", "--set", "megabytes=50")


@pytest.mark.parametrize("on", ["docker", "local"])
@pytest.mark.parametrize("ending", ["forgetting forget data", "leaving leave value"])
def test_a_task_that_succeeds_without_its_output_fails(place, ending, on):
    pipeline, task, output = ending.split()
    for _ in range(2):  # the cache must not take it for a result
        told = place.assay("run", pipeline, "--on", on, expect=1).splitlines()[-1]
        assert told == f"error: {task} ended well, but without its output {output}."


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_stops_and_removes_every_container(client, place, number):
    process = place.start("run", "sleeping", "--on", "docker")
    names = wait_until(lambda: running(client, place, "sleep", 2))
    assert {name.rpartition("-")[2] for name in names} == {"sleep.0", "sleep.1"}
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert running(client, place, "sleep", 0) == set()
    assert newest(place)["state"] == "interrupted"


def test_what_a_killed_run_leaves_is_removed(client, place):
    process = place.start("run", "sleeping", "--on", "docker")
    wait_until(lambda: running(client, place, "sleep", 2))
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: running(client, place, "sleep", 0) == set())


def test_a_missing_image_or_docker_is_one_sentence(place):
    told = place.assay("run", "looking", "--on", "docker", expect=2, ASSAY_IMAGE="assay-python:none")
    assert told == "error: The image assay-python:none is not on this machine: run `make images`.\n"
    told = place.assay("run", "looking", "--on", "docker", expect=2, DOCKER_HOST="unix:///nowhere.sock")
    assert told == ("error: Docker does not answer at unix:///nowhere.sock: start it, or run without --on docker.\n")


def running(client: docker.DockerClient, place, task: str, count: int) -> set[str] | None:
    """Return the names of the containers that run and have begun their work, if there are so many."""
    found = client.containers.list(filters={"label": f"assay.state={place.root / '.assay'}"})
    begun = {container.name for container in found if f"{task} 300" in str(container.top()["Processes"])}
    return begun if len(begun) == count == len(found) else None


def wait_until(condition, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while (found := condition()) is None or found is False:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return found
