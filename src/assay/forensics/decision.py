"""From a probability to a verdict: real, generated, or unsure where neither can be said with confidence."""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from assay.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

Verdict = Literal["real", "generated", "unsure"]


@dataclass(frozen=True)
class Decision:
    """What a detector says of its probability of "generated".

    Args:
        threshold: the probability from which on an image counts as generated where an answer is forced.
        lower: at most this is "real".
        upper: at least this is "generated"; between the two is "unsure".
        confidence: the share of each class, at least, that does not get the other class's verdict.

    Raises:
        UserError: a number is not finite, ``lower`` exceeds ``upper``, or the confidence is no share.

    Example:
        >>> decision = Decision(threshold=0.4, lower=0.2, upper=0.7, confidence=0.95)
        >>> [decision.verdict(probability) for probability in (0.1, 0.5, 0.9)]
        ['real', 'unsure', 'generated']
    """

    threshold: float
    lower: float
    upper: float
    confidence: float

    def __post_init__(self) -> None:
        if not (all(map(math.isfinite, self.as_dict().values())) and self.lower <= self.upper):
            raise UserError(f"{self} is no decision: give finite bounds, the lower one first.")
        _check_confidence(self.confidence)

    def verdict(self, probability: float) -> Verdict:
        """Return what is said of an image with this probability of "generated".

        Raises:
            UserError: the probability is NaN.
        """
        if math.isnan(probability):
            raise UserError("The probability of an image is NaN, so there is no verdict on it: train again.")
        if probability >= self.upper:
            return "generated"
        return "real" if probability <= self.lower else "unsure"

    def as_dict(self) -> dict[str, float]:
        """Return the four numbers by name, for JSON; ``Decision(**numbers)`` makes the decision again."""
        return asdict(self)

    @classmethod
    def choose(cls, scores: "ArrayLike", labels: "ArrayLike", confidence: float = 0.95) -> "Decision":
        """Choose the threshold and the band on held-out images of the detector's own task.

        The threshold is the midpoint between two neighbouring scores that maximises balanced accuracy; of
        equally good ones, that in the widest gap. The band is class-conditional (Mondrian) conformal
        prediction, Vovk et al., *Algorithmic Learning in a Random World*, 2005, section 4.5, in our reading
        [ours]: of n real scores the ``ceil((n + 1) * confidence)``-th smallest is the largest that is still
        typical of a real image, and likewise from the other end for generated ones. The ``n + 1`` is the
        finite-sample correction: a new image from the same source gets the wrong verdict with a probability of
        at most ``1 - confidence``, given either class. An image typical of both classes is unsure, and so
        is one typical of neither, as those of an unseen generator often are.

        With fewer than ``confidence / (1 - confidence)`` images of a class (19 at 0.95) nothing can be
        promised of it, and the verdict of the other class is never given.

        Args:
            scores: probabilities of "generated" [N], of images that the detector was not fitted on.
            labels: [N], 1 for generated and 0 for real.
            confidence: see `Decision`.

        Raises:
            UserError: a score is NaN or no probability, a label is neither 0 nor 1, or a class is absent.

        Example:
            >>> real, generated = np.linspace(0.0, 0.5, 99), np.linspace(0.4, 0.9, 99)
            >>> decision = Decision.choose(np.concatenate([real, generated]), np.repeat([0, 1], 99))
            >>> round(decision.lower, 3), round(decision.upper, 3)
            (0.42, 0.48)
        """
        _check_confidence(confidence)
        real, generated = _by_class(np.asarray(scores, np.float64), np.asarray(labels))
        # One step of a float further: a score equal to the last typical one counts as typical.
        most_real = np.nextafter(_last_typical([*np.sort(real), 1.0], confidence), 2.0)
        least_generated = np.nextafter(_last_typical([*np.sort(generated)[::-1], 0.0], confidence), -1.0)
        lower, upper = sorted((float(most_real), float(least_generated)))
        return cls(_best_threshold(real, generated), lower, upper, confidence)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise UserError(f"The confidence {confidence} of a decision must lie between 0 and 1: give such as 0.95.")


def _by_class(scores: "NDArray[np.float64]", labels: "NDArray[np.int64]") -> "tuple[NDArray, NDArray]":
    """Return the scores of the real and of the generated images.

    Raises:
        UserError: they cannot be used.
    """
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise UserError(f"The scores have shape {scores.shape} and the labels {labels.shape}: give one label a score.")
    wrong = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
    if len(wrong):
        raise UserError(
            f"Score {wrong[0]} is {scores[wrong[0]]} (and {len(wrong) - 1} more are like it): "
            "give probabilities from 0 to 1."
        )
    if not np.isin(labels, (0, 1)).all():
        raise UserError("The labels hold values other than 0 (real) and 1 (generated): give one of the two a score.")
    real, generated = scores[labels == 0], scores[labels == 1]
    if not (len(real) and len(generated)):
        missing = "generated" if len(real) else "real"
        raise UserError(f"There is no {missing} image to choose a threshold on: give images of both classes.")
    return real, generated


def _last_typical(scores: "Sequence[float]", confidence: float) -> float:
    """Return the conformal quantile of n scores, from the most typical on, and the end of the scale after them."""
    rank = math.ceil(round(len(scores) * confidence, 9))  # rounded, as 0.95 * 20 may exceed 19 by a last digit
    return scores[rank - 1]


def _best_threshold(real: "NDArray[np.float64]", generated: "NDArray[np.float64]") -> float:
    """Return the threshold with the best balanced accuracy; all are called generated where none is better."""
    distinct = np.unique(np.concatenate([real, generated]))
    below, above = distinct[:-1], distinct[1:]
    middles = (below + above) / 2
    middles = np.where(middles > below, middles, above)  # neighbours among the floats have nothing between them
    candidates = np.concatenate([distinct[:1], middles])
    widths = np.concatenate([[0.0], above - below])
    found = len(generated) - np.searchsorted(np.sort(generated), candidates)
    kept = np.searchsorted(np.sort(real), candidates)
    merit = found * len(real) + kept * len(generated)  # whole numbers, so that ties are exact
    return float(candidates[np.lexsort((widths, merit))[-1]])
