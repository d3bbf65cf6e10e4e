"""Running the forensics study: draw, train generators and detectors, measure, judge every claim, write it down."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from assay.errors import UserError
from assay.forensics.config import DetectorConfig
from assay.forensics.zoo import GeneratorConfig
from assay.project import Project
from assay.studies.artifacts import find_artifact
from assay.studies.cells import Cells
from assay.studies.forensics import Arm, ArmResult, choose_arms, decide
from assay.studies.forensics_data import Bench, Design, Source, load_digits, load_source
from assay.studies.forensics_grid import generator_jobs, judge_arm, score, score_categories
from assay.studies.forensics_report import print_arms, print_claims, write_study
from assay.studies.workers import Workers
from assay.training.threads import available_cores

SMOKE = Design(
    generator_seeds=1,
    detector_seeds=1,
    train=240,
    held_out=100,
    test=200,
    shifted=64,
    generator_images=512,
    categories=(2,),
    category_train=80,
    generators=("dcgan", "nearest"),
    generator=GeneratorConfig(epochs=10, minimum_diversity=0),
    detector=DetectorConfig(epochs=2, batch_size=64),
)
"""The same study in under a minute, on scikit-learn's digits: it shows that everything runs, and decides nothing."""

SMOKE_ARMS = ("rgb", "log-fft", "npr", "frepgan", "frepgan-noise", "fingerprint", "bihpf")
_REPLICATES = 1000
_WIDTH = 170
"""Columns of the printed tables; a narrower terminal wraps their lines."""


def run_study(
    *,
    data: str = "fashion-mnist",
    seeds: int | None = None,
    detector_seeds: int | None = None,
    arms: Sequence[str] | None = None,
    smoke: bool = False,
    output: Path | None = None,
    processes: int | None = None,
) -> Path:
    """Run the study and return the folder with its results; finished cells are not computed again.

    Args:
        data: a data set of the project's ``data/``, or the folder of an artifact.
        seeds: trainings of every generator; default 3.
        detector_seeds: trainings of every detector for each of these; default 2.
        arms: keys of the arms to run; default all.
        smoke: a few arms in under a minute, on scikit-learn's digits.
        output: folder for the results; default ``studies/forensics`` in the project's state.
        processes: default: as many as there are cores.

    Raises:
        UserError: the data cannot be used, or there is no such arm.
        AssayError: a generator could not be trained with any seed, for example because it collapsed.
    """
    state = Project.find().state / "studies" / "forensics"
    chosen = choose_arms(arms or (SMOKE_ARMS if smoke else None))
    plan = SMOKE if smoke else Design()
    plan = replace(
        plan,
        generator_seeds=seeds or plan.generator_seeds,
        detector_seeds=detector_seeds or plan.detector_seeds,
    )
    source = load_digits() if smoke else load_source(find_artifact(data, state))
    if max(plan.categories) >= source.num_classes:
        raise UserError(
            f"{source.name} has {source.num_classes} categories and the study trains on {max(plan.categories)} and "
            "tests on others: use data with more."
        )
    bench = Bench(Cells(state / "cells"), (source.name, source.revision), source.codec, plan)
    with Workers(processes or available_cores()) as workers:
        results = _run(bench, source, chosen, workers)
    judgements = list(decide(results))
    console = Console(width=max(Console().width, _WIDTH))
    print_arms(console, results)
    print_claims(console, judgements)
    record: dict[str, Any] = {
        "command": _command(data, seeds, detector_seeds, arms, smoke, output),
        "data": source.name,
        "codec": source.codec,
        "attempts": _attempts(bench),
        **plan.describe(),
    }
    folder = output or state / ("smoke" if smoke else source.name)
    write_study(folder, record, results, judgements)
    console.print(f"Written: {folder}", highlight=False, soft_wrap=True)
    return folder


def _run(bench: Bench, source: Source, arms: Sequence[Arm], workers: Workers) -> list[ArmResult]:
    """Compute every cell that is not there yet, and measure every arm."""
    design, classes = bench.design, source.num_classes
    shifted = [arm for arm in arms if arm.shifted]
    generators = list(generator_jobs(bench, classes, shifted=bool(shifted)))
    for seed, categories in {(seed, tuple(chosen or ())) for _, seed, chosen in generators}:
        bench.real(seed, list(categories) or None, source)
    workers.run(bench.generated, generators, title="generators")
    seeds = range(design.generator_seeds)
    detectors = [(bench, arm, seed, n) for seed in seeds for n in range(design.detector_seeds) for arm in arms]
    workers.run(score, detectors, title="detectors")
    tested = [(bench, arm, seed, n, classes) for seed in seeds for n in design.categories for arm in shifted]
    workers.run(score_categories, tested, title="detectors of few categories")
    return workers.map(judge_arm, [(bench, arm, classes, _REPLICATES) for arm in arms], title="measuring")


def _attempts(bench: Bench) -> dict[str, list[int]]:
    """Return how many trainings each generator took, by seed, where one collapsed."""
    seeds = range(bench.design.generator_seeds)
    found = {name: [bench.attempts(name, seed) for seed in seeds] for name in bench.design.generators}
    return {name: attempts for name, attempts in found.items() if max(attempts) > 1}


def _command(
    data: str,
    seeds: int | None,
    detector_seeds: int | None,
    arms: Sequence[str] | None,
    smoke: bool,
    output: Path | None,
) -> str:
    words = ["assay", "study", "forensics", *(["--smoke"] if smoke else ["--data", data])]
    words += ["--seeds", str(seeds)] if seeds else []
    words += ["--detector-seeds", str(detector_seeds)] if detector_seeds else []
    words += ["--arms", ",".join(arms)] if arms else []
    words += ["--output", str(output)] if output else []
    return shlex.join(words)
