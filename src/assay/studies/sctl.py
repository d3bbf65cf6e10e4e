"""The study of class-wise loss scaling (SCTL): does it calibrate better than its controls, and why?

Classifiers are trained on balanced and long-tailed data until they are overconfident. Each calibrator is fitted
with each loss on held-out logits of the *training* prior, and judged on a balanced test set (the prior has
shifted) and, for long-tailed data, on a test set of the same prior.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from assay.calibration.calibrator import Calibrator
from assay.calibration.logits import LogitsFile
from assay.calibration.losses import LOSSES, ClassWiseLossScaling, Loss, as_loss
from assay.calibration.table import oracle_temperature, softmax
from assay.evaluation import METRICS, Estimate, Replicates, replicate_over_seeds
from assay.evaluation.metric import Array
from assay.studies.cells import Cells
from assay.studies.claims import Claim, Verdict

UNCALIBRATED = "uncalibrated"
ORACLE = "oracle"
FIXED_STRENGTHS = tuple((alpha, beta) for alpha in (0.3, 1.0, 3.0) for beta in (1.0, 1.5, 2.0))
"""The (alpha, beta) that stay as they are: the paper says that untuned values help as well."""

CALIBRATORS = ("ts", "cts", "ets", "pts", "vs")
INTERVALS = ("accuracy", "ece")
"""Metrics that get a bootstrap interval over seeds and samples."""

_VERSION = 1


@dataclass(frozen=True)
class Condition:
    """One setting: for every training seed, logits to fit on and logits to judge on.

    Attributes:
        name: stands at the head of a table.
        files: one for each seed; the test rows are the same samples for all.
        identities: what each file's logits were made from, for the cache.
    """

    name: str
    files: Sequence[LogitsFile]
    identities: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class ArmResult:
    """An arm in a condition.

    Attributes:
        key: ``calibrator/loss``, or ``uncalibrated`` or ``oracle``.
        metrics: mean over seeds of every metric.
        estimates: of the metrics in :data:`INTERVALS`, over seeds and samples.
        replicates: the same under resampling, to be paired with another arm's.
        converged: share of the seeds whose fit converged; None where nothing was fitted.
        strengths: (alpha, beta) of each seed, where SCTL was used.
    """

    key: str
    metrics: dict[str, float]
    estimates: dict[str, Estimate]
    replicates: dict[str, Replicates] = field(repr=False)
    converged: float | None = None
    strengths: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Judgement:
    """A claim in a condition."""

    claim: Claim
    condition: str
    difference: Estimate
    verdict: Verdict


def arms(calibrators: Sequence[str] = CALIBRATORS) -> list[str]:
    """Return the keys of all arms.

    Example:
        >>> arms(["ts"])[:3], len(arms(["ts"]))
        (['uncalibrated', 'ts/cross_entropy', 'ts/class_balanced'], 18)
    """
    fitted = [f"{calibrator}/{loss}" for calibrator in calibrators for loss in LOSSES]
    fixed = [f"ts/fixed {alpha:g} {beta:g}" for alpha, beta in FIXED_STRENGTHS]
    return [UNCALIBRATED, *fitted, *fixed, ORACLE]


def claims(calibrators: Sequence[str] = CALIBRATORS) -> list[Claim]:
    """Return the claims, with metric and direction, as they were written down before the study ran.

    Example:
        >>> claims(["ts"])[0].text
        'TS: SCTL (ND) lowers the ECE against cross-entropy'
    """
    names = {calibrator: calibrator.upper() for calibrator in calibrators}
    told = [
        Claim(f"{names[c]}: SCTL (ND) lowers the ECE against cross-entropy", f"{c}/sctl_nd", f"{c}/cross_entropy")
        for c in calibrators
    ]
    told += [
        Claim(f"TS: SCTL (ND) lowers the ECE against {title}", "ts/sctl_nd", f"ts/{loss}")
        for loss, title in (
            ("class_balanced", "class-balanced cross-entropy"),
            ("label_smoothing", "label smoothing 0.05"),
            ("focal", "focal loss, gamma 3"),
            ("sctl_mm", "SCTL (MM)"),
            ("sctl_cm", "SCTL (CM)"),
        )
    ]
    if "cts" in calibrators:
        told += [
            Claim(f"CTS: SCTL (ND) raises the accuracy against {title}", "cts/sctl_nd", f"cts/{loss}", "accuracy")
            for loss, title in (
                ("cross_entropy", "cross-entropy"),
                ("class_balanced", "class-balanced cross-entropy"),
            )
        ]
    told += [
        Claim(
            f"TS: SCTL (ND) with alpha = {alpha:g}, beta = {beta:g} unfitted lowers the ECE against cross-entropy",
            f"ts/fixed {alpha:g} {beta:g}",
            "ts/cross_entropy",
        )
        for alpha, beta in FIXED_STRENGTHS
    ]
    return told


def loss_of(key: str) -> Loss:
    """Return the loss of an arm.

    Example:
        >>> loss_of("ts/fixed 0.3 1.5")
        ClassWiseLossScaling(normalisation='nd', alpha=0.3, beta=1.5, fit_strength=False)
    """
    name = key.partition("/")[2]
    if not name.startswith("fixed "):
        return as_loss(name)
    alpha, beta = map(float, name.split()[1:])
    return ClassWiseLossScaling("nd", alpha, beta, fit_strength=False)


def run_arm(cells: Cells, condition: Condition, key: str, replicates: int) -> ArmResult:
    """Fit one arm for every seed of a condition, each at most once, and judge it.

    Args:
        cells: keep the fitted parameters.
        condition: the logits.
        key: of the arm.
        replicates: of the bootstrap.
    """
    predictions, fits = [], []
    for file, identity in zip(condition.files, condition.identities, strict=True):
        if key == UNCALIBRATED:
            predictions.append(softmax(file.test_logits))
        elif key == ORACLE:
            settings = {"condition": condition.name, "logits": identity, "arm": key, "version": _VERSION}
            found = cells.result(settings, partial(_oracle, file))
            predictions.append(softmax(file.test_logits / found["temperature"]))
        else:
            settings = {"logits": identity, "arm": key, "version": _VERSION}
            found = cells.result(settings, partial(_fit, file, key))
            fits.append(found)
            predictions.append(softmax(_restore(found, key, file.num_classes).transform(file.test_logits)))
    return _judge(key, predictions, condition.files[0].test_labels.numpy(), fits, replicates)


def decide(told: Sequence[Claim], condition: str, results: Sequence[ArmResult]) -> Iterator[Judgement]:
    """Yield every claim with the paired difference and the verdict in one condition."""
    by_key = {result.key: result for result in results}
    for claim in told:
        ours, theirs = by_key[claim.arm].replicates, by_key[claim.against].replicates
        difference = ours[claim.metric].minus(theirs[claim.metric]).estimate()
        yield Judgement(claim, condition, difference, claim.verdict(difference))


def _fit(file: LogitsFile, key: str) -> dict[str, Any]:
    calibrator = Calibrator.registry[key.partition("/")[0]]()
    calibrator.fit(file.fit_logits, file.fit_labels, loss_of(key))
    report = calibrator.fit_report
    assert report is not None  # noqa: S101 - fit has just set it
    found: dict[str, Any] = {
        "parameters": {name: tensor.tolist() for name, tensor in calibrator.state_dict().items()},
        "converged": report.converged,
        "gradient_norm": report.gradient_norm,
        "evaluations": report.evaluations,
    }
    if isinstance(report.loss, ClassWiseLossScaling):
        found["strength"] = [report.loss.alpha, report.loss.beta]
    return found


def _restore(found: dict[str, Any], key: str, classes: int) -> Calibrator:
    calibrator = Calibrator.registry[key.partition("/")[0]]()
    calibrator.num_classes = classes
    calibrator.build(classes)
    parameters = {name: torch.tensor(values, dtype=torch.float64) for name, values in found["parameters"].items()}
    calibrator.double().load_state_dict(parameters)
    return calibrator


def _oracle(file: LogitsFile) -> dict[str, Any]:
    return {"temperature": oracle_temperature(file.test_logits, file.test_labels)}


def _judge(key: str, predictions: list[Array], labels: Array, fits: list[dict[str, Any]], replicates: int) -> ArmResult:
    means = {name: float(np.mean([metric(one, labels) for one in predictions])) for name, metric in METRICS.items()}
    chosen = {name: METRICS[name] for name in INTERVALS}
    drawn = replicate_over_seeds(predictions, labels, chosen, replicates=replicates)
    return ArmResult(
        key=key,
        metrics=means,
        estimates={name: drawn[name].estimate(lowest=0.0, highest=1.0) for name in INTERVALS},
        replicates=drawn,
        converged=float(np.mean([found["converged"] for found in fits])) if fits else None,
        strengths=[tuple(found["strength"]) for found in fits if "strength" in found],
    )
