"""Between encoded images and uint8 arrays, by one stated rule for every mode, depth and size."""

import hashlib
import io
import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from assay.data.parallel import map_ranges

_GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N")
_ALPHA_MODES = ("LA", "PA", "La", "RGBA", "RGBa")
_ORIENTED_FORMATS = ("JPEG", "MPO", "TIFF", "WEBP")


class DecodeError(ValueError):
    """The bytes are not an image that can be read; the message completes "the image ..."."""


@dataclass(frozen=True)
class Header:
    """What an image's header says: height and width in pixels, Pillow's mode, channels of the content."""

    height: int
    width: int
    mode: str
    channels: int


def open_image(data: bytes) -> Image.Image:
    """Open and fully decode an image, upright.

    Raises:
        DecodeError: the bytes are missing, truncated, too large to be safe, or no image at all.

    Example:
        >>> open_image(encode_png(np.zeros((2, 3), np.uint8))).size
        (3, 2)
    """
    if not data:
        raise DecodeError("is empty")
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        image.load()
        if image.format in _ORIENTED_FORMATS:
            image = ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise DecodeError(f"is not an image (it begins with {data[:12]!r})") from None
    except Image.DecompressionBombError:
        raise DecodeError("is larger than can be decoded safely") from None
    except Exception as error:  # Pillow's readers raise many kinds of error on broken bytes
        raise DecodeError(f"is truncated or damaged ({error})") from None
    return image


def normalise(image: Image.Image, channels: int, size: tuple[int, int] | None = None) -> Image.Image:
    """Convert a decoded image to 8-bit grey (1 channel) or RGB (3).

    The rule: transparency is laid over white; palettes and other colour spaces become RGB; 16-bit grey keeps
    its high byte; colour becomes grey by Rec. 601 luma, and grey becomes colour by repetition; another size
    is resized (bilinear with anti-aliasing, both sides to ``size`` = (height, width), nothing cropped).

    Raises:
        DecodeError: the image holds floating-point pixels, whose range is unknown.

    Example:
        >>> normalise(Image.new("RGBA", (3, 2), (0, 0, 0, 0)), channels=1).getextrema()
        (255, 255)
    """
    wanted = "L" if channels == 1 else "RGB"
    if image.mode == "F":
        raise DecodeError("has floating-point pixels: convert it to 8 or 16 bits")
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    elif image.mode.startswith("I"):
        high_byte = np.clip(np.asarray(image, np.int64), 0, 65535) >> 8
        image = Image.fromarray(high_byte.astype(np.uint8))
    if image.mode != wanted:
        image = image.convert(wanted)
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return image


def decode(data: bytes, channels: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode an encoded image to uint8 [channels, height, width] by the rule of `normalise`.

    Raises:
        DecodeError: the bytes cannot be read.

    Example:
        >>> decode(encode_png(np.eye(2, dtype=np.uint8)), channels=3).shape
        (3, 2, 2)
    """
    pixels = np.asarray(normalise(open_image(data), channels, size))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def header(data: bytes) -> Header:
    """Read size and mode without decoding the pixels.

    Raises:
        DecodeError: the bytes are no image.

    Example:
        >>> header(encode_png(np.zeros((2, 3), np.uint8)))
        Header(height=2, width=3, mode='L', channels=1)
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            turned = image.format in _ORIENTED_FORMATS and image.getexif().get(0x0112, 1) >= 5
            width, height = image.size[::-1] if turned else image.size
            return Header(height, width, image.mode, 1 if image.mode in _GREY_MODES else 3)
    except UnidentifiedImageError:
        start = data[:12] if data else b""
        raise DecodeError(f"is not an image (it begins with {start!r})" if start else "is empty") from None
    except Exception as error:
        raise DecodeError(f"is truncated or damaged ({error})") from None


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode uint8 [H, W] or [H, W, 3] as PNG, at the quickest compression level.

    Example:
        >>> decode(encode_png(np.full((1, 1), 7, np.uint8)), channels=1).item()
        7
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def encode_all(images: np.ndarray) -> list[bytes]:
    """Encode uint8 [N, H, W] or [N, H, W, 3] as PNG on every core."""

    def encode_range(start: int, stop: int) -> list[bytes]:
        return [encode_png(image) for image in images[start:stop]]

    return [png for part in map_ranges(encode_range, len(images), what="Encoding") for png in part]


def pixel_digest(image: Image.Image) -> str:
    """Return the sha256 of an image's mode, size and pixels, the same in whatever format it was stored.

    Example:
        >>> picture = Image.new("L", (2, 2), 7)
        >>> pixel_digest(picture) == pixel_digest(open_image(encode_png(np.full((2, 2), 7, np.uint8))))
        True
    """
    return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()


def inspect_all(encoded: Sequence[bytes]) -> tuple[list[str], dict[int, str]]:
    """Decode every image on every core and keep none.

    Returns the `pixel_digest` of each (empty where there is none), and why for each index that cannot be
    decoded.

    Example:
        >>> digests, failures = inspect_all([encode_png(np.ones((1, 1), np.uint8)), b"hello"])
        >>> failures
        {1: "is not an image (it begins with b'hello')"}
    """

    def inspect_range(start: int, stop: int) -> list[tuple[str, str]]:
        found = []
        for index in range(start, stop):
            try:
                image = open_image(encoded[index])
                normalise(image, channels=3)
                found.append((pixel_digest(image), ""))
            except DecodeError as error:
                found.append(("", str(error)))
        return found

    parts = map_ranges(inspect_range, len(encoded), what="Checking")
    results = [result for part in parts for result in part]
    return [digest for digest, _ in results], {i: reason for i, (_, reason) in enumerate(results) if reason}


def resize_all(encoded: Sequence[bytes], size: tuple[int, int]) -> list[bytes]:
    """Return the images at ``size`` (height, width): as PNG where they were resized, else as given.

    Raises:
        DecodeError: an image cannot be decoded.

    Example:
        >>> header(resize_all([encode_png(np.ones((4, 4), np.uint8))], (2, 2))[0])
        Header(height=2, width=2, mode='L', channels=1)
    """

    def resize(data: bytes) -> bytes:
        found = header(data)
        if (found.height, found.width) == size:
            return data
        return encode_png(decode(data, found.channels, size).transpose(1, 2, 0).squeeze())

    def resize_range(start: int, stop: int) -> list[bytes]:
        return [resize(data) for data in encoded[start:stop]]

    return [data for part in map_ranges(resize_range, len(encoded), what="Resizing") for data in part]


def decode_all(
    encoded: Sequence[bytes | None], channels: int, size: tuple[int, int], what: str = "Decoding"
) -> tuple[np.ndarray, dict[int, str]]:
    """Decode images on every core into one uint8 array [N, channels, height, width].

    Returns the array and, for each index that could not be decoded (its pixels are zero), the reason.

    Example:
        >>> decode_all([encode_png(np.ones((1, 1), np.uint8)), b""], channels=1, size=(1, 1))
        (array([[[[1]]], [[[0]]]], dtype=uint8), {1: 'is empty'})
    """
    shape = (len(encoded), channels, *size)
    # Anonymous shared memory: the forked workers write pixels into it, so that none has to be pickled.
    memory = mmap.mmap(-1, max(1, int(np.prod(shape))))
    pixels = np.frombuffer(memory, np.uint8, count=int(np.prod(shape))).reshape(shape)

    def decode_range(start: int, stop: int) -> dict[int, str]:
        failures = {}
        for index in range(start, stop):
            try:
                pixels[index] = decode(encoded[index] or b"", channels, size)
            except DecodeError as error:
                failures[index] = str(error)
        return failures

    failures: dict[int, str] = {}
    for part in map_ranges(decode_range, len(encoded), what=what):
        failures |= part
    return pixels, failures
