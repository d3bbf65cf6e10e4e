"""Importing: from a user's source to a pinned data set in ``data/``, and from there to a task's artifact."""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from assay.config import Config
from assay.data import codec
from assay.data.catalogue import PUBLIC_DATASETS
from assay.data.cnndetection import hold_out
from assay.data.dataset import INFO_FILE, REQUIRED_COLUMNS, SPLITS, ImageDataset, image_bytes
from assay.data.idx import find_idx
from assay.data.pins import Pins, pin
from assay.data.readers import detect_format, read, read_idx_folder
from assay.data.samples import Samples
from assay.data.sources import has_remote, pull
from assay.data.splitting import DROPPED, assign_splits, group_rows, long_tail, take
from assay.data.writer import write_dataset
from assay.errors import UserError
from assay.files import atomic_folder, safe_name, write_json
from assay.project import Project

IDENTITY_COLUMN = "person_id"  # samples of one identity are never divided between splits


class ImportConfig(Config):
    """How samples are chosen; the seed also decides the splits that the source leaves open.

    ``imbalance_ratio`` is the size of the largest class over that of the smallest, in each of
    ``imbalance_splits``; ``limit`` is the most samples of a split.
    """

    seed: int = 0
    imbalance_ratio: float = Field(default=1.0, ge=1.0)
    imbalance_splits: tuple[str, ...] = ("train",)
    limit: int | None = Field(default=None, ge=1)

    @property
    def selects(self) -> bool:
        """Whether samples are left out."""
        return self.imbalance_ratio > 1 or self.limit is not None


@dataclass(frozen=True)
class Imported:
    """A data set that was imported and pinned, and what there is to say about it."""

    dataset: ImageDataset
    revision: str
    notes: tuple[str, ...]


def import_data(
    project: Project,
    source: str,
    *,
    name: str | None = None,
    kind: str | None = None,
    classes: Sequence[str] | None = None,
    size: int | None = None,
    generator: str | None = None,
    unseen: Sequence[str] = (),
    config: ImportConfig | None = None,
) -> Imported:
    """Import a source into ``data/<name>`` as a data set artifact and pin it in ``data.dvc``.

    ``kind`` is one of `readers.FORMATS`, guessed when absent; ``size`` resizes every image to that many
    pixels on both sides. Splits that the source lacks are cut by a hash of the sample id, by class.
    ``generator`` is for `read_cnndetection`; the images of ``unseen`` generators all go to the test split.

    Raises:
        UserError: the source or one of its rows cannot be used (it is named), or ``data/<name>`` holds
            something else; nothing is written then.
        AssayError: the hub cannot be reached.
    """
    kind = kind or detect_format(source)
    name = safe_name(name or _default_name(source), "data set name")
    target = project.data / name
    is_new = not target.exists()
    if name in PUBLIC_DATASETS or not (is_new or (target / INFO_FILE).is_file()):
        raise UserError(f"data/{name} holds a data set that was not imported: choose another name with --name.")
    settings = config or ImportConfig()
    found = read(source, kind, name, classes, generator)
    division = divide(_check_images(found, size), settings)
    divided = hold_out(division.samples, unseen) if unseen else division.samples
    dataset = _write(target, _select(divided, settings), name)
    try:
        revision = pin(project.root, name)
    except BaseException:
        if is_new:
            shutil.rmtree(target)
        raise
    return Imported(dataset, revision, (*division.notes, *_size_notes(found, dataset.info.image_size)))


def import_dataset(
    name: str, revision: str, config: dict[str, Any], *, dataset: Path, metrics: Path
) -> dict[str, float]:
    """Write the data set ``name`` of the project, at ``revision``, as the artifact ``dataset``.

    It comes from ``data/`` (IDX files or an artifact that was imported), where every byte is checked against
    ``data.dvc``; when it is not there and a DVC remote is configured, it is pulled first. Returns, and writes
    at ``metrics``, how many samples and classes there are.

    Raises:
        UserError: the revision is not the pinned one, a file is missing or differs (it is named), or a
            setting is unknown.
        AssayError: the remote cannot be reached.
    """
    settings = ImportConfig.parse(config, where="import")
    project = Project.find()
    pins = Pins.read(project.root)
    pinned = pins.revision(name)
    if revision != pinned:
        raise UserError(
            f"The revision {revision} of {name!r} is not the one that data.dvc pins ({pinned}): "
            "check out the data.dvc that pins it, or leave the revision out."
        )
    folder = project.data / name
    if not folder.is_dir() and has_remote(project):
        pull(project, name)
    pins.verify(name)
    copies = 0
    if (folder / INFO_FILE).is_file():
        written = _copy(folder, dataset, revision, settings)
    elif find_idx(folder):
        division = divide(read_idx_folder(folder, name), settings)
        copies = division.dropped
        written = _write(dataset, _select(division.samples, settings), name, revision)
    else:
        raise UserError(f"data/{name} holds neither IDX files nor {INFO_FILE}: import it with `assay data import`.")
    counts = {split: float(count) for split, count in written.info.splits.items()}
    numbers = {
        "samples": sum(counts.values()),
        **counts,
        "classes": float(len(written.info.class_names)),
        "copies_dropped": float(copies),
    }
    write_json(metrics, numbers)
    return numbers


@dataclass(frozen=True)
class Division:
    """Samples with their splits, and how many copies of an image (the same pixels) there were.

    ``dropped`` copies were in a split while another was in a more held-out one; ``together`` copies stay, in
    the split of their first; ``conflicting`` images have copies with different labels.
    """

    samples: Samples
    dropped: int
    together: int
    conflicting: int

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each thing that a user should know."""
        sentences = (
            (self.dropped, "copies of an image in a more held-out split were dropped."),
            (self.together, "copies of an image were kept in the split of the first."),
            (self.conflicting, "images have copies with different labels: look at them."),
        )
        return tuple(f"{count:,} {sentence}" for count, sentence in sentences if count)


def divide(samples: Samples, settings: ImportConfig) -> Division:
    """Give every sample its split; copies of one image, and images of one person, end in one split."""
    copies = group_rows(samples.digests)
    people = ["" if value is None else str(value) for value in samples.extra.get(IDENTITY_COLUMN, [])]
    splits = assign_splits(
        samples.ids,
        samples.labels,
        samples.splits,
        copies=copies,
        groups=group_rows(samples.digests, people) if people else copies,
        seed=settings.seed,
    )
    kept = np.flatnonzero(splits != DROPPED)
    pairs = np.unique(np.stack([copies, samples.labels]), axis=1)[0]
    return Division(
        samples=replace(samples, splits=splits).select(kept),
        dropped=len(samples) - len(kept),
        together=len(kept) - len(np.unique(copies[kept])),
        conflicting=int((np.unique(pairs, return_counts=True)[1] > 1).sum()),
    )


def _select(samples: Samples, settings: ImportConfig) -> Samples:
    """Apply the long tail, then the limit, to each split that they concern."""
    if not settings.selects:
        return samples
    chosen = []
    for split in SPLITS:
        rows = np.flatnonzero(samples.splits == split)
        if settings.imbalance_ratio > 1 and split in settings.imbalance_splits:
            ids = [samples.ids[row] for row in rows]
            classes = len(samples.class_names)
            rows = rows[long_tail(ids, samples.labels[rows], settings.imbalance_ratio, classes, settings.seed)]
        if settings.limit is not None:
            ids = [samples.ids[row] for row in rows]
            rows = rows[take(ids, samples.labels[rows], settings.limit, settings.seed)]
        chosen.append(rows)
    return samples.select(np.concatenate(chosen))


def _check_images(samples: Samples, size: int | None) -> Samples:
    """Decode every image once, for its digest; return them at ``size`` pixels if one is given."""
    if isinstance(samples.images, np.ndarray):
        if size is None or samples.images.shape[1:3] == (size, size):
            return samples
        samples = replace(samples, images=codec.encode_all(samples.images))
    encoded = list(samples.images)
    digests, broken = codec.inspect_all(encoded)
    if broken:
        index, reason = min(broken.items())
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise UserError(f"The image {samples.ids[index]}{more} {reason}: replace or remove it and import again.")
    images = encoded if size is None else codec.resize_all(encoded, (size, size))
    return replace(samples, images=images, digests=digests)


def _size_notes(samples: Samples, size: tuple[int, int]) -> Iterator[str]:
    """Yield a sentence on the images that have another size than ``size`` (height, width), if there are any."""
    if isinstance(samples.images, np.ndarray):
        return
    headers = [codec.header(data) for data in samples.images]
    other = [header for header in headers if (header.height, header.width) != size]
    enlarged = sum(header.height < size[0] or header.width < size[1] for header in other)
    if other:
        yield (
            f"{len(other):,} of {len(headers):,} images are not {size[1]} x {size[0]} and are resized to it "
            f"(bilinear with anti-aliasing), {enlarged:,} of them enlarged."
        )


def _write(path: Path, samples: Samples, name: str, revision: str = "") -> ImageDataset:
    return write_dataset(
        path,
        images=samples.images,
        labels=samples.labels,
        splits=samples.splits,
        class_names=samples.class_names,
        name=name,
        sample_ids=samples.ids,
        source=samples.source,
        licence=samples.licence,
        extra=samples.extra,
        paths=samples.paths,
        revision=revision,
    )


def _copy(folder: Path, target: Path, revision: str, settings: ImportConfig) -> ImageDataset:
    """Write an imported artifact again: as it is, or the chosen samples of it."""
    imported = ImageDataset.open(folder)
    info = imported.info.model_copy(update={"revision": revision})
    if not settings.selects:
        with atomic_folder(target) as staging:
            shutil.copytree(folder, staging, dirs_exist_ok=True)
            write_json(staging / INFO_FILE, info.model_dump(mode="json"))
        return ImageDataset(target, info)
    return _write(target, _select(_samples(imported), settings), info.name, revision)


def _samples(dataset: ImageDataset) -> Samples:
    table = dataset.table()
    extra = [column for column in table.column_names if column not in REQUIRED_COLUMNS]
    paths = [path for chunk in table["image"].chunks for path in chunk.field("path").to_pylist()]
    return Samples(
        ids=table["sample_id"].to_pylist(),
        images=[data or b"" for data in image_bytes(table)],
        labels=table["label"].to_numpy().astype(np.int64),
        class_names=dataset.info.class_names,
        splits=np.array(table["split"].to_pylist(), "<U11"),
        paths=paths,
        extra={column: table[column].to_pylist() for column in extra},
        source=dataset.info.source,
        licence=dataset.info.licence,
    )


def _default_name(source: str) -> str:
    stem = Path(source).resolve().stem if Path(source).exists() else source.rsplit("/", 1)[-1]
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")
