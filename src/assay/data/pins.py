"""What ``data.dvc`` pins: one DVC output for each data set below ``data/``, and each file's md5.

The file is DVC's own: ``dvc status``, ``dvc push`` and ``dvc pull`` work on it. DVC pins a folder by the md5
of its list of files and keeps that list in its cache, which a fresh clone lacks; ``meta`` repeats the list,
so that a wrong file can be named anywhere. A data set's revision is the md5 of its own output: importing
one data set does not change the revision of another.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from assay.errors import AssayError, UserError
from assay.files import atomic_write, disk_errors, file_digest, safe_name

if TYPE_CHECKING:
    from dvc.repo import Repo

PINS_FILE = "data.dvc"
_DATA = "data"
_REMOTE = "object-store"


@dataclass(frozen=True)
class Pins:
    """The content of a project's ``data.dvc``.

    Example:
        >>> Pins(Path("project"), {"pets": "0123.dir"}).revision("pets")
        '0123.dir'
    """

    root: Path
    revisions: dict[str, str]
    files: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, project_root: Path) -> "Pins":
        """Read ``data.dvc`` of a project; a project without one pins nothing.

        Raises:
            UserError: the file is not a DVC file.
        """
        content = _load(project_root)
        try:
            revisions = {
                Path(out["path"]).name: out["md5"]
                for out in content.get("outs", [])
                if Path(out["path"]).parent.as_posix() == _DATA
            }
            files = content.get("meta", {}).get("files", {})
        except (AttributeError, KeyError, TypeError):
            raise UserError(
                f"{project_root / PINS_FILE} is not a DVC file: restore it with `git checkout {PINS_FILE}`."
            ) from None
        # A list that does not add up to the md5 is out of date (somebody ran `dvc add`): do not trust it.
        known = {name: files[name] for name in revisions if name in files and _adds_up(files[name], revisions[name])}
        return cls(project_root, revisions, known)

    def revision(self, name: str) -> str:
        """Return the md5 by which ``data.dvc`` pins a data set.

        Raises:
            UserError: it pins no data set of that name.
        """
        if name not in self.revisions:
            pinned = ", ".join(self.revisions) or "nothing"
            raise UserError(
                f"{PINS_FILE} pins no data set {name!r} (it pins {pinned}): import it with `assay data import`."
            )
        return self.revisions[name]

    def verify(self, name: str) -> None:
        """Check every byte of ``data/<name>`` against the pin.

        Raises:
            UserError: the data set is not pinned, not there, or a file differs; the file is named.
        """
        missing, different = self.compare(name, self.root / _DATA / name)
        if different:
            raise UserError(
                f"{_DATA}/{name}/{different[0]}{_more(different)} does not match {PINS_FILE}: remove it and "
                f"run `assay data pull {name}`, or import the data again to pin what is there."
            )
        if missing:
            raise UserError(f"{_DATA}/{name} lacks {missing[0]}{_more(missing)}: run `assay data pull {name}`.")

    def compare(self, name: str, folder: Path) -> tuple[list[str], list[str]]:
        """Return which files of a data set are missing from ``folder``, and which differ or do not belong."""
        revision = self.revision(name)
        present = folder_digests(folder)
        if name not in self.files:
            if not present:
                return ["every file"], []
            return [], [] if folder_revision(present) == revision else ["one of its files"]
        pinned = self.files[name]
        missing = sorted(set(pinned) - set(present))
        return missing, sorted(file for file, md5 in present.items() if pinned.get(file) != md5)


def folder_digests(folder: Path) -> dict[str, str]:
    """Return the md5 of every file below a folder by its relative path; empty when it is not there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path, "md5") for path in files}


def folder_revision(digests: dict[str, str]) -> str:
    """Return the md5 by which DVC pins a folder: that of its sorted JSON list of files.

    Example:
        >>> folder_revision({"x": "b026324c6904b2a9cb4b88d6d61c81d1"})
        '2bb1ab0d4a051c86389bd68a9371f6ba.dir'
    """
    entries = [{"md5": md5, "relpath": path} for path, md5 in sorted(digests.items())]
    listing = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"


def pin(project_root: Path, name: str) -> str:
    """Pin ``data/<name>`` as it is now, through DVC, and return its revision; other pins stay as they are.

    Raises:
        UserError: the folder is not there or empty, or the disk is full.
        AssayError: DVC refuses.
    """
    folder = project_root / _DATA / safe_name(name, "data set name")
    digests = folder_digests(folder)
    if not digests:
        raise UserError(f"{folder} holds no files: import the data set before it is pinned.")
    revision = folder_revision(digests)
    with dvc_repo(project_root) as repo:
        before = _load(project_root)
        outs, meta = list(before.get("outs", [])), dict(before.get("meta", {}))
        target = f"{_DATA}/{name}"
        if target not in [out["path"] for out in outs]:
            outs.append({"path": target, "md5": revision, "hash": "md5"})
        meta["files"] = {**meta.get("files", {}), name: digests}
        _save(project_root, {**before, "outs": outs, "meta": meta})
        try:
            _add(repo, target, digests)
        except BaseException:
            _save(project_root, before)
            raise
    pinned = Pins.read(project_root).revision(name)
    if pinned != revision:
        raise AssayError(f"DVC pinned {target} as {pinned}, not {revision}: a file changed meanwhile; import it again.")
    return revision


def store(project_root: Path, name: str) -> None:
    """Keep a copy of ``data/<name>``, which matches its pin, in DVC's cache, so that ``dvc push`` has it."""
    target = f"{_DATA}/{name}"
    with dvc_repo(project_root) as repo:
        _add(repo, target, folder_digests(project_root / target))


def _add(repo: "Repo", target: str, digests: dict[str, str]) -> None:
    """Add a folder to DVC; a copy that did not fit into its cache is only a line in DVC's log."""
    repo.add(target)
    cache = repo.cache.local
    lost = [file for file, md5 in digests.items() if not Path(cache.oid_to_path(md5)).is_file()]
    if lost:
        raise UserError(
            f"DVC could not keep a copy of {target}/{lost[0]}{_more(lost)} in {cache.path}: free some space on "
            "that disk, or move the cache with `dvc cache dir`, and run this again."
        )


@contextmanager
def dvc_repo(project_root: Path) -> "Iterator[Repo]":
    """Open the project's DVC repository, making one on first use, one process at a time.

    Raises:
        AssayError: DVC fails; the sentence is DVC's own.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from dvc.exceptions import DvcException
    from dvc.logger import set_loggers_level
    from dvc.repo import Repo
    from filelock import FileLock

    with disk_errors(project_root / ".dvc"):
        (project_root / ".dvc" / "tmp").mkdir(parents=True, exist_ok=True)
        # DVC's log is about commands that nobody here typed; what goes wrong is raised.
        with FileLock(project_root / ".dvc" / "tmp" / "assay.lock"), set_loggers_level(logging.CRITICAL):
            try:
                if not (project_root / ".dvc" / "config").is_file():
                    _initialise(project_root)
                # A container has the project's files and not its git history.
                core = {} if _git_root(project_root) else {"no_scm": True}
                with Repo(str(project_root), config=_with_remote({"core": core})) as repo:
                    yield repo
            except (DvcException, BotoCoreError, ClientError) as error:
                raise AssayError(f"DVC: {str(error).strip().rstrip('.')}.") from error


def _initialise(project_root: Path) -> None:
    """Make a DVC repository that phones nobody."""
    from dvc.repo import Repo

    root = _git_root(project_root)
    inside = root is not None and root != project_root
    with (
        Repo.init(str(project_root), no_scm=root is None, subdir=inside, force=True) as repo,
        repo.config.edit("repo") as settings,
    ):
        settings["core"] = {**settings.get("core", {}), "analytics": "false", "check_update": "false"}


def _with_remote(config: dict[str, Any]) -> dict[str, Any]:
    """Return DVC's settings with the remote that ``ASSAY_DATA_REMOTE`` names as the default one.

    It is not written into the project: where the object store is and how it is entered belongs to this machine.
    """
    if not (url := os.environ.get("ASSAY_DATA_REMOTE")):
        return config
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    remote = {"url": url, **({"endpointurl": endpoint} if endpoint and url.startswith("s3:") else {})}
    return {**config, "core": {**config["core"], "remote": _REMOTE}, "remote": {_REMOTE: remote}}


def _git_root(folder: Path) -> Path | None:
    return next((above for above in (folder, *folder.parents) if (above / ".git").exists()), None)


def _load(project_root: Path) -> dict[str, Any]:
    file = project_root / PINS_FILE
    if not file.is_file():
        return {}
    try:
        content = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{file} is not a DVC file: restore it with `git checkout {PINS_FILE}`.")
    return content


def _save(project_root: Path, content: dict[str, Any]) -> None:
    if content:
        atomic_write(project_root / PINS_FILE, yaml.safe_dump(content, sort_keys=False))
    else:
        (project_root / PINS_FILE).unlink(missing_ok=True)


def _adds_up(digests: Any, revision: str) -> bool:
    return isinstance(digests, dict) and folder_revision(digests) == revision


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
