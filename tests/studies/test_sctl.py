"""The SCTL study: its data, its arms, its verdicts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.calibration import TemperatureScaling
from assay.calibration.logits import LogitsFile
from assay.calibration.table import softmax
from assay.errors import UserError
from assay.evaluation import Estimate, compare_predictions
from assay.studies.cells import Cells
from assay.studies.claims import Claim
from assay.studies.sctl import Condition, arms, claims, decide, run_arm
from assay.studies.sctl_data import class_sizes, draw_rows


@given(st.integers(100, 20_000), st.integers(2, 20), st.sampled_from([1, 10, 100]))
def test_class_sizes_have_the_total_and_the_imbalance(total: int, classes: int, imbalance: int):
    sizes = class_sizes(total, classes, imbalance)
    assert sizes == sorted(sizes, reverse=True)
    assert abs(sum(sizes) - total) <= classes
    if sizes[-1] > 50:
        assert sizes[0] / sizes[-1] == pytest.approx(imbalance, rel=0.02)


def test_drawn_rows_are_disjoint_have_their_sizes_and_depend_on_the_seed():
    labels = np.random.default_rng(0).integers(3, size=900)
    first, second = draw_rows(labels, [[100, 50, 10], [20, 20, 20]], seed=1)
    assert np.bincount(labels[first]).tolist() == [100, 50, 10]
    assert np.bincount(labels[second]).tolist() == [20, 20, 20]
    assert not set(first) & set(second)
    assert not np.array_equal(first, draw_rows(labels, [[100, 50, 10]], seed=2)[0])
    with pytest.raises(UserError, match=r"Class 2 has .* and the study needs 900"):
        draw_rows(labels, [[1, 1, 900]], seed=0)


@pytest.mark.parametrize(
    ("low", "high", "lower_is_better", "higher_is_better"),
    [(-0.2, -0.1, "holds", "refuted"), (0.1, 0.2, "refuted", "holds"), (-0.1, 0.1, "undecided", "undecided")],
)
def test_a_verdict_needs_an_interval_without_zero(low, high, lower_is_better, higher_is_better):
    difference = Estimate((low + high) / 2, low, high, 0.95)
    assert Claim("", "a", "b", "ece").verdict(difference) == lower_is_better
    assert Claim("", "a", "b", "accuracy").verdict(difference) == higher_is_better


@pytest.fixture(scope="module")
def condition() -> Condition:
    """Two seeds of overconfident logits, whose test labels are the same."""
    generator = np.random.default_rng(0)
    true = generator.normal(size=(300, 4)) * 2
    p = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    labels = torch.from_numpy((p.cumsum(axis=1) > generator.random((300, 1))).argmax(axis=1))
    files = []
    for _ in range(2):
        logits = torch.from_numpy(true * 3 + generator.normal(size=true.shape) * 0.3)
        files.append(LogitsFile(logits, labels, logits, labels, "held-out"))
    return Condition("synthetic", files, [{"seed": 0}, {"seed": 1}])


def test_every_claim_compares_two_arms_that_are_run():
    assert {key for claim in claims() for key in (claim.arm, claim.against)} <= set(arms())


def test_an_arm_from_the_cells_equals_the_arm_that_was_fitted(tmp_path, condition, monkeypatch):
    fitted = run_arm(Cells(tmp_path), condition, "cts/sctl_nd", 50)
    monkeypatch.setattr("assay.studies.sctl._fit", lambda *_: pytest.fail("fitted again"))
    again = run_arm(Cells(tmp_path), condition, "cts/sctl_nd", 50)
    assert again.metrics == fitted.metrics
    assert again.estimates == fitted.estimates
    assert again.strengths == fitted.strengths
    assert len(again.strengths) == 2
    assert again.converged == fitted.converged


def test_the_difference_of_a_claim_is_that_of_the_predictions(tmp_path, condition):
    cells = Cells(tmp_path)
    told = [Claim("TS lowers the ECE", "ts/cross_entropy", "uncalibrated")]
    results = [run_arm(cells, condition, key, 300) for key in ("uncalibrated", "ts/cross_entropy")]
    (judgement,) = decide(told, condition.name, results)
    assert judgement.verdict == "holds"
    by_seed = []
    for file in condition.files:
        after = softmax(TemperatureScaling().fit(file.fit_logits, file.fit_labels).transform(file.test_logits))
        before = softmax(file.test_logits)
        by_seed.append(compare_predictions(before, after, file.test_labels.numpy())["ece"].value)
    assert judgement.difference.value == pytest.approx(np.mean(by_seed))
