"""Reading a file of logits: what a classifier said about the calibration and the test split."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from assay.calibration.calibrator import check_logits
from assay.errors import UserError
from assay.evaluation.metric import Array

CALIBRATION_KEYS = ("calibration", "validation", "val")
"""Prefixes of the arrays to fit on, in the order in which they are looked for."""


@dataclass(frozen=True)
class LogitsFile:
    """Logits float64 [N, K] and labels int64 [N] of the split to fit on and of the test split."""

    fit_logits: Tensor
    fit_labels: Tensor
    test_logits: Tensor
    test_labels: Tensor
    fit_split: str

    @property
    def num_classes(self) -> int:
        """K."""
        return self.test_logits.shape[1]


def load_logits(path: str | Path) -> LogitsFile:
    """Read ``<split>_logits`` and ``<split>_labels`` from an ``.npz`` file, without pickle.

    The split to fit on is ``calibration``, else ``validation`` or ``val``; the other is ``test``.

    Raises:
        UserError: it is not such a file, an array is missing, of the wrong shape or dtype, or not finite.
    """
    path = Path(path)
    arrays = _read(path)
    prefix = next((prefix for prefix in CALIBRATION_KEYS if f"{prefix}_logits" in arrays), None)
    if prefix is None:
        wanted = ", ".join(f"{prefix}_logits" for prefix in CALIBRATION_KEYS)
        raise UserError(f"{path} holds none of {wanted}: add the logits to fit on under one of these names.")
    for key in (f"{prefix}_labels", "test_logits", "test_labels"):
        if key not in arrays:
            raise UserError(f"{path} has no array {key!r}: it holds {', '.join(arrays)}.")
    fitted, tested = (
        check_logits(arrays[f"{split}_logits"], arrays[f"{split}_labels"], f"{split}_logits of {path}")
        for split in (prefix, "test")
    )
    if fitted[0].shape[1] != tested[0].shape[1]:
        raise UserError(
            f"{path} has {fitted[0].shape[1]} columns in {prefix}_logits and {tested[0].shape[1]} in "
            "test_logits: give both the same classes."
        )
    return LogitsFile(*fitted, *tested, fit_split=prefix)


def _read(path: Path) -> dict[str, Array]:
    """Return the arrays of the splits that calibration looks at."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise UserError(f"{path} is a single array: save logits and labels together with numpy.savez.")
        with loaded as file:
            return {key: file[key] for key in file.files if key.startswith((*CALIBRATION_KEYS, "test"))}
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"{path} cannot be opened ({error.strerror}): give the path of an .npz file.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as .npz without pickle ({error}): save it with numpy.savez.") from error
