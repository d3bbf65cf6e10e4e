"""What is measured of a detector: how it does on each generator, and what a shift of its images changes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from assay.evaluation import ALL_METRICS, Estimate
from assay.evaluation.bootstrap import draw, interval
from assay.forensics.decision import Decision

Array = NDArray[np.float64]
_AP, _AUC = ALL_METRICS["average_precision"], ALL_METRICS["auc"]


@dataclass(frozen=True)
class Subjects:
    """The images that detectors are judged on.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N], 1 for generated.
        generators: str [N], which generator made each; empty for real images.
        sample_ids: str [N].
    """

    images: Tensor
    labels: NDArray[np.int64]
    generators: NDArray[np.str_]
    sample_ids: NDArray[np.str_]

    @property
    def names(self) -> list[str]:
        """The generators, in alphabetical order."""
        return sorted(set(self.generators[self.labels == 1].tolist()))

    def against(self, generator: str) -> NDArray[np.bool_]:
        """Return which rows are real or of this generator, bool [N]."""
        return (self.labels == 0) | (self.generators == generator)

    def first(self, count: int) -> NDArray[np.int64]:
        """Return the rows of the first ``count`` real images and of as many of each generator."""
        groups = [np.flatnonzero(self.generators == name)[:count] for name in ("", *self.names)]
        return np.sort(np.concatenate(groups))

    def take(self, rows: NDArray[np.int64]) -> "Subjects":
        """Return only these rows."""
        return Subjects(self.images[rows], self.labels[rows], self.generators[rows], self.sample_ids[rows])


@dataclass(frozen=True)
class GeneratorResult:
    """A detector on the real images against those of one generator; all numbers but ``count`` are fractions.

    Attributes:
        generator: its name.
        seen: whether the detectors were trained on it.
        count: of its images.
        average_precision: depends on how many images of the generator there are for each real one.
        auc: does not.
        accuracy_at_half: mean of the shares of real and generated images told right by a probability of 0.5.
        accuracy: the same by the detector's threshold.
        found: share of the generator's images at or above the threshold.
    """

    generator: str
    seen: bool
    count: int
    average_precision: float
    auc: float
    accuracy_at_half: float
    accuracy: float
    found: float


@dataclass(frozen=True)
class ShiftResult:
    """What a shift changes for one detector.

    Attributes:
        shift: its name.
        drift: mean absolute change of the probability.
        changed: share of images with another verdict of real, generated and unsure.
        mean_ap: mean average precision over the chosen generators, after the shift.
        mean_auc: mean AUC likewise.
    """

    shift: str
    drift: float
    changed: float
    mean_ap: float
    mean_auc: float


def measure_generator(
    subjects: Subjects, scores: Array, generator: str, threshold: float, *, seen: bool
) -> GeneratorResult:
    """Compare the real images with those of one generator.

    Args:
        subjects: with the images of both.
        scores: probabilities of being generated [N].
        generator: its name.
        threshold: of the detector.
        seen: whether the detectors were trained on it.
    """
    rows = subjects.against(generator)
    labels, columns = subjects.labels[rows], two_columns(scores[rows])
    return GeneratorResult(
        generator,
        seen,
        count=int(labels.sum()),
        average_precision=_AP(columns, labels),
        auc=_AUC(columns, labels),
        accuracy_at_half=balanced_accuracy(scores[rows], labels, 0.5),
        accuracy=balanced_accuracy(scores[rows], labels, threshold),
        found=float((scores[rows][labels == 1] >= threshold).mean()),
    )


def mean_average_precision(subjects: Subjects, scores: Array, generators: Sequence[str]) -> float:
    """Return the mean over generators of the average precision against the real images."""
    rows = map(subjects.against, generators)
    return float(np.mean([_AP(two_columns(scores[chosen]), subjects.labels[chosen]) for chosen in rows]))


def estimate_mean_average_precision(
    subjects: Subjects, scores: Array, generators: Sequence[str], *, replicates: int, confidence: float, seed: int
) -> Estimate:
    """Estimate :func:`mean_average_precision` with a bootstrap interval over images, real ones shared by all.

    Args:
        subjects: with the real images and those of the generators.
        scores: probabilities of being generated [N].
        generators: names.
        replicates: of the bootstrap.
        confidence: coverage of the interval.
        seed: of the resampling.

    Example:
        >>> labels = np.repeat([0, 1], 50)
        >>> both = Subjects(None, labels, np.where(labels, "dcgan", ""), labels.astype(str))
        >>> estimate_mean_average_precision(both, labels * 1.0, ["dcgan"], replicates=9, confidence=0.9, seed=0).low
        1.0
    """
    masks = [subjects.against(name) for name in generators]
    used = np.logical_or.reduce(masks)
    counts = [
        (mask[used], _AP.statistics(two_columns(scores[mask]), subjects.labels[mask]), int(mask.sum()))
        for mask in masks
    ]

    def replicate(weights: Array) -> Array:
        values = [_AP.combine(weights[:, mask] @ statistics, n) for mask, statistics, n in counts]
        return np.mean(values, axis=0)

    drawn = draw(replicate, int(used.sum()), replicates, seed)
    value = float(replicate(np.ones((1, int(used.sum()))))[0])
    return interval(value, drawn, confidence, _AP.lowest, _AP.highest)


def measure_shift(
    shift: str, subjects: Subjects, before: Array, after: Array, decision: Decision, generators: Sequence[str]
) -> ShiftResult:
    """Compare a detector's probabilities before and after a shift of the same images.

    Args:
        shift: its name.
        subjects: the images.
        before: probabilities [N].
        after: probabilities [N] of the shifted images.
        decision: of the detector.
        generators: over which the means are taken.
    """
    aucs = [_AUC(two_columns(after[rows]), subjects.labels[rows]) for rows in map(subjects.against, generators)]
    return ShiftResult(
        shift,
        drift=float(np.abs(after - before).mean()),
        changed=float((verdicts(after, decision) != verdicts(before, decision)).mean()),
        mean_ap=mean_average_precision(subjects, after, generators),
        mean_auc=float(np.mean(aucs)),
    )


def verdicts(scores: Array, decision: Decision) -> NDArray[np.int64]:
    """Return 1 for generated, -1 for real and 0 for unsure, [N], as :meth:`Decision.verdict` decides.

    Example:
        >>> verdicts(np.array([0.1, 0.5, 0.9]), Decision(0.4, 0.2, 0.7, 0.95))
        array([-1,  0,  1])
    """
    return np.where(scores >= decision.upper, 1, np.where(scores <= decision.lower, -1, 0))


def balanced_accuracy(scores: Array, labels: NDArray[np.int64], threshold: float) -> float:
    """Return the mean of the shares of real and of generated images that the threshold tells right.

    Example:
        >>> balanced_accuracy(np.array([0.1, 0.6, 0.9]), np.array([0, 0, 1]), 0.5)
        0.75
    """
    right = (scores >= threshold) == (labels == 1)
    return float((right[labels == 0].mean() + right[labels == 1].mean()) / 2)


def two_columns(scores: Array) -> Array:
    """Return the probabilities of both classes, [N, 2], of probabilities of the second, [N].

    Example:
        >>> two_columns(np.array([0.25]))
        array([[0.75, 0.25]])
    """
    return np.stack([1 - scores, scores], axis=1)
