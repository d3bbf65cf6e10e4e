"""Register a challenger and decide whether it may replace the champion."""

from typing import NamedTuple

from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output

from components import component


@component
def gate(
    dataset: Input[Dataset],
    model: Input[Model],
    predictions: Input[Dataset],
    name: str,
    policy: dict,
    revision: str,
    seed: int,
    decision: Output[Dataset],
    report: Output[HTML],
    metrics: Output[Metrics],
) -> NamedTuple("Verdict", [("passed", bool), ("version", int), ("reasons", str)]):
    """Score the challenger and the champion on the same test images and apply the policy.

    Args:
        dataset: the data set artifact; its ``test`` split is scored.
        model: the calibrated classifier, or the detector.
        predictions: what the evaluation measured; the registered model must answer the same.
        name: the registered model.
        policy: see ``assay.registry.GatePolicy``.
        revision: of the data, for the lineage.
        seed: of the training, for the lineage.
        decision: ``decision.json``: the decision, its reasons and its numbers.
        report: the same for people.
        metrics: the numbers, with intervals.
    """
    from pathlib import Path

    from assay.artifacts import load_model
    from assay.registry import gate as decide

    outcome = decide(
        Path(dataset.path),
        Path(model.path),
        Path(predictions.path),
        policy,
        name=name,
        load=load_model,
        decision=Path(decision.path),
        report=Path(report.path),
        metrics=Path(metrics.path),
        revision=revision,
        seed=seed,
    )
    metrics.metadata.update(outcome["numbers"])
    return (outcome["passed"], outcome["version"], " ".join(outcome["reasons"]))
