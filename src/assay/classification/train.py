"""The training loop of an image classifier, top to bottom."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from assay.classification.augment import create_augmentation
from assay.classification.config import ClassificationConfig
from assay.classification.predict import predict_logits
from assay.errors import UserError
from assay.models import ImageClassifier
from assay.training import Session
from assay.training.progress import SizedIterable


def train_classifier(
    images: Tensor,
    labels: Tensor,
    config: ClassificationConfig | None = None,
    *,
    class_names: Sequence[str] | None = None,
    validation: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> ImageClassifier:
    """Train a classifier on tensors and return it in evaluation mode, on the session's device.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N] in 0..K-1.
        config: default `ClassificationConfig()`.
        class_names: K names; default: the numbers up to the largest label.
        validation: images and labels that are measured after every epoch.
        seed: of the initial weights, the order and the augmentation, where no session is given.
        session: a session with a checkpoint store or a tracker; its seed counts.

    Raises:
        UserError: there are too few images, a label is out of range, or the loss diverged.

    Example:
        >>> images = torch.arange(8, dtype=torch.uint8).reshape(8, 1, 1, 1).repeat(1, 1, 8, 8)
        >>> config = ClassificationConfig(epochs=1, batch_size=4)
        >>> train_classifier(images, torch.arange(8) % 2, config)(images).shape
        torch.Size([8, 2])
    """
    config = config or ClassificationConfig()
    session = session or Session(seed=seed, precision=config.precision)
    names = list(class_names or map(str, range(int(labels.max()) + 1)))
    model = create_classifier(images, names, config)
    fit(session, model, images, labels, config, validation)
    return model.eval()


def create_classifier(images: Tensor, class_names: Sequence[str], config: ClassificationConfig) -> ImageClassifier:
    """Return an untrained classifier for images like these, normalised by their mean and deviation."""
    mean, std = channel_statistics(images)
    return ImageClassifier(
        backbone=config.backbone,
        num_classes=len(class_names),
        channels=images.shape[1],
        image_size=max(images.shape[2:]),
        mean=mean,
        std=std,
        class_names=list(class_names),
    )


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel of uint8 images, on the scale [0, 1].

    From the histogram of the 256 values: exact, and without a float copy of the images.

    Example:
        >>> channel_statistics(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1))
        ([0.5], [0.5])
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        share = torch.bincount(images[:, channel].flatten(), minlength=256).double()
        share /= share.sum()
        mean = (share * levels).sum()
        means.append(mean.item())
        # A channel that is constant has nothing to be scaled by.
        deviations.append(max(((share * (levels - mean) ** 2).sum().sqrt()).item(), 1 / 255))
    return means, deviations


class Source(Protocol):
    """Where training images come from."""

    def __len__(self) -> int:
        """Return how many there are."""

    def batches(self, session: Session, batch_size: int) -> SizedIterable[Any]:
        """Return what stands for this process's part of each batch of an epoch."""

    def take(self, part: Any) -> tuple[Tensor, Tensor]:
        """Return the images, uint8 [n, C, H, W], and the labels, int64 [n], of one of ``batches``."""


class Decoded:
    """Images in memory, on the session's device."""

    def __init__(self, session: Session, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images.to(session.device), labels.to(session.device)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, session: Session, batch_size: int) -> SizedIterable[Tensor]:
        """Return the indices of each batch."""
        return session.batches(len(self), batch_size)

    def take(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and labels of these indices."""
        return self.images[part], self.labels[part]


def fit(
    session: Session,
    model: ImageClassifier,
    images: Tensor,
    labels: Tensor,
    config: ClassificationConfig,
    validation: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Train ``model`` in place on tensors; see `fit_source`."""
    _check_labels(labels, len(model.class_names))
    fit_source(session, model, Decoded(session, images, labels), config, validation)


def fit_source(
    session: Session,
    model: ImageClassifier,
    source: Source,
    config: ClassificationConfig,
    validation: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Train ``model`` in place, from the session's last checkpoint if it has one.

    Every epoch logs ``train_loss``, ``train_accuracy``, ``learning_rate`` and, with ``validation``,
    ``validation_loss`` and ``validation_accuracy``; the step is the number of epochs done.
    """
    _check_share(len(source), config.batch_size, session.world_size)
    augment = create_augmentation(horizontal_flip=config.horizontal_flip, shift=config.shift, erasing=config.erasing)
    optimizer = create_optimizer(model, config)
    steps = len(source) // min(config.batch_size, len(source))
    scheduler = LambdaLR(optimizer, partial(one_cycle, total=config.epochs * steps))
    network, optimizer, scheduler = session.prepare(model, optimizer, scheduler)

    for epoch in session.epochs(config.epochs):
        network.train()
        totals = torch.zeros(2, device=session.device)
        for part in session.progress(source.batches(session, config.batch_size)):
            images, target = (values.to(session.device) for values in source.take(part))
            batch = augment(images.float() / 255)
            with session.autocast():
                logits = network(batch)
            loss = functional.cross_entropy(logits, target, label_smoothing=config.label_smoothing)
            session.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            accuracy = (logits.detach().argmax(dim=1) == target).float().mean()
            totals += torch.stack([loss.detach(), accuracy])

        mean_loss, mean_accuracy = (session.reduce(totals) / (steps * session.world_size)).tolist()
        metrics = {
            "train_loss": mean_loss,
            "train_accuracy": mean_accuracy,
            "learning_rate": optimizer.param_groups[0]["lr"],
        }
        if validation is not None:
            metrics |= validate(model, *validation)
        session.log(metrics, step=epoch + 1)
        session.checkpoint(epoch)


def validate(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the loss and accuracy of ``model`` on images that it does not learn from."""
    logits = predict_logits(model, images)
    return {
        "validation_loss": functional.cross_entropy(logits, labels).item(),
        "validation_accuracy": (logits.argmax(dim=1) == labels).float().mean().item(),
    }


def one_cycle(step: int, total: int, warm_up: float = 0.25) -> float:
    """Return the share of the peak learning rate at ``step``: a linear rise, then half a cosine down to 0.

    torch's ``OneCycleLR`` with one phase less, and defined for any number of steps.

    Example:
        >>> [round(one_cycle(step, total=8), 2) for step in range(8)]
        [0.5, 1.0, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07]
    """
    rise = max(1, round(warm_up * total))
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * (step - rise) / max(1, total - rise))) / 2


def create_optimizer(model: nn.Module, config: ClassificationConfig) -> Optimizer:
    """Return the optimiser that ``config`` asks for, with weight decay on matrices and filters only."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    if config.optimizer == "adamw":
        return AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    return SGD(groups, lr=config.learning_rate, momentum=0.9, nesterov=True, weight_decay=config.weight_decay)


def _check_share(count: int, batch_size: int, world_size: int) -> None:
    share = min(batch_size, count) // world_size
    if share < 2:
        raise UserError(
            f"{count} training images in batches of {batch_size} over {world_size} workers leave "
            f"{share} for a step, and batch normalisation needs 2: add images, use fewer workers, "
            "or a larger batch_size."
        )


def _check_labels(labels: Tensor, num_classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise UserError(
            f"Label {low if low < 0 else high} is out of range: {num_classes} classes are numbered "
            f"0 to {num_classes - 1}."
        )
