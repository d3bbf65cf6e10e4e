"""A claim, written down before the study runs, and what the numbers say about it."""

from dataclasses import dataclass
from typing import Literal

from assay.evaluation import ALL_METRICS, Estimate

Verdict = Literal["holds", "refuted", "undecided"]


def judge(difference: Estimate, *, higher_is_better: bool) -> Verdict:
    """Judge the paired interval of a difference, arm minus the one that it is compared with.

    Example:
        >>> judge(Estimate(0.02, 0.01, 0.03, 0.95), higher_is_better=False)
        'refuted'
    """
    sign = 1 if higher_is_better else -1
    low, high = sorted((sign * difference.low, sign * difference.high))
    if low > 0:
        return "holds"
    return "refuted" if high < 0 else "undecided"


@dataclass(frozen=True)
class Claim:
    """One arm is better than another by one metric, in the direction that the metric declares.

    Attributes:
        text: the claim, as a sentence without its full stop.
        arm: key of the arm that is claimed to be better.
        against: key of the arm that it is compared with.
        metric: name in :data:`assay.evaluation.ALL_METRICS`.
    """

    text: str
    arm: str
    against: str
    metric: str = "ece"

    def verdict(self, difference: Estimate) -> Verdict:
        """Judge the paired interval of ``metric(arm) - metric(against)``.

        Example:
            >>> claim = Claim("SCTL lowers the ECE", "sctl", "ce")
            >>> [claim.verdict(Estimate(-0.01, *ends, 0.95)) for ends in ((-0.02, -0.001), (-0.02, 0.001))]
            ['holds', 'undecided']
        """
        return judge(difference, higher_is_better=ALL_METRICS[self.metric].higher_is_better)
