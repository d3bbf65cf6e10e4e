"""Move the champion alias to a version that passed the gate."""

from kfp.dsl import Dataset, Input, Metrics, Output

from components import component


@component
def promotion(name: str, version: int, decision: Input[Dataset], metrics: Output[Metrics]):
    """Make a version the champion; the former champion becomes ``previous_champion``.

    Args:
        name: the registered model.
        version: the version to promote.
        decision: ``decision.json`` of the gate.
        metrics: the champion's version before and after.
    """
    from pathlib import Path

    from assay.registry import promote_decided

    metrics.metadata.update(promote_decided(name, version, decision=Path(decision.path), metrics=Path(metrics.path)))
