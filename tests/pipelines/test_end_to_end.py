"""The main job for real: an image folder becomes a champion, through the command that users type."""

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
SETTINGS = ["dataset=digits", "model_name=digits", "training.epochs=4", "training.horizontal_flip=0"]


class Example:
    """A project of its own with the digits of scikit-learn as an image folder."""

    def __init__(self, root: Path) -> None:
        from sklearn.datasets import load_digits

        self.root = root
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
        environment |= {"COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "assay.cli", *words]
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True)
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout if expect == 0 else done.stderr

    def run(self, *settings: str) -> dict:
        """Run the classification pipeline; return the record of the run."""
        options = [word for setting in [*SETTINGS, *settings] for word in ("--set", setting)]
        self.assay("run", "classification", *options)
        newest = max((self.root / ".assay" / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
        return json.loads((newest / "run.json").read_text()) | {"folder": newest}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    example = Example(tmp_path_factory.mktemp("example"))
    example.assay("data", "import", "photos", "--name", "digits")
    return example


@pytest.fixture(scope="module")
def first(example: Example) -> dict:
    return example.run()


def states(run: dict) -> dict[str, str]:
    return {task["name"]: task["state"] for task in run["tasks"]}


def test_an_image_folder_becomes_a_champion(example: Example, first: dict) -> None:
    assert set(states(first).values()) == {"succeeded"}
    assert "promotion" in states(first)
    metrics = {
        task["name"]: output["metadata"]
        for task in first["tasks"]
        for output in task["outputs"].values()
        if output["type"] == "system.Metrics"
    }
    evaluation = metrics["evaluation"]
    assert evaluation["accuracy"] > 0.85
    assert evaluation["accuracy_low"] < evaluation["accuracy"] < evaluation["accuracy_high"]
    assert "digits" in example.assay("models", "list")


def test_what_is_registered_answers_with_its_version(example: Example, first: dict) -> None:
    image = sorted((example.root / "photos" / "digit-7").iterdir())[0]
    (answer,) = json.loads(example.assay("models", "predict", "digits@champion", str(image), "--json"))
    assert answer["model"] == "digits/1"
    assert answer["class"] == "digit-7"
    assert 0.5 < answer["probability"] <= 1


def test_an_unchanged_run_is_all_cache_hits_and_a_changed_one_reruns_what_depends_on_it(
    example: Example, first: dict
) -> None:
    assert set(states(example.run()).values()) == {"cached"}
    changed = states(example.run("calibration.loss=cross_entropy"))
    assert {changed[task] for task in ("data-import", "data-validation", "pretraining")} == {"cached"}
    assert {changed[task] for task in ("calibration", "evaluation", "gate")} == {"succeeded"}


def test_a_second_promotion_can_be_explained_and_undone(example: Example, first: dict) -> None:
    example.run("training.epochs=5")
    version = json.loads(example.assay("models", "show", "digits", "--json"))[-1]["version"]
    example.assay("models", "promote", "digits", str(version), "--reason", "a test of the way back")
    assert champion(example) == version
    example.assay("models", "rollback", "digits")
    assert champion(example) == 1
    events = json.loads(example.assay("models", "history", "digits", "--json"))
    moves = [(event["kind"], event["champion"]) for event in events if event["kind"] in ("promotion", "rollback")]
    assert moves == [("promotion", [None, 1]), ("promotion", [1, version]), ("rollback", [version, 1])]


def champion(example: Example) -> int:
    (row,) = json.loads(example.assay("models", "list", "--json"))
    return row["champion"]
