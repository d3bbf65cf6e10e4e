"""Reading a file of logits: what a classifier said about the calibration and the test split."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from assay.calibration.calibrator import check_logits
from assay.errors import UserError

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
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise UserError(f"{path} is a single array: save logits and labels together with numpy.savez.")
            keys = [f"{prefix}_logits" for prefix in CALIBRATION_KEYS]
            prefix = next((p for p, key in zip(CALIBRATION_KEYS, keys, strict=True) if key in file), None)
            if prefix is None:
                raise UserError(f"{path} holds none of {', '.join(keys)}: add the logits to fit on under one of them.")
            arrays = {}
            for key in (f"{prefix}_logits", f"{prefix}_labels", "test_logits", "test_labels"):
                if key not in file:
                    raise UserError(f"{path} has no array {key!r}: it holds {', '.join(file.files)}.")
                arrays[key] = file[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(
            f"{path} cannot be read as .npz without pickle ({reason}): save it with numpy.savez."
        ) from error
    fitted = check_logits(arrays[f"{prefix}_logits"], arrays[f"{prefix}_labels"], f"{prefix}_logits of {path}")
    tested = check_logits(arrays["test_logits"], arrays["test_labels"], f"test_logits of {path}")
    if fitted[0].shape[1] != tested[0].shape[1]:
        raise UserError(
            f"{path} has {fitted[0].shape[1]} columns in {prefix}_logits and {tested[0].shape[1]} in "
            "test_logits: give both the same classes."
        )
    return LogitsFile(*fitted, *tested, fit_split=prefix)
