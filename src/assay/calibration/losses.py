"""Losses that calibrators are fitted with: class-wise loss scaling (SCTL) and its controls.

Every loss here is a weighted sum of mean losses per class, ``sum_k w_k L_k``; cross-entropy is the one with
``w_k = n_k / N``. A class without samples has no ``L_k`` and is left out.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, Self

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional

from assay.errors import UserError

Normalisation = Literal["nd", "mm", "cm"]
"""Normal distribution, min-max, or centred min-max."""


@dataclass(frozen=True)
class Loss:
    """Cross-entropy, and the base of the others.

    Example:
        >>> logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
        >>> torch.isclose(Loss()(logits, labels), functional.cross_entropy(logits, labels)).item()
        True
    """

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of logits [N, K] and labels [N]."""
        losses, counts = self.class_losses(logits, labels)
        return (self.weights(losses.detach(), counts) * losses).sum()

    def class_losses(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss and the number of samples of every class that has any, both [present]."""
        counts = torch.bincount(labels, minlength=logits.shape[1])
        sums = logits.new_zeros(logits.shape[1]).index_add(0, labels, self.sample_losses(logits, labels))
        present = counts > 0
        return sums[present] / counts[present], counts[present]

    def sample_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of every sample, [N]."""
        # Half the time of functional.cross_entropy, which also writes all N x K log-probabilities.
        return logits.logsumexp(dim=1) - logits.gather(1, labels.unsqueeze(1)).squeeze(1)

    def weights(self, losses: Tensor, counts: Tensor) -> Tensor:
        """Return a weight for every class's mean loss; no gradient passes through it."""
        return counts.to(losses.dtype) / counts.sum()

    @property
    def adapts(self) -> bool:
        """Whether :meth:`adapted` can return another loss than this one."""
        return False

    def adapted(self, first: Tensor, second: Tensor, labels: Tensor) -> Self:
        """Return the loss to go on with after the second evaluation.

        Args:
            first: logits [N, K] at the first evaluation.
            second: logits [N, K] at the second.
            labels: [N].
        """
        return self


@dataclass(frozen=True)
class ClassBalancedCrossEntropy(Loss):
    """Sum of the class-wise losses: SCTL with all weights 1, the control that isolates macro-averaging.

    Example:
        >>> logits, labels = torch.zeros(3, 2), torch.tensor([0, 0, 1])
        >>> round(ClassBalancedCrossEntropy()(logits, labels).item() / math.log(2), 4)
        2.0
    """

    def weights(self, losses: Tensor, counts: Tensor) -> Tensor:
        """Return ones."""
        return torch.ones_like(losses)


@dataclass(frozen=True)
class LabelSmoothing(Loss):
    """Cross-entropy against ``(1 - smoothing) onehot + smoothing / K`` (Szegedy et al., CVPR 2016).

    Example:
        >>> LabelSmoothing(0.1)(torch.zeros(1, 4), torch.tensor([2])).exp().round().item()
        4.0
    """

    smoothing: float = 0.05

    def sample_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the smoothed cross-entropy of every sample, [N]."""
        return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self.smoothing)


@dataclass(frozen=True)
class FocalLoss(Loss):
    """``-(1 - p)^gamma log p`` of the label's probability (Lin et al., ICCV 2017).

    The gradient passes through the factor, as in the paper; SCTL's code stops it there, which is not the
    gradient of any loss.

    Example:
        >>> round(FocalLoss(gamma=1.0)(torch.zeros(1, 2), torch.tensor([0])).item() / math.log(2), 4)
        0.5
    """

    gamma: float = 3.0

    def sample_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the focal loss of every sample, [N]."""
        cross_entropy = super().sample_losses(logits, labels).clamp(min=0)
        return (-torch.expm1(-cross_entropy)).pow(self.gamma) * cross_entropy


@dataclass(frozen=True)
class ClassWiseLossScaling(Loss):
    """Scaling of class-wise training losses, SCTL (Jung et al., ICML 2023; authors' code).

    ``w_k = 1 + beta sigmoid(n_k / alpha) - beta / 2`` with ``n`` the normalised class losses, so that a class
    with a higher loss gets more weight and the losses synchronise.

    Args:
        normalisation: ``"nd"`` (L - mean) / std, ``"mm"`` (L - min) / (max - min), ``"cm"``
            (L - mean) / (max - min).
        alpha: width of the sigmoid.
        beta: range of the weights, ``1 - beta / 2 < w < 1 + beta / 2``; in [0, 2], so that no weight is
            negative.
        fit_strength: fit alpha and beta once, at the second evaluation of the loss.

    Example:
        >>> ClassWiseLossScaling("mm").weights(torch.tensor([1.0, 3.0]), torch.tensor([5, 5]))
        tensor([1.0000, 1.3466])
        >>> ClassWiseLossScaling().weights(torch.tensor([2.0, 2.0]), torch.tensor([5, 5]))
        tensor([1., 1.])
    """

    normalisation: Normalisation = "nd"
    alpha: float = 1.0
    beta: float = 1.5
    fit_strength: bool = True

    def __post_init__(self) -> None:
        if self.alpha <= 0 or not 0 <= self.beta <= 2:
            raise UserError(
                f"SCTL with alpha = {self.alpha} and beta = {self.beta}: alpha must be > 0, beta in [0, 2]."
            )

    @property
    def adapts(self) -> bool:
        """Whether alpha and beta are still to be fitted."""
        return self.fit_strength

    def weights(self, losses: Tensor, counts: Tensor) -> Tensor:
        """Return ``w`` [present]; ones where all losses are equal."""
        return 1 + self.beta * torch.sigmoid(self.normalised(losses) / self.alpha) - self.beta / 2

    def normalised(self, losses: Tensor) -> Tensor:
        """Return the class losses without their location and scale.

        Equal losses, one class among them, give zeros where the authors' code divides by zero: with "nd" and
        "cm" every weight is then 1. The zero of "mm" means the lowest loss, whose weight is 1 as well.
        """
        spread = losses.max() - losses.min()
        if spread <= 1e-12 * losses.abs().max():
            return torch.zeros_like(losses)
        location = losses.min() if self.normalisation == "mm" else losses.mean()
        return (losses - location) / (losses.std() if self.normalisation == "nd" else spread)

    def adapted(self, first: Tensor, second: Tensor, labels: Tensor) -> Self:
        """Fit alpha in [0.1, ln(K) / 2] and beta in [1.5, 2] by SLSQP (authors' code).

        The residual is ``L0 - (beta sigmoid(n / alpha) - beta / 2) (L1 - L0) - mean(L1)`` in the 2-norm, with
        L0 and L1 the class losses at the first two evaluations and n the normalised L1. With one class
        the range of alpha is empty, and alpha and beta stay as they are.
        """
        largest_alpha = math.log(second.shape[1]) / 2
        if not self.adapts or largest_alpha <= 0.1:
            return self
        before = self.class_losses(first, labels)[0].numpy()
        losses = self.class_losses(second, labels)[0]
        after, normal = losses.numpy(), self.normalised(losses).numpy()

        def residual(strength: np.ndarray) -> float:
            alpha, beta = strength
            scale = beta / (1 + np.exp(-normal / alpha)) - beta / 2
            return float(np.linalg.norm(before - scale * (after - before) - after.mean()))

        start = (min(self.alpha, largest_alpha), self.beta)
        found = minimize(residual, start, method="SLSQP", bounds=[(0.1, largest_alpha), (1.5, 2.0)])
        return replace(self, alpha=float(found.x[0]), beta=float(found.x[1]), fit_strength=False)


LOSSES: MappingProxyType[str, Callable[[], Loss]] = MappingProxyType(
    {
        "cross_entropy": Loss,
        "class_balanced": ClassBalancedCrossEntropy,
        "label_smoothing": LabelSmoothing,
        "focal": FocalLoss,
        "sctl_nd": lambda: ClassWiseLossScaling("nd"),
        "sctl_mm": lambda: ClassWiseLossScaling("mm"),
        "sctl_cm": lambda: ClassWiseLossScaling("cm"),
    }
)
"""Every loss by name, at the settings of the SCTL paper."""


def as_loss(loss: str | Loss) -> Loss:
    """Return a loss object for a name of :data:`LOSSES`, or the object itself.

    Raises:
        UserError: there is no loss of that name.

    Example:
        >>> as_loss("focal")
        FocalLoss(gamma=3.0)
    """
    if isinstance(loss, Loss):
        return loss
    if loss not in LOSSES:
        raise UserError(f"There is no loss {loss!r}: choose one of {', '.join(LOSSES)}.")
    return LOSSES[loss]()
