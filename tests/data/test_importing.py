import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from assay.config import Config
from assay.data import ImageDataset, ImportConfig, import_data, import_dataset
from assay.data.codec import encode_png
from assay.data.idx import write_idx
from assay.data.pins import Pins, dvc_repo, folder_digests, pin
from assay.errors import UserError
from assay.project import Project


def counts(dataset: ImageDataset) -> dict[str, int]:
    return dataset.info.splits


def test_an_image_folder_becomes_a_pinned_data_set(project, photos):
    imported = import_data(Project(project), str(photos))
    dataset = ImageDataset.open(project / "data" / "photos")
    assert counts(dataset) == {"train": 30, "validation": 3, "calibration": 3, "test": 6}
    assert Pins.read(project).revision("photos") == imported.revision
    Pins.read(project).verify("photos")
    table = dataset.table()
    for sample_id, image in zip(table["sample_id"].to_pylist(), table["image"].to_pylist(), strict=True):
        assert image["bytes"] == (photos / sample_id).read_bytes()


def test_importing_again_gives_the_same_revision(project, photos):
    first = import_data(Project(project), str(photos)).revision
    assert import_data(Project(project), str(photos)).revision == first
    assert import_data(Project(project), str(photos), config=ImportConfig(seed=1)).revision != first


def test_copies_of_an_image_stay_in_one_split_and_are_counted(project, photos):
    for index in range(10):
        picture = Image.open(photos / "cat" / f"{index:02d}.png")
        picture.save(photos / "cat" / f"copy{index}.bmp")  # other bytes, the same pixels
    shutil.copy(photos / "cat" / "00.png", photos / "dog" / "cat.png")
    imported = import_data(Project(project), str(photos))
    assert imported.notes == (
        "11 copies of an image were kept in the split of the first.",
        "1 images have copies with different labels: look at them.",
    )
    table = imported.dataset.table(columns=["sample_id", "split"]).to_pydict()
    split = dict(zip(table["sample_id"], table["split"], strict=True))
    assert all(split[f"cat/copy{k}.bmp"] == split[f"cat/{k:02d}.png"] for k in range(10))


def test_one_persons_images_stay_in_one_split(project, photos):
    files = sorted(photos.rglob("*.png"))
    frame = pd.DataFrame({"image": [f.relative_to(photos).as_posix() for f in files], "label": 0})
    frame["person_id"] = [f"p{k // 4}" for k in range(len(frame))]
    frame.to_csv(photos / "m.csv", index=False)
    table = import_data(Project(project), str(photos / "m.csv")).dataset.table().to_pandas()
    assert table.groupby("person_id")["split"].nunique().max() == 1
    assert table["split"].nunique() == 4


def test_the_long_tail_is_in_train_only(project, photos):
    whole = import_data(Project(project), str(photos)).dataset.table().to_pandas()
    tailed = import_data(Project(project), str(photos), config=ImportConfig(imbalance_ratio=10)).dataset.table()
    tailed = tailed.to_pandas()
    train = tailed[tailed["split"] == "train"]["label"].value_counts()
    assert train[0] / train[1] == 10
    assert set(tailed[tailed["split"] != "train"]["sample_id"]) == set(whole[whole["split"] != "train"]["sample_id"])
    assert set(tailed["sample_id"]) < set(whole["sample_id"])


def test_size_resizes_and_makes_colour_of_everything_that_has_it(project, photos):
    Image.new("RGBA", (30, 20), (255, 0, 0, 128)).save(photos / "dog" / "red.png")
    dataset = import_data(Project(project), str(photos), size=8).dataset
    assert (dataset.info.image_size, dataset.info.channels) == ((8, 8), 3)
    assert dataset.split("train").images.shape[1:] == (3, 8, 8)


def broken(photos, name, data):
    (photos / "cat" / name).write_bytes(data)


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("cut.png", encode_png(np.ones((50, 50), np.uint8))[:-25], "The image cat/cut.png is truncated or damaged"),
        ("text.jpg", b"I am no image", r"The image cat/text.jpg is not an image \(it begins with b'I am no imag'\)"),
        ("empty.png", b"", "The image cat/empty.png is empty"),
    ],
)
def test_an_image_that_cannot_be_decoded_is_refused_by_name_and_nothing_is_written(
    project, photos, name, data, sentence
):
    broken(photos, name, data)
    with pytest.raises(UserError, match=sentence):
        import_data(Project(project), str(photos))
    assert not (project / "data").exists()
    assert not (project / "data.dvc").exists()


def test_a_data_set_that_was_not_imported_is_not_overwritten(idx_project, photos):
    with pytest.raises(UserError, match="choose another name"):
        import_data(Project(idx_project), str(photos), name="fashion-mnist")
    with pytest.raises(UserError, match="not a valid data set name"):
        import_data(Project(idx_project), str(photos), name="../escape")


def test_a_failed_pin_leaves_no_data_set(project, photos, monkeypatch):
    monkeypatch.setattr("assay.data.importing.pin", lambda *_: (_ for _ in ()).throw(UserError("the disk is full")))
    with pytest.raises(UserError):
        import_data(Project(project), str(photos))
    assert list((project / "data").iterdir()) == []


# ---- the task


def task(project, name, config, tmp_path):
    revision = Pins.read(project).revision(name)
    return import_dataset(name, revision, config, dataset=tmp_path / "out", metrics=tmp_path / "metrics.json")


def test_idx_files_become_an_artifact_whose_test_split_is_the_official_one(idx_project, tmp_path):
    pin(idx_project, "fashion-mnist")
    numbers = task(idx_project, "fashion-mnist", {}, tmp_path)
    dataset = ImageDataset.open(tmp_path / "out")
    assert counts(dataset) == {"train": 100, "validation": 10, "calibration": 10, "test": 30}
    assert dataset.info.class_names[0] == "T-shirt/top"
    assert dataset.info.revision == Pins.read(idx_project).revision("fashion-mnist")
    assert set(dataset.table("test")["sample_id"].to_pylist()) == {f"test-{k:05d}" for k in range(30)}
    assert numbers == json.loads((tmp_path / "metrics.json").read_text())
    assert numbers["samples"] == 150


def test_training_copies_of_test_images_are_dropped_and_counted(idx_project, tmp_path):
    folder = idx_project / "data" / "fashion-mnist"
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4), np.uint8)
    labels = (np.arange(50) % 10).astype(np.uint8)
    for part, rows in {"train": np.r_[0:40, 45:48], "t10k": np.r_[40:50]}.items():
        write_idx(folder / f"{part}-images-idx3-ubyte", images[rows])
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels[rows])
    pin(idx_project, "fashion-mnist")
    numbers = task(idx_project, "fashion-mnist", {}, tmp_path)
    assert (numbers["copies_dropped"], numbers["test"], numbers["samples"]) == (3, 10, 50)


def test_an_imported_data_set_is_copied_and_given_its_revision(project, photos, tmp_path):
    imported = import_data(Project(project), str(photos))
    task(project, "photos", {}, tmp_path)
    copy = ImageDataset.open(tmp_path / "out")
    assert copy.info == imported.dataset.info.model_copy(update={"revision": imported.revision})
    shards = {file: md5 for file, md5 in folder_digests(tmp_path / "out").items() if file.endswith(".parquet")}
    assert shards.items() <= Pins.read(project).files["photos"].items()


def test_limit_and_tail_choose_from_an_imported_data_set(project, photos, tmp_path):
    import_data(Project(project), str(photos))
    numbers = task(project, "photos", {"limit": 5.0, "imbalance_ratio": 2}, tmp_path)
    assert {split: numbers[split] for split in ("train", "validation", "test")} == {
        "train": 5,
        "validation": 3,
        "test": 5,
    }


def test_a_wrong_byte_in_data_stops_the_task_by_name(idx_project, tmp_path):
    pin(idx_project, "fashion-mnist")
    file = idx_project / "data" / "fashion-mnist" / "t10k-images-idx3-ubyte"
    data = bytearray(file.read_bytes())
    data[500] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"data/fashion-mnist/t10k-images-idx3-ubyte does not match data\.dvc"):
        task(idx_project, "fashion-mnist", {}, tmp_path)
    assert not (tmp_path / "out").exists()


def test_missing_data_says_which_command_fetches_it(idx_project, tmp_path):
    pin(idx_project, "fashion-mnist")
    shutil.rmtree(idx_project / "data" / "fashion-mnist")
    with pytest.raises(UserError, match="run `assay data pull fashion-mnist`"):
        task(idx_project, "fashion-mnist", {}, tmp_path)


def test_where_a_remote_is_configured_missing_data_is_pulled_from_it(idx_project, tmp_path):
    """This is how a task gets its data on a cluster."""
    pin(idx_project, "fashion-mnist")
    with dvc_repo(idx_project) as repo, repo.config.edit("repo") as settings:
        settings["remote"] = {"box": {"url": str(tmp_path / "box")}}
        settings["core"]["remote"] = "box"
    with dvc_repo(idx_project) as repo:
        repo.push()
    for folder in (idx_project / "data", idx_project / ".dvc" / "cache"):
        shutil.rmtree(folder)
    assert task(idx_project, "fashion-mnist", {}, tmp_path)["samples"] == 150
    Pins.read(idx_project).verify("fashion-mnist")


def test_another_revision_and_an_unknown_setting_are_refused(idx_project, tmp_path):
    revision = pin(idx_project, "fashion-mnist")
    outputs = {"dataset": tmp_path / "out", "metrics": tmp_path / "m"}
    with pytest.raises(UserError, match=rf"The revision abc.dir of .* is not the one .* \({revision}\)"):
        import_dataset("fashion-mnist", "abc.dir", {}, **outputs)
    with pytest.raises(UserError, match=r"import\.imbalance is not a setting"):
        import_dataset("fashion-mnist", revision, {"imbalance": 10}, **outputs)


def test_the_configuration_is_one_of_ours():
    assert issubclass(ImportConfig, Config)
    with pytest.raises(UserError, match=r"import\.imbalance_ratio"):
        ImportConfig.parse({"imbalance_ratio": 0.5}, where="import")
