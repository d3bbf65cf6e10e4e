"""A project of its own, in which the tests type what users type."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


CANARY = "canary-4711-secret"  # planted in the environment of every command; nothing may write it down
SECRETS = {"AWS_SECRET_ACCESS_KEY": CANARY, "MLFLOW_TRACKING_PASSWORD": CANARY, "HF_TOKEN": CANARY}


class Example:
    """A project of its own with the digits of scikit-learn as an image folder."""

    def __init__(self, root: Path) -> None:
        from sklearn.datasets import load_digits

        self.root = root
        self.environment: dict[str, str] = {}
        for name in ("pipelines", "components", ".dvc"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "tmp", "cache"))
        (root / "pyproject.toml").write_text("[project]\nname = 'example'\nversion = '0'\n")
        subprocess.run(["git", "init", "--quiet", str(root)], check=True)
        bunch = load_digits()
        for number, (image, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
            folder = root / "photos" / f"digit-{label}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.kron(np.round(image * (255 / 16)), np.ones((2, 2))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:04d}.png")

    def assay(self, *words: str, expect: int = 0) -> str:
        """Run the command in the project; return what it printed."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("ASSAY", "MLFLOW"))}
        environment |= {"COLUMNS": "200", "HF_HUB_OFFLINE": "1", **SECRETS, **self.environment}
        command = [sys.executable, "-m", "assay.cli", *words]
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True)
        assert done.returncode == expect, done.stdout + done.stderr
        assert CANARY not in done.stdout + done.stderr
        return done.stdout if expect == 0 else done.stderr

    def files_with_the_canary(self) -> list[Path]:
        """Return the files of the project and its state that hold a secret of the environment."""
        files = [path for path in self.root.rglob("*") if path.is_file()]
        return [path for path in files if CANARY.encode() in path.read_bytes()]

    def run(self, pipeline: str, *settings: str) -> dict:
        """Run a pipeline; return the record of the run."""
        options = [word for setting in settings for word in ("--set", setting)]
        self.assay("run", pipeline, *options)
        return self.newest()

    def newest(self) -> dict:
        """Return the record of the newest run."""
        newest = max((self.root / ".assay" / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
        return json.loads((newest / "run.json").read_text()) | {"folder": newest}


@pytest.fixture(scope="session")
def make_example(tmp_path_factory: pytest.TempPathFactory):
    """Return how to make a project in a folder of a given name."""
    return lambda name: Example(tmp_path_factory.mktemp(name))
