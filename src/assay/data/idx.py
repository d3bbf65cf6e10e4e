"""The IDX format of MNIST and its kin: unsigned bytes after a header of big-endian sizes."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from assay.errors import UserError
from assay.files import atomic_write

_UNSIGNED_BYTE = 0x08


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or gzipped, as a uint8 array of the shape that it states.

    Raises:
        UserError: the file is missing, is not IDX, holds other numbers, or has the wrong length.

    Example:
        >>> import tempfile; file = Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
        >>> write_idx(file, np.array([3, 1], np.uint8)); read_idx(file)
        array([3, 1], dtype=uint8)
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give the folder that holds the IDX files.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}): fetch the file again.") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UNSIGNED_BYTE or len(data) < 4 + 4 * data[3]:
        raise UserError(f"{path} is not an IDX file of unsigned bytes: fetch the file again.")
    dimensions = data[3]
    shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
    start = 4 + 4 * dimensions
    if len(data) - start != math.prod(shape):
        stated = " x ".join(map(str, shape))
        raise UserError(f"{path} holds {len(data) - start} values but its header states {stated}: fetch it again.")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write a uint8 array as an uncompressed IDX file, atomically."""
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    atomic_write(path, bytes([0, 0, _UNSIGNED_BYTE, values.ndim]) + sizes + values.astype(np.uint8).tobytes())


def find_idx(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Return the image and label files of each part: ``{"train": (images, labels), "test": ...}``.

    Raises:
        UserError: a part has images without labels.
    """
    parts: dict[str, tuple[Path, Path]] = {}
    for part, prefixes in {"train": ("train",), "test": ("t10k", "test")}.items():
        for prefix in prefixes:
            for images in sorted(folder.glob(f"{prefix}-images*idx3-ubyte*")):
                labels = images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))
                if not labels.is_file():
                    raise UserError(f"{images} has no labels: expected {labels.name} beside it.")
                parts.setdefault(part, (images, labels))
    return parts
