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
    start = _copy(parameters)
    objective = _Objective(logits, parameters, labels, loss)
    if loss.adapts:
        objective.adapt()
        start = _copy(parameters)
    best, lowest = start, math.inf
    for rate in LEARNING_RATES:
        _assign(parameters, start)
        norm = _lbfgs_run(objective, rate)
        if norm < lowest:
            best, lowest = _copy(parameters), norm
        if lowest <= _DIVERGED:
            break
    _assign(parameters, best)
    return objective.report(lowest)


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
    return objective.report(objective.norm)


class _DivergedError(ArithmeticError):
    """The gradient is no longer a finite number."""


class _Objective:
    """The loss as a closure that leaves its gradient in the parameters and remembers how large it was."""

    def __init__(self, logits: Logits, parameters: Sequence[nn.Parameter], labels: Tensor, loss: Loss) -> None:
        self.logits, self.parameters, self.labels, self.loss = logits, list(parameters), labels, loss
        self.evaluations, self.norm = 0, math.inf
        losses, counts = loss.class_losses(logits().detach(), labels)
        self.weight = float(loss.weights(losses, counts).sum())

    def __call__(self) -> Tensor:
        losses, counts = self.loss.class_losses(self.logits(), self.labels)
        weights = self.loss.weights(losses.detach(), counts)
        total = (weights * losses).sum()
        gradients = torch.autograd.grad(total, self.parameters)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.evaluations += 1
        self.norm = max(float(g.abs().max()) for g in gradients) / self.weight
        if not math.isfinite(self.norm):
            raise _DivergedError
        return total.detach()

    def adapt(self) -> None:
        """Take the authors' first step and let the loss adapt to what it changed."""
        first = self.logits().detach()
        self()
        length = FIRST_STEP * min(1.0, 1 / max(sum(float(_gradient(p).abs().sum()) for p in self.parameters), 1e-300))
        for parameter in self.parameters:
            parameter.data -= length * _gradient(parameter)
        self.loss = self.loss.adapted(first, self.logits().detach(), self.labels)

    def report(self, norm: float) -> FitReport:
        return FitReport(norm <= TOLERANCE, norm, self.evaluations, self.loss)


def _lbfgs_run(objective: _Objective, rate: float) -> float:
    """Run L-BFGS from the current parameters and return the gradient norm at the end; infinite if it left."""
    optimizer = torch.optim.LBFGS(
        objective.parameters,
        lr=rate,
        max_iter=ITERATIONS,
        max_eval=2 * ITERATIONS,
        history_size=20,
        tolerance_grad=TOLERANCE * objective.weight,
        tolerance_change=0.0,
    )
    try:
        optimizer.step(objective)
        objective()
    except _DivergedError:
        return math.inf
    return objective.norm


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _copy(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def _assign(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
