"""Cells are computed once, whatever happens around them."""

import numpy as np
import pytest

from assay.errors import UserError
from assay.studies.cells import Cells


def test_a_cell_is_computed_once_for_its_settings(tmp_path):
    calls = []
    cells = Cells(tmp_path)
    for seed in (0, 1, 0):
        result = cells.result({"seed": seed, "arm": "ts"}, lambda seed=seed: calls.append(seed) or {"ece": seed})
        assert result == {"ece": seed}
    assert calls == [0, 1]
    assert cells.has({"arm": "ts", "seed": 1})
    assert not cells.has({"arm": "ts", "seed": 2})


def test_arrays_come_back_as_they_were(tmp_path):
    made = {"logits": np.arange(6.0).reshape(2, 3), "names": np.array(["a", "b"])}
    for _ in range(2):
        found = Cells(tmp_path).arrays({"seed": 0}, lambda: made)
        assert {key: value.tolist() for key, value in found.items()} == {k: v.tolist() for k, v in made.items()}


def test_a_cell_that_fails_leaves_nothing_and_a_damaged_one_is_named(tmp_path):
    cells = Cells(tmp_path)
    with pytest.raises(ZeroDivisionError):
        cells.result({"a": 1}, lambda: {"x": 1 / 0})
    assert list(tmp_path.iterdir()) == []
    cells.result({"a": 1}, lambda: {"x": 1})
    (file,) = tmp_path.iterdir()
    file.write_text("{")
    with pytest.raises(UserError, match=f"{file.name} is damaged"):
        cells.result({"a": 1}, lambda: {"x": 1})
