"""Fixtures that every room of the suite shares: real images in milliseconds, and a project of one's own."""

import os
from pathlib import Path

import numpy as np
import pytest

# No test may reach a hub, and no code may load a pickled model; both libraries look when they are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"

if "PYTEST_XDIST_WORKER" in os.environ:
    import torch

    # Every core has a process of the suite already; two threads each on the same cores are many times slower.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits_arrays() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """scikit-learn's 1,797 digits as uint8 [N, 16, 16], their labels, and a split of each: 60/10/10/20 %."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.kron(np.round(bunch.images * (255 / 16)), np.ones((1, 2, 2))).astype(np.uint8)
    names = np.array(["train", "validation", "calibration", "test"])
    splits = np.random.default_rng(0).choice(names, size=len(images), p=[0.6, 0.1, 0.1, 0.2])
    return images, bunch.target.astype(np.int64), splits.tolist()


@pytest.fixture(scope="session")
def digits(digits_arrays, tmp_path_factory: pytest.TempPathFactory):
    """The digits as a data set artifact."""
    from assay.data import write_dataset

    images, labels, splits = digits_arrays
    return write_dataset(
        tmp_path_factory.mktemp("digits") / "digits",
        images=images,
        labels=labels.tolist(),
        splits=splits,
        class_names=[str(k) for k in range(10)],
        name="digits",
        source="scikit-learn load_digits",
        licence="BSD-3-Clause",
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder that is the current one, with its own state."""
    root = tmp_path / "project"
    (root / "pipelines").mkdir(parents=True)
    (root / "components").mkdir()
    (root / "pyproject.toml").write_text("[project]\nname = 'example'\nversion = '0'\n")
    monkeypatch.chdir(root)
    monkeypatch.setenv("ASSAY_PROJECT", str(root))
    monkeypatch.setenv("ASSAY_HOME", str(root / ".assay"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return root


class S3Server:
    """SeaweedFS on loopback, and what a process needs in its environment to use it."""

    def __init__(self, root: Path) -> None:
        from assay.services import object_store, processes

        object_store.prepare(root)
        ports = dict(zip(object_store.PORTS, processes.choose_ports(len(object_store.PORTS)), strict=True))
        self._log = root / "s3.log"
        self.service = object_store.service(root, ports)
        self.client = object_store.client(root, self.service.address)
        self.environment = {
            "AWS_ENDPOINT_URL": self.service.address,
            "AWS_SHARED_CREDENTIALS_FILE": str(object_store.credentials_file(root)),
            "AWS_PROFILE": object_store.PROFILE,
            "AWS_DEFAULT_REGION": object_store.REGION,
        }

    def start(self) -> None:
        from assay.services import processes

        self.process = processes.start(self.service, self._log)

    def stop(self) -> None:
        from assay.services import processes

        processes.stop(self.service, self.process, patience=1)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory):
    """A running object store with the bucket ``assay``."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()
