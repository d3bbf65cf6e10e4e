"""Writing the data set artifact: checks, content hash, Parquet shards that Hugging Face readers open."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assay.data import codec
from assay.data.dataset import INFO_FILE, REQUIRED_COLUMNS, SPLITS, DatasetInfo, ImageDataset
from assay.data.parallel import map_ranges
from assay.errors import UserError
from assay.files import atomic_folder, atomic_write, write_json

_SHARD_BYTES = 256 << 20
_ROW_GROUP = 1024  # rows: what a streaming reader holds at once
_IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_dataset(
    path: str | Path,
    *,
    images: np.ndarray | Sequence[bytes],
    labels: Sequence[int] | np.ndarray,
    splits: Sequence[str] | np.ndarray,
    class_names: Sequence[str],
    name: str,
    sample_ids: Sequence[str] | np.ndarray | None = None,
    source: str = "",
    licence: str = "",
    version: str = "1",
    extra: Mapping[str, Sequence[Any]] | None = None,
    paths: Sequence[str] | None = None,
    revision: str = "",
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
) -> ImageDataset:
    """Write a data set artifact at ``path``, whole or not at all.

    ``images`` is uint8 [N, H, W] or [N, H, W, 3], stored as PNG, or a sequence of encoded images, stored as
    they are; ``paths`` is where each came from. ``image_size`` (height, width) and ``channels`` are what a
    reader decodes to: by default the most common size, and colour when any image has it. ``extra`` adds
    columns, such as ``person_id``.

    Raises:
        UserError: lengths differ, a label has no class, a split has no known name, an id occurs twice, an
            image has no readable header, or the disk is full.

    Example:
        >>> import tempfile
        >>> made = write_dataset(Path(tempfile.mkdtemp()) / "d", images=np.zeros((1, 8, 8, 3), np.uint8),
        ...     labels=[0], splits=["train"], class_names=["sky"], name="sky")
        >>> made.info.image_size, made.info.channels, made.info.splits
        ((8, 8), 3, {'train': 1, 'validation': 0, 'calibration': 0, 'test': 0})
    """
    count = len(images)
    ids = [f"{index:07d}" for index in range(count)] if sample_ids is None else [str(i) for i in sample_ids]
    split_of = np.asarray(splits, np.str_)
    columns: dict[str, Any] = {
        "sample_id": ids,
        "label": np.asarray(labels),
        "split": split_of,
        "path": [None] * count if paths is None else paths,
    }
    _check_rows(name, count, {**columns, **(extra or {})}, class_names)
    _check_extra(name, extra or {})
    if isinstance(images, np.ndarray):
        encoded: Sequence[bytes] = codec.encode_all(images)
        image_size, channels = (images.shape[1], images.shape[2]), 1 if images.ndim == 3 else 3
    else:
        encoded = images
        if image_size is None or channels is None:
            size, depth = common_shape(encoded, ids)
            image_size, channels = image_size or size, channels or depth
    info = DatasetInfo(
        name=name,
        version=version,
        class_names=list(class_names),
        image_size=image_size,
        channels=channels,
        splits={split: int((split_of == split).sum()) for split in SPLITS},
        content_hash=content_hash(ids, encoded, columns["label"], split_of),
        source=source,
        licence=licence,
        revision=revision,
    )
    with atomic_folder(path) as folder:
        for split in SPLITS:
            indices = np.flatnonzero(split_of == split)
            for file, part in _shards(split, indices, encoded):
                _write_shard(folder / file, part, encoded, columns, extra or {}, info)
        write_json(folder / INFO_FILE, info.model_dump(mode="json"))
        atomic_write(folder / "README.md", _card(info))
    return ImageDataset(Path(path), info)


def content_hash(
    sample_ids: Sequence[str], images: Sequence[bytes], labels: Iterable[int], splits: Iterable[str]
) -> str:
    """Return the sha256 over each row's (sample id, sha256 of the image's bytes, label, split), in any order.

    Example:
        >>> content_hash(["a", "b"], [b"1", b"2"], [0, 1], ["train", "test"]) == content_hash(
        ...     ["b", "a"], [b"2", b"1"], [1, 0], ["test", "train"])
        True
    """
    rows = sorted(
        json.dumps([sample_id, hashlib.sha256(image).hexdigest(), int(label), str(split)])
        for sample_id, image, label, split in zip(sample_ids, images, labels, splits, strict=True)
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def common_shape(encoded: Sequence[bytes], names: Sequence[str]) -> tuple[tuple[int, int], int]:
    """Return the most common (height, width), and 3 channels if any image has colour.

    Raises:
        UserError: an image has no readable header; ``names`` says which.
    """

    def headers(start: int, stop: int) -> list[codec.Header | tuple[int, str]]:
        found: list[codec.Header | tuple[int, str]] = []
        for index in range(start, stop):
            try:
                found.append(codec.header(encoded[index]))
            except codec.DecodeError as error:
                found.append((index, str(error)))
        return found

    parts = [entry for part in map_ranges(headers, len(encoded), what="Reading headers") for entry in part]
    failures = [entry for entry in parts if isinstance(entry, tuple)]
    if failures:
        index, reason = failures[0]
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise UserError(f"{names[index]}{more} {reason}: replace or remove it and import again.")
    sizes = Counter((entry.height, entry.width) for entry in parts if isinstance(entry, codec.Header))
    size = min(sizes, key=lambda key: (-sizes[key], key))
    return size, max(entry.channels for entry in parts if isinstance(entry, codec.Header))


def _check_rows(name: str, count: int, columns: Mapping[str, Sequence[Any]], class_names: Sequence[str]) -> None:
    if not count:
        raise UserError(f"The data set {name!r} has no images: give at least one.")
    for column, values in columns.items():
        if len(values) != count:
            raise UserError(f"The data set {name!r} has {count} images but {len(values)} values of {column}.")
    ids, labels, splits = columns["sample_id"], np.asarray(columns["label"]), columns["split"]
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"The labels of {name!r} must be whole numbers from 0 to {len(class_names) - 1}.")
    wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(wrong):
        raise UserError(
            f"The label {labels[wrong[0]]} of sample {ids[wrong[0]]!r} (and {len(wrong) - 1} more) "
            f"has no class: the labels of {name!r} go from 0 to {len(class_names) - 1}."
        )
    unknown = [i for i, split in enumerate(splits) if split not in SPLITS]
    if unknown:
        raise UserError(
            f"The split {str(splits[unknown[0]])!r} of sample {ids[unknown[0]]!r} is not known: "
            f"use {', '.join(SPLITS)}."
        )
    repeated = [sample_id for sample_id, times in Counter(ids).items() if times > 1]
    if repeated:
        raise UserError(f"The sample id {repeated[0]!r} occurs more than once in {name!r}: make the ids unique.")


def _check_extra(name: str, extra: Mapping[str, Sequence[Any]]) -> None:
    for column in extra:
        if column in REQUIRED_COLUMNS:
            raise UserError(f"The extra column {column!r} of {name!r} has the name of a required one: rename it.")


def _shards(split: str, indices: np.ndarray, encoded: Sequence[bytes]) -> list[tuple[str, np.ndarray]]:
    """Cut a split into shards of about 256 MiB, with the file names that Hugging Face readers recognise."""
    if not len(indices):
        return []
    ends = np.cumsum([len(encoded[index]) for index in indices])
    shard_of = (ends - 1) // _SHARD_BYTES
    parts = [indices[shard_of == shard] for shard in np.unique(shard_of)]
    return [(f"{split}-{k:05d}-of-{len(parts):05d}.parquet", part) for k, part in enumerate(parts)]


def _write_shard(
    file: Path,
    indices: np.ndarray,
    encoded: Sequence[bytes],
    columns: Mapping[str, Sequence[Any]],
    extra: Mapping[str, Sequence[Any]],
    info: DatasetInfo,
) -> None:
    def rows(values: Sequence[Any], kind: pa.DataType | None = None) -> pa.Array:
        return pa.array([values[index] for index in indices], kind)

    image = pa.StructArray.from_arrays(
        [rows(encoded, pa.binary()), rows(columns["path"], pa.string())], fields=list(_IMAGE_TYPE)
    )
    table = pa.table(
        {
            "sample_id": rows(columns["sample_id"], pa.string()),
            "image": image,
            "label": rows(columns["label"], pa.int64()),
            "split": rows(columns["split"], pa.string()),
            **{column: pa.array(values).take(pa.array(indices)) for column, values in extra.items()},
        }
    )
    table = table.replace_schema_metadata({"huggingface": json.dumps(_features(table.schema, info.class_names))})
    # Encoded images do not compress further: only the small columns are worth the time.
    small = {column: "zstd" for column in table.column_names if column != "image"}
    compression = {"image.bytes": "none", "image.path": "zstd", **small}
    pq.write_table(table, file, compression=compression, use_dictionary=["split", "label"], row_group_size=_ROW_GROUP)


def _features(schema: pa.Schema, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the ``huggingface`` schema metadata by which `datasets` knows images and class names."""
    features: dict[str, Any] = {}
    for field in schema:
        if field.name == "image":
            features[field.name] = {"_type": "Image"}
        elif field.name == "label":
            features[field.name] = {"names": list(class_names), "_type": "ClassLabel"}
        else:
            dtype = {"double": "float64", "float": "float32"}.get(str(field.type), str(field.type))
            features[field.name] = {"dtype": dtype, "_type": "Value"}
    return {"info": {"features": features}}


def _card(info: DatasetInfo) -> str:
    """Return the Hugging Face data set card, which tells its readers which file holds which split."""
    files = "".join(
        f"  - split: {split}\n    path: {split}-*.parquet\n" for split, count in info.splits.items() if count
    )
    source = info.source or "not stated"
    return (
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n# {info.name}\n\n"
        f"Source: {source}. Licence: {info.licence or 'not stated'}. Content: sha256 {info.content_hash}.\n"
    )
