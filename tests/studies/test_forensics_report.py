"""What the forensics study writes about its arms."""

import json

import numpy as np
import pytest

from assay.evaluation import Replicates
from assay.forensics.zoo import GENERATORS
from assay.studies.forensics import METRICS, SIMULATED, UPSAMPLERS, ArmResult, choose_arms, decide
from assay.studies.forensics_report import write_study

SHIFTS = ("category_ap/2", "category_accuracy/2", "shift_ap/PNG", "shift_accuracy/PNG", "colour_ap", "category_ap")
DESIGN = {
    "command": "assay study forensics",
    "data": "digits",
    "codec": "png",
    "train": 4000,
    "test": 1000,
    "generator_seeds": 3,
    "detector_seeds": 2,
    "attempts": {"vae": [1, 2, 1]},
    "detector": {"epochs": 3},
}


def result_of(key: str, level: float) -> ArmResult:
    """An arm whose AP rises from generator to generator."""
    (arm,) = choose_arms([key])
    values = dict.fromkeys([*METRICS, *(SHIFTS if arm.shifted else ())], level)
    values |= {f"ap/{name}": level + 0.01 * place for place, name in enumerate(GENERATORS)}
    spread = np.linspace(-0.01, 0.01, 50)
    replicates = {name: Replicates(np.full(3, value), value + np.stack([spread] * 3)) for name, value in values.items()}
    return ArmResult(arm, replicates, 2.0)


@pytest.fixture
def page(tmp_path) -> dict[str, str]:
    results = [result_of("rgb", 0.6), result_of("frepgan", 0.7), result_of("fingerprint", 0.55)]
    judgements = list(decide(results))
    write_study(tmp_path / "study", DESIGN, results, judgements)
    assert {path.suffix for path in (tmp_path / "study").iterdir()} == {".md", ".json", ".png"}
    return {path.name: path.read_text() for path in (tmp_path / "study").iterdir() if path.suffix != ".png"}


def cells(page: str, first: str) -> list[str]:
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_says_what_was_run_what_holds_and_what_collapsed(page):
    text = page["README.md"]
    assert "Command: `assay study forensics`" in text
    assert "trainings by seed: vae: 1, 2, 1." in text
    assert cells(text, "FrePGAN has a higher unseen AP than RGB")[1:] == ["holds", "10.0 [10.0, 10.0]"]
    assert cells(text, "FrePGAN")[1].startswith("70.0 [")
    assert cells(text, "PNG")[1:] == ["60.0 / 60.0", "70.0 / 70.0", "55.0 / 55.0"]


def test_a_fingerprint_is_told_apart_from_an_up_sampler_that_its_simulator_shares(page):
    shared = [bool(set(UPSAMPLERS[name]) & set(SIMULATED["fingerprint"])) for name in GENERATORS]
    values = 55 + np.arange(len(GENERATORS))
    assert cells(page["README.md"], "mean where shared")[1] == f"{values[shared].mean():.1f}"
    assert cells(page["README.md"], "mean where not shared")[1] == f"{values[np.logical_not(shared)].mean():.1f}"


def test_the_record_holds_every_number_of_every_seed(page):
    record = json.loads(page["forensics.json"])
    assert record["design"] == DESIGN
    arm = record["arms"][1]
    assert (arm["key"], arm["method"], arm["group"]) == ("frepgan", "frepgan", "FrePGAN")
    assert arm["by_generator_seed"]["unseen_ap"] == [0.7, 0.7, 0.7]
    verdicts = {claim["text"]: claim["verdict"] for claim in record["claims"]}
    assert verdicts["The union of depths has a higher unseen AP than RGB trained on generated images"] == "refuted"
