"""The ``pretraining`` task: from a data set artifact to a model, its logits and its curves."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.classification.config import ClassificationConfig
from assay.classification.predict import predict_logits, write_logits
from assay.classification.train import create_classifier, fit, fit_source
from assay.data import ImageDataset, Split
from assay.errors import UserError
from assay.files import atomic_folder, write_json
from assay.models import ImageClassifier
from assay.registry.tracking import track_step
from assay.training import DataFolder, Session, checkpoint_storage, forget, launch, run_name
from assay.training.progress import SizedIterable

_SAMPLE = 10_000
_LARGE = 2 << 30  # bytes


class Splits(DataFolder, dict[str, Split]):
    """The splits of a data set, decoded when first asked for; to another process it travels as its path."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.info = ImageDataset.open(path).info

    def __missing__(self, name: str) -> Split:
        self[name] = ImageDataset.open(self.path).split(name)
        return self[name]

    def streamed(self, settings: ClassificationConfig) -> bool:
        """Say whether the training split is read while it is trained on, and not decoded into memory."""
        if settings.stream == "auto":
            return ImageDataset.open(self.path).decoded_bytes("train") > _LARGE
        return settings.stream


class Streamed:
    """The training split as Ray Data brings it, encoded."""

    def __init__(self, splits: Splits) -> None:
        self.dataset = ImageDataset.open(splits.path)

    def __len__(self) -> int:
        return self.dataset.info.splits["train"]

    def batches(self, session: Session, batch_size: int) -> SizedIterable[Any]:
        """Return the session's tables."""
        return session.stream(len(self), batch_size)

    def take(self, part: Any) -> tuple[Tensor, Tensor]:
        """Decode a table."""
        split = self.dataset.decode(part)
        return split.images, split.labels


def pretrain(
    dataset: Path,
    config: dict[str, Any],
    *,
    model: Path,
    logits: Path,
    report: Path,
    metrics: Path,
    workers: int = 0,
    seed: int = 0,
) -> dict[str, float]:
    """Train a classifier on the ``train`` split and store what later steps need.

    Checkpoints are kept in the project's state while it runs, under a name made from the settings, the data
    and the seed: the same call after a crash goes on from the last epoch. Inside a pipeline run
    (``ASSAY_RUN_ID`` is set) the curves go to MLflow as well.

    Args:
        dataset: data set artifact.
        config: settings of `ClassificationConfig`.
        model: folder for the model of the last epoch.
        logits: file for ``{split}_logits``, ``{split}_labels`` and ``{split}_ids`` of every split.
        report: file for the HTML page with the curves.
        metrics: file for the returned metrics, as JSON.
        workers: 0 trains in this process; n on n Ray workers.
        seed: of the weights, the order and the augmentation.

    Raises:
        UserError: the data or a setting is not valid, or the loss diverged.
    """
    settings = ClassificationConfig.parse(config, where="training")
    splits = Splits(Path(dataset))
    info = splits.info
    name = run_name("pretraining", settings.model_dump(), info.content_hash, seed)
    storage = checkpoint_storage()
    streamed, data = splits.streamed(settings), ImageDataset.open(dataset)
    if streamed and not workers:
        raise UserError(
            f"The train split of {info.name} ({data.decoded_bytes('train') / 2**20:.0f} MiB in memory) is to be "
            "streamed, which Ray workers do: give --workers 1 or more, or set training.stream to false."
        )
    with track_step("pretraining", settings.model_dump() | {"seed": seed}) as tracker:
        result = launch(
            _train,
            {"splits": splits, "settings": settings},
            storage=storage,
            name=name,
            workers=workers,
            seed=seed,
            precision=settings.precision,
            tracker=tracker,
            stream="splits/train" if streamed else "",
        )
    classifier = create_classifier(_sample(splits, streamed), info.class_names, settings)
    result.load(classifier)
    outputs = {}
    for split in filter(info.splits.get, info.splits):
        if split == "train" and streamed:
            outputs[split], splits[split] = _predict_in_chunks(classifier, splits, split)
        else:
            outputs[split] = predict_logits(classifier, splits[split].images)
    summary = summarise(result.history, {split: accuracy(outputs[split], splits[split].labels) for split in outputs})

    with atomic_folder(model) as folder:
        classifier.save_pretrained(folder)
    write_logits(logits, outputs, splits, info.class_names)
    write_report(report, result.history, summary, subtitle=f"{settings.backbone} on {info.name}")
    write_json(metrics, summary)
    forget(storage, name)
    return summary


def _train(session: Session, config: dict[str, Any]) -> None:
    """Train inside a session; what `launch` calls, here or in a Ray worker."""
    splits, settings = config["splits"], config["settings"]
    streamed = splits.streamed(settings)
    classifier = create_classifier(_sample(splits, streamed), splits.info.class_names, settings)
    validation = None
    if splits.info.splits.get("validation"):
        validation = splits["validation"].images, splits["validation"].labels
    if streamed:
        fit_source(session, classifier, Streamed(splits), settings, validation)
    else:
        fit(session, classifier, splits["train"].images, splits["train"].labels, settings, validation)


def _sample(splits: Splits, streamed: bool) -> Tensor:
    """Return training images that tell the shape and the brightness of all: the first ones of a stream."""
    if streamed:
        return next(ImageDataset.open(splits.path).chunks("train", _SAMPLE)).images
    return splits["train"].images


def _predict_in_chunks(classifier: ImageClassifier, splits: Splits, name: str) -> tuple[Tensor, Split]:
    """Return the logits of a split that is never in memory as a whole, and the split without its images."""
    parts = []
    for chunk in ImageDataset.open(splits.path).chunks(name):
        parts.append((predict_logits(classifier, chunk.images), chunk.labels, chunk.sample_ids))
    logits, labels, ids = zip(*parts, strict=True)
    return torch.cat(logits), Split(torch.empty(0), torch.cat(labels), np.concatenate(ids))


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of samples whose largest logit is their label's."""
    return (logits.argmax(dim=1) == labels).double().mean().item()


def summarise(history: list[dict[str, float]], accuracies: dict[str, float]) -> dict[str, float]:
    """Return the task's metrics: the last epoch's, and the best epoch on the validation split."""
    last = history[-1]
    summary = {"epochs": last["step"], "train_loss": last["train_loss"]}
    summary |= {f"{split}_accuracy": value for split, value in accuracies.items()}
    if "validation_accuracy" in last:
        best = max(history, key=lambda record: record["validation_accuracy"])
        summary |= {
            "validation_loss": last["validation_loss"],
            "best_validation_accuracy": best["validation_accuracy"],
            "best_epoch": best["step"],
        }
    return summary


def write_report(path: Path, history: list[dict[str, float]], summary: dict[str, float], *, subtitle: str) -> None:
    """Write the HTML page with the curves of loss, accuracy and learning rate."""
    from matplotlib.figure import Figure

    from assay.reports import Report

    epochs = [record["step"] for record in history]
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for axes, title in zip(figure.subplots(1, 3), ("loss", "accuracy", "learning_rate"), strict=True):
        for key in (title, f"train_{title}", f"validation_{title}"):
            if key in history[0]:
                axes.plot(epochs, [record[key] for record in history], marker=".", label=key.split("_")[0])
        axes.set(title=title.replace("_", " "), xlabel="epoch")
        if title != "learning_rate":
            axes.legend()
    page = Report("Pretraining", subtitle)
    page.metrics(summary)
    page.figure(figure, "Training accuracy is measured on augmented images, while the weights change.")
    page.write(path)
