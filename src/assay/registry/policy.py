"""What a challenger must show before it may replace the champion: one YAML file for each registered model."""

from typing import Any

import yaml
from pydantic import Field, field_validator

from assay.config import Config
from assay.errors import UserError
from assay.files import safe_name
from assay.project import Project


class MetricGuard(Config):
    """Bounds on one metric, in its own unit; which way is worse follows from the metric."""

    limit: float | None = None
    """The worst value allowed: a floor where higher is better, else a ceiling."""
    slack: float | None = Field(default=None, ge=0)
    """How much worse than the champion's the challenger's value may be."""


class GatePolicy(Config):
    """The rule of a gate. Metrics are named as in ``assay.evaluation.ALL_METRICS``, which know their direction.

    The challenger must be better than the champion on ``primary`` by more than ``margin``, with the paired
    bootstrap interval at ``confidence`` wholly beyond it, and keep every guard. A negative margin asks only
    that it be shown not to be worse by that much. Without a champion the guards alone decide.

    Example:
        >>> GatePolicy.parse({"primary": "accuracy", "margin": -0.01}, where="policy").confidence
        0.95
    """

    primary: str = "accuracy"
    margin: float = 0.0
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    replicates: int = Field(default=2000, ge=100)
    metrics: dict[str, MetricGuard] = Field(default={})
    worst_class_accuracy: float | None = Field(default=None, ge=0, le=1)
    slices: dict[str, float] = Field(default={})
    """The lowest accuracy allowed in a slice of the test split; ``*`` stands for every slice."""
    size_mb: float | None = Field(default=None, gt=0)
    latency_ms: float | None = Field(default=None, gt=0)
    """The longest time allowed for one image by itself, in milliseconds on this machine's CPU."""
    tolerance: float = Field(default=1e-4, gt=0)
    """How far the registered model's probabilities may be from the evaluated ones."""

    @field_validator("primary")
    @classmethod
    def _known(cls, name: str) -> str:
        from assay.evaluation import ALL_METRICS

        if name not in ALL_METRICS:
            raise ValueError(f"it is not a metric: the metrics are {', '.join(ALL_METRICS)}")
        return name

    @field_validator("metrics")
    @classmethod
    def _all_known(cls, guards: dict[str, MetricGuard]) -> dict[str, MetricGuard]:
        for name in guards:
            cls._known(name)
        return guards

    def check_classes(self, classes: int) -> None:
        """Refuse a metric that ranks two classes where there are more, or one.

        Raises:
            UserError: the policy names such a metric.

        Example:
            >>> GatePolicy(primary="auc").check_classes(3)
            Traceback (most recent call last):
            ...
            assay.errors.UserError: The policy names auc, which ranks two classes, and the model has 3: ...
        """
        from assay.evaluation import metrics_for

        for name in (self.primary, *self.metrics):
            if name not in (known := metrics_for(classes)):
                raise UserError(
                    f"The policy names {name}, which ranks two classes, and the model has {classes}: "
                    f"choose from {', '.join(known)}."
                )


def load_policy(name: str) -> dict[str, Any]:
    """Return the policy in ``pipelines/gates/<name>.yaml`` as a plain dictionary, a pipeline's default.

    Raises:
        UserError: there is no such file, or it is not YAML.
    """
    path = Project.find().root / "pipelines" / "gates" / f"{safe_name(name, 'policy name')}.yaml"
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"There is no gate policy {path}: write one like classifier.yaml.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {str(error).splitlines()[0]}; correct it.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold settings such as `primary: accuracy`: write them one a line.")
    return values
