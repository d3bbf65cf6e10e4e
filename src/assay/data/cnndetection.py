"""Real and generated images in the folder layout of CNNDetection, by generator and category.

Source: Wang et al., "CNN-generated images are surprisingly easy to spot... for now", CVPR 2020, whose published
training, validation and test sets have it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from assay.data.folders import images_in, read_inside, split_folders, subfolders
from assay.data.samples import Samples
from assay.errors import UserError

DETECTION_CLASSES = ("real", "generated")
UNKNOWN_GENERATOR = "unknown"
_PUBLISHED = {"0_real": 0, "1_fake": 1}
_LABELS = {**_PUBLISHED, "real": 0, "fake": 1, "generated": 1}


@dataclass(frozen=True)
class _ClassFolder:
    """A folder of images of one class; ``names`` are the folders between it and its split."""

    split: str
    names: tuple[str, ...]
    label: int
    path: Path


def is_cnndetection(folder: Path) -> bool:
    """Say whether a folder looks like the layout.

    It does if there is a ``0_real`` or ``1_fake`` at a depth where the layout has one, or if the class folders
    of a plain image folder have no other names than real, fake and generated.
    """
    tops = [top for _, top in split_folders(folder)]
    classes = {path.name.lower() for top in tops for path in subfolders(top)}
    if classes and classes <= _LABELS.keys():
        return True
    return any(any(top.glob(f"{above}{name}")) for top in tops for above in ("*/", "*/*/") for name in _PUBLISHED)


def read_cnndetection(folder: Path, generator: str | None = None) -> Samples:
    """Read ``[SPLIT/][GENERATOR/][CATEGORY/]{0_real,1_fake}/image`` as a data set of real and generated images.

    The class folders may also be called real, fake or generated. The columns ``generator`` ("" for real
    images) and ``category`` ("" where there is none) keep the other folders' names. Real images belong to no
    generator: those beside one generator's images are compared with every other's too.

    Of two folders above the classes, the outer is the generator and the inner the category. A single one is a
    generator, as in ``test/biggan/0_real``, except in a split folder other than ``test``, where it is a category,
    as in the published ``train/airplane/0_real``, unless ``test`` has a folder of that name. So a training set
    of several generators without categories is read as categories if the generators are not in ``test``, and
    one without split folders as generators even if they are categories: the names alone cannot tell. Nor can
    they tell who made generated images that lie below no generator: these get the name ``generator``,
    by default "unknown".

    Raises:
        UserError: a class is missing, or a folder is empty, too deep, or has no class folders (it is named).
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give one with folders 0_real and 1_fake for each generator.")
    homes = [home for split, top in split_folders(folder) for home in _class_folders(top, split)]
    if len(present := {home.label for home in homes}) == 1:
        (only,) = present
        missing = 1 - only
        raise UserError(
            f"{folder} has only {DETECTION_CLASSES[only]} images: add {DETECTION_CLASSES[missing]} ones, in folders "
            f"called {list(_PUBLISHED)[missing]}."
        )
    tested = {home.names[0] for home in homes if home.split == "test" and home.names}
    files: list[Path] = []
    rows: list[tuple[str, int, str, str]] = []
    for home in homes:
        maker, category = _origin(home, tested, generator or UNKNOWN_GENERATOR)
        found = images_in(home.path)
        files += found
        rows += [(home.split, home.label, maker if home.label else "", category)] * len(found)
    splits, labels, generators, categories = zip(*rows, strict=True)
    ids = [file.relative_to(folder).as_posix() for file in files]
    return Samples(
        ids=ids,
        images=[read_inside(folder, file) for file in files],
        labels=np.array(labels, np.int64),
        class_names=list(DETECTION_CLASSES),
        splits=np.array(splits, "<U11"),
        paths=ids,
        extra={"generator": list(generators), "category": list(categories)},
        source=f"CNNDetection folder {folder.name}",
    )


def hold_out(samples: Samples, generators: Sequence[str]) -> Samples:
    """Move every image of some generators to the test split, so that no detector sees them in training.

    Raises:
        UserError: the samples name no generator, one of these is not among them, or none would be left.
    """
    column = np.array(samples.extra.get("generator", []), np.str_)
    known = sorted(set(column.tolist()) - {""})
    if not known:
        raise UserError("There is no generator to hold out: import a CNNDetection folder or a column `generator`.")
    if wrong := [name for name in generators if name not in known]:
        raise UserError(f"The unseen generator {wrong[0]!r} is not among the images: there are {', '.join(known)}.")
    if set(known) <= set(generators):
        raise UserError(f"All generators ({', '.join(known)}) are unseen: leave at least one to train on.")
    held = np.isin(column, generators)
    if samples.digests:  # a copy of a held-out image must not stay behind
        held |= np.isin(samples.digests, np.array(samples.digests)[held])
    return replace(samples, splits=np.where(held, "test", samples.splits))


def _class_folders(home: Path, split: str, names: tuple[str, ...] = ()) -> Iterator[_ClassFolder]:
    """Yield the class folders below ``home``.

    Raises:
        UserError: a folder has none, or they lie deeper than those of a category.
    """
    inside = subfolders(home)
    if not inside or len(names) > 2:
        raise UserError(f"{home} is no generator or category: it needs folders 0_real and 1_fake of images in it.")
    for folder in inside:
        label = _LABELS.get(folder.name.lower())
        if label is not None:
            yield _ClassFolder(split, names, label, folder)
        else:
            yield from _class_folders(folder, split, (*names, folder.name))


def _origin(home: _ClassFolder, tested: set[str], unnamed: str) -> tuple[str, str]:
    """Return the generator and the category of a class folder."""
    if len(home.names) == 2:
        return home.names[0], home.names[1]
    if not home.names:
        return unnamed, ""
    (name,) = home.names
    is_category = home.split not in ("", "test") and name not in tested
    return (unnamed, name) if is_category else (name, "")
