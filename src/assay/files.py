"""Writing that leaves nothing half-done, and digests of what was written."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assay.errors import UserError

DISK_FULL = "the disk is full: free some space, or set ASSAY_HOME to a folder on a larger disk"
_CHUNK = 1 << 20
_PICKLE_SUFFIXES = {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".bin"}


@contextlib.contextmanager
def disk_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn a full, read-only or forbidden disk into one sentence that names ``path``.

    Raises:
        UserError: the disk is full, over quota, read-only, or may not be written.
    """
    reasons = {
        errno.ENOSPC: DISK_FULL,
        errno.EDQUOT: "the disk quota is used up: free some space, or set ASSAY_HOME to another disk",
        errno.EROFS: "the disk is read-only: choose another folder",
        errno.EACCES: "permission is denied: choose a folder that you may write",
    }
    try:
        yield
    except OSError as error:
        if error.errno in reasons:
            raise UserError(f"Cannot write {path}: {reasons[error.errno]}.") from error
        raise


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its place only when the block succeeds.

    A folder that is already at ``path`` is replaced in the same step; after an error it is untouched and
    the new folder is gone.

    Example:
        >>> import tempfile; base = Path(tempfile.mkdtemp())
        >>> with atomic_folder(base / "artifact") as folder:
        ...     _ = (folder / "a.txt").write_text("a")
        >>> sorted(p.name for p in base.iterdir())
        ['artifact']
    """
    target = Path(path)
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent))
        staging.chmod(0o755)
        try:
            yield staging
            old = None
            if target.exists():
                old = staging.with_suffix(".old")
                target.rename(old)
            staging.rename(target)
            if old is not None:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def atomic_write(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the whole new one."""
    target = Path(path)
    data = content.encode() if isinstance(content, str) else content
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN and infinity are refused."""
    atomic_write(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def file_digest(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    """Return the hex digest of a file's bytes, read in pieces."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def tree_digest(path: str | os.PathLike[str]) -> str:
    """Return one hex digest of a file, or of every relative path and byte below a folder."""
    root = Path(path)
    if root.is_file():
        return file_digest(root)
    digest = hashlib.sha256()
    for file in sorted(p for p in root.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(root).as_posix()}\0{file_digest(file)}\n".encode())
    return digest.hexdigest()


def refuse_pickles(folder: str | os.PathLike[str]) -> None:
    """Look at every file below ``folder``, which is about to be loaded as a model, for one that could run code.

    Nothing here loads a pickle, so this protects whoever takes the folder to another program, and tells the user
    that somebody put it there. A pickle is known by its first bytes, by a ``.pkl`` in its zip, or by its suffix.

    Raises:
        UserError: naming the file.

    Example:
        >>> import tempfile; folder = Path(tempfile.mkdtemp()); _ = (folder / "model.bin").write_bytes(b"cos")
        >>> refuse_pickles(folder)
        Traceback (most recent call last):
        ...
        assay.errors.UserError: .../model.bin is refused: it is a pickle, which could run code when it is loaded...
    """
    for file in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
        if _is_pickle(file):
            raise UserError(
                f"{file} is refused: it is a pickle, which could run code when it is loaded; remove it, and find out "
                "who put it beside the model."
            )


def _is_pickle(file: Path) -> bool:
    if file.suffix.lower() in _PICKLE_SUFFIXES:
        return True
    with file.open("rb") as opened:
        # A safetensors file may begin with the same two bytes, as the length of its header; then zeros follow.
        if re.match(rb"\x80[\x02-\x05][^\0]", opened.read(3), re.DOTALL):
            return True
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith(".pkl") for name in archive.namelist())


def safe_name(name: str, what: str = "name") -> str:
    """Return ``name`` if it can be one path component, so that no id can climb out of its folder.

    Raises:
        UserError: it is empty, hidden, or holds anything but letters, digits, dot, dash and underscore.

    Example:
        >>> safe_name("fashion-mnist")
        'fashion-mnist'
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
        raise UserError(f"{name!r} is not a valid {what}: use letters, digits, dots, dashes and underscores only.")
    return name
