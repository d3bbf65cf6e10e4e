"""`assay data`: fetch, list, import and validate data sets."""

from __future__ import annotations

import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assay.data import ImageDataset

app = typer.Typer(help="Fetch, list, import and validate data sets.", no_args_is_help=True)


class Format(StrEnum):
    """What `assay data import` reads."""

    folder = "folder"
    cnndetection = "cnndetection"
    manifest = "manifest"
    idx = "idx"
    hub = "hub"


@app.command()
def pull(
    name: Annotated[str | None, typer.Argument(help="One data set; all that data.dvc pins by default.")] = None,
) -> None:
    """Fill data/ with what data.dvc pins, and check every byte of it.

    The sources, in order: the DVC remote, if one is configured; for Fashion-MNIST then Debian's package (which
    is not installed) and the Hugging Face hub.
    """
    from assay.data.pins import Pins
    from assay.data.sources import pull as fetch
    from assay.errors import AssayError
    from assay.project import Project

    project = Project.find()
    failures = []
    names: list[str | None] = [name] if name else [*Pins.read(project.root).revisions]
    for each in names or [None]:
        try:
            for pulled in fetch(project, each):
                for reason in pulled.skipped:
                    typer.echo(f"{pulled.name}: not from the {reason}", err=True)
                done = f"fetched from {pulled.source}" if pulled.source else "already there, nothing to do"
                typer.echo(f"{pulled.name}: {done}; every byte matches {pulled.revision}.")
        except AssayError as error:
            failures.append(error)
    for other in failures[1:]:
        typer.echo(f"error: {other}", err=True)
    if failures:
        raise failures[0]


@app.command()
def push(
    name: Annotated[str | None, typer.Argument(help="One data set; all that data.dvc pins by default.")] = None,
) -> None:
    """Copy what data.dvc pins to the DVC remote, so that `assay data pull` finds it there from anywhere."""
    from assay.data.sources import push as send
    from assay.project import Project

    for pushed in send(Project.find(), name):
        typer.echo(f"{pushed.name}: {pushed.revision} is in {pushed.target} ({pushed.files} files sent).")


@app.command()
def status() -> None:
    """List the pinned data sets, their revisions, and whether the files on disk match."""
    from assay.data.pins import Pins
    from assay.project import Project

    project = Project.find()
    pins = Pins.read(project.root)
    rows = []
    for name, revision in pins.revisions.items():
        missing, different = pins.compare(name, project.data / name)
        if different:
            state = f"differs: {different[0]}" + (f" and {len(different) - 1} more" if different[1:] else "")
        elif missing:
            state = f"missing: run `assay data pull {name}`"
        else:
            state = "matches"
        rows.append((name, revision, state))
    if not rows:
        typer.echo("data.dvc pins no data set yet: `assay data import` adds one.")
        return
    _print_table(("data set", "revision", "files in data/"), rows)


@app.command("import")
def import_source(
    source: Annotated[str, typer.Argument(help="A folder of images, a CSV or Parquet manifest, IDX files, a hub id.")],
    name: Annotated[str | None, typer.Option(help="What to call it; by default after the source.")] = None,
    kind: Annotated[Format | None, typer.Option("--format", help="Guessed by default.")] = None,
    classes: Annotated[str | None, typer.Option(help="Class names in the order of their labels: a,b,c.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Resize every image to this many pixels square.")] = None,
    unseen: Annotated[str | None, typer.Option(help="Generators whose images all go to the test split: a,b,c.")] = None,
    generator: Annotated[
        str | None, typer.Option(help="Who made the generated images that lie below no generator's folder.")
    ] = None,
    imbalance_ratio: Annotated[
        float, typer.Option(min=1, help="Make train long-tailed: largest over smallest class.")
    ] = 1.0,
    limit: Annotated[int | None, typer.Option(min=1, help="The most samples of a split.")] = None,
    seed: Annotated[int, typer.Option(help="Decides the splits and which samples are left out.")] = 0,
) -> None:
    """Import images into data/NAME and pin them in data.dvc.

    Splits that the source does not have are cut by a hash of the sample id, class by class: train 10 parts,
    validation 1, calibration 1, test 2. Copies of one image stay in one split.

    Real and generated images come as GENERATOR/[CATEGORY/]{0_real,1_fake}/IMAGE, the layout of CNNDetection, with
    or without folders train, val and test above, or as two folders called real and fake.
    """
    from assay.data import ImportConfig, import_data
    from assay.project import Project

    imported = import_data(
        Project.find(),
        source,
        name=name,
        kind=kind.value if kind else None,
        classes=_names(classes) or None,
        size=size,
        generator=generator,
        unseen=_names(unseen),
        config=ImportConfig(seed=seed, imbalance_ratio=imbalance_ratio, limit=limit),
    )
    for note in imported.notes:
        typer.echo(note)
    info = imported.dataset.info
    height, width = info.image_size
    splits = ", ".join(f"{count:,} {split}" for split, count in info.splits.items())
    colour = "grey" if info.channels == 1 else "colour"
    typer.echo(f"data/{info.name}: {splits}; {len(info.class_names)} classes; {colour} {width} x {height}.")
    typer.echo(f"Pinned in data.dvc as {imported.revision}.")


@app.command()
def validate(
    dataset: Annotated[str, typer.Argument(help="A pinned data set, or the folder of one.")] = "fashion-mnist",
    report: Annotated[Path | None, typer.Option(help="Where to write the Data Docs (HTML).")] = None,
) -> None:
    """Check a data set with Great Expectations; the exit code is 2 when a critical check fails."""
    from assay.data import ImageDataset, ValidationConfig
    from assay.data.validation import run_checks, stop_on_critical

    with tempfile.TemporaryDirectory() as folder:
        artifact = ImageDataset.open(_artifact(dataset, Path(folder)))
        page = report or _report_path(artifact)
        outcomes = run_checks(artifact, ValidationConfig(), report=page)
    rows = [
        (
            "met" if outcome.passed else "missed",
            f"no {outcome.what}",
            outcome.severity,
            "" if outcome.passed else f"{outcome.count:,}: {', '.join(outcome.subjects[:3])}",
        )
        for outcome in outcomes
    ]
    _print_table(("result", "check", "severity", "missed by"), rows)
    typer.echo(f"Data Docs: {page}")
    stop_on_critical(Path(dataset), outcomes, page)


def _names(text: str | None) -> list[str]:
    """Split ``a,b,c``."""
    return [name.strip() for name in text.split(",")] if text else []


def _artifact(dataset: str, folder: Path) -> Path:
    """Return the artifact that is meant; a data set kept as IDX files is made into one in ``folder``."""
    from assay.data import import_dataset
    from assay.data.dataset import INFO_FILE
    from assay.data.pins import Pins
    from assay.errors import UserError
    from assay.project import Project

    if (Path(dataset) / INFO_FILE).is_file():
        return Path(dataset)
    if "/" in dataset:
        raise UserError(f"{dataset} is not a data set: it has no {INFO_FILE}; make one with `assay data import`.")
    revision = Pins.read(Project.find().root).revision(dataset)
    import_dataset(dataset, revision, {}, dataset=folder / dataset, metrics=folder / "metrics.json")
    return folder / dataset


def _report_path(dataset: ImageDataset) -> Path:
    from assay.errors import UserError
    from assay.project import Project

    try:
        return Project.find().state / "validation" / f"{dataset.info.name}.html"
    except UserError:
        return Path(f"validation-{dataset.info.name}.html")


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    colours = {"met": "green", "matches": "green", "missed": "red"}
    for row in rows:
        table.add_row(*(Text(cell, style=colours.get(cell, "")) for cell in row))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
