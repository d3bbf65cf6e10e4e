"""Finding the same picture twice when its bytes differ: re-encoded, resized, or a frame apart."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from assay.data.codec import normalise

THUMBNAIL = 16  # pixels on both sides

_BRUTE_FORCE_UP_TO = 4096  # images, for which all pairs take under a second
_LONGEST_RUN = 2000  # neighbours looked at in one bucket
_BAND_BITS = 16
_HAMMING = 3  # 64 bits in four bands: two hashes that differ in three bits agree in one band at least


def thumbnail(image: Image.Image) -> np.ndarray:
    """Return an image as uint8 [16, 16]: grey, transparency over white, each pixel an area's mean.

    Example:
        >>> int(thumbnail(Image.new("RGB", (50, 40), "white")).min())
        255
    """
    return np.asarray(normalise(image, channels=1).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))


def perceptual_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash of each thumbnail (uint8 [N, 16, 16]) as uint64 [N].

    A bit says whether one of the 8 x 8 lowest DCT coefficients is above its median over all N images. The
    usual pHash compares with the median within the image; across the data every bit is set for half of the
    images, so buckets stay small even where all pictures look alike.

    Example:
        >>> perceptual_hashes(np.random.default_rng(0).integers(0, 256, (3, 16, 16), np.uint8)).shape
        (3,)
    """
    from scipy.fft import dctn

    low = dctn(thumbnails.astype(np.float32), axes=(1, 2))[:, :8, :8].reshape(len(thumbnails), 64)
    return np.packbits(low > np.median(low, axis=0), axis=1).view(np.uint64)[:, 0]


def near_copies(thumbnails: np.ndarray, splits: np.ndarray, rmse: float) -> np.ndarray:
    """Return for each image the index of one of another split that looks the same, or -1; int64 [N].

    Two images look the same when the root mean square difference of their thumbnails (uint8 [N, 16, 16]) is
    at most ``rmse`` grey levels. Up to 4,096 distinct thumbnails are all compared; beyond that only those
    whose perceptual hashes differ in at most three of 64 bits, found by sorting on four bands of 16 bits, and
    at most 2,000 neighbours in a bucket. [ours]

    Example:
        >>> images = np.stack([np.full((16, 16), grey, np.uint8) for grey in (10, 12, 90)])
        >>> near_copies(images, np.array(["train", "test", "test"]), rmse=5).tolist()
        [1, 0, -1]
    """
    found = np.full(len(thumbnails), -1, np.int64)
    if not len(thumbnails):
        return found
    flat = thumbnails.reshape(len(thumbnails), -1)
    split_codes = np.unique(splits, return_inverse=True)[1].astype(np.uint8)
    keyed = np.ascontiguousarray(np.concatenate([flat, split_codes[:, None]], axis=1))
    rows = keyed.view(np.dtype((np.void, keyed.shape[1])))[:, 0]
    _, first, member_of = np.unique(rows, return_index=True, return_inverse=True)
    distinct, split_of = flat[first].astype(np.float32), split_codes[first]

    def near(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        apart = split_of[left] != split_of[right]
        left, right = left[apart], right[apart]
        distances = np.sqrt(((distinct[left] - distinct[right]) ** 2).mean(axis=1))
        close = distances <= rmse
        return np.stack([left[close], right[close]], axis=1)

    if len(distinct) <= _BRUTE_FORCE_UP_TO:
        pairs = _all_pairs(distinct, rmse, near)
    else:
        pairs = _hashed_pairs(perceptual_hashes(thumbnails[first]), near)
    copy_of = np.full(len(distinct), -1, np.int64)
    copy_of[pairs[:, 0]] = first[pairs[:, 1]]
    copy_of[pairs[:, 1]] = first[pairs[:, 0]]
    found[:] = copy_of[member_of]
    return found


Confirm = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _all_pairs(distinct: np.ndarray, rmse: float, near: Confirm) -> np.ndarray:
    squares = (distinct**2).sum(axis=1)
    limit = distinct.shape[1] * (rmse + 1) ** 2  # a margin for rounding: `near` decides
    parts = [np.empty((0, 2), np.int64)]
    for start in range(0, len(distinct), 512):
        block = slice(start, start + 512)
        distances = squares[block, None] + squares[None] - 2 * distinct[block] @ distinct.T
        left, right = np.nonzero(distances <= limit)
        left += start
        parts.append(near(left[left < right], right[left < right]))
    return np.concatenate(parts)


def _hashed_pairs(hashes: np.ndarray, near: Confirm) -> np.ndarray:
    parts = [np.empty((0, 2), np.int64)]
    for band in range(64 // _BAND_BITS):
        keys = (hashes >> np.uint64(band * _BAND_BITS)) & np.uint64(2**_BAND_BITS - 1)
        order = np.argsort(keys, kind="stable")
        sorted_keys = keys[order]
        alive = np.arange(len(order))
        for step in range(1, _LONGEST_RUN + 1):  # compare each with the step-th after it in its bucket
            alive = alive[alive + step < len(order)]
            alive = alive[sorted_keys[alive] == sorted_keys[alive + step]]
            if not len(alive):
                break
            left, right = order[alive], order[alive + step]
            similar = np.bitwise_count(hashes[left] ^ hashes[right]) <= _HAMMING
            parts.append(near(left[similar], right[similar]))
    return np.concatenate(parts)
