"""Calibrators: temperature scaling and its relatives, from one parameter to K squared.

Every temperature is ``exp(B tanh(u / B))`` of a free parameter u, with B = ln 1000: positive, equal to the
plain parameterisation wherever that converges, and between 1/1000 and 1000 where it does not (separable
data asks for T = 0, labels without any relation to the logits for T = infinity) [ours].
"""

import itertools
import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.calibration.calibrator import Calibrator
from assay.calibration.losses import Loss
from assay.calibration.optimise import FitReport, adam, lbfgs

LARGEST_TEMPERATURE = 1000.0
"""Temperatures lie between its inverse and this."""

TOP_LOGITS = 10
"""How many of the largest logits parameterised temperature scaling sees (Tomani et al., ECCV 2022)."""

_ATTEMPTS = 5


def bounded_temperature(free: Tensor) -> Tensor:
    """Return temperatures in (1/1000, 1000) of unbounded parameters; 0 gives 1.

    Example:
        >>> bounded_temperature(torch.tensor([0.0, 1e9])).round()
        tensor([   1., 1000.])
    """
    bound = math.log(LARGEST_TEMPERATURE)
    return torch.exp(bound * torch.tanh(free / bound))


class TemperatureScaling(Calibrator):
    """``z / T`` with one temperature (Guo et al., ICML 2017); the predicted class never changes.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]])
        >>> scaling = TemperatureScaling().fit(logits, torch.tensor([0, 0, 0, 1]))
        >>> round(scaling.temperature.item(), 3), round(4 / math.log(3), 3)
        (3.641, 3.641)
    """

    name: ClassVar[str] = "ts"
    title: ClassVar[str] = "Temperature scaling"

    def build(self, num_classes: int) -> None:
        """Start at T = 1."""
        self.free = nn.Parameter(torch.zeros(1))

    @property
    def temperature(self) -> Tensor:
        """T, [1]."""
        return bounded_temperature(self.free)

    def forward(self, logits: Tensor) -> Tensor:
        """Return ``logits / T``."""
        return logits * (1 / self.temperature).to(logits.dtype)


class ClassTemperatureScaling(Calibrator):
    """``z_k / T_k``: one temperature for each class (SCTL's code); it can change the predicted class.

    Example:
        >>> ClassTemperatureScaling().fit(torch.eye(3), torch.tensor([0, 1, 1])).temperature.shape
        torch.Size([3])
    """

    name: ClassVar[str] = "cts"
    title: ClassVar[str] = "Class-based temperature scaling"

    def build(self, num_classes: int) -> None:
        """Start at T = 1 for every class."""
        self.free = nn.Parameter(torch.zeros(num_classes))

    @property
    def temperature(self) -> Tensor:
        """T of every class, [K]."""
        return bounded_temperature(self.free)

    def forward(self, logits: Tensor) -> Tensor:
        """Return ``logits / T`` column by column."""
        return logits * (1 / self.temperature).to(logits.dtype)


class EnsembleTemperatureScaling(Calibrator):
    """``w1 softmax(z / T) + w2 softmax(z) + w3 / K`` (Zhang et al., Mix-n-Match, ICML 2020); returns its log.

    T is fitted first, then the weights, which stay on the simplex as a softmax of free parameters [ours]. The
    order of the probabilities, and with it the predicted class, never changes.

    Example:
        >>> calibrated = EnsembleTemperatureScaling().fit(torch.eye(2) * 5, torch.tensor([0, 1]))
        >>> round(calibrated.weights.sum().item(), 6)
        1.0
    """

    name: ClassVar[str] = "ets"
    title: ClassVar[str] = "Ensemble temperature scaling"

    def build(self, num_classes: int) -> None:
        """Start at T = 1 with nearly all weight on ``softmax(z / T)``."""
        self.free = nn.Parameter(torch.zeros(1))
        self.mixture = nn.Parameter(torch.tensor([3.0, 0.0, 0.0]))

    @property
    def temperature(self) -> Tensor:
        """T, [1]."""
        return bounded_temperature(self.free)

    @property
    def weights(self) -> Tensor:
        """w, [3]: of the scaled, the unscaled and the uniform probabilities."""
        return functional.softmax(self.mixture, dim=0)

    def forward(self, logits: Tensor) -> Tensor:
        """Return the logarithm of the mixed probabilities."""
        log_weights = functional.log_softmax(self.mixture, dim=0).to(logits.dtype)
        scaled = functional.log_softmax(logits * (1 / self.temperature).to(logits.dtype), dim=1)
        plain = functional.log_softmax(logits, dim=1)
        uniform = torch.full_like(logits, -math.log(logits.shape[1]))
        return torch.logsumexp(torch.stack([scaled, plain, uniform]) + log_weights.view(3, 1, 1), dim=0)

    def _fit(self, logits: Tensor, labels: Tensor, loss: Loss) -> FitReport:
        first = lbfgs(lambda: logits / self.temperature, [self.free], labels, loss)
        return first.then(lbfgs(lambda: self(logits), [self.mixture], labels, first.loss))


class EnsembleLogitScaling(Calibrator):
    """``w1 z / T + w2 z + w3 / K`` on logits: the ensemble of SCTL's code, T first and then w from (1, 0, 0).

    The constant cancels in the softmax, and the rest is one scale ``w1 / T + w2``, so that this *is*
    temperature scaling wherever both converge.

    Example:
        >>> logits, labels = torch.tensor([[4.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1])
        >>> round(EnsembleLogitScaling().fit(logits, labels).transform(logits)[0, 0].exp().item(), 3)
        3.0
    """

    name: ClassVar[str] = "ets_logits"
    title: ClassVar[str] = "Ensemble of logits"

    def build(self, num_classes: int) -> None:
        """Start at T = 1 and w = (1, 0, 0)."""
        self.free = nn.Parameter(torch.zeros(1))
        self.weights = nn.Parameter(torch.tensor([1.0, 0.0, 0.0]))

    @property
    def temperature(self) -> Tensor:
        """T, [1]."""
        return bounded_temperature(self.free)

    def forward(self, logits: Tensor) -> Tensor:
        """Return the weighted sum of scaled logits, logits and a constant."""
        scale = self.weights[0] / self.temperature + self.weights[1]
        return logits * scale.to(logits.dtype) + (self.weights[2] / logits.shape[1]).to(logits.dtype)

    def _fit(self, logits: Tensor, labels: Tensor, loss: Loss) -> FitReport:
        first = lbfgs(lambda: logits / self.temperature, [self.free], labels, loss)
        return first.then(lbfgs(lambda: self(logits), [self.weights], labels, first.loss))


class ParameterizedTemperatureScaling(Calibrator):
    """``z / T(z)``: a small network maps the 10 largest logits to a temperature (Tomani et al., ECCV 2022).

    Layers 10-2-2-2-2-1 with ReLU, fitted by 1,000 Adam steps (SCTL's code). The output passes a softplus, so
    that T > 0 and the predicted class never changes; the authors leave its sign free.

    Two ReLUs in a row often die on raw logits, and one temperature for all rows is left: in SCTL's logs the ECE
    of PTS equals that of TS. So the logits are standardised, the layers start alive (He's weights, biases of
    1), and a network that died starts again from other layers, at most five times [ours].

    Example:
        >>> scaling = ParameterizedTemperatureScaling().fit(torch.eye(3) * 4, torch.tensor([0, 1, 1]))
        >>> bool((scaling.temperature(torch.eye(3, dtype=torch.float64)) > 0).all())
        True
    """

    location: Tensor
    spread: Tensor

    name: ClassVar[str] = "pts"
    title: ClassVar[str] = "Parameterized temperature scaling"

    def build(self, num_classes: int) -> None:
        """Start with random layers whose last bias gives a T near 1."""
        inputs = min(TOP_LOGITS, num_classes)
        self.register_buffer("location", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((inputs, 2, 2, 2, 2)):
            layer = nn.Linear(before, after)
            nn.init.kaiming_normal_(layer.weight)
            nn.init.ones_(layer.bias)
            layers += [layer, nn.ReLU()]
        last = nn.Linear(2, 1)
        nn.init.constant_(last.bias, math.log(math.e - 1))
        self.network = nn.Sequential(*layers, last)

    def temperature(self, logits: Tensor) -> Tensor:
        """T of every row, [N, 1]."""
        return self._temperature_of_top(self._top(logits)).to(logits.dtype)

    def forward(self, logits: Tensor) -> Tensor:
        """Return ``logits / T(logits)``."""
        return logits / self.temperature(logits)

    def _top(self, logits: Tensor) -> Tensor:
        dtype = next(self.network.parameters()).dtype
        return logits.detach().to(dtype).topk(min(TOP_LOGITS, logits.shape[1]), dim=1).values

    def _temperature_of_top(self, top: Tensor) -> Tensor:
        raw = self.network((top - self.location) / self.spread)
        return functional.softplus(raw).clamp(1 / LARGEST_TEMPERATURE, LARGEST_TEMPERATURE)

    def _fit(self, logits: Tensor, labels: Tensor, loss: Loss) -> FitReport:
        top = self._top(logits)
        for _ in range(_ATTEMPTS):
            self.build(logits.shape[1])
            self.double()
            self.location.copy_(top.mean(dim=0))
            self.spread.copy_(top.std(dim=0, correction=0).clamp(min=1e-6))
            report = adam(lambda: logits / self._temperature_of_top(top), list(self.parameters()), labels, loss)
            temperature = self._temperature_of_top(top)
            if temperature.max() - temperature.min() > 1e-6 * temperature.max():
                break
        return report


class VectorScaling(Calibrator):
    """``w_k z_k + b_k`` (Guo et al., ICML 2017); it can change the predicted class.

    Example:
        >>> VectorScaling().fit(torch.eye(3), torch.tensor([0, 1, 1])).transform(torch.eye(3)).shape
        torch.Size([3, 3])
    """

    name: ClassVar[str] = "vs"
    title: ClassVar[str] = "Vector scaling"

    def build(self, num_classes: int) -> None:
        """Start at w = 1 and b = 0."""
        self.scale = nn.Parameter(torch.ones(num_classes))
        self.shift = nn.Parameter(torch.zeros(num_classes))

    def forward(self, logits: Tensor) -> Tensor:
        """Return the scaled and shifted logits."""
        return logits * self.scale.to(logits.dtype) + self.shift.to(logits.dtype)


class MatrixScaling(Calibrator):
    """``W z + b`` (Guo et al., ICML 2017): K squared parameters, which overfit when K is large.

    Example:
        >>> MatrixScaling().fit(torch.eye(3), torch.tensor([0, 1, 1])).transform(torch.eye(3)).shape
        torch.Size([3, 3])
    """

    name: ClassVar[str] = "ms"
    title: ClassVar[str] = "Matrix scaling"

    def build(self, num_classes: int) -> None:
        """Start at W = identity and b = 0."""
        self.matrix = nn.Parameter(torch.eye(num_classes))
        self.shift = nn.Parameter(torch.zeros(num_classes))

    def forward(self, logits: Tensor) -> Tensor:
        """Return the affine map of the logits."""
        return logits @ self.matrix.T.to(logits.dtype) + self.shift.to(logits.dtype)
