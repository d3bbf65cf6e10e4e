"""The ``detection_evaluation`` task: judge every detector on every generator and shift, and choose one."""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from assay.config import Config
from assay.data import ImageDataset
from assay.errors import AssayError, UserError
from assay.evaluation import ALL_METRICS, Estimate, evaluate_predictions, write_predictions
from assay.files import atomic_folder, write_json
from assay.forensics.corpus import open_detection_data
from assay.forensics.decision import Decision
from assay.forensics.detector import CLASS_NAMES, Detector
from assay.forensics.measures import (
    Array,
    GeneratorResult,
    ShiftResult,
    Subjects,
    estimate_mean_average_precision,
    mean_average_precision,
    measure_generator,
    measure_shift,
    two_columns,
    verdicts,
)
from assay.forensics.shifts import REENCODINGS, applicable
from assay.training.progress import track

UNNAMED = "unnamed"
"""Stands for the generator of images that do not say where they come from."""

UNSHIFTED = "as it is"


class DetectionEvaluationConfig(Config):
    """What a detector must reach, and how much is measured.

    Attributes:
        seen_auc: the AUC that a detector must reach on every generator it was trained on, on validation images.
        replicates: bootstrap replicates of every interval.
        confidence: coverage of every interval.
        seed: of the resampling.
        validation_images: how many real validation images, and how many of each generator, choose the detector.
        shift_images: how many test images likewise are shifted.
        worst: how many failures of either kind are shown.
        batch_size: images that go through a detector at a time.

    Example:
        >>> DetectionEvaluationConfig.parse({"seen_auc": 0.9}, where="evaluation").shift_images
        50
    """

    seen_auc: Annotated[float, Field(ge=0, le=1)] = 0.95
    replicates: Annotated[int, Field(ge=2, le=100_000)] = 1000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: Annotated[int, Field(ge=0)] = 0
    validation_images: Annotated[int, Field(ge=2)] = 500
    shift_images: Annotated[int, Field(ge=1)] = 50
    worst: Annotated[int, Field(ge=0, le=200)] = 12
    batch_size: Annotated[int, Field(ge=1)] = 128


@dataclass(frozen=True)
class DetectorResult:
    """Everything that was measured of one detector.

    Attributes:
        name: its method; numbered where several detectors share it.
        folder: where it lies.
        decision: its threshold and band.
        seen_auc: the lowest AUC over the generators it was trained on, on validation images; 1 without any.
        validation_ap: mean average precision over the primary generators on validation images.
        mean_ap: the same on test images.
        generators: on test images.
        accuracy_real: share of the real test images below the threshold.
        unsure: share of the test images with no verdict.
        shifts: on a part of the test images.
        scores: probabilities of being generated of the test images, [N].
    """

    name: str
    folder: Path
    decision: Decision
    seen_auc: float
    validation_ap: float
    mean_ap: Estimate
    generators: list[GeneratorResult]
    accuracy_real: float
    unsure: float
    shifts: list[ShiftResult]
    scores: Array


@dataclass(frozen=True)
class Comparison:
    """All detectors on one data set.

    Attributes:
        results: in the order given.
        best: the chosen one, or None where no detector reaches the AUC asked for.
        test: the images.
        seen: generators that detectors were trained on.
        primary: generators over which the primary metric is a mean: the unseen ones, or all where there are none.
    """

    results: list[DetectorResult]
    best: DetectorResult | None
    test: Subjects
    seen: list[str]
    primary: list[str]

    @property
    def primary_title(self) -> str:
        """What the primary metric is."""
        unseen = "unseen " if set(self.primary).isdisjoint(self.seen) else ""
        return f"mean AP over {len(self.primary)} {unseen}generators"


def evaluate_detectors(
    dataset: Path,
    detectors: Sequence[Path],
    config: dict[str, Any],
    *,
    model: Path,
    predictions: Path,
    report: Path,
    metrics: Path,
) -> dict[str, float]:
    """Judge detectors on seen and unseen generators and on shifted images, and keep the best: the task.

    The primary metric is the mean average precision over the generators that no detector was trained on. The
    best detector by it on the validation split, of those that reach ``seen_auc``, is kept; the test split
    only reports.

    Args:
        dataset: detection data set.
        detectors: folders of `Detector`.
        config: see `DetectionEvaluationConfig`.
        model: written; a copy of the best detector's folder.
        predictions: written; its probabilities on the test split, as a gate reads them.
        report: written, also where no detector is good enough; HTML.
        metrics: written; the returned numbers of the best detector, as JSON.

    Raises:
        UserError: a setting, the data or a detector is not valid, or there is no detector.
        AssayError: no detector reaches ``seen_auc``.
    """
    from assay.forensics.evaluation_report import print_comparison, write_report

    settings = DetectionEvaluationConfig.parse(config, where="evaluation")
    opened = open_detection_data(dataset)
    found = compare_detectors(opened, detectors, settings)
    print_comparison(found)
    write_report(report, found, settings, opened.info.name)
    if found.best is None:
        reached = ", ".join(f"{result.name} {result.seen_auc:.3f}" for result in found.results)
        raise AssayError(
            f"No detector reaches an AUC of {settings.seen_auc:g} on the generators it was trained on "
            f"({reached}): train longer, or ask for less with evaluation.seen_auc."
        )
    with atomic_folder(model) as folder:
        shutil.copytree(found.best.folder, folder, dirs_exist_ok=True)
    test = found.test
    write_predictions(predictions, test.sample_ids, test.labels, two_columns(found.best.scores), CLASS_NAMES)
    summary = summarise(found, found.best, settings)
    write_json(metrics, summary)
    return summary


def compare_detectors(
    dataset: ImageDataset, detectors: Sequence[Path], settings: DetectionEvaluationConfig
) -> Comparison:
    """Measure every detector and choose the best.

    Args:
        dataset: detection data set.
        detectors: folders of `Detector`.
        settings: what is measured.

    Raises:
        UserError: there is no detector, one is not calibrated or does not fit the images, or a class is absent.
    """
    if not detectors:
        raise UserError("There is no detector to evaluate: train one first.")
    test, validation = read_subjects(dataset, "test"), read_subjects(dataset, "validation")
    table = dataset.table("train", ["label", "generator"]).to_pydict()
    rows = zip(table["label"], table["generator"], strict=True)
    seen = sorted({name or UNNAMED for label, name in rows if label == 1} & set(test.names))
    primary = [name for name in test.names if name not in seen] or test.names
    for name in sorted({*seen, *primary} - set(validation.names)):
        raise UserError(f"{dataset.info.name} has no validation image of {name}: give every generator to both splits.")
    rows_shifted = test.first(settings.shift_images)
    images = test.take(rows_shifted).images
    shifted = {name: shift(images) for name, shift in applicable(dataset.info.channels).items()}
    validation = validation.take(validation.first(settings.validation_images))
    judge = _Judge(settings, test, validation, seen, primary, rows_shifted, shifted)
    names = distinct_names([Detector.from_pretrained(folder).config.method for folder in detectors])
    results = [judge(name, folder) for name, folder in track([*zip(names, detectors, strict=True)], title="detectors")]
    good = [result for result in results if result.seen_auc >= settings.seen_auc]
    best = max(good, key=lambda result: result.validation_ap, default=None)
    return Comparison(results, best, test, seen, primary)


def read_subjects(dataset: ImageDataset, name: str) -> Subjects:
    """Decode a split of a detection data set.

    Raises:
        UserError: the split is absent, or lacks one of the two classes.
    """
    split = dataset.split(name)
    labels = split.labels.numpy()
    if len(np.unique(labels)) < len(CLASS_NAMES):
        missing = CLASS_NAMES[int(labels[0] == 0)]
        raise UserError(f"The split {name!r} of {dataset.info.name} has no {missing} image: give it both classes.")
    made_by = dataset.table(name, ["generator"])["generator"].to_pylist()
    generators = np.array([generator or UNNAMED for generator in made_by], np.str_)
    return Subjects(split.images, labels, np.where(labels == 1, generators, ""), split.sample_ids)


@dataclass(frozen=True)
class _Judge:
    """Measures one detector after the other on the same images."""

    settings: DetectionEvaluationConfig
    test: Subjects
    validation: Subjects
    seen: list[str]
    primary: list[str]
    rows_shifted: NDArray[np.int64]
    shifted: Mapping[str, Tensor]

    def __call__(self, name: str, folder: Path) -> DetectorResult:
        detector = Detector.from_pretrained(folder).to("cuda" if torch.cuda.is_available() else "cpu")
        decision = detector.decision
        if decision is None:
            raise UserError(f"The detector {folder} is not calibrated: give calibration images when it is trained.")
        scores, held_out = (
            detector.score(part.images, self.settings.batch_size) for part in (self.test, self.validation)
        )
        generators = [
            measure_generator(self.test, scores, one, decision.threshold, seen=one in self.seen)
            for one in self.test.names
        ]
        learned = [
            measure_generator(self.validation, held_out, one, decision.threshold, seen=True).auc for one in self.seen
        ]
        return DetectorResult(
            name,
            folder,
            decision,
            seen_auc=min(learned, default=1.0),
            validation_ap=mean_average_precision(self.validation, held_out, self.primary),
            mean_ap=estimate_mean_average_precision(self.test, scores, self.primary, **_resampling(self.settings)),
            generators=generators,
            accuracy_real=float((scores[self.test.labels == 0] < decision.threshold).mean()),
            unsure=float((verdicts(scores, decision) == 0).mean()),
            shifts=self._shifts(detector, decision, scores[self.rows_shifted]),
            scores=scores,
        )

    def _shifts(self, detector: Detector, decision: Decision, before: Array) -> list[ShiftResult]:
        """Measure the part of the test images that is shifted: as it is, then after every shift."""
        subjects, size = self.test.take(self.rows_shifted), self.settings.batch_size
        after = {UNSHIFTED: before} | {name: detector.score(images, size) for name, images in self.shifted.items()}
        return [measure_shift(name, subjects, before, scores, decision, self.primary) for name, scores in after.items()]


def distinct_names(names: Sequence[str]) -> list[str]:
    """Return the names, numbered where one occurs again.

    Example:
        >>> distinct_names(["npr", "rgb", "npr"])
        ['npr', 'rgb', 'npr 2']
    """
    times: Counter[str] = Counter()
    found = []
    for name in names:
        times[name] += 1
        found.append(name if times[name] == 1 else f"{name} {times[name]}")
    return found


def summarise(found: Comparison, best: DetectorResult, settings: DetectionEvaluationConfig) -> dict[str, float]:
    """Return the best detector's numbers, flat, and the primary metric of every detector."""
    columns, ranking = two_columns(best.scores), {"auc": ALL_METRICS["auc"]}
    overall = evaluate_predictions(columns, found.test.labels, ranking, **_resampling(settings))
    drifts = {one.shift: one.drift for one in best.shifts if one.shift in REENCODINGS}
    return {
        **best.mean_ap.flat("mean_ap"),
        **overall["auc"].flat("auc"),
        "accuracy_real": best.accuracy_real,
        "accuracy_generated": float((best.scores[found.test.labels == 1] >= best.decision.threshold).mean()),
        "unsure_share": best.unsure,
        "seen_auc": best.seen_auc,
        "unseen_generators": float(len(set(found.primary) - set(found.seen))),
        **{f"ap_{one.generator}_{'seen' if one.seen else 'unseen'}": one.average_precision for one in best.generators},
        **{f"drift_{name.lower().replace(' ', '_')}": drift for name, drift in drifts.items()},
        **{f"mean_ap_{result.name.replace(' ', '_')}": result.mean_ap.value for result in found.results},
    }


def _resampling(settings: DetectionEvaluationConfig) -> dict[str, Any]:
    return {"replicates": settings.replicates, "confidence": settings.confidence, "seed": settings.seed}
