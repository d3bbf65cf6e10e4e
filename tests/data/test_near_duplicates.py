import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from assay.data import near_duplicates
from assay.data.near_duplicates import near_copies, perceptual_hashes, thumbnail


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Smooth random pictures [N, 64, 64], as different as photographs are."""
    noise = np.random.default_rng(seed).normal(size=(count, 64, 64))
    smooth = gaussian_filter(noise, (0, 4, 4))
    return np.clip(128 + smooth / smooth.std() * 50, 0, 255).astype(np.uint8)


def thumbnails(images) -> np.ndarray:
    return np.stack(
        [thumbnail(image if isinstance(image, Image.Image) else Image.fromarray(image)) for image in images]
    )


def jpeg(image: np.ndarray) -> Image.Image:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=60)
    return Image.open(buffer)


@pytest.fixture(params=["all pairs", "hashes"])
def search(request, monkeypatch):
    if request.param == "hashes":
        monkeypatch.setattr(near_duplicates, "_BRUTE_FORCE_UP_TO", 0)


@pytest.mark.usefixtures("search")
def test_recompressed_and_resized_copies_are_found_and_nothing_else():
    images = pictures(600)
    copies = [jpeg(image) if k % 2 else Image.fromarray(image).resize((48, 48)) for k, image in enumerate(images[:40])]
    splits = np.array(["train"] * 600 + ["test"] * 40)
    found = near_copies(thumbnails([*images, *copies]), splits, rmse=5)
    assert found[600:].tolist() == list(range(40))
    assert found[:40].tolist() == list(range(600, 640))
    assert (found[40:600] == -1).all()


@pytest.mark.usefixtures("search")
def test_copies_within_a_split_do_not_count():
    images = thumbnails(pictures(50))
    splits = np.array(["train"] * 100)
    assert (near_copies(np.concatenate([images, images]), splits, rmse=5) == -1).all()


def test_the_threshold_is_the_root_mean_square_difference():
    base = np.full((16, 16), 100, np.uint8)
    pair = np.stack([base, base + np.uint8(5)])
    splits = np.array(["train", "test"])
    assert near_copies(pair, splits, rmse=5.0).tolist() == [1, 0]
    assert near_copies(pair, splits, rmse=4.99).tolist() == [-1, -1]


@pytest.mark.usefixtures("search")
def test_many_identical_pictures_are_no_quadratic_work():
    blank = np.zeros((20_000, 16, 16), np.uint8)
    splits = np.where(np.arange(20_000) % 2, "train", "test")
    found = near_copies(blank, splits, rmse=1)
    assert (splits[found] != splits).all()


def test_hash_bits_are_balanced_over_the_data():
    bits = np.unpackbits(perceptual_hashes(thumbnails(pictures(500))).view(np.uint8)).reshape(500, 64)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.01


def test_no_images_are_no_copies():
    assert near_copies(np.empty((0, 16, 16), np.uint8), np.empty(0, "<U5"), rmse=5).tolist() == []
