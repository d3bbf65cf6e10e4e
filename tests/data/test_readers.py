import json
import os
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from assay.data.codec import encode_png
from assay.data.idx import write_idx
from assay.data.readers import detect_format, encode_labels, read, read_folder
from assay.errors import UserError


@pytest.fixture
def manifest(photos):
    """A manifest beside the photos, as a data frame."""
    files = sorted(photos.rglob("*.png"))
    return pd.DataFrame(
        {
            "image": [file.relative_to(photos).as_posix() for file in files],
            "label": [file.parent.name for file in files],
            "person_id": [f"p{k // 3}" for k in range(len(files))],
        }
    )


def test_a_folder_is_its_classes_in_alphabetical_order(photos):
    samples = read_folder(photos)
    assert samples.class_names == ["cat", "dog"]
    assert np.bincount(samples.labels).tolist() == [28, 14]
    assert samples.ids[0] == "cat/00.png"
    assert samples.images[0] == (photos / "cat" / "00.png").read_bytes()


def test_folders_named_as_splits_are_splits(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "s" / "train")
    shutil.copytree(photos, tmp_path / "s" / "val")
    samples = read_folder(tmp_path / "s")
    assert set(zip(samples.splits, [i.split("/")[0] for i in samples.ids], strict=True)) == {
        ("train", "train"),
        ("validation", "val"),
    }
    assert samples.class_names == ["cat", "dog"]


def test_other_files_are_left_out(photos):
    (photos / "cat" / "notes.txt").write_text("hello")
    (photos / "README.md").write_text("hello")
    (photos / ".cache").mkdir()
    assert len(read_folder(photos)) == 42


def test_a_class_folder_without_images_is_named(photos):
    (photos / "bird").mkdir()
    with pytest.raises(UserError, match=r"The class folder .*bird has no images"):
        read_folder(photos)


def test_a_folder_without_class_folders_is_told_what_to_do(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="has no class folders"):
        read_folder(tmp_path)


def test_a_link_out_of_the_folder_is_refused(photos, tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "secret.png")
    os.symlink(tmp_path / "secret.png", photos / "cat" / "link.png")
    with pytest.raises(UserError, match=r"link\.png leads out of"):
        read_folder(photos)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_manifest_gives_the_same_samples_in_both_formats(photos, manifest, suffix):
    file = photos / f"m.{suffix}"
    manifest.to_csv(file, index=False) if suffix == "csv" else manifest.to_parquet(file)
    samples = read(str(file), "manifest", "m")
    assert samples.ids == manifest["image"].tolist()
    assert [samples.class_names[k] for k in samples.labels] == manifest["label"].tolist()
    assert samples.extra == {"person_id": manifest["person_id"].tolist()}
    assert samples.images[3] == (photos / manifest["image"][3]).read_bytes()


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda m: m.drop(columns="label"), r"m\.csv has no column 'label': its columns are image, person_id"),
        (lambda m: m.drop(columns="image"), "has no column 'image'"),
        (lambda m: m.assign(image=["gone.png", *m["image"][1:]]), r"gone.png \(in row 1 of .*\) cannot be read"),
        (lambda m: m.assign(image=[*m["image"][:-1], None]), "Row 42 of .* has no image"),
        (lambda m: m.assign(image=["../secret.png", *m["image"][1:]]), "leads out of"),
        (lambda m: m.assign(image=["/etc/hostname", *m["image"][1:]]), "leads out of"),
        (lambda m: m.assign(label=[None, *m["label"][1:]]), "The label of row 1 of .* is missing"),
        (lambda m: m.assign(label=["-1"] * len(m)), "The label '-1' of row 1 of .* is out of range"),
        (lambda m: m.assign(split="trian"), "The split 'trian' of row 1 of .* is not known"),
    ],
)
def test_a_wrong_row_of_a_manifest_is_named(photos, manifest, edit, sentence):
    (photos.parent / "secret.png").write_bytes(encode_png(np.zeros((2, 2), np.uint8)))
    edit(manifest).to_csv(photos / "m.csv", index=False)
    with pytest.raises(UserError, match=sentence):
        read(str(photos / "m.csv"), "manifest", "m")


def test_a_label_beyond_the_given_classes_is_refused_by_row(photos, manifest):
    manifest.assign(label=["2", *["0"] * 41]).to_csv(photos / "m.csv", index=False)
    with pytest.raises(UserError, match=r"The label '2' of row 1 of .* is out of range: expected one of cat, dog"):
        read(str(photos / "m.csv"), "manifest", "m", classes=["cat", "dog"])


def test_labels_are_numbers_in_order_or_names_or_indices_of_names():
    assert encode_labels(["10", "2", "10"], None, list("abc"))[1] == ["2", "10"]
    assert encode_labels([1, 0], ["cat", "dog"], list("ab"))[0].tolist() == [1, 0]
    assert encode_labels(["dog", "cat"], ["cat", "dog"], list("ab"))[0].tolist() == [1, 0]
    assert encode_labels(["5", "3"], ["3", "5"], list("ab"))[0].tolist() == [1, 0]  # names win over indices


def hub_table(labels, *, image="image", names=None):
    images = [encode_png(np.full((3, 3), k, np.uint8)) for k in range(len(labels))]
    rows = [{image: {"bytes": png, "path": None}, "label": label} for png, label in zip(images, labels, strict=True)]
    table = pa.Table.from_pylist(rows)
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    return table


def test_a_hub_snapshot_has_its_splits_in_file_names_and_its_classes_in_the_schema(tmp_path):
    (tmp_path / "data").mkdir()
    pq.write_table(hub_table([0, 1, 1], image="img", names=["cat", "dog"]), tmp_path / "data" / "train-0.parquet")
    pq.write_table(hub_table([1], image="img", names=["cat", "dog"]), tmp_path / "data" / "test-0.parquet")
    samples = read(str(tmp_path), detect_format(str(tmp_path)), "pets")
    assert sorted(zip(samples.splits, samples.labels, strict=True)) == [
        ("test", 1),
        ("train", 0),
        ("train", 1),
        ("train", 1),
    ]
    assert samples.class_names == ["cat", "dog"]


def test_a_hub_label_out_of_range_is_refused(tmp_path):
    pq.write_table(hub_table([0, 7], names=["cat", "dog"]), tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"The label '7' of row 2 of .* is out of range"):
        read(str(tmp_path), "hub", "pets")


def test_several_configurations_of_a_hub_data_set_are_not_mixed(tmp_path):
    for home in ("small", "large"):
        (tmp_path / home).mkdir()
        pq.write_table(hub_table([0]), tmp_path / home / "train.parquet")
    with pytest.raises(UserError, match=r"several configurations \(large, small\)"):
        read(str(tmp_path), "hub", "pets")


def test_idx_files_that_do_not_fit_together_are_refused(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((3, 2, 2), np.uint8))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(2, np.uint8))
    with pytest.raises(UserError, match=r"has shape \(3, 2, 2\) and train-labels-idx1-ubyte \(2,\)"):
        read(str(tmp_path), "idx", "digits")


def test_an_idx_label_out_of_range_is_refused(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((2, 2, 2), np.uint8))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.array([0, 10], np.uint8))
    with pytest.raises(UserError, match="The label '10' of train-00001 is out of range"):
        read(str(tmp_path), "idx", "fashion-mnist")


def test_the_format_is_guessed(photos, tmp_path):
    (tmp_path / "m.csv").touch()
    (tmp_path / "x.zip").touch()
    write_idx(tmp_path / "i" / "train-images-idx3-ubyte", np.zeros((1, 1, 1), np.uint8))
    write_idx(tmp_path / "i" / "train-labels-idx1-ubyte", np.zeros(1, np.uint8))
    assert detect_format(str(photos)) == "folder"
    assert detect_format(str(tmp_path / "m.csv")) == "manifest"
    assert detect_format(str(tmp_path / "i")) == "idx"
    assert detect_format("owner/name") == "hub"
    for wrong in ("nowhere", str(tmp_path / "x.zip"), "./a/b"):
        with pytest.raises(UserError):
            detect_format(wrong)
