"""Runs in containers: an example project, the image of this source, and what is left of either."""

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from assay.project import Project

ROOT = Path(__file__).parents[2]
SOCKET = "/var/run/docker.sock"
OTHER = 4711  # a user that is not root


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    with contextlib.closing(docker.from_env()) as client:
        yield client


@pytest.fixture(scope="session")
def image(client: docker.DockerClient) -> str:
    """The image that `make images` builds of this source."""
    name = Project.find(ROOT).image
    client.images.get(name)
    return name


STEPS = '''
from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output

from assay.project import Project

step = lambda function: dsl.component(base_image=Project.find().image, install_kfp_package=False)(function)


@step
def look(data: Output[Dataset], metrics: Output[Metrics]) -> NamedTuple("Seen", [("user", int)]):
    """Write down what a task can see and do."""
    import json
    import os
    from pathlib import Path

    def refused(path):
        try:
            Path(path).write_text("x")
        except OSError as error:
            return error.strerror
        return ""

    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    shared = os.statvfs("/dev/shm")
    seen = {
        "capabilities": status["CapEff"].strip(),
        "new_privileges": status["NoNewPrivs"].strip(),
        "root": refused("/etc/x"),
        "project": refused(Path(os.environ["ASSAY_PROJECT"]) / "x"),
        "services": os.listdir(Path(os.environ["ASSAY_HOME"]) / "services"),
        "home": refused(Path.home() / "x"),
        "shared": shared.f_frsize * shared.f_blocks,
        "threads": os.environ["OMP_NUM_THREADS"],
        "variables": sorted(os.environ),
    }
    Path(data.path).write_text(json.dumps(seen))
    metrics.metadata["user"] = os.getuid()
    return (os.getuid(),)


@step
def fill(megabytes: int):
    """Use memory."""
    print("filling", flush=True)
    bytearray(megabytes << 20)[::4096] = b"x" * (megabytes << 8)
    print("filled", flush=True)


@step
def forget(data: Output[Dataset]):
    """Succeed without the output."""


@step
def leave() -> NamedTuple("Left", [("value", int)]):
    """Succeed, as far as the exit code tells, without the parameter."""
    import os

    os._exit(0)


@step
def sleep(item: int):
    import subprocess

    print("asleep", flush=True)
    subprocess.run(["sleep", "300"])
'''

PIPELINES = {
    "looking": """
def looking():
    task = look()
    task.set_cpu_limit("1").set_memory_limit("600M")
""",
    "filling": """
def filling(megabytes: int = 4000):
    fill(megabytes=megabytes).set_memory_limit("300M")
""",
    "forgetting": """
def forgetting():
    forget()
""",
    "leaving": """
def leaving():
    leave()
""",
    "sleeping": """
def sleeping():
    with dsl.ParallelFor([1, 2]) as item:
        sleep(item=item)
""",
}
HEADER = "from kfp import dsl\n\nfrom components.steps import fill, forget, leave, look, sleep\n\n\n@dsl.pipeline"


class Place:
    """A project with small steps, which belongs to a user of its own where the tests run as root."""

    def __init__(self, root: Path, image: str) -> None:
        self.root = root
        files = {"pyproject.toml": "[project]\nname = 'example'\nversion = '0'\n", "components/steps.py": STEPS}
        files |= {f"pipelines/{name}.py": HEADER + text for name, text in PIPELINES.items()}
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        (root / ".assay" / "services").mkdir(parents=True)
        (root / ".assay" / "services" / "credentials").write_text("secret\n")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ASSAY", "MLFLOW"))}
        self.environment = environment | {
            "ASSAY_IMAGE": image,
            "COLUMNS": "200",
            "HOME": str(root),
            "TMPDIR": str(root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), sysconfig.get_path("purelib")]),
        }
        self.user, self._python = os.getuid(), [sys.executable]
        if self.user == 0 and (python := self._python_of_another_user()):
            self.user, self._python = OTHER, python
            for path in (root, *root.rglob("*")):
                os.chown(path, OTHER, OTHER)
            for parent in (root.parent, root.parent.parent):
                parent.chmod(parent.stat().st_mode | 0o011)  # pytest's own folders

    def _python_of_another_user(self) -> list[str] | None:
        """Return how to start Python as a user that is not root and may use docker, if there is a way."""
        user = ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", f"--groups={os.stat(SOCKET).st_gid}"]
        for python in (sys.executable, "/usr/bin/python3.11"):
            code = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'import assay, kfp']))"
            if subprocess.run([*user, python, "-c", code], env=self.environment, capture_output=True).returncode == 0:
                return [*user, python]
        return None

    def start(self, *words: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*self._python, "-m", "assay.cli", *words],
            cwd=self.root,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def assay(self, *words: str, expect: int = 0, **environment: str) -> str:
        process = self.start(*words, **environment)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == expect, output
        return output

    def not_mine(self) -> list[Path]:
        return [path for path in self.root.rglob("*") if path.lstat().st_uid != self.user]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, image: str) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("place")
    yield Place(root, image)
    shutil.rmtree(root, ignore_errors=True)
