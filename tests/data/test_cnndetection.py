import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from assay.data import ImageDataset, import_data
from assay.data.cnndetection import read_cnndetection
from assay.data.codec import encode_png
from assay.data.readers import detect_format, read
from assay.errors import UserError
from assay.project import Project

_RNG = np.random.default_rng(0)


def fill(folder, count=2, size=8):
    """Put random images into a folder, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        (folder / f"{index}.png").write_bytes(encode_png(_RNG.integers(0, 256, (size, size), dtype=np.uint8)))


def pair(folder, count=2, names=("0_real", "1_fake")):
    for name in names:
        fill(folder / name, count)


def described(samples):
    """Count the samples by (split, class, generator, category)."""
    classes = [samples.class_names[label] for label in samples.labels]
    return Counter(
        zip(samples.splits.tolist(), classes, samples.extra["generator"], samples.extra["category"], strict=True)
    )


def both(split, generator, category, count=2):
    return {(split, "real", "", category): count, (split, "generated", generator, category): count}


def test_the_published_layout(tmp_path):
    pair(tmp_path / "train" / "airplane", 3)
    pair(tmp_path / "train" / "cat", 3)
    pair(tmp_path / "val" / "cat")
    pair(tmp_path / "test" / "progan" / "cat")
    pair(tmp_path / "test" / "biggan")
    assert detect_format(str(tmp_path)) == "cnndetection"
    expected = (
        both("train", "progan", "airplane", 3)
        | both("train", "progan", "cat", 3)
        | both("validation", "progan", "cat")
        | both("test", "progan", "cat")
        | both("test", "biggan", "")
    )
    samples = read(str(tmp_path), "cnndetection", "any", generator="progan")
    assert described(samples) == expected
    assert samples.class_names == ["real", "generated"]
    assert samples.ids[0] == "test/biggan/0_real/0.png"
    assert samples.images[0] == (tmp_path / samples.ids[0]).read_bytes()
    unnamed = described(read_cnndetection(tmp_path))
    assert unnamed[("train", "generated", "unknown", "cat")] == 3
    assert unnamed[("test", "generated", "progan", "cat")] == 2


def test_without_split_folders_the_outer_folder_is_the_generator(tmp_path):
    pair(tmp_path / "progan" / "cat")
    pair(tmp_path / "biggan")
    assert detect_format(str(tmp_path)) == "cnndetection"
    assert described(read_cnndetection(tmp_path)) == both("", "progan", "cat") | both("", "biggan", "")


def test_a_training_folder_named_as_a_tested_generator_is_one(tmp_path):
    pair(tmp_path / "train" / "progan")
    pair(tmp_path / "train" / "cat")
    pair(tmp_path / "test" / "progan")
    assert described(read_cnndetection(tmp_path)) == (
        both("train", "progan", "") | both("train", "unknown", "cat") | both("test", "progan", "")
    )


@pytest.mark.parametrize("names", [("real", "fake"), ("Real", "Generated"), ("0_real", "1_fake")])
@pytest.mark.parametrize("split", ["", "train"])
def test_two_class_folders_are_the_same_task(tmp_path, names, split):
    pair(tmp_path / split, names=names)
    assert detect_format(str(tmp_path)) == "cnndetection"
    assert described(read_cnndetection(tmp_path)) == both(split, "unknown", "")
    assert described(read_cnndetection(tmp_path, "mine")) == both(split, "mine", "")


def test_other_class_folders_stay_an_image_folder(photos):
    fill(photos / "fake")
    assert detect_format(str(photos)) == "folder"
    with pytest.raises(UserError, match="is read as folder and not as cnndetection: leave the generator out"):
        read(str(photos), "folder", "photos", generator="progan")


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda top: fill(top / "progan" / "0_real"), r"has only real images: add generated ones, .* called 1_fake\."),
        (lambda top: fill(top / "fake"), r"has only generated images: add real ones, in folders called 0_real\."),
        (lambda top: (pair(top / "progan"), fill(top / "notes")), r"notes is no generator or category: it needs"),
        (lambda top: pair(top / "progan" / "cat" / "persian"), r"persian is no generator or category"),
        (lambda top: (pair(top / "progan"), (top / "a" / "0_real").mkdir(parents=True)), "0_real has no images"),
        (lambda top: fill(top), "is no generator or category: it needs folders 0_real and 1_fake"),
    ],
)
def test_a_folder_that_does_not_fit_is_named(tmp_path, build, sentence):
    build(tmp_path)
    with pytest.raises(UserError, match=sentence):
        read_cnndetection(tmp_path)


def test_a_missing_folder_and_classes_of_ones_own_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        read_cnndetection(tmp_path / "none")
    pair(tmp_path)
    with pytest.raises(UserError, match="are real and generated: leave them out"):
        read(str(tmp_path), "cnndetection", "any", classes=["a", "b"])


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    pair(tmp_path / "set")
    fill(tmp_path / "elsewhere", 1)
    (tmp_path / "set" / "0_real" / "link.png").symlink_to(tmp_path / "elsewhere" / "0.png")
    with pytest.raises(UserError, match=r"link\.png leads out of"):
        read_cnndetection(tmp_path / "set")


def imported(project, folder, **options):
    table = import_data(Project(project), str(folder), name="set", **options).dataset.table().to_pandas()
    return table.groupby(["split", "label", "generator"]).size().to_dict(), table


def test_unseen_generators_are_in_the_test_split_alone(project, tmp_path):
    for generator in ("one", "two", "three"):
        pair(tmp_path / "set" / generator, 28)
    counts, everything = imported(project, tmp_path / "set")
    assert {generator for split, _, generator in counts if split == "train"} == {"", "one", "two", "three"}
    counts, held = imported(project, tmp_path / "set", unseen=["two", "three"])
    assert {generator for split, _, generator in counts if split != "test"} == {"", "one"}
    assert counts["test", 1, "two"] == counts["test", 1, "three"] == 28
    others = ~everything["generator"].isin(["two", "three"])
    order = held.set_index("sample_id").loc[everything["sample_id"]]
    assert (order["split"].to_numpy() == everything["split"].to_numpy())[others].all()


def test_unseen_generators_leave_no_copy_in_training(project, tmp_path):
    pair(tmp_path / "set" / "one", 28)
    pair(tmp_path / "set" / "two", 28)
    for index in range(28):
        (tmp_path / "set/one/1_fake" / f"copy{index}.png").write_bytes(
            (tmp_path / "set/two/1_fake" / f"{index}.png").read_bytes()
        )
    _, table = imported(project, tmp_path / "set", unseen=["two"])
    copies = table[table["sample_id"].str.contains("copy")]
    assert len(copies) == 28 and set(copies["split"]) == {"test"}


@pytest.mark.parametrize(
    ("unseen", "sentence"),
    [
        (["three"], "unseen generator 'three' is not among the images: there are one, two"),
        (["one", "two"], r"All generators \(one, two\) are unseen"),
    ],
)
def test_wrong_unseen_generators_are_refused(project, tmp_path, unseen, sentence):
    pair(tmp_path / "set" / "one")
    pair(tmp_path / "set" / "two")
    with pytest.raises(UserError, match=sentence):
        imported(project, tmp_path / "set", unseen=unseen)
    assert not (project / "data").exists()


def test_data_without_generators_has_none_to_hold_out(project, photos):
    with pytest.raises(UserError, match="There is no generator to hold out"):
        import_data(Project(project), str(photos), unseen=["progan"])


def save(folder, name, image, **options):
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    image.save(buffer, **options)
    (folder / name).write_bytes(buffer.getvalue())


@pytest.fixture
def mixed(tmp_path):
    """A folder of every mode and several sizes, most of them 16 x 16."""
    noise = _RNG.integers(0, 256, (16, 16), dtype=np.uint8)
    grey = Image.fromarray(noise)
    real, fake = tmp_path / "set" / "gan" / "0_real", tmp_path / "set" / "gan" / "1_fake"
    fill(real, 24, size=16)
    fill(fake, 24, size=16)
    save(real, "rgba.png", grey.convert("RGBA"), format="PNG")
    save(real, "palette.png", grey.convert("RGB").quantize(16), format="PNG")
    save(fake, "sixteen.png", Image.fromarray(noise.astype(np.uint16) * 257), format="PNG")
    save(fake, "palette.gif", grey.convert("P").resize((40, 30)), format="GIF")
    save(fake, "colour.jpg", grey.convert("RGB").resize((5, 9)), format="JPEG")
    save(fake, "constant.png", Image.new("L", (16, 16), 7), format="PNG")
    return tmp_path / "set"


def test_mixed_sizes_and_modes_become_one_shape_and_the_resized_are_counted(project, mixed):
    result = import_data(Project(project), str(mixed))
    assert result.notes == (
        "2 of 54 images are not 16 x 16 and are resized to it (bilinear with anti-aliasing), 1 of them enlarged.",
    )
    info = ImageDataset.open(project / "data" / "set").info
    assert (info.image_size, info.channels, info.class_names) == ((16, 16), 3, ["real", "generated"])
    for split, count in info.splits.items():
        assert result.dataset.split(split).images.shape == (count, 3, 16, 16)


def test_images_smaller_than_the_wanted_size_are_enlarged_and_counted(project, mixed):
    result = import_data(Project(project), str(mixed), size=24)
    assert result.dataset.info.image_size == (24, 24)
    assert result.notes == (
        "54 of 54 images are not 24 x 24 and are resized to it (bilinear with anti-aliasing), 53 of them enlarged.",
    )
