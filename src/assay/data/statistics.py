"""The table that validation checks: one row for each sample, with what its image is and where it occurs again."""

import mmap
from collections import defaultdict

import numpy as np
import pandas as pd

from assay.data import codec
from assay.data.dataset import REQUIRED_COLUMNS, ImageDataset, image_bytes
from assay.data.near_duplicates import THUMBNAIL, near_copies, thumbnail
from assay.data.parallel import map_ranges


def describe(dataset: ImageDataset, *, near_rmse: float, identity_column: str) -> pd.DataFrame:
    """Decode every image and return one row for each sample.

    Columns: ``sample_id``, ``label`` (-1 where it is missing), ``split``; ``width`` and ``height`` in pixels
    (0 for an image that cannot be decoded), ``mode`` (Pillow's), ``decodable``, ``problem``, ``pixels``
    (sha256), ``brightness`` (mean grey level, 0 to 255); ``class_share``, the share of the sample's class in
    its split; and ``copy_in_other_split``, ``near_copy_in_other_split``, ``identity_in_other_split``: the id
    of another sample, or nothing. ``identity_in_other_split`` is there only if ``identity_column`` is.

    Raises:
        UserError: a required column is missing, or a shard cannot be read.
    """
    table = dataset.table(columns=None)
    frame = table.drop_columns(["image"]).to_pandas()
    encoded = image_bytes(table)
    facts, thumbnails = _look_at(encoded, dataset.info.name)
    frame = frame[[c for c in frame if c in REQUIRED_COLUMNS or c == identity_column]].join(facts)
    frame["label"] = pd.to_numeric(frame["label"], errors="coerce").fillna(-1).astype(np.int64)
    frame["sample_id"] = frame["sample_id"].astype(str)
    frame["split"] = frame["split"].astype(str)
    frame["brightness"] = thumbnails.reshape(len(frame), -1).mean(axis=1)
    in_split = frame.groupby("split")["label"].transform("size")
    frame["class_share"] = frame.groupby(["split", "label"])["label"].transform("size") / in_split
    frame["copy_in_other_split"] = _elsewhere(frame, frame["pixels"])
    frame["near_copy_in_other_split"] = _near_elsewhere(frame, thumbnails, near_rmse)
    if identity_column in frame:
        frame["identity_in_other_split"] = _elsewhere(frame, frame[identity_column])
    return frame


def _look_at(encoded: list[bytes | None], name: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Decode on every core; the thumbnails (uint8 [N, 16, 16]) go through shared memory."""
    shape = (len(encoded), THUMBNAIL, THUMBNAIL)
    memory = mmap.mmap(-1, max(1, int(np.prod(shape))))
    thumbnails = np.frombuffer(memory, np.uint8, count=int(np.prod(shape))).reshape(shape)

    def look_at_range(start: int, stop: int) -> list[tuple[int, int, str, bool, str, str]]:
        facts = []
        for index in range(start, stop):
            try:
                image = codec.open_image(encoded[index] or b"")
                thumbnails[index] = thumbnail(image)
                facts.append((image.width, image.height, image.mode, True, "", codec.pixel_digest(image)))
            except codec.DecodeError as error:
                facts.append((0, 0, "", False, str(error), ""))
        return facts

    parts = map_ranges(look_at_range, len(encoded), what=f"Validating {name}")
    columns = ["width", "height", "mode", "decodable", "problem", "pixels"]
    return pd.DataFrame([fact for part in parts for fact in part], columns=columns), thumbnails


def _elsewhere(frame: pd.DataFrame, key: pd.Series) -> list[str | None]:
    """Return for each row the id of a row in another split with the same key, or None; empty keys match none."""
    present = key.notna() & (key != "")
    spread = frame[present].groupby(key[present])["split"].transform("nunique") > 1
    suspects = spread.index[spread]
    places: dict[object, dict[str, str]] = defaultdict(dict)
    for value, split, sample_id in zip(
        key[suspects], frame.loc[suspects, "split"], frame.loc[suspects, "sample_id"], strict=True
    ):
        places[value].setdefault(split, sample_id)
    found: list[str | None] = [None] * len(frame)
    for row in suspects:
        found[row] = next(i for split, i in places[key[row]].items() if split != frame.at[row, "split"])
    return found


def _near_elsewhere(frame: pd.DataFrame, thumbnails: np.ndarray, rmse: float) -> list[str | None]:
    """Return for each row the id of a near copy in another split, or None; exact copies are not near ones."""
    rows = np.flatnonzero(frame["decodable"] & pd.isna(frame["copy_in_other_split"]))
    copies = near_copies(thumbnails[rows], frame["split"].to_numpy(str)[rows], rmse)
    ids = frame["sample_id"].to_numpy()
    found: list[str | None] = [None] * len(frame)
    for row, copy in zip(rows[copies >= 0], rows[copies[copies >= 0]], strict=True):
        found[row] = ids[copy]
    return found
