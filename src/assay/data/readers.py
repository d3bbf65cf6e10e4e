"""Reading what a user has: a folder of images, a manifest, IDX files or a hub data set."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from assay.data import hub
from assay.data.catalogue import PUBLIC_DATASETS
from assay.data.cnndetection import is_cnndetection, read_cnndetection
from assay.data.dataset import SPLITS, image_bytes
from assay.data.folders import images_in, read_inside, split_folders, subfolders
from assay.data.idx import find_idx, read_idx
from assay.data.samples import Samples
from assay.errors import UserError

FORMATS = ("folder", "cnndetection", "manifest", "idx", "hub")


def detect_format(source: str) -> str:
    """Say which reader a source needs.

    Raises:
        UserError: it exists as nothing that can be imported, and does not look like a hub id.
    """
    path = Path(source)
    if path.is_dir():
        if find_idx(path):
            return "idx"
        if any(path.rglob("*.parquet")):
            return "hub"
        return "cnndetection" if is_cnndetection(path) else "folder"
    if path.is_file():
        if path.suffix.lower() in {".csv", ".parquet"}:
            return "manifest"
        raise UserError(f"{source} is not a CSV or Parquet manifest: give a folder, a manifest or a hub id.")
    if re.fullmatch(r"[\w.-]+/[\w.-]+(/[\w.-]+)*", source) and not source.startswith("."):
        return "hub"
    raise UserError(f"{source} does not exist: give a folder, a CSV or Parquet manifest, or a hub id owner/name.")


def read(
    source: str, kind: str, name: str, classes: Sequence[str] | None = None, generator: str | None = None
) -> Samples:
    """Read a source of one of `FORMATS`.

    ``classes`` names the classes in the order of their labels. ``generator`` made the generated images whose
    folders do not say which did; only the format ``cnndetection`` has those.

    Raises:
        UserError: the source, or a row of it, cannot be used; the sentence names it.
    """
    if kind == "cnndetection":
        if classes:
            raise UserError(
                f"The classes of {source} are real and generated: leave them out, or import it as a folder."
            )
        return read_cnndetection(Path(source), generator)
    if generator:
        raise UserError(f"{source} is read as {kind} and not as cnndetection: leave the generator out.")
    if kind == "folder":
        return read_folder(Path(source), classes)
    if kind == "manifest":
        return read_manifest(Path(source), classes)
    if kind == "idx":
        return read_idx_folder(Path(source), name, classes)
    if kind == "hub":
        return read_hub(source, classes)
    raise UserError(f"{kind!r} is not a format: use one of {', '.join(FORMATS)}.")


def read_folder(folder: Path, classes: Sequence[str] | None = None) -> Samples:
    """Read an image folder: ``CLASS/image``, or ``SPLIT/CLASS/image`` when all folders are named as splits.

    Files that have no image suffix are left out. The id of a sample is its path in the folder.

    Raises:
        UserError: the folder or a class in it has no images, or a link leads out of it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give a folder with one folder of images for each class.")
    homes = [(split, home) for split, part in split_folders(folder) for home in subfolders(part)]
    if not homes:
        raise UserError(f"{folder} has no class folders: put the images of each class into a folder of its own.")
    files, names, splits = [], [], []
    for split, home in homes:
        found = images_in(home)
        files += found
        names += [home.name] * len(found)
        splits += [split] * len(found)
    labels, class_names = encode_labels(names, classes, [str(file) for file in files])
    return Samples(
        ids=[file.relative_to(folder).as_posix() for file in files],
        images=[read_inside(folder, file) for file in files],
        labels=labels,
        class_names=class_names,
        splits=np.array(splits, "<U11"),
        paths=[file.relative_to(folder).as_posix() for file in files],
        source=f"image folder {folder.name}",
    )


def read_manifest(file: Path, classes: Sequence[str] | None = None) -> Samples:
    """Read a CSV or Parquet manifest: ``image`` (a path from the manifest's folder) and ``label``.

    ``sample_id`` and ``split`` are used where there are such columns; every other column is kept. In a
    Parquet manifest ``image`` may also hold the images themselves, in the Hugging Face layout.

    Raises:
        UserError: a column is missing, or a row's image, label or split cannot be used; the row is named.
    """
    if file.suffix.lower() == ".parquet":
        table = hub.read_table(file)
        if pa.types.is_struct(table["image"].type):
            return _from_table(table, [""] * table.num_rows, hub.class_names(table.schema), classes, file)
        frame, known = table.to_pandas(), hub.class_names(table.schema)
    else:
        try:
            frame = pd.read_csv(file, dtype={"image": str, "label": str, "sample_id": str, "split": str})
        except (OSError, ValueError, UnicodeDecodeError) as error:
            raise UserError(f"{file} cannot be read as CSV ({error}): check the file.") from None
        known = None
    for column in ("image", "label"):
        if column not in frame:
            raise UserError(f"{file} has no column {column!r}: its columns are {', '.join(map(str, frame))}.")
    paths = frame["image"].tolist()
    for row, path in enumerate(paths):
        if not isinstance(path, str) or not path:
            raise UserError(f"Row {row + 1} of {file} has no image: give each row the path of one.")
    images = [
        read_inside(file.parent, file.parent / path, f"row {row + 1} of {file}") for row, path in enumerate(paths)
    ]
    return _from_frame(frame, images, paths, [""] * len(frame), known, classes, file)


def read_idx_folder(folder: Path, name: str, classes: Sequence[str] | None = None) -> Samples:
    """Read the IDX files of a folder: ``train-images...``, ``t10k-images...`` and their labels, even gzipped.

    Raises:
        UserError: files are missing or damaged, or images and labels do not fit together.
    """
    parts = find_idx(folder)
    if not parts:
        raise UserError(f"{folder} has no IDX files: expected names like train-images-idx3-ubyte.")
    public = PUBLIC_DATASETS.get(name)
    images: list[np.ndarray] = []
    ids, values, splits = [], [], []
    for part, (image_file, label_file) in parts.items():
        part_pixels, labels = read_idx(image_file), read_idx(label_file)
        if part_pixels.ndim != 3 or labels.ndim != 1 or len(part_pixels) != len(labels):
            raise UserError(
                f"{image_file} has shape {part_pixels.shape} and {label_file.name} {labels.shape}: "
                "expected N images of two dimensions and N labels."
            )
        if images and part_pixels.shape[1:] != images[0].shape[1:]:
            raise UserError(f"{image_file} has images of another size than the other part: fetch both again.")
        ids += [f"{part}-{index:05d}" for index in range(len(labels))]
        images.append(part_pixels)
        values.append(labels)
        splits += [part] * len(labels)
    pixels = np.concatenate(images)
    names = list(classes or (public.class_names if public else ())) or None
    labels, class_names = encode_labels(np.concatenate(values).tolist(), names, ids)
    return Samples(
        ids=ids,
        images=pixels,
        labels=labels,
        class_names=class_names,
        splits=np.array(splits, "<U11"),
        digests=[hashlib.sha256(image.tobytes()).hexdigest() for image in pixels],
        source=public.title if public else f"IDX files {folder.name}",
        licence=public.licence if public else "",
    )


def read_hub(source: str, classes: Sequence[str] | None = None) -> Samples:
    """Read a data set of the Hugging Face hub, or a folder with its Parquet files.

    Raises:
        UserError: the files hold no usable images and labels.
        AssayError: the hub cannot be reached.
    """
    folder = Path(source) if Path(source).is_dir() else hub.snapshot(source)
    table, splits, known = hub.read_hub_folder(folder)
    return _from_table(table, splits, known, classes, Path(source))


def encode_labels(
    values: Sequence[str] | Sequence[int], classes: Sequence[str] | None, names: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Return labels as int64 [N] and the class names.

    With ``classes``, a value is one of these names or an index into them. Without, the classes are the
    distinct values, in numerical order if all are whole numbers, else in alphabetical order.

    Raises:
        UserError: a value is missing, negative, or no class; ``names`` says where each came from.

    Example:
        >>> encode_labels(["10", "9", "10"], None, ["a", "b", "c"])
        (array([1, 0, 1]), ['9', '10'])
    """
    texts = ["" if value is None or value != value else str(value).strip() for value in values]
    numeric = all(re.fullmatch(r"-?\d+", text) for text in texts)
    known = list(classes) if classes else sorted(set(texts), key=(lambda text: (int(text), text)) if numeric else None)
    index = {text: number for number, text in enumerate(known)}
    if classes and numeric and not set(texts) <= set(index):
        index = {str(number): number for number in range(len(known))}
    for text, name in zip(texts, names, strict=True):
        if not text:
            raise UserError(f"The label of {name} is missing: give every image one.")
        if text not in index or text.startswith("-"):
            expected = f"one of {', '.join(known[:10])}" if classes else "0 or more"
            raise UserError(f"The label {text!r} of {name} is out of range: expected {expected}.")
    return np.array([index[text] for text in texts], np.int64), known


def _from_table(
    table: pa.Table, splits: list[str], known: list[str] | None, classes: Sequence[str] | None, origin: Path
) -> Samples:
    encoded = image_bytes(table)
    for row, data in enumerate(encoded):
        if not data:
            raise UserError(f"Row {row + 1} of {origin} has no image: give each row the bytes of one.")
    stored = table["image"].combine_chunks().field("path").to_pylist() if "path" in _fields(table) else []
    paths = [path or "" for path in stored] or [""] * len(encoded)
    frame = table.drop_columns(["image"]).to_pandas()
    return _from_frame(frame, [data or b"" for data in encoded], paths, splits, known, classes, origin)


def _from_frame(
    frame: pd.DataFrame,
    images: list[bytes],
    paths: list[str],
    splits: list[str],
    known: list[str] | None,
    classes: Sequence[str] | None,
    origin: Path,
) -> Samples:
    rows = [f"row {row + 1} of {origin}" for row in range(len(frame))]
    if "split" in frame:
        given = frame["split"].fillna("").astype(str).str.strip().str.lower()
        splits = [hub.SPLIT_ALIASES.get(split, split) for split in given]
        for row, split in zip(rows, splits, strict=True):
            if split and split not in SPLITS:
                raise UserError(
                    f"The split {split!r} of {row} is not known: use {', '.join(SPLITS)} or leave it empty."
                )
    labels, class_names = encode_labels(frame["label"].tolist(), classes or known, rows)
    if "sample_id" in frame:
        ids = frame["sample_id"].astype(str).tolist()
    else:
        ids = paths if len(set(paths)) == len(paths) and all(paths) else [f"{row:07d}" for row in range(len(frame))]
    kept = [column for column in frame if column not in ("image", "label", "sample_id", "split")]
    return Samples(
        ids=ids,
        images=images,
        labels=labels,
        class_names=class_names,
        splits=np.array(splits, "<U11"),
        paths=paths,
        extra={
            str(column): frame[column].astype(object).where(frame[column].notna(), None).tolist() for column in kept
        },
        source=str(origin.name if origin.exists() else origin),
    )


def _fields(table: pa.Table) -> list[str]:
    image = table.schema.field("image").type
    return [image.field(number).name for number in range(image.num_fields)]
