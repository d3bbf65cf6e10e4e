import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.data import ImageDataset, validate, write_dataset
from assay.data.codec import encode_png
from assay.data.suite import CHECKS
from assay.errors import UserError


@pytest.fixture
def check(tmp_path):
    """Write a data set, validate it, and return (metrics, page); a critical failure is raised."""

    def run(config=None, **changes):
        dataset = write(tmp_path / "set", **changes)
        return run_on(dataset.path, tmp_path, config)

    return run


def write(path, **changes):
    images = np.random.default_rng(0).integers(0, 256, (80, 12, 12), np.uint8)
    base = {
        "images": [encode_png(image) for image in images],
        "labels": np.arange(80) // 8 % 2,
        "splits": np.array(["train", "train", "train", "train", "validation", "calibration", "test", "test"] * 10),
        "class_names": ["cat", "dog"],
        "name": "pets",
        "sample_ids": [f"{k:02d}.png" for k in range(80)],
        "image_size": (12, 12),
        "channels": 1,
    }
    return write_dataset(path, **(base | changes))


def run_on(path, tmp_path, config=None):
    report, metrics = tmp_path / "report.html", tmp_path / "metrics.json"
    returned = validate(path, config or {}, report=report, metrics=metrics)
    assert returned == json.loads(metrics.read_text())
    return returned, report.read_text()


def edit(dataset: ImageDataset, split: str, change) -> None:
    """Change the rows of one split's shard behind the writer's back, as another tool would."""
    (shard,) = dataset.shards(split)
    table = pq.read_table(shard)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), shard)


def test_good_data_meets_every_check(check):
    numbers, page = check()
    assert numbers["critical_failures"] == numbers["warning_failures"] == 0
    assert numbers["checks"] == len(CHECKS) - 1  # no identities here
    assert not [key for key in numbers if key.startswith("missed_")]
    assert "Data validation: pets" in page


def test_the_data_docs_need_no_network_and_run_no_script(check):
    _, page = check()
    assert not re.search(r"https?://|<script|<link rel=.stylesheet|<iframe|@import", page)
    assert set(re.findall(r'(?:src|href)="([^"]*)"', page)) == {"data:,"}
    assert "values must be unique" in page  # Great Expectations' own words


def test_names_in_the_data_docs_are_escaped(tmp_path):
    dataset = write(tmp_path / "set", sample_ids=["<script>alert(1)</script>", *[f"{k}" for k in range(79)]])
    edit(dataset, "train", lambda rows: rows[0]["image"].update(bytes=b"text"))
    with pytest.raises(UserError):
        run_on(dataset.path, tmp_path)
    assert "<script" not in (tmp_path / "report.html").read_text()


def test_the_same_image_in_train_and_test_stops_with_both_names(check, tmp_path):
    images = [encode_png(image) for image in np.random.default_rng(0).integers(0, 256, (80, 12, 12), np.uint8)]
    images[6] = images[0]
    with pytest.raises(
        UserError, match=r"images with an exact copy in another split: '06.png' and '00.png', '00.png' and '06.png'"
    ):
        check(images=images)
    assert "missed" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "metrics.json").read_text())["missed_no_copies"] == 2


def test_a_near_duplicate_is_a_warning_with_its_count(check):
    images = np.random.default_rng(0).integers(0, 250, (80, 12, 12), np.uint8)
    images[6] = images[0] + 1
    numbers, page = check(images=[encode_png(image) for image in images])
    assert (numbers["missed_no_near_copies"], numbers["warning_failures"], numbers["critical_failures"]) == (2, 1, 0)
    assert "&#39;00.png&#39; and &#39;06.png&#39;" in page


def test_a_check_can_be_made_critical(check):
    images = np.random.default_rng(0).integers(0, 250, (80, 12, 12), np.uint8)
    images[6] = images[0] + 1
    with pytest.raises(UserError, match="near-duplicate"):
        check({"severities": {"no_near_copies": "critical"}}, images=[encode_png(image) for image in images])


def test_an_identity_in_two_splits_stops(check):
    people = [f"p{k}" for k in range(80)]
    people[6] = people[0]
    with pytest.raises(UserError, match=r"identities in more than one split: '06\.png' and '00\.png'"):
        check(extra={"person_id": people})


BROKEN = {
    "a truncated PNG": (
        lambda rows: rows[1]["image"].update(bytes=encode_png(np.ones((60, 60), np.uint8))[:-30]),
        r"images that cannot be decoded: '01.png' \(is truncated or damaged",
    ),
    "a text file": (
        lambda rows: rows[1]["image"].update(bytes=b"hello there"),
        r"'01.png' \(is not an image \(it begins with b'hello there'\)\)",
    ),
    "no bytes": (lambda rows: rows[1]["image"].update(bytes=None), r"'01.png' \(is empty\)"),
    "a label out of range": (lambda rows: rows[1].update(label=2), r"labels that no class has: '01.png' \(2\)"),
    "a missing label": (lambda rows: rows[1].update(label=None), r"labels that no class has: '01.png' \(-1\)"),
    "an unknown split": (lambda rows: rows[1].update(split="dev"), r"splits that are not known: '01.png' \(dev\)"),
    "a repeated id": (lambda rows: rows[1].update(sample_id="00.png"), r"occur more than once: '00.png', '00.png'"),
    "an image too small": (
        lambda rows: rows[1]["image"].update(bytes=encode_png(np.ones((3, 9), np.uint8))),
        r"images that are too small: '01.png'",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_critical_damage_is_one_sentence_that_names_the_row(tmp_path, case):
    change, sentence = BROKEN[case]
    dataset = write(tmp_path / "set")
    edit(dataset, "train", change)
    with pytest.raises(UserError, match=sentence) as error:
        run_on(dataset.path, tmp_path)
    assert "\n" not in str(error.value)
    assert (tmp_path / "report.html").is_file()


def test_many_failures_name_three_and_count_all(tmp_path):
    dataset = write(tmp_path / "set")
    edit(dataset, "train", lambda rows: [row["image"].update(bytes=b"") for row in rows])
    with pytest.raises(UserError, match=r"'00.png' \(is empty\), '01.png' \(is empty\), '02.png' \(is empty\) \(40 in"):
        run_on(dataset.path, tmp_path)


def test_an_empty_split_stops_unless_it_is_not_needed(check):
    splits = np.array(["train", "train", "validation", "test"] * 20)
    with pytest.raises(UserError, match="splits without samples: 'calibration'"):
        check(splits=splits)
    numbers, _ = check({"splits": ["train", "validation", "test"]}, splits=splits)
    assert numbers["critical_failures"] == 0


def test_warnings_name_what_they_are_about(check):
    images = [encode_png(image) for image in np.random.default_rng(0).integers(0, 256, (80, 12, 12), np.uint8)]
    images[3] = encode_png(np.zeros((12, 12), np.uint8))
    images[4] = encode_png(np.full((14, 12), 90, np.uint8))
    numbers, page = check({"modes": ["RGB"], "class_share": [0.2, 0.8]}, images=images, labels=[0] * 79 + [1])
    assert numbers["missed_brightness"] == 1
    assert numbers["missed_same_size_images"] == 1
    assert numbers["missed_expected_modes"] == 80
    assert numbers["missed_classes_in_train"] == 1
    assert "&#39;dog&#39; with 5.00% of test" in page
    assert numbers["critical_failures"] == 0


def test_a_missing_column_and_an_unknown_setting_are_one_sentence(tmp_path):
    dataset = write(tmp_path / "set")
    with pytest.raises(UserError, match=r"validation\.brightnes is not a setting"):
        run_on(dataset.path, tmp_path, {"brightnes": [0, 1]})
    with pytest.raises(UserError, match=r"validation\.severities\.bright is not a check"):
        run_on(dataset.path, tmp_path, {"severities": {"bright": "warning"}})
    (shard,) = dataset.shards("test")
    pq.write_table(pq.read_table(shard).drop_columns(["split"]), shard)
    with pytest.raises(UserError, match="has no column 'split'"):
        run_on(dataset.path, tmp_path)
