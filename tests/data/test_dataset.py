import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from assay.data import ImageDataset
from assay.data.codec import encode_png
from assay.errors import UserError


def test_split_returns_what_was_written(digits, digits_arrays):
    images, labels, splits = digits_arrays
    for name in ("train", "validation", "calibration", "test"):
        rows = np.flatnonzero(np.array(splits) == name)
        split = digits.split(name)
        assert split.images.dtype == torch.uint8
        assert torch.equal(split.images, torch.from_numpy(images[rows])[:, None])
        assert split.labels.tolist() == labels[rows].tolist()
        assert split.sample_ids.tolist() == [f"{row:07d}" for row in rows]


def test_shards_carry_hugging_face_features(digits):
    for shard in digits.shards():
        schema = pq.read_schema(shard)
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        assert features["image"] == {"_type": "Image"}
        assert features["label"] == {"names": digits.info.class_names, "_type": "ClassLabel"}
        assert schema.field("image").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_the_split_of_a_row_is_that_of_its_shard(digits):
    for shard in digits.shards():
        assert set(pq.read_table(shard)["split"].to_pylist()) == {shard.name.split("-")[0]}


@pytest.mark.parametrize("name", ["nonsense", "test2"])
def test_an_absent_split_names_those_that_are_there(digits, name):
    with pytest.raises(UserError, match=f"no split '{name}': its splits are train, validation, calibration, test"):
        digits.split(name)


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not a data set: it has no dataset\.json"):
        ImageDataset.open(tmp_path)


def test_damaged_description_names_the_key(digits, tmp_path):
    text = json.loads((digits.path / "dataset.json").read_text())
    del text["class_names"]
    (tmp_path / "dataset.json").write_text(json.dumps(text))
    with pytest.raises(UserError, match=r"dataset\.json is damaged at class_names"):
        ImageDataset.open(tmp_path)


@pytest.fixture
def damaged(digits, tmp_path):
    """Copy the digits, with one test shard changed by a function of its table."""

    def change(edit):
        for file in digits.path.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (shard,) = tmp_path.glob("test-*.parquet")
        pq.write_table(edit(pq.read_table(shard)), shard)
        return ImageDataset.open(tmp_path)

    return change


def test_a_missing_column_is_named(damaged):
    dataset = damaged(lambda table: table.drop_columns(["label"]))
    with pytest.raises(UserError, match=r"test-00000-of-00001\.parquet has no column 'label'"):
        dataset.split("test")


def test_an_empty_split_is_refused(damaged):
    with pytest.raises(UserError, match=r"The split 'test' of .* is empty"):
        damaged(lambda table: table.slice(0, 0)).split("test")


def test_an_image_that_cannot_be_decoded_names_its_sample(damaged):
    def truncate(table):
        rows = table.to_pylist()
        rows[5]["image"]["bytes"] = encode_png(np.ones((40, 40), np.uint8))[:60]
        return pa.Table.from_pylist(rows, table.schema)

    dataset = damaged(truncate)
    bad = dataset.table("test")["sample_id"][5].as_py()
    with pytest.raises(UserError, match=f"sample '{bad}' .* is truncated"):
        dataset.split("test")


def test_a_shard_that_is_no_parquet_is_refused(digits, tmp_path):
    (tmp_path / "dataset.json").write_bytes((digits.path / "dataset.json").read_bytes())
    (tmp_path / "test-00000-of-00001.parquet").write_text("text")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        ImageDataset.open(tmp_path).split("test")


def test_more_pixels_than_memory_is_refused_before_decoding(digits, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda key: 1)
    with pytest.raises(UserError, match="smaller --size"):
        digits.split("test")
