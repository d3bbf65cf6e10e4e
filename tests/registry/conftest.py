"""A registry in a fresh project, copied from one made once: SQLite's tables take seconds to make."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.project import Project
from assay.registry import Lineage, Registry

CLASSES = [str(k) for k in range(10)]


class Centroids(torch.nn.Module):
    """A classifier of digits in one matrix: softmax of the distances to each class's mean image."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, sharpness: float = 40.0) -> None:
        super().__init__()
        flat = images.float().flatten(1) / 255
        means = torch.stack([flat[labels == k].mean(0) for k in range(10)])
        self.register_buffer("means", means)
        self.register_buffer("sharpness", torch.tensor(sharpness))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.float().flatten(1) / 255
        distances = (flat[:, None] - self.means).square().mean(2)
        return torch.softmax(-self.sharpness * distances, dim=1)


def make_project(root: Path) -> Project:
    (root / "pipelines").mkdir(parents=True)
    (root / "pyproject.toml").write_text("")
    return Project(root)


@pytest.fixture(scope="session")
def models(digits) -> list[Centroids]:
    """Three classifiers, each better than the one before: of 1, 4 and 200 training images a class."""
    train = digits.split("train")
    built = []
    for count in (1, 4, 200):
        chosen = torch.cat([(train.labels == k).nonzero()[:count, 0] for k in range(10)])
        built.append(Centroids(train.images[chosen], train.labels[chosen]))
    return built


@pytest.fixture(scope="session")
def first_start(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A project whose tracking database was just made by another process, and what that process printed."""
    root = tmp_path_factory.mktemp("template") / "project"
    make_project(root)
    program = "from assay.registry import start_run\nwith start_run('first', {'seed': 0}): pass"
    environment = {
        "PATH": "/usr/bin:/bin",
        "ASSAY_PROJECT": str(root),
        "PYTHONPATH": ":".join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return root, done


@pytest.fixture(scope="session")
def template(first_start, models, digits, tmp_path_factory) -> Path:
    """The state folder of a project with `digits` versions 1 and 2 registered and none promoted."""
    root, done = first_start
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ASSAY_HOME", raising=False)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        registry = Registry(Project(root))
        example = digits.split("test").images[:2]
        for seed, module in enumerate(models[:2]):
            lineage = Lineage(data_revision="d1", git_commit="c1", image="i1", pipeline_run="r1", seed=seed)
            registry.register(
                "digits",
                module,
                example,
                lineage=lineage,
                class_names=CLASSES,
                metrics={"accuracy": 0.5 + seed / 4},
            )
        return registry.project.state


@pytest.fixture
def registry(project: Path, template: Path) -> Registry:
    """A registry of one's own with `digits` versions 1 and 2."""
    shutil.copytree(template, project / ".assay", ignore=shutil.ignore_patterns("mlartifacts"))
    return Registry()


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 1, 16, 16), dtype=np.uint8)
