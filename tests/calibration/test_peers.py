"""Non-parametric peers, against netcal and by their defining property."""

import numpy as np
import pytest
import torch
from netcal.binning import IsotonicRegression

from assay.calibration.peers import PEERS, histogram_map, isotonic_map
from assay.calibration.table import softmax
from assay.errors import UserError


def test_isotonic_scores_equal_netcal(sample):
    logits, labels = sample(500, classes=2)
    scores = softmax(torch.from_numpy(logits))[:, 1]
    theirs = IsotonicRegression()
    theirs.fit(scores, labels)
    assert isotonic_map(scores, labels.astype(float))(scores) == pytest.approx(theirs.transform(scores), abs=1e-6)


def test_histogram_bins_hold_equally_many_scores_and_are_calibrated_on_their_own_sample():
    generator = np.random.default_rng(0)
    scores = generator.random(1500)
    hits = (generator.random(1500) < scores**2).astype(float)
    found = histogram_map(scores, hits)(scores)
    order = np.argsort(scores)
    for group in np.array_split(order, 15):
        assert found[group][1:-1] == pytest.approx(hits[group].mean(), abs=0.011)


@pytest.mark.parametrize("name", PEERS)
def test_probabilities_sum_to_one_also_where_every_class_got_zero(sample, name: str):
    logits, labels = sample(300, classes=4)
    keep = labels != 3
    fitted = PEERS[name]().fit(logits[keep], labels[keep])
    far = np.array([[-50.0, -50.0, -50.0, 50.0]])
    p = fitted.probabilities(np.concatenate([logits, far]))
    assert p.sum(axis=1) == pytest.approx(np.ones(301))
    with pytest.raises(UserError, match="fitted on 4 columns, not 2"):
        fitted.probabilities(np.zeros((1, 2)))
