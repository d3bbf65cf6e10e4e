"""Finding a calibrator's parameters, and saying honestly whether they were found."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.calibration.losses import Loss

LEARNING_RATES = (1.0, 0.3, 0.02)
"""Step lengths of L-BFGS, tried in turn until one does not diverge; 0.02 is that of SCTL's code.

There is no line search: with weights that move but carry no gradient, SCTL's loss is not the integral of its
gradient, so that only the gradient can be trusted. In log T, full steps find the root that hundreds of steps
of 0.02 in T find.
"""

FIRST_STEP = 0.02
"""Length of the authors' first step, between the two evaluations that SCTL's strength is fitted from."""

ITERATIONS = 1000
"""The most iterations of one run, L-BFGS or Adam (authors' code)."""

TOLERANCE = 1e-6
"""Largest gradient component, per unit of total class weight, at which a fit has converged."""

_DIVERGED = 1e3 * TOLERANCE

Logits = Callable[[], Tensor]
"""The calibrated logits [N, K] at the current parameters."""


@dataclass(frozen=True)
class FitReport:
    """How a fit ended.

    Attributes:
        converged: the gradient norm is at most :data:`TOLERANCE`.
        gradient_norm: largest absolute component of the gradient, per unit of total class weight.
        evaluations: of the loss and its gradient.
        loss: the loss as it ended, with the alpha and beta that SCTL fitted.
    """

    converged: bool
    gradient_norm: float
    evaluations: int
    loss: Loss

    def then(self, second: "FitReport") -> "FitReport":
        """Return the report of two stages, the second of which began where this one ended."""
        return FitReport(
            self.converged and second.converged,
            max(self.gradient_norm, second.gradient_norm),
            self.evaluations + second.evaluations,
            second.loss,
        )


def lbfgs(logits: Logits, parameters: Sequence[nn.Parameter], labels: Tensor, loss: Loss) -> FitReport:
    """Move ``parameters`` to where the gradient of ``loss`` vanishes, by full-batch L-BFGS.

    Args:
        logits: calibrated logits [N, K] at the current parameters.
        parameters: moved in place.
        labels: [N].
        loss: to be minimised.

    Example:
        >>> shift = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        >>> labels = torch.tensor([0, 1, 1, 1])
        >>> report = lbfgs(lambda: torch.cat([0 * shift, shift]).expand(4, 2), [shift], labels, Loss())
        >>> report.converged, round(shift.exp().item(), 3)
        (True, 3.0)
    """
    objective = _Objective(logits, parameters, labels, loss)
    if loss.adapts:
        objective.adapt()
    start = _copy(parameters)
    for rate in LEARNING_RATES:
        _assign(parameters, start)
        if _lbfgs_run(objective, rate):
            break
    if not math.isfinite(objective.norm) or objective.is_worse_than_start():
        _assign(parameters, start)
        objective()
    return objective.report()


def adam(logits: Logits, parameters: Sequence[nn.Parameter], labels: Tensor, loss: Loss) -> FitReport:
    """Take up to 1,000 full-batch Adam steps of 0.02, as SCTL's code does for PTS.

    Args:
        logits: calibrated logits [N, K] at the current parameters.
        parameters: moved in place.
        labels: [N].
        loss: to be minimised.

    Example:
        >>> shift = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        >>> labels = torch.tensor([0, 1, 1, 1])
        >>> _ = adam(lambda: torch.cat([0 * shift, shift]).expand(4, 2), [shift], labels, Loss())
        >>> round(shift.exp().item(), 3)
        3.0
    """
    objective = _Objective(logits, parameters, labels, loss)
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    first = logits().detach()
    for step in range(ITERATIONS):
        if step == 1 and loss.adapts:
            objective.loss = loss.adapted(first, logits().detach(), labels)
        objective()
        if objective.norm <= TOLERANCE:
            break
        optimizer.step()
    else:
        objective()
    return objective.report()


class _DivergedError(ArithmeticError):
    """The gradient is no longer a finite number."""


class _Objective:
    """The loss per unit of class weight, as a closure that leaves its gradient in the parameters.

    Attributes:
        norm: largest absolute component of the gradient at the last evaluation.
        evaluations: so far.
    """

    def __init__(self, logits: Logits, parameters: Sequence[nn.Parameter], labels: Tensor, loss: Loss) -> None:
        self.logits, self.parameters, self.labels, self.loss = logits, list(parameters), labels, loss
        self.evaluations, self.norm = 0, math.inf

    def __call__(self) -> Tensor:
        losses, counts = self.loss.class_losses(self.logits(), self.labels)
        self.losses, self.weights = losses.detach(), self.loss.weights(losses.detach(), counts)
        if self.evaluations == 0:
            self.first_losses = self.losses
        self.evaluations += 1
        value = (self.weights * losses).sum() / self.weights.sum()
        gradients = torch.autograd.grad(value, self.parameters)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.norm = max(float(gradient.abs().max()) for gradient in gradients)
        if not math.isfinite(self.norm):
            raise _DivergedError
        return value.detach()

    def adapt(self) -> None:
        """Take the authors' first step and let the loss adapt to what it changed."""
        before = self.logits().detach()
        self()
        total = float(self.weights.sum())
        gradients = [total * parameter.grad for parameter in self.parameters if parameter.grad is not None]
        length = FIRST_STEP / max(1.0, sum(float(gradient.abs().sum()) for gradient in gradients))
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.data -= length * gradient
        self.loss = self.loss.adapted(before, self.logits().detach(), self.labels)

    def is_worse_than_start(self) -> bool:
        """Say whether the loss, with its weights as they are now, was lower where everything began.

        A gradient also vanishes where a parameter went to infinity. At a true fixed point the weighted loss
        is at its minimum for the weights there.
        """
        rise = (self.weights * (self.losses - self.first_losses)).sum() / self.weights.sum()
        return float(rise) > TOLERANCE

    def report(self) -> FitReport:
        return FitReport(self.norm <= TOLERANCE, self.norm, self.evaluations, self.loss)


def _lbfgs_run(objective: _Objective, rate: float) -> bool:
    """Run L-BFGS from the current parameters and say whether it came near a fixed point."""
    optimizer = torch.optim.LBFGS(
        objective.parameters,
        lr=rate,
        max_iter=ITERATIONS,
        max_eval=2 * ITERATIONS,
        history_size=20,
        tolerance_grad=TOLERANCE,
        tolerance_change=0.0,
    )
    try:
        optimizer.step(objective)
        if objective.norm > TOLERANCE:  # out of iterations: the last step was not evaluated
            objective()
    except _DivergedError:
        return False
    return objective.norm <= _DIVERGED and not objective.is_worse_than_start()


def _copy(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def _assign(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
