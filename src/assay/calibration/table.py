"""The table of calibrators by losses: each fitted on one split and judged on another."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from assay.calibration.calibrator import Calibrator
from assay.calibration.logits import LogitsFile
from assay.calibration.optimise import FitReport
from assay.calibration.peers import PEERS
from assay.evaluation import METRICS, Estimate, evaluate_predictions
from assay.evaluation.metric import Array
from assay.evaluation.metrics import expected_calibration_error

UNCALIBRATED = "uncalibrated"
ORACLE = "oracle"


@dataclass(frozen=True)
class Row:
    """One calibrator with one loss, on the test split.

    Attributes:
        calibrator: key, or ``uncalibrated`` or ``oracle``.
        loss: key; empty where no loss is involved.
        probabilities: float64 [N, K] of the test split.
        metrics: every metric of :data:`assay.evaluation.METRICS`, as fractions.
        ece: the same ECE with its interval.
        fitted: the calibrator; None where nothing was optimised.
        seconds: of the fit.
    """

    calibrator: str
    loss: str
    probabilities: Array
    metrics: dict[str, float]
    ece: Estimate
    fitted: Calibrator | None = None
    seconds: float = 0.0

    @property
    def fit(self) -> FitReport | None:
        """How the fit ended; None where nothing was optimised."""
        return None if self.fitted is None else self.fitted.fit_report

    @property
    def converged(self) -> str:
        """``yes``, ``no`` with the gradient norm, or a dash where nothing was optimised."""
        if self.fit is None:
            return "–"
        return "yes" if self.fit.converged else f"no ({self.fit.gradient_norm:.0e})"


@dataclass(frozen=True)
class Judge:
    """Makes rows for one file of logits, all judged with the same resampling."""

    file: LogitsFile
    replicates: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def uncalibrated(self) -> Row:
        """Judge the logits as they came."""
        return self._row(UNCALIBRATED, "", softmax(self.file.test_logits))

    def calibrator(self, name: str, loss: str) -> Row:
        """Fit a calibrator, and judge it."""
        begin = time.perf_counter()
        fitted = Calibrator.registry[name]().fit(self.file.fit_logits, self.file.fit_labels, loss, seed=self.seed)
        seconds = time.perf_counter() - begin
        probabilities = softmax(fitted.transform(self.file.test_logits))
        return self._row(name, loss, probabilities, fitted, seconds)

    def peer(self, name: str) -> Row:
        """Fit a non-parametric calibrator, and judge it."""
        begin = time.perf_counter()
        fitted = PEERS[name]().fit(self.file.fit_logits, self.file.fit_labels)
        seconds = time.perf_counter() - begin
        return self._row(name, "", fitted.probabilities(self.file.test_logits), seconds=seconds)

    def oracle(self) -> Row:
        """Judge the temperature whose ECE on the *test* split is lowest: a floor that nobody can fit."""
        temperature = oracle_temperature(self.file.test_logits, self.file.test_labels)
        return self._row(ORACLE, "", softmax(self.file.test_logits / temperature))

    def _row(
        self,
        calibrator: str,
        loss: str,
        probabilities: Array,
        fitted: Calibrator | None = None,
        seconds: float = 0.0,
    ) -> Row:
        labels = self.file.test_labels.numpy()
        estimate = evaluate_predictions(
            probabilities,
            labels,
            {"ece": METRICS["ece"]},
            replicates=self.replicates,
            confidence=self.confidence,
            seed=self.seed,
        )["ece"]
        metrics = {name: metric(probabilities, labels) for name, metric in METRICS.items()}
        return Row(calibrator, loss, probabilities, metrics, estimate, fitted, seconds)


def compare_calibrators(
    judge: Judge,
    calibrators: Sequence[str],
    losses: Sequence[str],
    peers: Sequence[str] = (),
    *,
    track: Callable[[Sequence[Callable[[], Row]]], Iterable[Callable[[], Row]]] = iter,
) -> list[Row]:
    """Return the rows uncalibrated, calibrators x losses, peers, oracle.

    Args:
        judge: holds the logits.
        calibrators: keys of ``Calibrator.registry``.
        losses: keys of :data:`assay.calibration.losses.LOSSES`.
        peers: keys of :data:`assay.calibration.peers.PEERS`.
        track: wraps the list of steps to show progress.
    """
    steps: list[Callable[[], Row]] = [judge.uncalibrated]
    steps += [partial(judge.calibrator, name, loss) for name in calibrators for loss in losses]
    steps += [partial(judge.peer, name) for name in peers]
    return [step() for step in track([*steps, judge.oracle])]


def softmax(logits: torch.Tensor) -> Array:
    """Return probabilities as a float64 array.

    Example:
        >>> softmax(torch.zeros(1, 2))
        array([[0.5, 0.5]])
    """
    return torch.softmax(logits.double(), dim=1).numpy()


def oracle_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the temperature in [0.05, 20] with the lowest ECE on these very samples, to about 0.1 % [ours].

    The ECE is not smooth in T: a grid, then a finer one around its best point.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0]]).expand(4, 2)
        >>> round(oracle_temperature(logits, torch.tensor([0, 0, 0, 1])), 2), round(4 / np.log(3), 2).item()
        (3.64, 3.64)
    """
    targets = labels.numpy()

    def best(log_temperatures: Array) -> float:
        errors = [expected_calibration_error(softmax(logits / np.exp(t)), targets) for t in log_temperatures]
        return float(log_temperatures[int(np.argmin(errors))])

    coarse = np.linspace(np.log(0.05), np.log(20), 121)
    step = coarse[1] - coarse[0]
    return float(np.exp(best(np.linspace(-step, step, 101) + best(coarse))))
