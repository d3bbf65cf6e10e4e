import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from assay.data.idx import find_idx, read_idx, write_idx
from assay.errors import UserError


@settings(max_examples=25, deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, max_side=6)), st.booleans())
def test_reading_returns_what_was_written(tmp_path_factory, values, packed):
    file = tmp_path_factory.mktemp("idx") / "x-ubyte"
    write_idx(file, values)
    if packed:
        file.with_suffix(".gz").write_bytes(gzip.compress(file.read_bytes()))
        file = file.with_suffix(".gz")
    assert np.array_equal(read_idx(file), values)


def test_the_header_is_that_of_mnist(tmp_path):
    write_idx(tmp_path / "x", np.zeros((2, 28, 28), np.uint8))
    assert (tmp_path / "x").read_bytes()[:16].hex() == "0000080300000002" + "0000001c" * 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"hello world", "is not an IDX file"),
        (b"\0\0\x08", "is not an IDX file"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "is not an IDX file of unsigned bytes"),
        (b"\0\0\x08\x01\0\0\0\x05abc", "holds 3 values but its header states 5"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, content, sentence):
    (tmp_path / "train-labels").write_bytes(content)
    with pytest.raises(UserError, match=f"train-labels.*{sentence}"):
        read_idx(tmp_path / "train-labels")


def test_a_broken_gzip_is_refused(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x01a")[:-4])
    with pytest.raises(UserError, match="cannot be read"):
        read_idx(tmp_path / "x.gz")


def test_images_without_labels_are_refused(tmp_path):
    write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(UserError, match="has no labels: expected t10k-labels-idx1-ubyte"):
        find_idx(tmp_path)
