"""The whole forensics study on scikit-learn's digits."""

import json
import sys

import pytest

from assay.cli import main
from assay.studies import forensics_run
from assay.studies.forensics_run import run_study


@pytest.mark.slow
def test_the_smoke_study_judges_its_claims_and_is_all_cells_the_second_time(project, monkeypatch):
    folder = run_study(smoke=True, processes=1)
    record = json.loads((folder / "forensics.json").read_text())
    assert [arm["key"] for arm in record["arms"]] == list(forensics_run.SMOKE_ARMS)
    assert {claim["verdict"] for claim in record["claims"]} <= {"holds", "refuted", "undecided"}
    for arm in record["arms"]:
        estimates = arm["estimates"]
        assert estimates["unseen_ap"]["value"] == estimates["ap/nearest"]["value"]
        assert all(0 <= one["low"] <= one["value"] <= one["high"] <= 1 for one in estimates.values())
        assert ("colour_ap" in estimates) == ("category_ap" in estimates) == arm["shifted"]
    page = (folder / "README.md").read_text()
    assert "Command: `assay study forensics --smoke`" in page
    for figure in ("unseen-ap.png", "generators.png", "shifts.png"):
        assert f"]({figure})" in page
        assert (folder / figure).stat().st_size > 10_000

    for name in ("forensics_data._draw", "forensics_data.Bench._generate", "forensics_grid._fit"):
        monkeypatch.setattr(f"assay.studies.{name}", lambda *_: pytest.fail("computed again"))
    again = json.loads((run_study(smoke=True, processes=1) / "forensics.json").read_text())
    assert again == record


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sctl", "--arms", "rgb"], "The study sctl has no --arms"),
        (["forensics", "--logits", "x.npz"], "The study forensics has no --logits"),
        (["forensics", "--smoke", "--arms", "rgb, magic"], "There is no arm 'magic'"),
    ],
)
def test_an_option_of_another_study_or_an_unknown_arm_exits_with_2(project, monkeypatch, capsys, words, sentence):
    monkeypatch.setattr(sys, "argv", ["assay", "study", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
