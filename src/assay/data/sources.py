"""Filling ``data/`` with what ``data.dvc`` pins: from a DVC remote, else from where the data is published.

A source only has to be reachable, never to be trusted: every byte is checked against the pin before a data
set takes its place in ``data/``.
"""

import gzip
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from assay.data import codec, hub
from assay.data.catalogue import PUBLIC_DATASETS, PublicDataset
from assay.data.dataset import image_bytes
from assay.data.idx import write_idx
from assay.data.pins import Pins, dvc_repo, store
from assay.errors import AssayError, UserError
from assay.files import atomic_folder
from assay.project import Project

_SECONDS = 600  # the longest that one apt-get or dpkg-deb may take


class Unavailable(Exception):
    """A source cannot give the data set here and now; the message says why."""


@dataclass(frozen=True)
class Pulled:
    """One data set after a pull: the source used (empty when all was there), and why others were not."""

    name: str
    revision: str
    source: str = ""
    skipped: tuple[str, ...] = ()


def pull(project: Project, name: str | None = None) -> list[Pulled]:
    """Fill ``data/`` with one data set, or all, that ``data.dvc`` pins; what is already right is left alone.

    The sources, in order: the DVC remote, if one is configured; for Fashion-MNIST then Debian's package,
    which is unpacked and not installed, and the Hugging Face hub.

    Raises:
        UserError: the data set is not pinned, or a file in ``data/`` or from a source has a wrong byte.
        AssayError: no source could be reached; the sentence says why for each.
    """
    pins = Pins.read(project.root)
    if not pins.revisions:
        raise UserError(f"No data.dvc in {project.root} pins a data set: import one with `assay data import`.")
    return [_pull_one(project, pins, each) for each in ([name] if name else pins.revisions)]


@dataclass(frozen=True)
class Pushed:
    """One data set after a push: how many files were new in the remote."""

    name: str
    revision: str
    target: str
    files: int


def push(project: Project, name: str | None = None) -> list[Pushed]:
    """Copy one data set, or all that ``data.dvc`` pins, to the default DVC remote; what it has is not sent again.

    Raises:
        UserError: the data set is not pinned, a file in ``data/`` is not as pinned, or there is no remote.
        AssayError: the remote cannot be written.
    """
    pins = Pins.read(project.root)
    names = [name] if name else [*pins.revisions]
    for each in names:
        pins.verify(each)
    if not has_remote(project):
        raise UserError("No DVC remote is configured: set ASSAY_PROFILE=services, or run `dvc remote add -d NAME URL`.")
    return [_push_one(project, pins, each) for each in names]


def _push_one(project: Project, pins: Pins, name: str) -> Pushed:
    store(project.root, name)  # into DVC's cache, from which it pushes
    with dvc_repo(project.root) as repo:
        sent = repo.push(targets=[f"data/{name}"])
        target = repo.config["remote"][repo.config["core"]["remote"]]["url"]
    return Pushed(name, pins.revision(name), target, sent)


def has_remote(project: Project) -> bool:
    """Say whether a default DVC remote is configured for the project."""
    if not (project.root / ".dvc").is_dir():
        return False
    with dvc_repo(project.root) as repo:
        return bool(repo.config["core"].get("remote"))


def _pull_one(project: Project, pins: Pins, name: str) -> Pulled:
    revision = pins.revision(name)
    target = project.data / name
    missing, different = pins.compare(name, target)
    if different:
        pins.verify(name)  # raises: what somebody changed is never overwritten
    if not missing:
        return Pulled(name, revision)
    skipped: list[str] = []
    for title, fetch in _sources(project, name, revision):
        try:
            with atomic_folder(target) as staging:
                origin = fetch(staging)
                _check(pins, name, staging, origin)
            store(project.root, name)
            return Pulled(name, revision, origin, tuple(skipped))
        except Unavailable as reason:
            skipped.append(f"{title}: {reason}")
    raise AssayError(f"The data set {name!r} could not be fetched: {'; '.join(skipped)}.")


def _sources(project: Project, name: str, revision: str) -> Iterator[tuple[str, Callable[[Path], str]]]:
    yield "DVC remote", partial(_from_dvc, project, name, revision)
    if name in PUBLIC_DATASETS:
        public = PUBLIC_DATASETS[name]
        yield "Debian package", partial(from_debian, public.debian_package)
        yield "Hugging Face hub", partial(_from_hub, public)


def _check(pins: Pins, name: str, folder: Path, origin: str) -> None:
    missing, different = pins.compare(name, folder)
    for file in [*different, *missing]:
        problem = "does not have the bytes that data.dvc pins" if file in different else "is missing"
        raise UserError(f"{file} of {name} from {origin} {problem}: nothing was written; use another source.")


def _from_dvc(project: Project, name: str, revision: str, folder: Path) -> str:
    """Fetch into DVC's cache and copy from there: DVC's checkout would write ``data/`` file by file."""
    if not has_remote(project):
        raise Unavailable("none is configured (`dvc remote add -d NAME URL`)")
    try:
        with dvc_repo(project.root) as repo:
            remote = repo.config["core"]["remote"]
            url = repo.config["remote"][remote]["url"]
            repo.fetch(targets=[f"data/{name}"])
            cache = repo.cache.local
            for entry in json.loads(Path(cache.oid_to_path(revision)).read_bytes()):
                file = folder / entry["relpath"]
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(cache.oid_to_path(entry["md5"]), file)
    except FileNotFoundError:
        raise Unavailable(f"{remote} ({url}) lacks this revision (`dvc push` it from where it is)") from None
    except AssayError as error:
        raise Unavailable(str(error).rstrip(".")) from error
    return f"the DVC remote {remote} ({url})"


def from_debian(package: str, folder: Path) -> str:
    """Unpack the gzipped files of a Debian package into ``folder``, without installing it or being root.

    Raises:
        Unavailable: this is not a Debian system, or its archive cannot be reached.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable("apt-get and dpkg-deb are not on this system")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        work.chmod(0o755)  # apt drops its privileges and must still get in
        package_file = _download_package(package, work)
        _run(["dpkg-deb", "-x", str(package_file), str(work / "content")], work)
        for packed in sorted((work / "content" / "usr" / "share" / "datasets").rglob("*.gz")):
            with gzip.open(packed) as source, (folder / packed.stem).open("wb") as target:
                shutil.copyfileobj(source, target)
        return f"Debian's package {package_file.stem}"


def _download_package(package: str, work: Path) -> Path:
    """Download a .deb with the machine's package lists, else with fresh ones kept in ``work``."""
    (work / "lists" / "partial").mkdir(parents=True)
    (work / "cache" / "archives" / "partial").mkdir(parents=True)
    own_lists = [f"-oDir::State::Lists={work / 'lists'}", f"-oDir::Cache={work / 'cache'}"]
    patience = ["-oAcquire::http::Timeout=20", "-oAcquire::Retries=1"]
    try:
        _run(["apt-get", *patience, "download", package], work)
    except Unavailable:
        _run(["apt-get", *patience, *own_lists, "update"], work)
        _run(["apt-get", *patience, *own_lists, "download", package], work)
    return next(work.glob("*.deb"))


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} did not end in {_SECONDS} s") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg-deb:"))]
        raise Unavailable(errors[-1] if errors else f"{command[0]} failed with exit code {done.returncode}")


def _from_hub(public: PublicDataset, folder: Path) -> str:
    try:
        snapshot = hub.snapshot(public.hub_id)
    except AssayError as error:
        raise Unavailable(str(error).rstrip(".")) from error
    hub_to_idx(snapshot, folder)
    return f"the Hugging Face hub ({public.hub_id})"


def hub_to_idx(snapshot: Path, folder: Path) -> None:
    """Write the images and labels of a hub data set of grey images as the four IDX files of MNIST.

    Raises:
        UserError: the Parquet files lack a column, or hold an image that cannot be decoded.
    """
    table, splits, _ = hub.read_hub_folder(snapshot)
    encoded, labels = image_bytes(table), table["label"].to_numpy()
    size = codec.header(encoded[0] or b"")
    pixels, failures = codec.decode_all(encoded, 1, (size.height, size.width), "Converting")
    if failures:
        index, reason = min(failures.items())
        raise UserError(f"Image {index} of {snapshot} {reason}: remove the hub's cache and pull again.")
    for split, prefix in {"train": "train", "test": "t10k"}.items():
        rows = np.flatnonzero(np.array(splits) == split)
        write_idx(folder / f"{prefix}-images-idx3-ubyte", pixels[rows, 0])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels[rows])
