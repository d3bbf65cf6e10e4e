"""The whole study on scikit-learn's digits."""

import json

import pytest

from assay.studies.sctl_run import run_study


@pytest.mark.slow
def test_the_smoke_study_trains_judges_and_is_all_cells_the_second_time(project, monkeypatch):
    folder = run_study(smoke=True)
    record = json.loads((folder / "results.json").read_text())
    assert list(record["conditions"]) == ["balanced", "long tail 10, test balanced", "long tail 10, test alike"]
    for arms in record["conditions"].values():
        by_name = {arm["arm"]: arm for arm in arms}
        same_class = ("ts/cross_entropy", "ts/sctl_nd", "ets/label_smoothing")
        for arm in same_class:
            assert by_name[arm]["by_seed"]["accuracy"] == by_name["uncalibrated"]["by_seed"]["accuracy"]
        assert by_name["oracle"]["metrics"]["ece"] <= by_name["ts/sctl_nd"]["metrics"]["ece"] + 1e-4
    assert "| claim | balanced |" in (folder / "README.md").read_text()

    for name in ("sctl_data._train", "sctl._fit"):
        monkeypatch.setattr(f"assay.studies.{name}", lambda *_: pytest.fail("computed again"))
    again = json.loads((run_study(smoke=True) / "results.json").read_text())
    assert again == record
