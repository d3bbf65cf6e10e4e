"""Finding images in a user's folders, and reading nothing that lies outside of them."""

from pathlib import Path

from assay.data import hub
from assay.data.dataset import SPLITS
from assay.errors import UserError

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly in ``folder``, in alphabetical order, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def split_folders(folder: Path) -> list[tuple[str, Path]]:
    """Return each split with its folder, or ``("", folder)`` unless all folders in it are named as splits."""
    top = subfolders(folder)
    named = [hub.SPLIT_ALIASES.get(path.name.lower(), path.name.lower()) for path in top]
    if top and all(split in SPLITS for split in named):
        return list(zip(named, top, strict=True))
    return [("", folder)]


def images_in(home: Path) -> list[Path]:
    """Return the image files below a class folder, known by their suffixes, in alphabetical order.

    Raises:
        UserError: there is none.
    """
    found = sorted(path for path in home.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise UserError(f"The class folder {home} has no images: add some, or remove the folder.")
    return found


def read_inside(folder: Path, file: Path, where: str = "") -> bytes:
    """Read a file that lies in ``folder``; no ``..``, absolute path or link may lead out of it.

    Raises:
        UserError: it does, or cannot be read; ``where`` says what named it.
    """
    named = f" (in {where})" if where else ""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{file}{named} leads out of {folder}: import only images that lie in that folder.")
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}{named} cannot be read ({error.strerror}): check the path.") from None
