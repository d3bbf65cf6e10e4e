"""Small image folders, IDX files and pinned projects."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assay.data.idx import write_idx


@pytest.fixture(autouse=True)
def _own_dvc_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path_factory.mktemp("dvc")))


def random_images(count: int, size: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size), dtype=np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """An image folder: 28 cats and 14 dogs, no two alike."""
    images = random_images(42)
    for index, image in enumerate(images):
        file = tmp_path / "photos" / ("cat" if index < 28 else "dog") / f"{index:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return tmp_path / "photos"


@pytest.fixture
def idx_project(project: Path) -> Path:
    """A project whose data/fashion-mnist holds 120 + 30 tiny images, not pinned yet."""
    write_mnist_like(project / "data" / "fashion-mnist")
    return project


def write_mnist_like(folder: Path) -> None:
    for part, count in {"train": 120, "t10k": 30}.items():
        write_idx(folder / f"{part}-images-idx3-ubyte", random_images(count, seed=count))
        write_idx(folder / f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
