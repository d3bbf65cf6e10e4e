"""A claim is judged in the direction that its metric declares."""

import pytest

from assay.evaluation import Estimate
from assay.studies.claims import Claim


@pytest.mark.parametrize(("metric", "rise"), [("auc", "holds"), ("average_precision", "holds"), ("ece", "refuted")])
def test_a_rise_is_good_or_bad_by_the_metric(metric, rise):
    claim = Claim("one beats the other", "one", "other", metric)
    assert claim.verdict(Estimate(0.02, 0.01, 0.03, 0.95)) == rise
    assert claim.verdict(Estimate(-0.02, -0.03, -0.01, 0.95)) == {"holds": "refuted", "refuted": "holds"}[rise]
    assert claim.verdict(Estimate(0.0, -0.01, 0.01, 0.95)) == "undecided"
