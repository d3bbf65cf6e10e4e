"""The table of calibrators by losses."""

import numpy as np
import pytest

from assay.calibration.logits import load_logits
from assay.calibration.table import Judge, compare_calibrators, oracle_temperature
from assay.evaluation import METRICS


def test_every_combination_has_a_row_and_temperature_scaling_beats_nothing(logits_file):
    judge = Judge(load_logits(logits_file), replicates=50)
    rows = compare_calibrators(judge, ["ts", "cts"], ["cross_entropy", "sctl_nd"], ["isotonic"])
    assert [(row.calibrator, row.loss) for row in rows] == [
        ("uncalibrated", ""),
        ("ts", "cross_entropy"),
        ("ts", "sctl_nd"),
        ("cts", "cross_entropy"),
        ("cts", "sctl_nd"),
        ("isotonic", ""),
        ("oracle", ""),
    ]
    labels = judge.file.test_labels.numpy()
    for row in rows:
        assert row.metrics == {name: metric(row.probabilities, labels) for name, metric in METRICS.items()}
        assert row.ece.value == pytest.approx(row.metrics["ece"])
    assert all(row.metrics["nll"] < rows[0].metrics["nll"] for row in rows[1:5])
    assert [row.converged for row in rows[:4]] == ["–", "yes", "yes", "yes"]


def test_no_temperature_beats_the_oracle_on_its_own_sample(logits_file):
    judge = Judge(load_logits(logits_file), replicates=10)
    floor = judge.oracle().metrics["ece"]
    for loss in ("cross_entropy", "sctl_nd", "focal", "label_smoothing"):
        assert floor <= judge.calibrator("ts", loss).metrics["ece"] + 1e-4
    assert 1.5 < oracle_temperature(judge.file.test_logits, judge.file.test_labels) < 4


def test_nothing_depends_on_anything_but_the_seed(logits_file):
    rows = [Judge(load_logits(logits_file), replicates=50, seed=3).calibrator("ts", "sctl_nd") for _ in range(2)]
    assert rows[0].ece == rows[1].ece
    assert np.array_equal(rows[0].probabilities, rows[1].probabilities)
