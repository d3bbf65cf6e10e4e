"""Reading anybody's file of logits."""

import numpy as np
import pytest

from assay.calibration.logits import load_logits
from assay.errors import UserError

GOOD = {
    "val_logits": np.zeros((3, 2), np.float32),
    "val_labels": np.array([0, 1, 0]),
    "test_logits": np.zeros((2, 2)),
    "test_labels": np.array([0, 1], np.int32),
}


@pytest.mark.parametrize("prefix", ["val", "validation", "calibration"])
def test_every_name_of_the_split_to_fit_on_is_known(tmp_path, prefix: str):
    renamed = {key.replace("val_", f"{prefix}_"): value for key, value in GOOD.items()}
    np.savez(tmp_path / "logits.npz", **renamed)
    file = load_logits(tmp_path / "logits.npz")
    assert file.fit_split == prefix
    assert file.fit_logits.shape == (3, 2)
    assert str(file.fit_logits.dtype) == "torch.float64"


def test_calibration_comes_before_validation(tmp_path):
    both = GOOD | {"calibration_logits": np.ones((1, 2)), "calibration_labels": np.array([1])}
    np.savez(tmp_path / "logits.npz", **both)
    assert len(load_logits(tmp_path / "logits.npz").fit_labels) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"val_logits": None}, "holds none of calibration_logits, validation_logits, val_logits"),
        ({"test_labels": None}, "has no array 'test_labels': it holds"),
        ({"test_logits": np.full((2, 2), np.nan)}, "Row 0 of the test_logits of .* holds nan"),
        ({"val_labels": np.array([0, 1])}, "labels have shape"),
        ({"val_labels": np.array([0, 1, 5])}, "Label 5 in row 2"),
        ({"test_logits": np.zeros((2, 3))}, "2 columns in val_logits and 3 in test_logits"),
        ({"test_logits": np.zeros(2)}, "test_logits of .* have shape"),
        ({"val_logits": np.array([{}], dtype=object)}, "without pickle"),
    ],
)
def test_a_bad_file_ends_in_one_sentence(tmp_path, change: dict, sentence: str):
    path = tmp_path / "logits.npz"
    np.savez(path, **{key: value for key, value in (GOOD | change).items() if value is not None})
    with pytest.raises(UserError, match=sentence) as caught:
        load_logits(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 torn"])
def test_what_is_not_npz_is_refused(tmp_path, content: bytes):
    (tmp_path / "logits.npz").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as"):
        load_logits(tmp_path / "logits.npz")


def test_a_missing_file_and_a_single_array_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot be opened \(No such file.*give the path"):
        load_logits(tmp_path / "absent.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UserError, match="single array"):
        load_logits(tmp_path / "one.npy")
