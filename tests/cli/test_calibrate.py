"""``assay calibrate`` and ``assay study`` as they are typed."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from assay.calibration import Calibrator
from assay.cli import main


@pytest.fixture
def logits(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    arrays = {}
    for split in ("validation", "test"):
        z = generator.normal(size=(400, 3)) * 2
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        arrays[f"{split}_logits"] = z * 3
        arrays[f"{split}_labels"] = (p.cumsum(axis=1) > generator.random((400, 1))).argmax(axis=1)
    np.savez(tmp_path / "logits.npz", **arrays)
    return tmp_path / "logits.npz"


def assay(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["assay", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_the_table_the_report_and_the_calibrator(logits, tmp_path, monkeypatch, capsys):
    config = tmp_path / "settings.yaml"
    config.write_text("loss: focal\ncalibrators: [ts, vs]\nlosses: [focal]\npeers: [histogram]\nreplicates: 50\n")
    report, saved = tmp_path / "page.html", tmp_path / "saved"
    assert assay(monkeypatch, "calibrate", logits, "--report", report, "--config", config, "--save", saved) == 0
    printed = capsys.readouterr().out
    table = [line.split()[0] for line in printed.splitlines() if line.strip()]
    assert table[:6] == ["calibrator", "uncalibrated", "TS", "VS", "histogram", "oracle"]
    assert "Temperature scaling with focal was fitted on 400 rows (validation)" in printed
    assert report.read_text().startswith("<!")
    assert Calibrator.load(saved).temperature.item() > 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"test_logits": None}, "has no array 'test_logits'"),
        ({"validation_labels": np.zeros(7, int)}, "labels have shape [7]"),
        ({"test_logits": np.full((400, 3), np.inf)}, "Row 0 of the test_logits"),
    ],
)
def test_a_bad_file_ends_in_one_sentence_and_exit_code_2(logits, tmp_path, monkeypatch, capsys, change, sentence):
    with np.load(logits) as file:
        arrays = {key: value for key, value in ({**file} | change).items() if value is not None}
    np.savez(logits, **arrays)
    report = tmp_path / "page.html"
    assert assay(monkeypatch, "calibrate", logits, "--report", report) == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error.replace("\n", " ")
    assert not report.exists()


def test_a_bad_setting_and_an_unknown_study_exit_with_2(logits, tmp_path, monkeypatch, capsys):
    config = tmp_path / "settings.yaml"
    for text, sentence in (("los: focal", "calibration.los is not a setting"), ("- 1", "does not hold settings")):
        config.write_text(text)
        assert assay(monkeypatch, "calibrate", logits, "--config", config) == 2
        assert sentence in capsys.readouterr().err.replace("\n", " ")
    assert assay(monkeypatch, "study", "alchemy") == 2
    assert "There is no study 'alchemy'" in capsys.readouterr().err


def test_the_study_judges_a_file_of_logits_and_finds_its_cells_again(logits, project, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("assay.studies.sctl_run.CALIBRATORS", ("ts", "cts"))
    monkeypatch.setattr("assay.studies.sctl_run._REPLICATES", 50)
    for name in ("first", "second"):
        assert assay(monkeypatch, "study", "sctl", "--logits", logits, "--output", tmp_path / name) == 0
    assert "TS: SCTL (ND) lowers the ECE against cross-entropy" in capsys.readouterr().out
    first, second = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("first", "second"))
    assert first["conditions"] == second["conditions"]
    assert first["claims"] == second["claims"]
    assert {claim["verdict"] for claim in first["claims"]} <= {"holds", "refuted", "undecided"}
    assert (tmp_path / "second" / "sctl.png").stat().st_size > 10_000
