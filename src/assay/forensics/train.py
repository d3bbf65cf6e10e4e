"""The training loop of a detector, the same for every method, and its calibration."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import update_bn

from assay.classification.train import one_cycle
from assay.errors import UserError
from assay.forensics.config import DetectorConfig
from assay.forensics.corpus import DetectionSplit, as_float
from assay.forensics.decision import Decision
from assay.forensics.detector import Detector, create_method
from assay.forensics.methods.base import Method
from assay.training import Session

_SETTLING_BATCHES = 32


def fit_detector(
    train: DetectionSplit,
    config: DetectorConfig,
    *,
    validation: DetectionSplit | None = None,
    calibration: DetectionSplit | None = None,
    seed: int = 0,
    session: Session | None = None,
) -> Detector:
    """Train and calibrate a detector on tensors and return it in evaluation mode.

    Args:
        train: real images and, unless the method needs none, generated ones.
        config: the method, its options, and the training.
        validation: chooses the threshold and the band of "unsure"; default: ``calibration``.
        calibration: fits the probability; default: none, and the network's own sigmoid is the probability.
        seed: of the weights, the order and the randomness of the method, where no session is given.
        session: a session with a checkpoint store or a tracker; its seed counts.

    Raises:
        UserError: a class has too few images, or the loss diverged.

    Example:
        >>> dark, light = (torch.randint(low, low + 50, (32, 1, 8, 8), dtype=torch.uint8) for low in (0, 150))
        >>> split = DetectionSplit(dark, light)
        >>> config = DetectorConfig(method="rgb", epochs=8, batch_size=16)
        >>> detector = fit_detector(split, config, calibration=split)
        >>> bool((detector.score(light) > 0.5).all() and (detector.score(dark) < 0.5).all())
        True
    """
    session = session or Session(seed=seed, precision=config.precision)
    detector, method = create_detector(config, train.real)
    train_detector_network(session, detector, method, train, validation)
    finish_detector(session, detector, method, train, calibration, validation)
    return detector


def create_detector(config: DetectorConfig, images: Tensor) -> tuple[Detector, Method]:
    """Return an untrained detector for images like these, and the method whose transform it shares."""
    channels, image_size = images.shape[1], (images.shape[2], images.shape[3])
    method = create_method(config, channels, image_size)
    return Detector(config, channels, image_size, transform=method.transform), method


def train_detector_network(
    session: Session,
    detector: Detector,
    method: Method,
    train: DetectionSplit,
    validation: DetectionSplit | None = None,
) -> None:
    """Train in place, from the session's last checkpoint if it has one: the method's networks, then all.

    Every epoch logs ``loss`` (of the detector, absent while the method pre-trains) and, with ``validation``,
    ``validation_auc``.
    """
    config = detector.config
    train = check_split(train, method, config.batch_size)
    if isinstance(detector.network, nn.Sequential):
        fit_logistic_regression(session, detector, train)
        return
    network, optimizer, scheduler, steps = prepare(session, detector, method, train)
    for epoch in session.epochs(method.pretraining_epochs + config.epochs):
        pretraining = epoch < method.pretraining_epochs
        detector.train()
        total = torch.zeros((), device=session.device)
        for real, generated in batches(session, train, config.batch_size):
            if pretraining:
                method.pretraining_step(session, real, generated)
                continue
            inputs, labels = method.training_batch(session, real, generated)
            with session.autocast():
                logits = network(inputs).squeeze(1)
            loss = functional.binary_cross_entropy_with_logits(logits.float(), labels)
            session.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            total += loss.detach()
        metrics = {} if pretraining else {"loss": (session.reduce(total) / (steps * session.world_size)).item()}
        if validation is not None and not pretraining:
            metrics |= {"validation_auc": area_under_curve(*score_split(session, detector, method, validation))}
        session.log(metrics or {"pretraining_epoch": epoch + 1.0}, step=epoch + 1)
        session.checkpoint(epoch)


def prepare(
    session: Session, detector: Detector, method: Method, train: DetectionSplit
) -> tuple[nn.Module, torch.optim.Optimizer, LambdaLR, int]:
    """Hand everything trainable to the session, in the order that checkpoints rely on.

    Returns:
        The prepared network, optimiser and scheduler, and the number of steps of an epoch.
    """
    config = detector.config
    detector.to(session.device)
    method.prepare(session)
    optimizer = AdamW(detector.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    pairs = _pairs(train)
    steps = pairs // min(config.batch_size // 2, pairs)
    scheduler = LambdaLR(optimizer, partial(one_cycle, total=config.epochs * steps))
    network, optimizer, scheduler = session.prepare(detector.network, optimizer, scheduler)
    return network, optimizer, scheduler, steps


def batches(session: Session, train: DetectionSplit, batch_size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield an epoch's batches: as many real as generated images, float [n, C, H, W] on the session's device.

    The smaller class is gone through more than once, so that neither class is the more frequent one.
    """
    for index in session.progress(session.batches(_pairs(train), batch_size // 2)):
        real = as_float(train.real[index % len(train.real)], session.device)
        if train.generated is None:
            yield real, None
        else:
            yield real, as_float(train.generated[index % len(train.generated)], session.device)


def fit_logistic_regression(session: Session, detector: Detector, train: DetectionSplit) -> None:
    """Fit a detector whose transform gives features: standardise, then logistic regression in closed form."""
    from sklearn.linear_model import LogisticRegression

    if train.generated is None:
        raise UserError(f"{detector.config.method} is fitted on generated images: give some.")
    detector.to(session.device).eval()
    norm, linear = detector.network[0], detector.network[1]  # type: ignore[index]
    with torch.no_grad():
        features = torch.cat(
            [
                detector.transform(as_float(part, session.device)).double().cpu()
                for images in (train.real, train.generated)
                for part in images.split(512)
            ]
        )
        mean, variance = features.mean(dim=0), features.var(dim=0).clamp_min(1e-12)
        labels = np.repeat([0, 1], [len(train.real), len(train.generated)])
        standardised = ((features - mean) / (variance + norm.eps).sqrt()).numpy()
        fitted = LogisticRegression(max_iter=2000, class_weight="balanced").fit(standardised, labels)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        linear.weight.copy_(torch.from_numpy(fitted.coef_))
        linear.bias.copy_(torch.from_numpy(fitted.intercept_))
    session.prepare(detector.network)
    for epoch in session.epochs(1):
        session.log({"training_accuracy": float(fitted.score(standardised, labels))}, step=1)
        session.checkpoint(epoch)


def finish_detector(
    session: Session,
    detector: Detector,
    method: Method,
    train: DetectionSplit,
    calibration: DetectionSplit | None,
    validation: DetectionSplit | None,
) -> None:
    """Settle what training left unsettled, fit the probability on ``calibration``, and choose the decision.

    The decision is chosen on ``validation``. A method that trains without generated images is calibrated
    without them as well, on its own simulations.
    """
    detector.eval()
    if not isinstance(detector.network, nn.Sequential):
        settle_statistics(session, detector, method, train)
    calibration = calibration or validation
    if calibration is None:
        return
    slope, offset = platt_scaling(*score_split(session, detector, method, calibration, logits=True))
    detector.slope.fill_(slope)
    detector.offset.fill_(offset)
    scores, labels = score_split(session, detector, method, validation or calibration)
    detector.decision = Decision.choose(scores, labels, detector.config.confidence)


@torch.no_grad()
def settle_statistics(session: Session, detector: Detector, method: Method, train: DetectionSplit) -> None:
    """Measure the batch norms' statistics again, with the weights as they ended.

    The running averages lag behind the weights, and most behind a transform that is trained along with them.
    """
    train = check_split(train, method, detector.config.batch_size)
    half = detector.config.batch_size // 2

    def inputs() -> Iterator[Tensor]:
        for start in range(0, min(_pairs(train), _SETTLING_BATCHES * half), half):
            index = torch.arange(start, start + half)
            real = as_float(train.real[index % len(train.real)], session.device)
            if train.generated is None:
                generated = method.simulate(real)
            else:
                generated = as_float(train.generated[index % len(train.generated)], session.device)
            yield detector.transform(torch.cat([real, generated]))

    update_bn(inputs(), detector.network)
    detector.eval()


@torch.no_grad()
def score_split(
    session: Session, detector: Detector, method: Method, split: DetectionSplit, *, logits: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities (or logits) [N] and labels [N] of a split.

    For a method that needs no generated images those of the split are not looked at: it simulates them.
    """
    was_training = detector.training
    detector.eval()
    scores: list[Tensor] = []
    counts = []
    generated = split.generated if method.needs_generated else None
    for images in (split.real, generated):
        source = split.real if images is None else images
        for part in source.split(512):
            batch = as_float(part, session.device)
            found = detector.logits(batch if images is not None else method.simulate(batch))
            scores.append((found if logits else detector.calibrate(found.double())).double().cpu())
        counts.append(len(source))
    detector.train(was_training)
    return torch.cat(scores).numpy(), np.repeat([0, 1], counts)


def platt_scaling(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return slope and offset of ``sigmoid(slope * logit + offset)`` on held-out logits, both classes equal.

    Platt 1999: the targets are ``(n + 1) / (n + 2)`` and ``1 / (n + 2)`` instead of 1 and 0, so that separable
    classes have a finite optimum too. The classes are weighted alike: a probability of 0.5 then means
    that both are equally likely where both are equally frequent.

    Args:
        logits: float [N].
        labels: [N], 1 for generated.

    Example:
        >>> slope, offset = platt_scaling(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 0, 1, 1]))
        >>> slope > 0, abs(offset) < 1e-3
        (True, True)
    """
    from sklearn.linear_model import LogisticRegression

    counts = np.bincount(labels, minlength=2)
    if not counts.all():
        raise UserError("Calibration needs real and generated images: one of the classes is absent.")
    high = (counts + 1) / (counts + 2)
    weight = len(labels) / (2 * counts)
    ours, others = (high * weight)[labels], ((1 - high) * weight)[labels]
    centre, scale = logits.mean(), max(logits.std(), 1e-12)
    # A soft target is two hard ones with weights that add up to 1.
    fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(
        np.concatenate([logits, logits])[:, None] / scale - centre / scale,
        np.concatenate([labels, 1 - labels]),
        sample_weight=np.concatenate([ours, others]),
    )
    slope = float(fitted.coef_[0, 0] / scale)
    return slope, float(fitted.intercept_[0] - slope * centre)


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the area under the ROC curve, a half where all scores are equal.

    Example:
        >>> area_under_curve(np.array([0.1, 0.9]), np.array([0, 1]))
        1.0
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def check_split(split: DetectionSplit, method: Method, batch_size: int) -> DetectionSplit:
    """Return the split as the method may see it: without generated images where it needs none.

    Raises:
        UserError: a class is absent or has fewer images than a batch needs, or the images differ in shape.
    """
    generated = split.generated if method.needs_generated else None
    if method.needs_generated and (generated is None or not len(generated)):
        raise UserError(f"{method.title} is trained on generated images and there are none: add a generator.")
    fewest = min(len(split.real), len(split.real) if generated is None else len(generated))
    if fewest < 2:
        raise UserError(
            f"{fewest} images of a class are too few for batches of {batch_size}: "
            "give at least 2 real and 2 generated ones."
        )
    if generated is not None and generated.shape[1:] != split.real.shape[1:]:
        raise UserError(
            f"Real images are {list(split.real.shape[1:])} and generated ones {list(generated.shape[1:])}: "
            "bring them to one size and mode, or the difference is what is learned."
        )
    return DetectionSplit(split.real, generated, split.generators if generated is not None else np.zeros(0, np.str_))


def _pairs(train: DetectionSplit) -> int:
    """Return how many pairs of a real and a generated image an epoch has."""
    return max(len(train.real), 0 if train.generated is None else len(train.generated))
