import subprocess
from collections import Counter

import numpy as np
import pytest

from assay.data import ImageDataset, write_dataset, writer
from assay.data.codec import encode_png
from assay.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5), np.uint8)
GOOD = {
    "images": IMAGES,
    "labels": [0, 1, 0, 1, 0, 1],
    "splits": ["train"] * 4 + ["test"] * 2,
    "class_names": ["a", "b"],
    "name": "tiny",
}


def test_the_content_hash_ignores_order_and_notices_everything_else(tmp_path):
    ids = list("uvwxyz")
    base = write_dataset(tmp_path / "a", **GOOD, sample_ids=ids).info.content_hash
    order = [3, 1, 5, 0, 2, 4]
    shuffled = {key: [GOOD[key][k] for k in order] for key in ("labels", "splits")}
    again = GOOD | shuffled | {"images": IMAGES[order]}
    assert write_dataset(tmp_path / "b", **again, sample_ids=[ids[k] for k in order]).info.content_hash == base
    changes = [
        {"labels": [1, 1, 0, 1, 0, 1]},
        {"splits": ["train"] * 3 + ["test"] * 3},
        {"images": IMAGES ^ np.eye(4, 5, dtype=np.uint8)},
    ]
    hashes = [write_dataset(tmp_path / "c", **(GOOD | change), sample_ids=ids).info.content_hash for change in changes]
    hashes.append(write_dataset(tmp_path / "c", **GOOD, sample_ids=list("Uvwxyz")).info.content_hash)
    assert len({base, *hashes}) == 5


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        write_dataset(tmp_path / folder, **GOOD)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_encoded_images_are_stored_as_they_are_and_read_at_the_common_size(tmp_path):
    sizes = [(8, 6), (8, 6), (8, 6), (8, 6), (9, 9), (3, 2)]
    images = [encode_png(np.full((*size, 3), 10 * k, np.uint8)) for k, size in enumerate(sizes)]
    dataset = write_dataset(tmp_path / "d", **(GOOD | {"images": images}), paths=[f"{k}.png" for k in range(6)])
    assert (dataset.info.image_size, dataset.info.channels) == ((8, 6), 3)
    stored = dataset.table()["image"].to_pylist()
    assert Counter(each["bytes"] for each in stored) == Counter(images)
    assert {each["path"] for each in stored} == {f"{k}.png" for k in range(6)}
    test = dataset.split("test")
    assert test.images.shape == (2, 3, 8, 6)
    assert test.images[:, 0, 0, 0].tolist() == [40, 50]


def test_large_splits_are_cut_into_shards_that_read_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_SHARD_BYTES", 200)
    dataset = write_dataset(tmp_path / "d", **GOOD)
    assert len(dataset.shards("train")) > 1
    assert np.array_equal(dataset.split("train").images[:, 0].numpy(), IMAGES[:4])


def test_extra_columns_stay_with_their_rows(tmp_path):
    people = ["p", None, "q", "r", "s", "t"]
    table = write_dataset(tmp_path / "d", **GOOD, extra={"person_id": people}).table()
    assert dict(zip(table["sample_id"].to_pylist(), table["person_id"].to_pylist(), strict=True)) == {
        f"{k:07d}": person for k, person in enumerate(people)
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"labels": [0, 1, 0, 2, 0, 1]}, "The label 2 of sample '0000003' .* has no class: .* from 0 to 1"),
        ({"labels": [0, 1, 0, -1, 0, 1]}, "The label -1 of sample '0000003'"),
        ({"labels": [0.5] * 6}, "must be whole numbers"),
        ({"labels": [0, 1]}, "6 images but 2 values of label"),
        ({"splits": ["train"] * 5 + ["dev"]}, "The split 'dev' of sample '0000005' is not known"),
        ({"sample_ids": list("abcdea")}, "sample id 'a' occurs more than once"),
        ({"images": [b"x"] * 6}, r"0000000 \(and 5 more\) is not an image"),
        ({"images": IMAGES[:0], "labels": [], "splits": []}, "has no images"),
        ({"extra": {"label": [0] * 6}}, "extra column 'label'"),
    ],
)
def test_wrong_rows_are_refused_by_name_and_nothing_is_written(tmp_path, change, sentence):
    with pytest.raises(UserError, match=sentence):
        write_dataset(tmp_path / "d", **(GOOD | change))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rewrite_leaves_the_old_data_set(tmp_path, monkeypatch):
    write_dataset(tmp_path / "d", **GOOD)
    monkeypatch.setattr(writer, "write_json", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(UserError, match="the disk is full"):
        write_dataset(tmp_path / "d", **(GOOD | {"name": "other"}))
    assert ImageDataset.open(tmp_path / "d").info.name == "tiny"
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_really_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        noise = np.random.default_rng(0).integers(0, 256, (300, 96, 96), np.uint8)
        with pytest.raises(UserError, match=r"Cannot write .*d: the disk is full"):
            write_dataset(
                disk / "d", images=noise, labels=[0] * 300, splits=["train"] * 300, class_names=["a"], name="n"
            )
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_colour_in_one_image_makes_the_data_set_colour(tmp_path):
    images = [encode_png(image) for image in IMAGES]
    images[2] = encode_png(np.zeros((4, 5, 3), np.uint8))
    assert write_dataset(tmp_path / "d", **(GOOD | {"images": images})).info.channels == 3
