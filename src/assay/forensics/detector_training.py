"""The ``detector_training`` task: from a detection data set to a calibrated detector and its report."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import AssayError
from assay.files import write_json
from assay.forensics.config import DetectorTrainingConfig
from assay.forensics.corpus import DetectionSplit, jpeg_quality_of, load_split, open_detection_data, seen_generators
from assay.forensics.decision import Decision
from assay.forensics.detector import Detector
from assay.forensics.methods import METHODS
from assay.forensics.train import (
    area_under_curve,
    create_detector,
    finish_detector,
    prepare,
    score_split,
    train_detector_network,
)
from assay.registry.tracking import track_step
from assay.training import DataFolder, Session, checkpoint_storage, forget, launch, run_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class DetectionSplits(DataFolder, dict[str, DetectionSplit]):
    """What a method may see of a data set, decoded when first asked for; it travels as the data set's path.

    For a method that needs no generated images none is read from the disk.
    """

    def __init__(self, path: Path, generated: bool) -> None:
        super().__init__()
        self.path, self.generated = path, generated

    def __missing__(self, split: str) -> DetectionSplit:
        dataset = open_detection_data(self.path)
        seen = seen_generators(dataset) if self.generated else None
        self[split] = load_split(dataset, split, generated=self.generated, generators=seen)
        return self[split]

    def options(self) -> tuple[bool]:
        """Return what the class is called with after the path."""
        return (self.generated,)


def train_detector(
    dataset: Path,
    method: str,
    config: dict[str, Any],
    *,
    model: Path,
    report: Path,
    metrics: Path,
    seed: int = 0,
    workers: int = 0,
) -> dict[str, float]:
    """Train one method's detector on the generators of the train split and calibrate it.

    Checkpoints are kept in the project's state while it runs, under a name made from the settings, the data
    and the seed: the same call after a crash goes on from the last epoch.

    Args:
        dataset: detection data set.
        method: name in `METHODS`.
        config: see `DetectorTrainingConfig`.
        model: written; folder of the `Detector`.
        report: written; HTML with the curves, the scores and the method's own pictures.
        metrics: written; the returned metrics, as JSON.
        seed: of the weights, the order and the method's randomness.
        workers: 0 trains in this process; n on n Ray workers.

    Raises:
        UserError: a setting or the data is not valid, or the loss diverged.
    """
    settings = DetectorTrainingConfig.parse(config, where="detector").of_method(method)
    splits = DetectionSplits(Path(dataset), METHODS[method].needs_generated)
    data = open_detection_data(dataset)
    options = METHODS[method].as_stored(settings.options, jpeg_quality_of(data))
    settings, info = settings.model_copy(update={"options": options}), data.info
    name = run_name(f"detector-{method}", settings.model_dump(), info.content_hash, seed)
    storage = checkpoint_storage()
    with track_step(f"detector_training {method}", settings.model_dump() | {"seed": seed}) as tracker:
        result = launch(
            _train,
            {"splits": splits, "settings": settings},
            storage=storage,
            name=name,
            workers=workers,
            seed=seed,
            precision=settings.precision,
            tracker=tracker,
        )
    detector, trained = create_detector(settings, splits["train"].real)
    session = Session(seed=seed, precision=settings.precision)
    prepare(session, detector, trained, splits["train"])
    result.load_all(session)
    finish_detector(session, detector, trained, splits["train"], splits["calibration"], splits["validation"])

    scores, labels = score_split(session, detector, trained, splits["validation"])
    summary = summarise(detector, result.history, scores, labels)
    detector.save_pretrained(model)
    pictures = trained.figures(splits["validation"].real, splits["validation"].generated)
    _write_report(report, detector, result.history, summary, scores, labels, pictures, info.name)
    write_json(metrics, summary)
    forget(storage, name)
    return summary


def _train(session: Session, config: dict[str, Any]) -> None:
    """Train inside a session; what `launch` calls, here or in a Ray worker."""
    splits, settings = config["splits"], config["settings"]
    detector, method = create_detector(settings, splits["train"].real)
    train_detector_network(session, detector, method, splits["train"], splits["validation"])


def summarise(
    detector: Detector, history: list[dict[str, float]], scores: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Return the task's metrics, all on the validation split of what the detector may know."""
    decision = _decision(detector)
    unsure = (scores > decision.lower) & (scores < decision.upper)
    summary = {"validation_auc": area_under_curve(scores, labels)}
    summary |= {
        "validation_accuracy": float(((scores >= decision.threshold) == labels).mean()),
        "threshold": decision.threshold,
        "unsure_above": decision.lower,
        "unsure_below": decision.upper,
        "unsure_share": float(unsure.mean()),
        "parameters": float(sum(parameter.numel() for parameter in detector.parameters())),
    }
    if "loss" in history[-1]:
        summary["train_loss"] = history[-1]["loss"]
    return summary


def _write_report(
    path: Path,
    detector: Detector,
    history: list[dict[str, float]],
    summary: dict[str, float],
    scores: np.ndarray,
    labels: np.ndarray,
    pictures: dict[str, Any],
    data: str,
) -> None:
    """Write the HTML page: the curves, the scores with the threshold and the band, the method's pictures."""
    from matplotlib.figure import Figure

    from assay.reports import Report

    method = METHODS[detector.config.method]
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    curves, histogram = figure.subplots(1, 2)
    for key in ("loss", "validation_auc"):
        found = [(record["step"], record[key]) for record in history if key in record]
        if found:
            curves.plot(*zip(*found, strict=True), marker=".", label=key.replace("_", " "))
    curves.set(title="training", xlabel="epoch")
    if curves.lines:
        curves.legend()
    draw_scores(histogram, {"real": scores[labels == 0], "generated": scores[labels == 1]}, _decision(detector))
    page = Report(f"Detector: {method.title}", data)
    page.metrics(summary)
    fakes = "" if method.needs_generated else " Generated here are the method's own simulations: it saw no others."
    page.figure(figure, f"Validation images.{fakes}")
    for caption, picture in pictures.items():
        page.figure(picture, caption)
    page.write(path)


def draw_scores(axes: "Axes", scores: dict[str, np.ndarray], decision: Decision) -> None:
    """Draw histograms of probabilities by group, the threshold, and the band of "unsure".

    Args:
        axes: where.
        scores: probabilities of being generated [N] of each group.
        decision: what is drawn over them.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = Figure().subplots()
        >>> draw_scores(axes, {"real": np.array([0.1])}, Decision(0.5, 0.3, 0.7, 0.95))
        >>> axes.get_title()
        'probability of being generated'
    """
    edges = np.linspace(0, 1, 41).tolist()
    for group, values in scores.items():
        axes.hist(values, edges, histtype="step", linewidth=1.5, density=True, label=group)
    axes.axvspan(decision.lower, decision.upper, color="grey", alpha=0.2, label="unsure")
    axes.axvline(decision.threshold, color="black", linestyle="--", linewidth=1, label="threshold")
    most = max(len(values) for values in scores.values())
    axes.set(title="probability of being generated", xlim=(0, 1), yscale="log", ylim=(20 / most, 80))
    axes.legend()


def _decision(detector: Detector) -> Decision:
    if detector.decision is None:
        raise AssayError(f"The detector {detector.config.method} is not calibrated.")
    return detector.decision
