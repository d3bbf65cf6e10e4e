import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import UserError
from assay.forensics.decision import Decision

scores_of_a_class = st.lists(st.floats(0, 1, width=16), min_size=1, max_size=30)


def choose(real, generated, confidence=0.95):
    return Decision.choose([*real, *generated], [0] * len(real) + [1] * len(generated), confidence)


@settings(max_examples=150, deadline=None)
@given(scores_of_a_class, scores_of_a_class)
def test_no_threshold_is_better_than_the_chosen_one(real, generated):
    real, generated = np.array(real), np.array(generated)

    def balanced_accuracy(threshold):
        return ((generated >= threshold).mean() + (real < threshold).mean()) / 2

    chosen = balanced_accuracy(choose(real, generated).threshold)
    for other in np.concatenate([real, generated, np.nextafter(real, 2), np.nextafter(generated, 2)]):
        assert chosen >= balanced_accuracy(other) - 1e-12


@settings(max_examples=150, deadline=None)
@given(scores_of_a_class, scores_of_a_class, st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_at_most_the_corrected_share_of_either_class_gets_the_other_verdict(real, generated, confidence):
    decision = choose(real, generated, confidence)
    for scores, other in ((real, "generated"), (generated, "real")):
        wrong = sum(decision.verdict(score) == other for score in scores)
        assert wrong <= (len(scores) + 1) * (1 - confidence) + 1e-6


@settings(max_examples=100, deadline=None)
@given(scores_of_a_class, scores_of_a_class)
def test_the_two_classes_are_treated_alike(real, generated):
    decision = choose(real, generated, 0.8)
    mirrored = choose([1 - score for score in generated], [1 - score for score in real], 0.8)
    assert decision.lower == pytest.approx(1 - mirrored.upper, abs=1e-12)
    assert decision.upper == pytest.approx(1 - mirrored.lower, abs=1e-12)


@pytest.mark.parametrize("size", [19, 20, 50])
@pytest.mark.parametrize("separation", [0.0, 1.0, 4.0])
def test_new_images_get_the_wrong_verdict_no_more_often_than_promised(size, separation):
    rng = np.random.default_rng(size)

    def draw(shift, *shape):
        return 1 / (1 + np.exp(-rng.normal(shift, 1, shape)))

    wrong = np.zeros(2)
    for _ in range(400):
        decision = choose(draw(-separation / 2, size), draw(separation / 2, size))
        new_real, new_generated = draw(-separation / 2, 50), draw(separation / 2, 50)
        wrong += (new_real >= decision.upper).mean(), (new_generated <= decision.lower).mean()
    assert (wrong / 400 < 0.05 + 4 * 0.05 / np.sqrt(400)).all()


def test_separated_classes_leave_the_gap_between_them_unsure():
    real, generated = np.linspace(0.0, 0.1, 200), np.linspace(0.8, 1.0, 200)
    decision = choose(real, generated)
    assert decision.threshold == pytest.approx(0.45)
    # The 191st of 200: ceil(201 * 0.95), counted from the far end of each class.
    assert decision.lower == pytest.approx(np.sort(real)[190])
    assert decision.upper == pytest.approx(np.sort(generated)[9])
    assert [decision.verdict(p) for p in (real[190], 0.45, generated[9])] == ["real", "unsure", "generated"]


def test_saturated_scores_keep_their_verdicts():
    decision = choose([0.0] * 30, [1.0] * 30)
    assert [decision.verdict(p) for p in (0.0, 0.5, 1.0)] == ["real", "unsure", "generated"]
    assert decision.threshold == 0.5


def test_a_detector_that_says_the_same_of_everything_is_unsure_of_everything():
    decision = choose([0.3] * 40, [0.3] * 40)
    assert decision.verdict(0.3) == "unsure"
    assert decision.lower == pytest.approx(0.3) and decision.upper == pytest.approx(0.3)


def test_too_few_images_promise_nothing():
    assert {choose([0.1] * 18, [0.9] * 18).verdict(p) for p in (0.0, 0.5, 1.0)} == {"unsure"}
    few_real = choose([0.1] * 18, [0.9] * 19)
    assert few_real.verdict(0.0) == "real" and few_real.verdict(1.0) == "unsure"
    assert choose([0.1], [0.9]).threshold == 0.5


def test_of_equally_good_thresholds_the_one_in_the_widest_gap_is_chosen():
    # In both lists two thresholds err on one image of the four.
    assert choose([0.1, 0.6], [0.2, 0.9]).threshold == pytest.approx(0.75)
    assert choose([0.1, 0.3], [0.2, 0.9]).threshold == pytest.approx(0.6)


def test_it_survives_json():
    decision = choose([0.0] * 5, [1.0] * 30)
    assert Decision(**json.loads(json.dumps(decision.as_dict()))) == decision


@pytest.mark.parametrize(
    ("scores", "labels", "sentence"),
    [
        ([0.1, math.nan], [0, 1], r"Score 1 is nan \(and 0 more are like it\)"),
        ([0.1, 1.5], [0, 1], r"Score 1 is 1\.5"),
        ([0.1, 0.2], [0, 0], "There is no generated image"),
        ([0.1, 0.2], [1, 1], "There is no real image"),
        ([], [], "There is no real image"),
        ([0.1, 0.2], [0, 2], "values other than 0"),
        ([0.1, 0.2], [0], "give one label a score"),
    ],
)
def test_scores_that_cannot_be_used_are_refused(scores, labels, sentence):
    with pytest.raises(UserError, match=sentence):
        Decision.choose(scores, labels)


def test_a_decision_that_is_none_is_refused():
    for numbers in ((0.5, 0.7, 0.3, 0.95), (0.5, math.nan, 0.7, 0.95), (math.inf, 0.2, 0.3, 0.95)):
        with pytest.raises(UserError, match="is no decision"):
            Decision(*numbers)
    for confidence in (0, 1, 95):
        with pytest.raises(UserError, match="between 0 and 1"):
            Decision(0.5, 0.3, 0.7, confidence)
    with pytest.raises(UserError, match="NaN"):
        Decision(0.5, 0.3, 0.7, 0.95).verdict(math.nan)
