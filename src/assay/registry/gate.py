"""The gate: register the challenger, score it and the champion on one test split, decide, write it down."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import AssayError, UserError
from assay.files import write_json
from assay.registry.gate_report import write_report
from assay.registry.judgement import Evidence, Verdict, judge
from assay.registry.log import new_event
from assay.registry.models import Lineage, LoadedModel, Registry, actor
from assay.registry.policy import GatePolicy
from assay.registry.promotion import repair
from assay.registry.tracking import start_run

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from assay.data import ImageDataset
    from assay.data.dataset import Split

_LATENCY_RUNS = 20


def gate(
    dataset: Path,
    model: Path,
    predictions: Path,
    policy: Mapping[str, Any],
    *,
    name: str,
    load: "Callable[[Path], torch.nn.Module]",
    decision: Path,
    report: Path,
    metrics: Path,
    revision: str = "",
    seed: int | None = None,
    registry: Registry | None = None,
) -> dict[str, Any]:
    """Register a model and decide whether it may become champion: the task behind the component.

    The challenger is scored as it comes out of the registry, and must answer as the evaluated model did.
    The champion is scored again on the same rows; no stored number of it is trusted.

    Args:
        dataset: the data set artifact; its ``test`` split is scored.
        model: the model artifact.
        predictions: ``predictions.npz`` of the evaluation: ``sample_ids``, ``labels``, ``probabilities``.
        policy: see `GatePolicy`.
        name: the registered model.
        load: makes a module, images -> probabilities, of the model artifact; its attribute ``metadata``, if it
            has one, is registered with it.
        decision: written; ``decision.json`` with everything the report shows.
        report: written; HTML.
        metrics: written; JSON of numbers.
        revision: of the data; default what the artifact says.
        seed: of the training, for the lineage.
        registry: default that of the project around the current folder.

    Returns:
        The content of ``decision``: among others ``decision`` (``promote`` or ``keep``), ``passed``,
        ``version``, ``champion``, ``reasons``.

    Raises:
        UserError: the policy, the data or the predictions are not valid or do not belong together.
        AssayError: the registered model does not answer as the evaluated one.
    """
    from assay.data import ImageDataset
    from assay.evaluation import metrics_for

    rule = GatePolicy.parse(policy, "policy")
    registry = registry or Registry()
    data = ImageDataset.open(dataset)
    rule.check_classes(len(data.info.class_names))
    lineage = Lineage.of(registry.project, data_revision=_revision(data, revision), seed=seed)
    test, known = data.split("test"), metrics_for(len(data.info.class_names))
    evaluated = _read_predictions(predictions, test)
    params = {"model": name, "dataset": data.info.name, "policy": rule.model_dump()}
    tags = {"data_revision": lineage.data_revision}
    module = load(model)
    with start_run("gate", params, tags=tags, project=registry.project) as tracker:
        version = registry.register(
            name,
            module,
            test.images[:2],
            lineage=lineage,
            class_names=data.info.class_names,
            metrics={key: metric(evaluated, test.labels.numpy()) for key, metric in known.items()},
            metadata=getattr(module, "metadata", None),
            run_id=tracker.run_id,
        )
        challenger = registry.load(name, version)
        answers = challenger.predict(test.images)
        _check_same(answers, evaluated, rule.tolerance, f"{name}/{version}")
        for sentence in repair(name, registry=registry):
            print(f"note: {sentence}")
        former = registry.champion(name)
        champion, obstacle = _champion(registry, former, challenger, data)
        evidence = Evidence(
            labels=test.labels.numpy(),
            challenger=answers,
            champion=champion.predict(test.images) if champion else None,
            class_names=data.info.class_names,
            slices=_slices(data, test),
            size_mb=challenger.size_bytes / 1e6,
            latency_ms=latency_ms(challenger, test.images[:1]),
        )
        verdict = judge(evidence, rule, obstacle)
        outcome: dict[str, Any] = {
            "name": name,
            "version": version,
            "champion": former,
            "decision": verdict.decision,
            "passed": verdict.decision == "promote",
            "reasons": verdict.reasons,
            "numbers": _numbers(verdict, evidence),
            "guards": [asdict(check) for check in verdict.checks],
            "policy": rule.model_dump(),
            "lineage": asdict(lineage),
            "dataset": data.info.name,
            "samples": len(test),
        }
        tracker.log(outcome["numbers"])
        _record(registry, outcome, verdict)
    write_report(report, outcome, verdict, evidence)
    write_json(metrics, outcome["numbers"])
    write_json(decision, outcome)
    return outcome


def latency_ms(model: LoadedModel, image: "torch.Tensor") -> float:
    """Return the median time of classifying one image [1, C, H, W] by itself, in milliseconds."""
    times = []
    for _ in range(_LATENCY_RUNS + 3):
        begin = time.perf_counter()
        model.predict(image)
        times.append(1000 * (time.perf_counter() - begin))
    return sorted(times[3:])[_LATENCY_RUNS // 2]  # the first calls allocate and are not what a user waits for


def _revision(data: "ImageDataset", wanted: str) -> str:
    """Return the revision of a data set, which must be the wanted one if one is wanted.

    Raises:
        UserError: it is another revision.
    """
    known = data.info.revision
    if wanted and known and wanted != known:
        raise UserError(f"{data.path} is revision {known}, not {wanted}: import the revision you mean.")
    return wanted or known or data.info.content_hash


def _read_predictions(path: Path, test: "Split") -> "NDArray[Any]":
    """Return the evaluated probabilities [N, K] in the order of the test split.

    Raises:
        UserError: the file is not one of predictions, or is about other samples or labels.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            ids, labels, probabilities = file["sample_ids"], file["labels"], file["probabilities"]
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a file of predictions ({error}): evaluate the model again.") from error
    rows = {sample: row for row, sample in enumerate(ids.tolist())}
    order = [rows.get(sample, -1) for sample in test.sample_ids.tolist()]
    if len(rows) != len(test) or -1 in order or (labels[order] != test.labels.numpy()).any():
        raise UserError(f"{path} is not about the test split of this data set: evaluate the model on it again.")
    return probabilities[order].astype(np.float64)


def _check_same(answers: "NDArray[Any]", evaluated: "NDArray[Any]", tolerance: float, label: str) -> None:
    """Make sure that what is registered is what was measured.

    Raises:
        AssayError: a probability of the registered model differs by more than ``tolerance``.
    """
    if answers.shape != evaluated.shape:
        raise UserError(
            f"{label} gives {answers.shape[1]} probabilities and the predictions hold {evaluated.shape[1]}: "
            "evaluate this model."
        )
    if (difference := float(abs(answers - evaluated).max())) > tolerance:
        raise AssayError(
            f"{label} does not answer as the evaluated model did: a probability differs by {difference:.2g}, "
            f"more than {tolerance:g}; the version stays registered and is not promoted."
        )


def _champion(
    registry: Registry, former: int | None, challenger: LoadedModel, data: "ImageDataset"
) -> tuple[LoadedModel | None, str]:
    """Return the champion if it can be compared, and else the sentence that says why not (or nothing)."""
    if former is None:
        return None, ""
    if former == challenger.version:
        return None, f"Version {former} is the champion already."
    champion = registry.load(challenger.name, former)
    for what, of_champion, of_data in (
        ("classes", champion.class_names, tuple(data.info.class_names)),
        ("image size", champion.image_size, tuple(data.info.image_size)),
        ("channels", champion.channels, data.info.channels),
    ):
        if of_champion != of_data:
            return None, (
                f"The champion, version {former}, cannot score {data.info.name}, because its {what} differ: "
                f"{_short(of_champion)} against {_short(of_data)}. Register this model under "
                "another name, or promote it by hand."
            )
    return champion, ""


def _short(value: Any) -> str:
    """Return a value for a sentence: of many class names the first few."""
    if not isinstance(value, tuple):
        return str(value)
    more = f" and {len(value) - 4} more" if len(value) > 4 else ""
    return ", ".join(map(str, value[:4])) + more


def _slices(data: "ImageDataset", test: "Split") -> "dict[str, NDArray[Any]]":
    """Return the evaluation's slices as masks [N], named ``camera = night`` or ``brightness 1/4``."""
    from assay.evaluation import EvaluationConfig
    from assay.evaluation.slices import brightness_slices, column_slices

    settings = EvaluationConfig()
    slices = column_slices(data.table("test"), settings.slice_values)
    slices |= brightness_slices(test.images.numpy(), settings.brightness_slices)
    return {name.split(" (")[0]: mask for name, mask in slices.items()}


def _numbers(verdict: Verdict, evidence: Evidence) -> dict[str, float]:
    """Flatten what was measured: each value and change with the ends of its interval."""
    numbers = {"passed": float(verdict.decision == "promote")}
    for name, value in verdict.values.items():
        numbers |= value.flat(name)
    for name, change in verdict.changes.items():
        numbers |= change.flat(f"{name}_change")
    return {**numbers, "size_mb": evidence.size_mb, "latency_ms": evidence.latency_ms}


def _record(registry: Registry, outcome: Mapping[str, Any], verdict: Verdict) -> None:
    """Write the decision to the version's tags, for people, and to the log with every digit."""
    name, version = outcome["name"], outcome["version"]
    tags = {
        "gate.decision": outcome["decision"],
        "gate.reasons": " ".join(outcome["reasons"]),
        "gate.champion": str(outcome["champion"] or "none"),
        "gate.data_revision": outcome["lineage"]["data_revision"],
        "gate.size_mb": f"{outcome['numbers']['size_mb']:.3g}",
        "gate.latency_ms": f"{outcome['numbers']['latency_ms']:.3g}",
        **{f"gate.{key}": str(value) for key, value in verdict.values.items()},
        **{f"gate.{key}_change": str(change) for key, change in verdict.changes.items()},
    }
    for key, value in tags.items():
        registry.client.set_model_version_tag(name, str(version), key, value)
    told = {key: outcome[key] for key in ("champion", "decision", "reasons", "numbers", "dataset", "samples")}
    told["compared_with"] = told.pop("champion")
    registry.annotate(new_event("gate", name, version, actor=actor(), reason=outcome["reasons"][0], **told))
