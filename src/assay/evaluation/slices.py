"""Parts of a split that deserve a number of their own."""

import numpy as np
import pyarrow as pa

from assay.evaluation.metric import Array

_NOT_SLICES = ("sample_id", "image", "label", "split")
_EMPTY = {"generator": "real"}  # what nothing generated is real


def column_slices(table: pa.Table, most_values: int) -> dict[str, Array]:
    """Return a mask [N] for every value of every extra column that has 2 to ``most_values`` of them.

    Rows without a value are the slice ``none`` of a column; those without a generator are called ``real``.

    Args:
        table: the rows of a split, in order; the columns that every data set has are left out.
        most_values: a column with more distinct values does not make slices.

    Example:
        >>> table = pa.table({"label": [0, 1, 0], "camera": ["a", "b", "a"]})
        >>> {name: mask.tolist() for name, mask in column_slices(table, 12).items()}
        {'camera = a': [True, False, True], 'camera = b': [False, True, False]}
    """
    slices: dict[str, Array] = {}
    for name in table.column_names:
        kind = table.schema.field(name).type
        simple = pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
        if name in _NOT_SLICES or not (simple or pa.types.is_dictionary(kind)):
            continue
        empty = _EMPTY.get(name, "none")
        values = np.array([empty if value in (None, "") else str(value) for value in table[name].to_pylist()])
        distinct = np.unique(values)
        if 2 <= len(distinct) <= most_values:
            slices |= {f"{name} = {value}": values == value for value in distinct.tolist()}
    return slices


def brightness_slices(images: Array, parts: int) -> dict[str, Array]:
    """Return a mask [N] for each of ``parts`` equal parts of the images, from dark to bright.

    Args:
        images: uint8 [N, C, H, W].
        parts: 0 or 1 for none; parts that equal brightnesses would leave empty are left out.

    Example:
        >>> images = np.array([[[[10]]], [[[200]]]], dtype=np.uint8)
        >>> {name: mask.tolist() for name, mask in brightness_slices(images, 2).items()}
        {'brightness 1/2 (10 to 10)': [True, False], 'brightness 2/2 (200 to 200)': [False, True]}
    """
    if parts < 2:
        return {}
    brightness = images.reshape(len(images), -1).mean(axis=1)
    which = np.digitize(brightness, np.quantile(brightness, np.arange(1, parts) / parts), right=True)
    slices = {}
    for part in np.unique(which).tolist():
        mask = which == part
        low, high = brightness[mask].min(), brightness[mask].max()
        slices[f"brightness {part + 1}/{parts} ({low:.0f} to {high:.0f})"] = mask
    return slices if len(slices) > 1 else {}
