"""The gate's rule by itself: from the probabilities of two models to a decision with its reasons."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from assay.registry.policy import GatePolicy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from assay.evaluation import Estimate

EVERY_SLICE = "*"


@dataclass(frozen=True)
class Check:
    """One guard: what was measured, the bound, and the sentence for people."""

    name: str
    value: float
    bound: float
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Evidence:
    """What a gate looks at: both models on the same rows, and what it costs to run the challenger.

    Args:
        labels: int64 [N].
        challenger: its probabilities, float64 [N, K].
        champion: the champion's on the same rows, or None where there is none.
        class_names: the K classes.
        slices: a mask [N] for each named part of the rows.
        size_mb: of the challenger's file, in megabytes.
        latency_ms: of the challenger for one image by itself, in milliseconds.
    """

    labels: "NDArray[Any]"
    challenger: "NDArray[Any]"
    champion: "NDArray[Any] | None"
    class_names: Sequence[str]
    slices: "Mapping[str, NDArray[Any]]" = field(default_factory=dict)
    size_mb: float = 0.0
    latency_ms: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """The decision, why, and the numbers it rests on; ``changes`` are challenger minus champion."""

    decision: Literal["promote", "keep"]
    reasons: list[str]
    checks: list[Check]
    values: "dict[str, Estimate]"
    changes: "dict[str, Estimate]"


def judge(evidence: Evidence, policy: GatePolicy, obstacle: str = "") -> Verdict:
    """Decide whether the challenger may replace the champion. [ours], on the paired bootstrap.

    Args:
        evidence: the two models' answers and what they cost.
        policy: the rule.
        obstacle: why the two cannot be compared, if they cannot: then the champion is kept.

    Raises:
        UserError: the probabilities and labels do not fit each other, or the policy names a metric that so
            many classes do not have.

    Example:
        >>> import numpy as np
        >>> sure, labels = np.eye(2)[[0, 1] * 50], np.array([0, 1] * 50)
        >>> unsure = np.where(np.arange(100)[:, None] < 30, sure[:, ::-1], sure)
        >>> judge(Evidence(labels, sure, unsure, ["cat", "dog"]), GatePolicy()).reasons[0]
        'Accuracy changed by 0.3000 [0.2100, 0.3900], an improvement beyond the margin of 0.'
    """
    from assay.evaluation import compare_predictions, evaluate_predictions

    policy.check_classes(len(evidence.class_names))
    settings: dict[str, Any] = {"replicates": policy.replicates, "confidence": policy.confidence}
    values = evaluate_predictions(evidence.challenger, evidence.labels, **settings)
    changes = {}
    if evidence.champion is not None:
        changes = compare_predictions(evidence.champion, evidence.challenger, evidence.labels, **settings)
        better, first = _improvement(changes[policy.primary], policy)
    elif obstacle:
        better, first = False, obstacle
    else:
        better, first = True, "There is no champion yet, so the guards alone decide."
    checks = list(_checks(evidence, policy, values, changes))
    failed = [check.sentence for check in checks if not check.passed]
    guards = failed or [f"Guards that hold: {len(checks)} of {len(checks)}."]
    return Verdict("promote" if better and not failed else "keep", [first, *guards], checks, values, changes)


def class_accuracy(
    probabilities: "NDArray[Any]", labels: "NDArray[Any]", class_names: Sequence[str]
) -> dict[str, float]:
    """Return the share of each class's samples that is classified right; absent classes are left out.

    Example:
        >>> import numpy as np
        >>> class_accuracy(np.eye(3)[[0, 0, 1]], np.array([0, 1, 1]), ["ant", "bee", "cat"])
        {'ant': 1.0, 'bee': 0.5}
    """
    right = probabilities.argmax(axis=1) == labels
    present = ((name, labels == index) for index, name in enumerate(class_names))
    return {name: float(right[mask].mean()) for name, mask in present if mask.any()}


def _improvement(change: "Estimate", policy: GatePolicy) -> tuple[bool, str]:
    """Say whether the whole interval of the primary metric's change lies beyond the margin."""
    from assay.evaluation import ALL_METRICS

    metric = ALL_METRICS[policy.primary]
    least = change.low if metric.higher_is_better else -change.high
    better = least > policy.margin
    if policy.margin >= 0:
        told = "an improvement" if better else "which does not show an improvement"
    else:
        told = "no loss" if better else "which does not rule out a loss"
    return better, f"{metric.title} changed by {change}, {told} beyond the margin of {abs(policy.margin):g}."


def _checks(
    evidence: Evidence,
    policy: GatePolicy,
    values: "Mapping[str, Estimate]",
    changes: "Mapping[str, Estimate]",
) -> Iterator[Check]:
    """Yield every guard that the policy sets, in the policy's order."""
    from assay.evaluation import ALL_METRICS

    for name, guard in policy.metrics.items():
        metric = ALL_METRICS[name]
        if guard.limit is not None:
            yield _bounded(metric.title, values[name].value, guard.limit, floor=metric.higher_is_better)
        if guard.slack is not None and name in changes:
            loss = -changes[name].value if metric.higher_is_better else changes[name].value
            yield _not_worse(metric.title, loss, guard.slack)
    if policy.worst_class_accuracy is not None:
        by_class = class_accuracy(evidence.challenger, evidence.labels, evidence.class_names)
        worst = min(by_class, key=by_class.__getitem__)
        title = f"Accuracy of the worst class, {worst},"
        yield _bounded(title, by_class[worst], policy.worst_class_accuracy, floor=True)
    yield from _slice_checks(evidence, policy)
    if policy.size_mb is not None:
        yield _bounded("Size in MB", evidence.size_mb, policy.size_mb, floor=False)
    if policy.latency_ms is not None:
        yield _bounded("Latency in ms per image", evidence.latency_ms, policy.latency_ms, floor=False)


def _slice_checks(evidence: Evidence, policy: GatePolicy) -> Iterator[Check]:
    """Yield the floor of each slice; a slice that the policy names and the data lacks fails."""
    right = evidence.challenger.argmax(axis=1) == evidence.labels
    for name in sorted(policy.slices.keys() - evidence.slices.keys() - {EVERY_SLICE}):
        told = f"The test split has no slice {name!r}, which the policy guards."
        yield Check(name, 0.0, policy.slices[name], False, told)
    for name, mask in evidence.slices.items():
        lowest = policy.slices.get(name, policy.slices.get(EVERY_SLICE))
        if lowest is not None and mask.any():
            yield _bounded(f"Accuracy of the slice {name}", float(right[mask].mean()), lowest, floor=True)


def _not_worse(title: str, loss: float, slack: float) -> Check:
    direction, told = ("worse", "but may be") if loss > slack else ("worse" if loss > 0 else "better", "allowed is")
    sentence = f"{title} is {abs(loss):.4f} {direction} than the champion's, {told} at most {slack:g} worse."
    return Check(f"{title} worse than the champion's", loss, slack, loss <= slack, sentence)


def _bounded(title: str, value: float, bound: float, *, floor: bool) -> Check:
    passed = value >= bound if floor else value <= bound
    relation = "at least" if floor else "at most"
    told = "which is" if passed else "but must be"
    sentence = f"{title} is {value:.4f}, {told} {relation} {bound:g}."
    return Check(title.rstrip(","), value, bound, passed, sentence)
