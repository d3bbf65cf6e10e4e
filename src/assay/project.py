"""Where things are: the project's root, its data, and the state that Assay keeps for it."""

import hashlib
import os
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from assay import __version__
from assay.errors import UserError
from assay.files import tree_digest


@dataclass(frozen=True)
class Project:
    """A folder with a ``pyproject.toml``, ``pipelines/`` and ``components/``.

    ``ASSAY_HOME`` moves the state (runs, caches, the default registry) away from ``<root>/.assay``.
    """

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> "Project":
        """Walk up from ``start`` (default: ``ASSAY_PROJECT``, else the current folder) to a project.

        Raises:
            UserError: no folder on the way holds both ``pyproject.toml`` and ``pipelines/``.
        """
        begin = Path(start or os.environ.get("ASSAY_PROJECT") or Path.cwd()).resolve()
        for folder in (begin, *begin.parents):
            if (folder / "pyproject.toml").is_file() and (folder / "pipelines").is_dir():
                return cls(folder)
        raise UserError(
            f"No Assay project at {begin} or above: run this inside a folder with pyproject.toml and pipelines/."
        )

    @property
    def data(self) -> Path:
        """The folder that ``data.dvc`` pins; one sub-folder for each data set."""
        return self.root / "data"

    @property
    def state(self) -> Path:
        """The folder for runs, caches and the default registry; never committed."""
        return Path(os.environ.get("ASSAY_HOME") or self.root / ".assay").resolve()

    @property
    def tracking_uri(self) -> str:
        """Where MLflow keeps the record: ``MLFLOW_TRACKING_URI``, else SQLite in the state folder."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.state / 'mlflow.db'}"

    @cached_property
    def source_digest(self) -> str:
        """Twelve hex digits of the library's source and the lock: what a task's result depends on."""
        lock = self.root / "requirements.lock"
        parts = [library_digest(), tree_digest(lock) if lock.is_file() else ""]
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]

    @property
    def image(self) -> str:
        """The container image of every component: ``ASSAY_IMAGE``, else a local tag that names the source.

        The tag is part of each task's cache key, so a change of the library re-runs what it could alter.
        """
        return os.environ.get("ASSAY_IMAGE") or f"assay-python:{__version__}-{self.source_digest}"

    @property
    def git_commit(self) -> str:
        """The commit of the project, with ``-dirty`` for uncommitted changes; ``unknown`` outside git.

        ``ASSAY_GIT_COMMIT`` overrides it: a container has the sources without their history.
        """
        if commit := os.environ.get("ASSAY_GIT_COMMIT"):
            return commit
        try:
            describe = ["git", "-C", str(self.root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
            return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return "unknown"


def library_digest() -> str:
    """Digest of the Python files of this package (not of its compiled caches)."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted([*package.rglob("*.py"), *package.rglob("*.yaml"), *package.rglob("*.html")]):
        digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
