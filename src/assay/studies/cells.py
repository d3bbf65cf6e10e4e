"""Cells of a study: each is computed once, and found again by what it was computed from."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assay.errors import UserError
from assay.evaluation.metric import Array
from assay.files import atomic_write, write_json


@dataclass(frozen=True)
class Cells:
    """A folder of results, one file for each cell, named by a digest of the cell's settings.

    Example:
        >>> import tempfile
        >>> cells = Cells(Path(tempfile.mkdtemp()))
        >>> cells.result({"seed": 0}, lambda: {"ece": 0.03}), cells.result({"seed": 0}, lambda: 1 / 0)
        ({'ece': 0.03}, {'ece': 0.03})
    """

    folder: Path

    def result(self, settings: Mapping[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the JSON result of a cell, computing it unless it was before.

        Args:
            settings: everything that the result depends on, as JSON values; the cell's name.
            compute: gives the result as JSON values.
        """
        path = self._path(settings, ".json")
        if path.is_file():
            return self._read(path, lambda: json.loads(path.read_text())["result"])
        result = compute()
        write_json(path, {"settings": dict(settings), "result": result})
        return result

    def arrays(self, settings: Mapping[str, Any], compute: Callable[[], dict[str, Array]]) -> dict[str, Array]:
        """Return the arrays of a cell, computing them unless they were before."""
        path = self._path(settings, ".npz")
        if path.is_file():
            return self._read(path, lambda: _arrays(path))
        buffer = io.BytesIO()
        np.savez(buffer, **compute())  # type: ignore[arg-type]
        atomic_write(path, buffer.getvalue())
        return _arrays(path)

    def has(self, settings: Mapping[str, Any]) -> bool:
        """Say whether a cell is already there."""
        return any(self._path(settings, suffix).is_file() for suffix in (".json", ".npz"))

    def _path(self, settings: Mapping[str, Any], suffix: str) -> Path:
        return self.folder / f"{digest(settings)}{suffix}"

    def _read(self, path: Path, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return read()
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise UserError(f"{path} is damaged ({error}): remove it, and the cell is computed again.") from error


def digest(settings: Mapping[str, Any]) -> str:
    """Return 16 hex digits that stand for settings, whatever the order of their keys.

    Example:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    text = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _arrays(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
