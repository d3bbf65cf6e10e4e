import pyarrow as pa
import pytest

from assay.evaluation.slices import column_slices


@pytest.mark.parametrize("empty", ["", None])
def test_rows_without_a_value_have_a_slice_with_a_name(empty):
    table = pa.table({"generator": ["dcgan", empty, "vae"], "category": [empty, "cat", "cat"]})
    assert {name: mask.tolist() for name, mask in column_slices(table, 12).items()} == {
        "generator = dcgan": [True, False, False],
        "generator = real": [False, True, False],
        "generator = vae": [False, False, True],
        "category = cat": [False, True, True],
        "category = none": [True, False, False],
    }


def test_a_column_that_is_empty_everywhere_makes_no_slice():
    assert column_slices(pa.table({"category": ["", "", ""]}), 12) == {}
