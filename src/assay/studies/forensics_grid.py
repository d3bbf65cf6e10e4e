"""The grid of the forensics study: one cell of scores for each detector, and what is measured of them."""

import time
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.evaluation import Replicates
from assay.evaluation.metric import Array
from assay.forensics import DetectionSplit, Detector, DetectorConfig, fit_detector
from assay.forensics.config import JPEG_QUALITY, TRAINING_GENERATOR
from assay.forensics.methods import METHODS
from assay.forensics.shifts import COLOUR_SHIFTS, applicable
from assay.studies.cells import digest
from assay.studies.forensics import Arm, ArmResult
from assay.studies.forensics_data import Bench, category_sets
from assay.studies.forensics_metrics import Scores, average, measure, resample

_VERSION = 1
_BATCH = 512
_CATEGORY_SEED = 0
"""The detector seed where the category shifts: these detectors are trained once for each generator seed."""

_REAL, _CHOICE, _SHIFT, _CATEGORY, _GENERATED = range(5)
"""Streams of the resampling, so that every arm sees the same resampled images and detector seeds."""


def score(bench: Bench, arm: Arm, seed: int, detector_seed: int) -> dict[str, Array]:
    """Return the scores of one detector, trained unless it was before.

    Args:
        bench: the images.
        arm: the detector.
        seed: of the generators.
        detector_seed: of the detector on these images.

    Returns:
        Logits of the calibrated probability: ``real``, ``generated/<generator>`` and, for an arm that is judged
        under shifts, ``shift/<shift>/real`` and ``.../generated``; ``threshold``, a logit too; and ``seconds``.
    """
    settings = _settings(bench, arm, seed, detector_seed, None) | {
        "tested": list(bench.design.generators),
        "shifted": bench.design.shifted if arm.shifted else 0,
    }
    return bench.cells.arrays(settings, partial(_score, bench, arm, seed, detector_seed))


def score_categories(bench: Bench, arm: Arm, seed: int, number: int, classes: int) -> dict[str, Array]:
    """Return the scores of a detector trained on a few categories, of others: ``real``, ``generated``, ``threshold``.

    Args:
        bench: the images.
        arm: the detector.
        seed: of the generators, one for the categories trained on and one for those tested on.
        number: of categories trained on.
        classes: all categories of the source.
    """
    known, others = category_sets(classes, bench.design.categories, seed)
    settings = _settings(bench, arm, seed, _CATEGORY_SEED, known[number]) | {"tested": sorted(others)}
    return bench.cells.arrays(settings, partial(_score_categories, bench, arm, seed, known[number], others))


def judge_arm(bench: Bench, arm: Arm, classes: int, replicates: int) -> ArmResult:
    """Measure an arm on all its scores, with paired resampling of detector seeds and images in each generator seed.

    Args:
        bench: the images and scores, all of them there.
        arm: the detector.
        classes: categories of the source.
        replicates: of the bootstrap.
    """
    seconds: list[float] = []
    by_seed: list[dict[str, Array]] = []
    for seed in range(bench.design.generator_seeds):
        found = [score(bench, arm, seed, number) for number in range(bench.design.detector_seeds)]
        seconds += [float(one["seconds"]) for one in found]
        drawn = _grid_metrics(found, seed, replicates)
        if arm.shifted:
            drawn |= _shift_metrics(found, seed, replicates)
            tests = {n: score_categories(bench, arm, seed, n, classes) for n in bench.design.categories}
            drawn |= _category_metrics(tests, seed, replicates)
        by_seed.append(drawn)
    stacked = {metric: np.stack([drawn[metric] for drawn in by_seed]) for metric in by_seed[0]}
    # The first replicate is the data itself.
    measured = {metric: Replicates(values[:, 0], values[:, 1:]) for metric, values in stacked.items()}
    return ArmResult(arm, measured, float(np.mean(seconds)))


def _settings(bench: Bench, arm: Arm, seed: int, detector_seed: int, categories: list[int] | None) -> dict[str, Any]:
    return {
        "cell": "scores",
        "images": digest(bench.generated_settings(TRAINING_GENERATOR, seed, categories)),
        "method": arm.method,
        "options": _options(bench, arm),
        "detector": bench.design.detector.model_dump(exclude={"method", "options"}),
        "detector_seed": detector_seed,
        "version": _VERSION,
    }


def _score(bench: Bench, arm: Arm, seed: int, detector_seed: int) -> dict[str, Array]:
    real = bench.real(seed)
    seen = bench.generated(TRAINING_GENERATOR, seed)
    began = time.process_time()
    detector = _fit(bench, arm, real, seen, 1000 * seed + detector_seed)
    scores = {"seconds": np.array(time.process_time() - began), "threshold": _threshold(detector)}
    scores["real"] = _logits(detector, real["test"])
    for name in bench.design.generators:
        scores[f"generated/{name}"] = _logits(detector, bench.generated(name, seed)["test"])
    if arm.shifted:
        some_real, some_seen = (images["test"][: bench.design.shifted] for images in (real, seen))
        for name, shift in applicable(some_real.shape[1]).items():
            scores[f"shift/{name}/real"] = _logits(detector, shift(some_real))
            scores[f"shift/{name}/generated"] = _logits(detector, shift(some_seen))
    return scores


def _score_categories(bench: Bench, arm: Arm, seed: int, known: list[int], others: list[int]) -> dict[str, Array]:
    real, seen = bench.real(seed, known), bench.generated(TRAINING_GENERATOR, seed, known)
    detector = _fit(bench, arm, real, seen, 1000 * seed + _CATEGORY_SEED)
    return {
        "real": _logits(detector, bench.real(seed, others)["test"]),
        "generated": _logits(detector, bench.generated(TRAINING_GENERATOR, seed, others)["test"]),
        "threshold": _threshold(detector),
    }


def _fit(bench: Bench, arm: Arm, real: Mapping[str, Tensor], seen: Mapping[str, Tensor], seed: int) -> Detector:
    shared = bench.design.detector.model_dump()
    config = DetectorConfig.parse({**shared, "method": arm.method, "options": _options(bench, arm)}, where=arm.key)
    needs_generated = METHODS[arm.method].needs_generated
    train, validation, calibration = (
        DetectionSplit(real[split], seen[split] if needs_generated else None)
        for split in ("train", "validation", "calibration")
    )
    return fit_detector(train, config, validation=validation, calibration=calibration, seed=seed)


def _options(bench: Bench, arm: Arm) -> dict[str, Any]:
    """Return the arm's options for images that are encoded as the study's are."""
    return METHODS[arm.method].as_stored(arm.options, JPEG_QUALITY if bench.codec == "jpeg" else None)


@torch.no_grad()
def _logits(detector: Detector, images: Tensor) -> Array:
    """Return logits of the calibrated probability [N]: where that is rounded to 1, they still rank."""
    device = detector.slope.device
    found = torch.cat([detector.logits(part.to(device)) for part in images.split(_BATCH)]).double()
    return (detector.slope.double() * found + detector.offset.double()).cpu().numpy()


def _threshold(detector: Detector) -> Array:
    assert detector.decision is not None  # noqa: S101 - the detector was calibrated
    return torch.logit(torch.tensor(detector.decision.threshold, dtype=torch.float64)).numpy()


def _grid_metrics(found: list[dict[str, Array]], seed: int, replicates: int) -> dict[str, Array]:
    """Metrics on plain images [R], each the mean over the detector seeds of the replicate."""
    names = [key.removeprefix("generated/") for key in found[0] if key.startswith("generated/")]
    weights = {
        name: _weights(len(found[0][f"generated/{name}"]), replicates, (seed, _GENERATED, index))
        for index, name in enumerate(names)
    }
    real = _weights(len(found[0]["real"]), replicates, (seed, _REAL))
    measured = [
        measure(
            Scores(one["real"], {name: one[f"generated/{name}"] for name in names}, float(one["threshold"])),
            real,
            weights,
        )
        for one in found
    ]
    ap, auc, at_half, accuracy, on_real, on_generated = average(measured, _chosen(len(found), replicates, seed))
    unseen = [index for index, name in enumerate(names) if name != TRAINING_GENERATOR]
    seen = names.index(TRAINING_GENERATOR)
    return {
        "unseen_ap": ap[unseen].mean(axis=0),
        "unseen_auc": auc[unseen].mean(axis=0),
        "unseen_accuracy_at_half": at_half[unseen].mean(axis=0),
        "unseen_accuracy": accuracy[unseen].mean(axis=0),
        "accuracy_real": on_real[seen],
        "unseen_accuracy_generated": on_generated[unseen].mean(axis=0),
        "seen_ap": ap[seen],
        "seen_accuracy": accuracy[seen],
        **{f"ap/{name}": ap[index] for index, name in enumerate(names)},
    }


def _shift_metrics(found: list[dict[str, Array]], seed: int, replicates: int) -> dict[str, Array]:
    """AP and accuracy under every shift on the seen generator, and their means over the shifts of colour."""
    names = [key.split("/")[1] for key in found[0] if key.startswith("shift/") and key.endswith("/real")]
    chosen = _chosen(len(found), replicates, seed)
    metrics: dict[str, Array] = {}
    for name in names:
        pairs = [
            _pair(one[f"shift/{name}/real"], one[f"shift/{name}/generated"], one, (seed, _SHIFT), replicates)
            for one in found
        ]
        metrics[f"shift_ap/{name}"], metrics[f"shift_accuracy/{name}"] = average(pairs, chosen)
    colours = [name for name in names if name in COLOUR_SHIFTS]
    for kind in ("ap", "accuracy"):
        metrics[f"colour_{kind}"] = np.mean([metrics[f"shift_{kind}/{name}"] for name in colours], axis=0)
    return metrics


def _category_metrics(tests: Mapping[int, dict[str, Array]], seed: int, replicates: int) -> dict[str, Array]:
    """AP and accuracy on unseen categories for each number of categories trained on, and their means."""
    metrics: dict[str, Array] = {}
    for number, one in tests.items():
        pair = _pair(one["real"], one["generated"], one, (seed, _CATEGORY), replicates)
        metrics[f"category_ap/{number}"], metrics[f"category_accuracy/{number}"] = pair
    for kind in ("ap", "accuracy"):
        metrics[f"category_{kind}"] = np.mean([metrics[f"category_{kind}/{n}"] for n in tests], axis=0)
    return metrics


def _pair(real: Array, generated: Array, one: dict[str, Array], stream: tuple[int, ...], replicates: int) -> Array:
    """AP and accuracy at the threshold, [2, R], of one set of real and one of generated images."""
    scores = Scores(real, {"": generated}, float(one["threshold"]))
    weights = {"": _weights(len(generated), replicates, (*stream, 1))}
    found = measure(scores, _weights(len(real), replicates, (*stream, 0)), weights)[:, 0]
    return found[[0, 3]]


@lru_cache(maxsize=64)
def _weights(size: int, replicates: int, stream: tuple[int, ...]) -> Array:
    return resample(size, replicates, np.random.default_rng(stream))


def _chosen(detectors: int, replicates: int, seed: int) -> Array:
    """Return which detector seeds each replicate draws [D, R]; the first draws each once."""
    chosen = np.random.default_rng((seed, _CHOICE)).integers(detectors, size=(detectors, replicates))
    chosen[:, 0] = np.arange(detectors)
    return chosen


def generator_jobs(bench: Bench, classes: int, shifted: bool) -> Iterator[tuple[str, int, list[int] | None]]:
    """Yield (generator, seed, categories) of all generators that the study needs.

    Args:
        bench: the design.
        classes: categories of the source.
        shifted: whether any arm is judged where the category shifts.
    """
    for seed in range(bench.design.generator_seeds):
        for name in bench.design.generators:
            yield name, seed, None
        if shifted:
            known, others = category_sets(classes, bench.design.categories, seed)
            for categories in (*known.values(), others):
                yield TRAINING_GENERATOR, seed, categories
