import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import UserError
from assay.registry import GatePolicy
from assay.registry.judgement import Evidence, class_accuracy, judge

CLASSES = ["cat", "dog", "eel"]


def predictions(accuracy: float, n: int = 600, confidence: float = 0.9, seed: int = 0):
    """Probabilities of a model that is right on a share of the rows, and always as sure."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    predicted = np.where(generator.permutation(n) < round(accuracy * n), labels, (labels + 1) % 3)
    spread = (1 - confidence) / 2
    return np.eye(3)[predicted] * (confidence - spread) + spread, labels


def verdict(challenger, champion, labels, policy=None, obstacle="", **evidence):
    return judge(
        Evidence(labels, challenger, champion, CLASSES, **evidence),
        GatePolicy.parse(policy or {}, "policy"),
        obstacle,
    )


@settings(max_examples=8, deadline=None)
@given(accuracy=st.floats(0.4, 1.0), seed=st.integers(0, 99))
def test_a_model_never_replaces_its_equal(accuracy, seed):
    same, labels = predictions(accuracy, seed=seed)
    for primary in ("accuracy", "ece", "nll"):
        told = verdict(same, same, labels, {"primary": primary})
        assert (told.decision, told.changes[primary].value) == ("keep", 0.0)


@settings(max_examples=8, deadline=None)
@given(better=st.floats(0.75, 0.95), worse=st.floats(0.4, 0.6))
def test_a_clear_improvement_passes_and_its_mirror_does_not(better, worse):
    good, labels = predictions(better, seed=1)
    bad, _ = predictions(worse, seed=2)
    assert verdict(good, bad, labels).decision == "promote"
    assert verdict(bad, good, labels).decision == "keep"


def test_the_direction_comes_from_the_metric():
    """At 90 % confidence and accuracy the ECE is near 0; at 60 % accuracy it is near 0.3: lower is better."""
    calibrated, labels = predictions(0.9, confidence=0.9)
    overconfident, _ = predictions(0.9, confidence=0.999)
    told = verdict(calibrated, overconfident, labels, {"primary": "ece"})
    assert told.changes["ece"].high < 0 and told.decision == "promote"
    assert verdict(overconfident, calibrated, labels, {"primary": "ece"}).decision == "keep"


def test_a_negative_margin_asks_only_for_no_loss():
    a, labels = predictions(0.90, n=3000, seed=1)
    b, _ = predictions(0.895, n=3000, seed=2)
    assert verdict(b, a, labels).decision == "keep"
    told = verdict(b, a, labels, {"margin": -0.05})
    assert told.decision == "promote"
    assert told.reasons[0].endswith("no loss beyond the margin of 0.05.")
    assert verdict(b, a, labels, {"margin": -0.001}).decision == "keep"


def test_the_margin_is_of_the_lower_end_of_the_interval():
    a, labels = predictions(0.5, n=3000, seed=1)
    b, _ = predictions(0.6, n=3000, seed=2)
    low = verdict(b, a, labels).changes["accuracy"].low
    assert verdict(b, a, labels, {"margin": low - 1e-9}).decision == "promote"
    assert verdict(b, a, labels, {"margin": low}).decision == "keep"


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"metrics": {"accuracy": {"limit": 0.95}}}, "Accuracy is 0.9000, but must be at least 0.95."),
        ({"metrics": {"ece": {"limit": 0.01}}}, "ECE is 0.0990, but must be at most 0.01."),
        (
            {"metrics": {"ece": {"slack": 0.01}}},
            "ECE is 0.0990 worse than the champion's, but may be at most 0.01 worse.",
        ),
        ({"worst_class_accuracy": 0.95}, "Accuracy of the worst class, "),
        (
            {"slices": {"light = dark": 0.95}},
            "Accuracy of the slice light = dark is 0.0000, but must be at least 0.95.",
        ),
        ({"slices": {"*": 0.5}}, "Accuracy of the slice light = dark is 0.0000, but must be at least 0.5."),
        (
            {"slices": {"camera = 2": 0.5}},
            "The test split has no slice 'camera = 2', which the policy guards.",
        ),
        ({"size_mb": 2}, "Size in MB is 3.0000, but must be at most 2."),
        ({"latency_ms": 4}, "Latency in ms per image is 5.0000, but must be at most 4."),
    ],
)
def test_one_broken_guard_keeps_the_champion(policy, reason):
    challenger, labels = predictions(0.9, confidence=0.999)
    champion, _ = predictions(0.4, confidence=0.4 + 1e-9)
    wrong = challenger.argmax(1) != labels
    evidence = {"slices": {"light = dark": wrong}, "size_mb": 3.0, "latency_ms": 5.0}
    assert verdict(challenger, champion, labels, **evidence).decision == "promote"
    told = verdict(challenger, champion, labels, policy, **evidence)
    assert told.decision == "keep"
    assert told.reasons[1].startswith(reason)
    alone = verdict(challenger, None, labels, policy, **evidence)
    assert alone.decision == ("promote" if "champion" in reason else "keep")


def test_without_a_champion_the_guards_decide():
    challenger, labels = predictions(0.9)
    told = verdict(challenger, None, labels, {"metrics": {"accuracy": {"limit": 0.8, "slack": 0.0}}})
    assert told.decision == "promote"
    assert told.reasons == [
        "There is no champion yet, so the guards alone decide.",
        "Guards that hold: 1 of 1.",
    ]


def test_an_obstacle_keeps_the_champion():
    challenger, labels = predictions(0.9)
    assert verdict(challenger, None, labels, obstacle="It speaks Greek.").decision == "keep"


def test_class_accuracy_agrees_with_scikit_learn():
    from sklearn.metrics import recall_score

    probabilities, labels = predictions(0.7, seed=5)
    expected = recall_score(labels, probabilities.argmax(1), average=None)
    np.testing.assert_allclose(list(class_accuracy(probabilities, labels, CLASSES).values()), expected)


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (
            {"primary": "accuracies"},
            "policy.primary = 'accuracies' is not valid: .*the metrics are accuracy, ",
        ),
        ({"metrics": {"f0": {}}}, "policy.metrics = .* is not valid"),
        ({"metrics": {"ece": {"floor": 1}}}, "policy.metrics.ece.floor is not a setting"),
        ({"confidence": 1.0}, "policy.confidence = 1.0 is not valid"),
    ],
)
def test_a_wrong_policy_is_one_sentence(policy, sentence):
    with pytest.raises(UserError, match=sentence):
        GatePolicy.parse(policy, "policy")


def ranked(shift: float, n: int = 600):
    """Probabilities of two classes whose scores are ``shift`` standard deviations apart."""
    generator = np.random.default_rng(0)
    labels = np.arange(n) % 2
    scores = 1 / (1 + np.exp(-generator.normal(shift * labels, 1.0)))
    return np.stack([1 - scores, scores], axis=1), labels


def test_two_classes_may_be_judged_by_how_they_are_ranked():
    better, labels = ranked(3.0)
    worse, _ = ranked(1.0)
    evidence = Evidence(labels, better, worse, ["real", "generated"])
    policy = {"primary": "auc", "metrics": {"average_precision": {"limit": 0.9, "slack": 0.0}}}
    told = judge(evidence, GatePolicy.parse(policy, "policy"))
    assert told.decision == "promote"
    assert told.reasons[0].startswith("AUC changed by ") and told.checks[0].name == "Average precision"
    swapped = judge(Evidence(labels, worse, better, ["real", "generated"]), GatePolicy.parse(policy, "policy"))
    assert swapped.decision == "keep" and swapped.changes["auc"].high < 0


@pytest.mark.parametrize("policy", [{"primary": "auc"}, {"metrics": {"average_precision": {"limit": 0.5}}}])
def test_more_than_two_classes_have_no_ranking(policy):
    challenger, labels = predictions(0.9)
    with pytest.raises(UserError, match="ranks two classes, and the model has 3: choose from accuracy, "):
        verdict(challenger, None, labels, policy)
