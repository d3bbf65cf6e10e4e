from pathlib import Path

import pytest

from assay.errors import UserError
from assay.registry import GatePolicy, load_policy

REPOSITORY = Path(__file__).parents[2]


def test_the_documented_policy_is_valid(monkeypatch):
    monkeypatch.setenv("ASSAY_PROJECT", str(REPOSITORY))
    policy = GatePolicy.parse(load_policy("classifier"), "policy")
    assert policy.metrics.keys() >= {"accuracy", "ece"}
    assert policy.worst_class_accuracy and policy.size_mb and policy.latency_ms


def test_a_missing_or_damaged_policy_is_one_sentence(project):
    with pytest.raises(UserError, match=r"no gate policy .*gates/digits\.yaml"):
        load_policy("digits")
    (project / "pipelines" / "gates").mkdir()
    for content, sentence in (("a: [", "is not YAML"), ("- a", "must hold settings")):
        (project / "pipelines" / "gates" / "digits.yaml").write_text(content)
        with pytest.raises(UserError, match=sentence):
            load_policy("digits")
    with pytest.raises(UserError, match="not a valid policy name"):
        load_policy("../../secret")
