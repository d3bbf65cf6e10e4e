"""Running the SCTL study: train or read logits, fit every arm, judge every claim, write it all down."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from assay.calibration.logits import load_logits
from assay.project import Project
from assay.studies.artifacts import find_artifact
from assay.studies.cells import Cells
from assay.studies.sctl import CALIBRATORS, arms, claims, decide, run_arm
from assay.studies.sctl_data import (
    SMOKE,
    Design,
    describe,
    file_condition,
    load_digits,
    load_source,
    make_conditions,
)
from assay.studies.sctl_report import print_claims, print_condition, write_study
from assay.training.progress import track

_SMOKE_CALIBRATORS = ("ts", "cts", "ets")
_REPLICATES = 2000
_WIDTH = 170
"""Columns of the printed tables; a narrower terminal wraps their lines."""


def run_study(
    *,
    data: str = "fashion-mnist",
    logits: Path | None = None,
    seeds: int | None = None,
    smoke: bool = False,
    output: Path | None = None,
) -> Path:
    """Run the study and return the folder with its results; finished cells are not computed again.

    Args:
        data: a data set of the project's ``data/``, or the folder of an artifact.
        logits: judge this file of logits instead of training anything.
        seeds: trainings for each imbalance; default 5.
        smoke: the same study in under a minute, on scikit-learn's digits.
        output: folder for the results; default ``studies/sctl`` in the project's state.

    Raises:
        UserError: the data or the file cannot be used.
    """
    state = Project.find().state / "studies" / "sctl"
    console = Console(width=max(Console().width, _WIDTH))
    cells = Cells(state / "cells")
    calibrators = _SMOKE_CALIBRATORS if smoke else CALIBRATORS
    design: dict[str, Any] = {"command": _command(data, logits, seeds, smoke, output)}
    if logits is not None:
        conditions = [file_condition(load_logits(logits), logits)]
        design |= {"data": logits.name}
    else:
        plan = SMOKE if smoke else Design()
        plan = replace(plan, seeds=seeds) if seeds else plan
        source = load_digits() if smoke else load_source(find_artifact(data, state))
        conditions = make_conditions(source, plan, cells, console.print)
        design |= {"data": source.name, **describe(plan)}
    results, judged = {}, []
    for condition in conditions:
        keys = track(arms(calibrators), title=condition.name)
        found = [run_arm(cells, condition, key, _REPLICATES) for key in keys]
        results[condition.name] = found
        judged.append(list(decide(claims(calibrators), condition.name, found)))
        print_condition(console, condition.name, found)
    rows = [list(row) for row in zip(*judged, strict=True)]
    print_claims(console, list(results), rows)
    kind = "smoke" if smoke else "full" if logits is None else logits.stem
    folder = output or state / kind
    write_study(folder, design, results, rows)
    console.print(f"Written: {folder}", highlight=False, soft_wrap=True)
    return folder


def _command(data: str, logits: Path | None, seeds: int | None, smoke: bool, output: Path | None) -> str:
    words = ["assay study sctl"]
    words += ["--smoke"] if smoke else []
    words += [f"--logits {logits.name}"] if logits else [] if smoke else [f"--data {data}"]
    words += [f"--seeds {seeds}"] if seeds else []
    words += [f"--output {output}"] if output else []
    return " ".join(words)
