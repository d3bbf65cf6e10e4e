"""The integrity gates of a detection data set: can anything but the pictures tell its two classes apart?"""

import hashlib
import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image, JpegImagePlugin
from pydantic import Field
from torch import Tensor

from assay.config import Config
from assay.data import SPLITS, ImageDataset
from assay.data.dataset import Split, image_bytes
from assay.data.parallel import map_ranges
from assay.errors import UserError
from assay.files import write_json
from assay.forensics.config import DetectorConfig
from assay.forensics.corpus import DetectionSplit, open_detection_data
from assay.forensics.detector import CLASS_NAMES
from assay.forensics.halves import generator_half
from assay.forensics.train import area_under_curve, fit_detector

_SHARE_APART = 0.05  # by how much the shares of a kind of file may differ between the classes
_NEEDED = ("train", "validation", "test")


class IntegrityConfig(Config):
    """How the null detectors are trained, and what is still called chance.

    Attributes:
        method: of the null detectors.
        epochs: of their training.
        images: of each class that a null detector learns from, at most.
        standard_errors: an AUC is chance within so many standard errors of an AUC under the null hypothesis,
        least_band: and within this distance of 0.5 in any case.
        levels: the share of the grey levels of one class that the other has to use at least; 0 never fails.

    Example:
        >>> IntegrityConfig.parse({"epochs": 1}, where="integrity").method
        'rgb'
    """

    method: str = "rgb"
    epochs: Annotated[int, Field(ge=1)] = 2
    images: Annotated[int, Field(ge=2)] = 1000
    standard_errors: Annotated[float, Field(gt=0)] = 4.0
    least_band: Annotated[float, Field(ge=0, lt=0.5)] = 0.03
    levels: Annotated[float, Field(ge=0, le=1)] = 0.5


@dataclass(frozen=True)
class Finding:
    """One gate: its name, whether it holds, and what was found as a sentence."""

    gate: str
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Rows:
    """A whole detection data set in memory.

    Attributes:
        data: the decoded splits, by name.
        kinds: for each split, how each image is stored: codec, mode, size and quantisation.
    """

    data: dict[str, Split]
    kinds: dict[str, list[str]]

    def of(self, label: int) -> Tensor:
        """Return the images of a class, uint8 [N, C, H, W], split after split."""
        return torch.cat([split.images[split.labels == label] for split in self.data.values()])


def check_integrity(
    dataset: Path, config: dict[str, Any], *, source: Path | None = None, report: Path, metrics: Path, seed: int = 0
) -> dict[str, float]:
    """Check that a detector can only learn what generators leave in pictures: the task.

    Args:
        dataset: detection data set.
        config: see `IntegrityConfig`.
        source: the data set whose real images trained the generators, if this project trained any: they must
            not be among those of ``dataset``.
        report: written, also when a gate fails; HTML.
        metrics: written with the report; the returned numbers, as JSON.
        seed: of the null detectors.

    Returns:
        The two null AUCs with the ``band`` around 0.5, the grey levels of each class, and counts.

    Raises:
        UserError: a gate fails, a setting is unknown, or the data cannot be read.
    """
    settings = IntegrityConfig.parse(config, where="integrity")
    opened = open_detection_data(dataset)
    rows = read_rows(opened)
    numbers = {"images": float(sum(map(len, rows.data.values())))}
    findings = [check_classes(rows)]
    if findings[0].passed:
        findings += [check_files(rows), check_levels(rows, settings.levels, numbers), *check_copies(rows)]
        if source is not None:
            findings += check_disjoint(opened, rows, ImageDataset.open(source))
    if all(finding.passed for finding in findings):
        findings += check_nulls(rows, settings, seed, numbers)
    failed = [finding for finding in findings if not finding.passed]
    numbers |= {"gates": float(len(findings)), "failed_gates": float(len(failed))}
    _write_report(report, opened.info.name, findings, numbers)
    write_json(metrics, numbers)
    if failed:
        raise UserError(f"{opened.info.name} cannot be used to train detectors: {failed[0].sentence}")
    return numbers


def read_rows(dataset: ImageDataset) -> Rows:
    """Read every split, and how each image is stored.

    Raises:
        UserError: an image cannot be decoded (its sample is named).
    """
    splits = [split for split in SPLITS if dataset.info.splits.get(split)]
    data = {split: dataset.split(split) for split in splits}
    return Rows(data, {split: _kinds(image_bytes(dataset.table(split, ["image"]))) for split in splits})


def check_classes(rows: Rows) -> Finding:
    """Look for both classes in every split."""
    for name in (*_NEEDED, *rows.data):
        labels = rows.data[name].labels if name in rows.data else torch.zeros(0)
        for label, title in enumerate(CLASS_NAMES):
            if not (labels == label).any():
                found = f"the split {name!r} has no {title} image; give both classes to every split."
                return Finding("Both classes in every split", False, found)
    return Finding("Both classes in every split", True, f"{len(rows.data)} splits hold real and generated images.")


def check_files(rows: Rows) -> Finding:
    """Compare how the two classes are stored."""
    shares = []
    for label in (0, 1):
        kinds = [
            kind
            for name, split in rows.data.items()
            for kind, of in zip(rows.kinds[name], split.labels.tolist(), strict=True)
            if of == label
        ]
        shares.append({kind: count / len(kinds) for kind, count in Counter(kinds).most_common()})
    real, generated = shares
    apart = {kind: abs(real.get(kind, 0) - generated.get(kind, 0)) for kind in real | generated}
    worst = max(apart, key=apart.__getitem__)
    if apart[worst] <= _SHARE_APART:
        return Finding("One codec, mode and size", True, f"Both classes are stored as {', '.join(real)}.")
    found = (
        f"{real.get(worst, 0):.0%} of the real and {generated.get(worst, 0):.0%} of the generated images are stored "
        f"as {worst}; encode both alike, or the file format is what is learned."
    )
    return Finding("One codec, mode and size", False, found)


def check_levels(rows: Rows, least: float, numbers: dict[str, float]) -> Finding:
    """Compare how many of the 256 values the pixels of each class take, on as many images of each. [ours].

    A class that was rounded, clipped or stretched otherwise leaves gaps in its histogram.
    """
    images = [rows.of(label) for label in (0, 1)]
    count = min(map(len, images))
    real, generated = (len(part[:: len(part) // count][:count].unique()) for part in images)
    numbers |= {"levels_real": float(real), "levels_generated": float(generated)}
    passed = min(real, generated) >= least * max(real, generated)
    found = f"real images take {real} values of 256 and generated ones {generated}"
    advice = "" if passed else "; round both alike, or the rounding is what is learned"
    return Finding("One rounding", passed, f"{found}{advice}.")


def check_copies(rows: Rows) -> Iterator[Finding]:
    """Look for the same pixels in two splits, and in both classes."""
    ids = np.concatenate([split.sample_ids for split in rows.data.values()])
    labels = np.concatenate([split.labels.numpy() for split in rows.data.values()])
    splits = np.repeat(list(rows.data), [len(split) for split in rows.data.values()])
    hashes = np.concatenate([pixel_hashes(split.images) for split in rows.data.values()])
    for gate, groups, told in (
        ("No generated image is a real one", labels, "both real and generated"),
        ("No image in two splits", splits, "in two splits"),
    ):
        pairs = _shared(hashes, groups)
        if not len(pairs):
            yield Finding(gate, True, f"No picture is {told}, by the hash of its pixels.")
            continue
        first, second = (f"{str(ids[row])!r} ({CLASS_NAMES[labels[row]]}, {splits[row]})" for row in pairs[0])
        more = f", and {len(pairs) - 1} more are {told}" if len(pairs) > 1 else ""
        yield Finding(gate, False, f"{first} and {second} are the same picture{more}; remove one of the two.")


def check_disjoint(dataset: ImageDataset, rows: Rows, source: ImageDataset) -> Iterator[Finding]:
    """Look for real images that trained the generators among those of the detection data set.

    They are compared as the data set stores them: a JPEG is another picture than what it was made of.

    Args:
        dataset: detection data set.
        rows: of it.
        source: where its real images come from; generators learned from half of its train split. A source that
            has generated images of its own trained none.
    """
    if source.info.class_names == CLASS_NAMES:
        return
    train = source.split("train")
    chosen = generator_half(train.sample_ids)
    example = next(data for data in image_bytes(dataset.table("test", ["image"])) if data)
    learned = set(pixel_hashes(stored_alike(train.images[torch.from_numpy(chosen)], example)).tolist())
    gate = "Generators saw no image that detectors see"
    for name, split in rows.data.items():
        for sample, digest in zip(split.sample_ids.tolist(), pixel_hashes(split.images).tolist(), strict=True):
            if digest in learned:
                found = f"{sample!r} of the split {name!r} is an image that the generators learned from"
                yield Finding(gate, False, f"{found}; leave it out.")
                return
    yield Finding(gate, True, f"None of the {len(learned):,} images that trained generators is here.")


def check_nulls(rows: Rows, settings: IntegrityConfig, seed: int, numbers: dict[str, float]) -> Iterator[Finding]:
    """Train detectors where there is nothing to learn; whatever they find is a leak.

    Real against real: both classes are random halves of the real images. Shuffled labels: both classes are
    random parts of all images. The labels of the test images are shuffled too: against the true ones
    even a random network is far from chance, because the classes differ.
    """
    train, test = rows.data["train"], rows.data["test"]
    generator = torch.Generator().manual_seed(seed)
    for key, gate, told, chosen in (
        ("real_vs_real_auc", "Real against real is chance", "real images against others", 0),
        ("shuffled_labels_auc", "Shuffled labels are chance", "shuffled labels", None),
    ):
        learned, judged = (
            _random_classes(split.images if chosen is None else split.images[split.labels == chosen], generator)
            for split in (train, test)
        )
        value, band = null_auc(learned, judged, settings, seed)
        numbers |= {key: value, f"{key}_band": band}
        passed = abs(value - 0.5) <= band
        found = f"a detector trained on {told} has an AUC of {value:.3f}, and chance is within {band:.3f} of 0.5"
        advice = "" if passed else "; look for copies, or for an order of the images that tells the classes"
        yield Finding(gate, passed, f"{found}{advice}.")


def null_auc(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], settings: IntegrityConfig, seed: int = 0
) -> tuple[float, float]:
    """Train a detector on two classes that do not differ; return its AUC and how far from 0.5 chance reaches.

    Under the null hypothesis the AUC of m against n samples has the standard error
    ``sqrt((m + n + 1) / (12 m n))`` (Mann and Whitney 1947).

    Example:
        >>> images = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8)
        >>> classes = images[:20], images[20:]
        >>> round(null_auc(classes, classes, IntegrityConfig(epochs=1))[1], 3)
        0.37
    """
    real, generated = (images[: settings.images] for images in train)
    config = DetectorConfig(method=settings.method, epochs=settings.epochs)
    detector = fit_detector(DetectionSplit(real, generated), config, seed=seed)
    m, n = map(len, test)
    value = area_under_curve(detector.score(torch.cat(test)), np.repeat([0, 1], [m, n]))
    error = math.sqrt((m + n + 1) / (12 * m * n))
    return value, max(settings.least_band, settings.standard_errors * error)


def pixel_hashes(images: Tensor) -> np.ndarray:
    """Return the sha256 of each image's shape and pixels, str [N], of images uint8 [N, C, H, W].

    Example:
        >>> len(set(pixel_hashes(torch.zeros(3, 1, 2, 2, dtype=torch.uint8))))
        1
    """
    shape = str(tuple(images.shape[1:])).encode()
    return np.array([hashlib.sha256(shape + image.tobytes()).hexdigest() for image in images.numpy()], np.str_)


def stored_alike(images: Tensor, example: bytes) -> Tensor:
    """Return images uint8 [N, C, H, W] as they are after being stored by the codec of ``example``.

    Example:
        >>> from assay.data.codec import encode_png
        >>> images = torch.randint(256, (2, 1, 8, 8), dtype=torch.uint8)
        >>> bool((stored_alike(images, encode_png(images[0, 0].numpy())) == images).all())
        True
    """
    from assay.forensics.shifts import through_file

    with Image.open(io.BytesIO(example)) as stored:
        if not isinstance(stored, JpegImagePlugin.JpegImageFile):
            return images
        options: dict[str, Any] = {"qtables": stored.quantization}
        if stored.mode == "RGB":
            options["subsampling"] = JpegImagePlugin.get_sampling(stored)
    return through_file(images, "JPEG", **options)


def _kinds(encoded: Sequence[bytes | None]) -> list[str]:
    """Say of each file what its header tells: codec, mode, size, and the quantisation of a JPEG."""

    def look(start: int, stop: int) -> list[str]:
        return [kind(data or b"") for data in encoded[start:stop]]

    def kind(data: bytes) -> str:
        with Image.open(io.BytesIO(data)) as image:
            told = f"{image.format} {image.mode} {image.width} x {image.height}"
            tables = getattr(image, "quantization", None)
        return f"{told}, quantisation {hashlib.sha256(str(tables).encode()).hexdigest()[:6]}" if tables else told

    return [found for part in map_ranges(look, len(encoded), what="Reading headers") for found in part]


def _shared(hashes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return two rows [K, 2] for every hash that occurs in more than one group, in their order."""
    order = np.lexsort((groups, hashes))
    same = hashes[order][1:] == hashes[order][:-1]
    pairs = np.flatnonzero(same & (groups[order][1:] != groups[order][:-1]))
    rows = np.sort(np.stack([order[pairs], order[pairs + 1]], axis=1), axis=1)
    return rows[np.lexsort(rows.T[::-1])]


def _random_classes(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the images in two random halves."""
    shuffled = images[torch.randperm(len(images), generator=generator)]
    return shuffled[::2], shuffled[1::2]


def _write_report(path: Path, name: str, findings: Sequence[Finding], numbers: dict[str, float]) -> None:
    from assay.reports import Report

    page = Report("Integrity", name).metrics(numbers)
    rows = [[finding.gate, finding.passed, finding.sentence[:1].upper() + finding.sentence[1:]] for finding in findings]
    page.table(["gate", "holds", "found"], rows, "The null detectors are trained only where all other gates hold.")
    page.write(path)
