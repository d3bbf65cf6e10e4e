"""What a detector says of an image file, and whether it still says so after a resize or a re-encoding."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from assay.data.codec import DecodeError, normalise, open_image
from assay.errors import UserError
from assay.forensics.decision import Decision, Verdict

_JPEG_QUALITY = 90
_JPEG_SIDE = 65_500  # pixels: the longest side that a JPEG can have


@dataclass(frozen=True)
class View:
    """One way in which an image reaches the detector, with the probability of "generated" and the verdict."""

    name: str
    probability: float
    verdict: Verdict


@dataclass(frozen=True)
class Finding:
    """What is said of one image. The first view is the image as it was given; its verdict is the answer.

    ``size`` is the image's own and ``seen`` what the detector takes, both (width, height) in pixels.
    """

    name: str
    size: tuple[int, int]
    seen: tuple[int, int]
    views: tuple[View, ...]

    @property
    def given(self) -> View:
        """The image as it was given, resized where the detector takes another size."""
        return self.views[0]

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest probability of "generated" over the views."""
        probabilities = [view.probability for view in self.views]
        return min(probabilities), max(probabilities)

    @property
    def changes(self) -> tuple[View, ...]:
        """The views with another verdict than the image as it was given."""
        return tuple(view for view in self.views if view.verdict != self.given.verdict)

    @property
    def sentence(self) -> str:
        """How far the verdict can be trusted, in one sentence."""
        low, high = self.range
        span = f"The probability goes from {low:.4f} to {high:.4f}"
        if not self.changes:
            return f"{span}, and the verdict stays."
        changed = ", ".join(f"{view.name} ({view.verdict})" for view in self.changes)
        return f"{span}, and the verdict changes after {changed}."

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "file": self.name,
            "verdict": self.given.verdict,
            "probability": self.given.probability,
            "size": list(self.size),
            "resized_to": list(self.seen) if self.size != self.seen else None,
            "range": list(self.range),
            "changes": [view.name for view in self.changes],
            "views": [vars(view) for view in self.views],
        }


def examine(
    files: Sequence[tuple[str, bytes]],
    score: Callable[[np.ndarray], np.ndarray],
    decision: Decision,
    *,
    channels: int,
    image_size: tuple[int, int],
) -> list[Finding]:
    """Return what a detector says of encoded images of any format, mode and size.

    Each image is scored as it is given, and again as it may well arrive: cut out of the middle instead of
    resized (where it is larger than the detector's input), saved as JPEG of quality 90, and resized to half and
    back. A verdict that does not survive these says little. [ours]

    Args:
        files: name and bytes of each.
        score: uint8 images [N, C, H, W] -> probability of "generated" [N].
        decision: from the probability to the verdict.
        channels: 1 or 3, what ``score`` takes.
        image_size: height and width of what ``score`` takes.

    Raises:
        UserError: a file is not an image that can be read (it is named), or a score is NaN.

    Example:
        >>> from assay.data.codec import encode_png
        >>> picture = encode_png(np.full((8, 8), 200, np.uint8))
        >>> decision = Decision(threshold=0.5, lower=0.4, upper=0.6, confidence=0.95)
        >>> (finding,) = examine([("a.png", picture)], lambda images: images.mean(axis=(1, 2, 3)) / 255, decision,
        ...     channels=1, image_size=(4, 4))
        >>> finding.given.verdict, [view.name for view in finding.views[1:]]
        ('generated', ['centre crop to 4 x 4', 'JPEG 90', 'resize to half and back'])
    """
    height, width = image_size
    pictures = [_read(name, data, channels) for name, data in files]
    views = [dict(_views(picture, (width, height))) for picture in pictures]
    seen = [np.asarray(image) for ways in views for image in ways.values()]
    stack = np.array(seen, np.uint8).reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
    scores = iter(score(stack).tolist())
    findings = []
    for (name, _), picture, ways in zip(files, pictures, views, strict=True):
        probabilities = [next(scores) for _ in ways]
        judged = tuple(View(way, p, decision.verdict(p)) for way, p in zip(ways, probabilities, strict=True))
        findings.append(Finding(name, picture.size, (width, height), judged))
    return findings


def _read(name: str, data: bytes, channels: int) -> Image.Image:
    """Return an image at its own size, in 8 bits.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return normalise(open_image(data), channels)
    except DecodeError as error:
        raise UserError(f"{name} {error}: give a whole image file, such as PNG or JPEG.") from None


def _views(picture: Image.Image, size: tuple[int, int]) -> Iterator[tuple[str, Image.Image]]:
    """Yield each way in which a picture may reach a detector of images of ``size`` (width, height), by name."""

    def fit(image: Image.Image) -> Image.Image:
        return _resize(image, size)

    width, height = size
    if picture.size == size:
        yield "as given", picture
    else:
        yield f"resized from {picture.width} x {picture.height} to {width} x {height}", fit(picture)
        if picture.width >= width and picture.height >= height:
            left, top = (picture.width - width) // 2, (picture.height - height) // 2
            yield f"centre crop to {width} x {height}", picture.crop((left, top, left + width, top + height))
    if max(picture.size) <= _JPEG_SIDE:
        yield f"JPEG {_JPEG_QUALITY}", fit(_as_jpeg(picture))
    half = _resize(picture, (max(1, picture.width // 2), max(1, picture.height // 2)))
    yield "resize to half and back", fit(_resize(half, picture.size))


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize to ``size`` (width, height) by the one rule for every image, that of `normalise`."""
    return normalise(image, 1 if image.mode == "L" else 3, size[::-1])


def _as_jpeg(image: Image.Image) -> Image.Image:
    """Return what is left of an image once it was saved as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return open_image(buffer.getvalue())
