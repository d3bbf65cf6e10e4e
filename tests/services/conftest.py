"""One stack of services for the whole folder, and a project whose commands use it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.conftest import SECRETS, Example
from tests.pipelines.test_end_to_end import SETTINGS

PATIENCE = 240.0


class Team(Example):
    """A project with the services up, and a digits pipeline that can be disturbed in the middle."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.state = root / ".assay"
        self.services = self.state / "services"

    def processes(self) -> dict[str, int]:
        known = json.loads((self.services / "services.json").read_text())
        return {name: process["pid"] for name, process in known["processes"].items()}

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.processes()[name], number)

    def versions(self) -> list[dict]:
        return json.loads(self.assay("models", "show", "digits", "--json"))

    def history(self) -> list[dict]:
        return json.loads(self.assay("models", "history", "digits", "--json"))

    @contextlib.contextmanager
    def started(self, *settings: str) -> Iterator[subprocess.Popen]:
        """Start the digits pipeline in the background."""
        words = [word for setting in [*SETTINGS, *settings] for word in ("--set", setting)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("ASSAY", "MLFLOW"))}
        process = subprocess.Popen(
            [sys.executable, "-m", "assay.cli", "run", "classification", *words],
            cwd=self.root,
            env=environment | {"COLUMNS": "200", "HF_HUB_OFFLINE": "1", **SECRETS, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.communicate()

    def wait_for(self, task: str, since: float) -> None:
        """Wait until the run that was started after ``since`` is at a task."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for record in (self.state / "runs").glob("*/run.json"):
                if record.stat().st_mtime >= since and record.parent.stat().st_ctime >= since:
                    with contextlib.suppress(ValueError):
                        tasks = {each["name"]: each["state"] for each in json.loads(record.read_text())["tasks"]}
                        if tasks.get(task) == "running":
                            return
            time.sleep(0.1)
        raise AssertionError(f"{task} did not start in {PATIENCE:.0f} s")


@pytest.fixture(scope="session")
def team() -> Iterator[Team]:
    # PostgreSQL's account must reach it, which it cannot below pytest's own folder of mode 0700.
    root = Path(tempfile.mkdtemp(prefix="assay-services-"))
    root.chmod(0o755)
    team = Team(root)
    try:
        team.assay("services", "up")
        team.environment["ASSAY_PROFILE"] = "services"
        team.assay("data", "import", "photos", "--name", "digits")
        yield team
    finally:
        with contextlib.suppress(AssertionError):
            team.assay("services", "down")
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def first(team: Team) -> dict:
    """The first run against the services."""
    return team.run("classification", *SETTINGS)


@pytest.fixture
def activated(team: Team, monkeypatch: pytest.MonkeyPatch) -> Team:
    """The project with the profile in this very process."""
    from assay.project import Project
    from assay.services.profile import activate

    names = (
        "AWS_ENDPOINT_URL",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_PROFILE",
        "AWS_DEFAULT_REGION",
        "MLFLOW_TRACKING_URI",
    )
    for name in (*names, "ASSAY_CHECKPOINTS", "ASSAY_ARTIFACTS", "ASSAY_DATA_REMOTE", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")  # so that what is set here is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("ASSAY_HOME", str(team.state))
    monkeypatch.setenv("ASSAY_PROJECT", str(team.root))
    monkeypatch.setenv("ASSAY_PROFILE", "services")
    activate(Project(team.root))
    return team
