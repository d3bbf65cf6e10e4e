"""What detectors are trained and judged on: real and generated images that went the same way."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from assay.data import SPLITS, ImageDataset, write_dataset
from assay.data import codec as pixels
from assay.data.dataset import image_bytes
from assay.data.parallel import map_ranges
from assay.errors import UserError
from assay.files import write_json
from assay.forensics.config import JPEG_QUALITY, DetectionDataConfig
from assay.forensics.detector import CLASS_NAMES
from assay.forensics.halves import generator_half

REAL, GENERATED = 0, 1
Codec = Literal["png", "jpeg"]


@dataclass(frozen=True)
class DetectionSplit:
    """The images of one split, by class.

    Attributes:
        real: uint8 [N, C, H, W].
        generated: uint8 [M, C, H, W], or None where no generated image was asked for.
        generators: str [M], which generator made each.
    """

    real: Tensor
    generated: Tensor | None
    generators: np.ndarray = field(default_factory=lambda: np.zeros(0, np.str_))


def open_detection_data(path: str | Path) -> ImageDataset:
    """Open a data set of real and generated images.

    Raises:
        UserError: it has other classes.
    """
    dataset = ImageDataset.open(path)
    if dataset.info.class_names != CLASS_NAMES:
        found = ", ".join(dataset.info.class_names[:4])
        raise UserError(
            f"{dataset.info.name} has the classes {found} instead of real, generated: "
            "import a folder in the CNNDetection layout, or make generated images with the generators."
        )
    return dataset


def seen_generators(dataset: ImageDataset) -> list[str]:
    """Return the generators whose images are in the train split: those that detectors may know."""
    table = dataset.table("train", ["generator"], where=pc.field("label") == GENERATED)
    return sorted(set(table["generator"].to_pylist()))


def load_split(
    dataset: ImageDataset, split: str, *, generated: bool = True, generators: Sequence[str] | None = None
) -> DetectionSplit:
    """Decode one split of a detection data set.

    Args:
        dataset: as `open_detection_data` returns it.
        split: its name.
        generated: without, no generated image is read from the disk.
        generators: only the images of these; default: all.

    Raises:
        UserError: a class has no image in the split, or an image cannot be decoded.
    """
    real = dataset.split(split, where=pc.field("label") == REAL).images
    if not generated:
        return DetectionSplit(real, None)
    rows = pc.field("label") == GENERATED
    if generators is not None:
        rows = rows & pc.field("generator").isin(list(generators))
    names = dataset.table(split, ["generator"], where=rows)["generator"].to_pylist()
    return DetectionSplit(real, dataset.split(split, where=rows).images, np.array(names, np.str_))


def assemble_detection_data(
    dataset: Path, generated: Sequence[Path], config: dict[str, Any], *, corpus: Path, metrics: Path
) -> dict[str, float]:
    """Bring real and generated images together: the task.

    The real images of the train split that generators learned from stay out of it, and every image of both
    classes is encoded anew by one codec, so that no file format tells the classes apart.

    Args:
        dataset: real images of any classes; or a data set of real and generated images, which is encoded anew.
        generated: what the generators made: data sets with the column ``generator``.
        config: see `DetectionDataConfig`.
        corpus: written; data set artifact with the classes real and generated.
        metrics: written; the returned counts, as JSON.

    Raises:
        UserError: a setting is unknown, a split has too few images, a generator to train on is absent, or
            generated images come with a data set that has its own.
    """
    settings = DetectionDataConfig.parse(config, where="detection_data")
    source = ImageDataset.open(dataset)
    if source.info.class_names == CLASS_NAMES:
        if generated:
            raise UserError(
                f"{source.info.name} has generated images of its own: give an empty list of generators with it."
            )
        rows = [_rows(source, split, None) for split in SPLITS if source.info.splits.get(split)]
    else:
        opened = [ImageDataset.open(path) for path in generated]
        _check_generators(opened, settings)
        rows = [
            part
            for split in SPLITS
            for part in (
                _real_rows(source, split, getattr(settings, split)),
                *(_generated_rows(one, split, settings) for one in opened),
            )
            if part is not None
        ]
    encoding = settings.codec if settings.codec != "auto" else codec_of(source)
    images = np.concatenate([part.images for part in rows])
    written = write_dataset(
        corpus,
        images=encode_alike(images, encoding, settings.jpeg_quality),
        labels=np.concatenate([part.labels for part in rows]),
        splits=np.concatenate([np.full(len(part.ids), part.split) for part in rows]),
        class_names=CLASS_NAMES,
        name=f"{source.info.name}-detection" if generated else source.info.name,
        sample_ids=np.concatenate([part.ids for part in rows]),
        source=source.info.source,
        licence=source.info.licence,
        revision=source.info.revision,
        extra={
            "generator": np.concatenate([part.generators for part in rows]).tolist(),
            "category": np.concatenate([part.categories for part in rows]).tolist(),
        },
        image_size=source.info.image_size,
        channels=source.info.channels,
    )
    counts = {split: float(count) for split, count in written.info.splits.items()}
    counts |= {"generators": float(len({name for part in rows for name in part.generators if name}))}
    write_json(metrics, counts)
    return counts


def encode_alike(images: np.ndarray, codec: Codec, jpeg_quality: int = JPEG_QUALITY) -> list[bytes]:
    """Encode uint8 [N, C, H, W] as PNG, or as JPEG of one quality (4:2:0), on every core.

    Example:
        >>> encode_alike(np.zeros((1, 1, 8, 8), np.uint8), "jpeg")[0][:2].hex()
        'ffd8'
    """

    def encode(start: int, stop: int) -> list[bytes]:
        return [_encode(image, codec, jpeg_quality) for image in images[start:stop]]

    return [data for part in map_ranges(encode, len(images), what="Encoding") for data in part]


def _encode(image: np.ndarray, codec: Codec, jpeg_quality: int) -> bytes:
    """Encode one uint8 [C, H, W]."""
    picture = np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    if codec == "png":
        return pixels.encode_png(picture)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=jpeg_quality)
    return buffer.getvalue()


@dataclass(frozen=True)
class _Rows:
    split: str
    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    generators: np.ndarray
    categories: np.ndarray


def _real_rows(source: ImageDataset, split: str, count: int) -> _Rows:
    """Return ``count`` real images of a split, none of those that generators learn from."""
    data = source.split(split)
    keep = np.ones(len(data), bool) if split != "train" else ~generator_half(data.sample_ids)
    chosen = np.flatnonzero(keep)[:count]
    if len(chosen) < 2:
        raise UserError(
            f"The split {split!r} of {source.info.name} leaves {len(chosen)} real images for detectors: "
            "import more, or another share for it."
        )
    names = np.array([*source.info.class_names], np.str_)
    return _Rows(
        split,
        data.images.numpy()[chosen],
        np.full(len(chosen), REAL),
        data.sample_ids[chosen],
        np.full(len(chosen), ""),
        names[data.labels.numpy()[chosen]],
    )


def _generated_rows(source: ImageDataset, split: str, settings: DetectionDataConfig) -> _Rows | None:
    """Return the generated images of a split; of the train split only where the generator may be seen."""
    part = _rows(source, split, getattr(settings, split))
    name = str(part.generators[0])
    if split in ("train", "calibration") and name not in settings.train_generators:
        return None
    ids = np.array([f"{name}/{sample}" for sample in part.ids], np.str_)
    return _Rows(split, part.images, np.full(len(ids), GENERATED), ids, part.generators, part.categories)


def _rows(source: ImageDataset, split: str, count: int | None) -> _Rows:
    """Return the rows of a split as they are, at most ``count``."""
    data = source.split(split)
    columns = source.table(split, ["generator", "category"])
    generators, categories = (
        np.array([value or "" for value in columns[name].to_pylist()], np.str_) for name in ("generator", "category")
    )
    end = len(data) if count is None else count
    return _Rows(
        split,
        data.images.numpy()[:end],
        data.labels.numpy()[:end],
        data.sample_ids[:end],
        generators[:end],
        categories[:end],
    )


def _check_generators(generated: Sequence[ImageDataset], settings: DetectionDataConfig) -> None:
    """Refuse a selection without the generators that detectors are to be trained on."""
    names = [one.table("test", ["generator"])["generator"][0].as_py() for one in generated]
    for wanted in settings.train_generators:
        if wanted not in names:
            raise UserError(
                f"No generated image comes from {wanted!r}, on which detectors are to be trained: the generators "
                f"are {', '.join(names) or 'none'}; add it, or change detection_data.train_generators."
            )


def jpeg_quality_of(source: ImageDataset) -> int | None:
    """Return the quality of the encoding that all images of a detection data set went through; None for PNG."""
    image = Image.open(io.BytesIO(image_bytes(source.table("test", ["image"]).slice(0, 1))[0] or b""))
    if not isinstance(image, JpegImageFile):
        return None
    # libjpeg's tables follow from the quality alone: the one that gives this table is the one that was used.
    probe = np.zeros((source.info.channels, 8, 8), np.uint8)
    for quality in range(100, 0, -1):
        trial = Image.open(io.BytesIO(_encode(probe, "jpeg", quality)))
        if isinstance(trial, JpegImageFile) and trial.quantization[0] == image.quantization[0]:
            return quality
    return JPEG_QUALITY


def codec_of(source: ImageDataset) -> Codec:
    """Return ``jpeg`` where the first rows of a data set hold one, else ``png``."""
    head = image_bytes(source.table("test", ["image"]).slice(0, 100))
    return "jpeg" if any(data and data[:2] == b"\xff\xd8" for data in head) else "png"


def as_float(images: Tensor, device: torch.device) -> Tensor:
    """Return uint8 images as float [0, 1] on a device.

    Example:
        >>> as_float(torch.tensor([255], dtype=torch.uint8), torch.device("cpu"))
        tensor([1.])
    """
    return images.to(device).float() / 255
