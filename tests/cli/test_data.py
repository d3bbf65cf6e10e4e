import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from assay.cli.data import app
from assay.data import ImageDataset, write_dataset
from assay.data.idx import write_idx
from assay.data.pins import pin
from assay.errors import UserError


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "dvc"))

    def call(*arguments, fails=None):
        result = CliRunner().invoke(app, list(arguments))
        if fails is None:
            assert result.exit_code == 0, result.exception
        else:
            assert isinstance(result.exception, fails)
            assert result.exception.exit_code == 2
        return result

    return call


@pytest.fixture
def photos(tmp_path):
    for index, image in enumerate(np.random.default_rng(0).integers(0, 256, (42, 9, 9), np.uint8)):
        file = tmp_path / "photos" / ("cat" if index < 28 else "dog") / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return tmp_path / "photos"


def test_a_folder_is_imported_listed_and_validated(run, project, photos):
    out = run("import", str(photos), "--name", "pets").output
    assert "data/pets: 30 train, 3 validation, 3 calibration, 6 test; 2 classes; grey 9 x 9." in out
    status = run("status").output.splitlines()
    assert status[1].split()[0] == "pets"
    assert status[1].split()[-1] == "matches"
    assert "already there" in run("pull").output
    out = run("validate", "pets").output
    assert out.count("met ") == 13
    assert (project / ".assay" / "validation" / "pets.html").is_file()


def test_real_and_generated_images_are_imported_with_generators_held_out(run, project, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (168, 9, 9), np.uint8)
    for index, image in enumerate(images):
        home = ("gan/0_real", "gan/1_fake", "vae/1_fake")[index % 3]
        file = tmp_path / "found" / home / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    out = run("import", str(tmp_path / "found"), "--unseen", "vae", "--name", "set").output
    assert "; 2 classes; grey 9 x 9." in out
    table = ImageDataset.open(project / "data" / "set").table().to_pandas()
    assert set(table[table["generator"] == "vae"]["split"]) == {"test"}
    assert set(table[table["split"] == "train"]["generator"]) == {"", "gan"}
    forced = ("import", str(tmp_path / "found"), "--format", "cnndetection", "--name", "again")
    assert "data/again:" in run(*forced).output
    assert "'gen' is not among the images" in str(run(*forced, "--unseen", "gen", fails=UserError).exception)


def test_validate_prints_the_table_then_stops(run, project, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, 9, 9), np.uint8)
    images[7] = images[0]
    splits = ["train"] * 4 + ["validation", "calibration", "test", "test"]
    write_dataset(tmp_path / "set", images=images, labels=[0] * 8, splits=splits, class_names=["cat"], name="pets")
    report = tmp_path / "docs.html"
    result = run("validate", str(tmp_path / "set"), "--report", str(report), fails=UserError)
    line = next(line for line in result.output.splitlines() if "exact copy" in line)
    assert line.startswith("missed")
    assert "critical  2:" in line
    assert "'0000007' and '0000000'" in str(result.exception)
    assert report.is_file()


def test_idx_files_are_validated_by_name(run, project):
    folder = project / "data" / "fashion-mnist"
    rng = np.random.default_rng(0)
    for part, count in {"train": 120, "t10k": 30}.items():
        write_idx(folder / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 9, 9), np.uint8))
        write_idx(folder / f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    pin(project, "fashion-mnist")
    assert "Data Docs:" in run("validate").output
    file = folder / "train-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + b"\x03")
    assert "differs: train-labels-idx1-ubyte" in run("status").output
    assert "train-labels-idx1-ubyte" in str(run("validate", fails=UserError).exception)


def test_wrong_names_are_one_sentence(run, project):
    assert "pins no data set 'nothing'" in str(run("validate", "nothing", fails=UserError).exception)
    assert "is not a data set" in str(run("validate", "some/folder", fails=UserError).exception)
    assert "does not exist" in str(run("import", "nowhere", fails=UserError).exception)
    assert "pins no data set yet" in run("status").output
