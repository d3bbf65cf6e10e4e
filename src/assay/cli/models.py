"""`assay models`: the registered models, their champion, and how it came to be."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from assay.registry import LoadedModel, Registry, Version

app = typer.Typer(help="The registered models, their champion, and how it came to be.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(help="The registered model.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command("list")
def list_models(as_json: _Json = False) -> None:
    """List the registered models with their champions."""
    from assay.registry import CHAMPION, PREVIOUS_CHAMPION, Registry

    registry = Registry()
    rows = []
    for name in registry.names():
        _repair(registry, name)
        aliases, versions = registry.aliases(name), registry.versions(name)
        rows.append(
            {
                "model": name,
                "champion": aliases.get(CHAMPION),
                "previous champion": aliases.get(PREVIOUS_CHAMPION),
                "versions": len(versions),
                "newest": _time(versions[-1].created) if versions else None,
            }
        )
    _print(rows, as_json, empty="No model is registered yet: `assay run classification` registers one.")


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="NAME, NAME@ALIAS or NAME/VERSION.")], as_json: _Json = False
) -> None:
    """Show the versions of a model, or all that is recorded about one version."""
    from assay.registry import Registry

    registry = Registry()
    name, wanted = _parse(model)
    _repair(registry, name)
    if wanted is not None:
        _print_version(registry.resolve(name, wanted), as_json)
        return
    rows = [
        {
            "version": version.number,
            "alias": ", ".join(version.aliases),
            "registered": _time(version.created),
            "accuracy": _number(version.tags.get("metric.accuracy")),
            "ece": _number(version.tags.get("metric.ece")),
            "gate": version.tags.get("gate.decision", ""),
            "data revision": version.tags.get("data_revision", "")[:12],
            "commit": version.tags.get("git_commit", "")[:12],
        }
        for version in registry.versions(name)
    ]
    _print(rows, as_json, empty=f"{name} has no versions.")


@app.command()
def promote(
    name: _Name,
    version: Annotated[str, typer.Argument(help="A version number or an alias.")],
    reason: Annotated[str, typer.Option(help="Why; the history keeps it.")],
) -> None:
    """Make a version the champion."""
    from assay.registry import Registry
    from assay.registry import promote as promote_version

    registry = Registry()
    _repair(registry, name)
    typer.echo(promote_version(name, version, reason=reason, registry=registry).sentence)


@app.command()
def rollback(
    name: _Name,
    reason: Annotated[str, typer.Option(help="Why; the history keeps it.")] = "by hand",
) -> None:
    """Make the previous champion the champion again."""
    from assay.registry import Registry
    from assay.registry import rollback as roll_back

    registry = Registry()
    _repair(registry, name)
    typer.echo(roll_back(name, reason=reason, registry=registry).sentence)


@app.command()
def history(name: _Name, as_json: _Json = False) -> None:
    """Tell every registration, gate decision, promotion, rollback and repair of a model."""
    from assay.registry import Registry
    from assay.registry import history as events_of

    registry = Registry()
    _repair(registry, name)
    events = events_of(name, registry=registry)
    if as_json:
        typer.echo(json.dumps(events, indent=2))
        return
    rows = [
        {
            "time": _time(event["time"]),
            "event": event["kind"],
            "version": event["version"],
            "what": _describe(event),
            "by": event.get("actor", ""),
        }
        for event in events
    ]
    _print(rows, as_json=False, empty=f"Nothing has happened to {name}.")


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="NAME, NAME@ALIAS or NAME/VERSION; default the champion.")],
    images: Annotated[list[Path], typer.Argument(help="Image files of any size and mode.")],
    as_json: _Json = False,
) -> None:
    """Classify images: the class, its calibrated probability, and the version that answered.

    A detector of generated images answers real, generated or unsure, with the probability of "generated", and
    tells whether the verdict outlives a resize and a re-encoding of the image.
    """
    from assay.registry import CHAMPION, Registry

    name, wanted = _parse(model)
    files = [(str(path), _read(path)) for path in images]
    registry = Registry()
    _repair(registry, name)
    loaded = registry.load(name, wanted or CHAMPION)
    if "decision" in loaded.metadata:
        _detect(loaded, files, as_json)
    else:
        _classify(loaded, files, as_json)


def _classify(loaded: LoadedModel, files: list[tuple[str, bytes]], as_json: bool) -> None:
    """Print the class of each image file, given by name and bytes."""
    from assay.data.codec import decode_all
    from assay.errors import UserError

    pixels, failures = decode_all([data for _, data in files], loaded.channels, loaded.image_size)
    if failures:
        index, why = min(failures.items())
        raise UserError(f"{files[index][0]} {why}: give a whole image file, such as PNG or JPEG.")
    rows = []
    for (file, _), row in zip(files, loaded.predict(pixels), strict=True):
        answer = {
            "file": file,
            "class": loaded.class_names[row.argmax()],
            "probability": float(row.max()),
            "model": loaded.label,
        }
        if as_json:
            answer["probabilities"] = dict(zip(loaded.class_names, row.tolist(), strict=True))
        rows.append(answer)
    _print(rows, as_json, empty="")


def _detect(loaded: LoadedModel, files: list[tuple[str, bytes]], as_json: bool) -> None:
    """Print what a detector says of each image file, given by name and bytes."""
    from assay.forensics.decision import Decision
    from assay.forensics.verdict import examine

    decision = Decision(**loaded.metadata["decision"])
    generated = loaded.class_names.index("generated")
    findings = examine(
        files,
        lambda images: loaded.predict(images)[:, generated],
        decision,
        channels=loaded.channels,
        image_size=loaded.image_size,
    )
    if as_json:
        about = {"model": loaded.label, "decision": decision.as_dict()}
        typer.echo(json.dumps([{**finding.as_dict(), **about} for finding in findings], indent=2))
        return
    for finding in findings:
        typer.echo(f"{finding.name}: {finding.given.verdict} ({loaded.label})")
        for view in finding.views:
            typer.echo(f"  {view.probability:.4f}  {view.verdict:<9}  {view.name}")
        typer.echo(f"  {finding.sentence}")
    typer.echo(
        f"The probability is that of being generated: real up to {decision.lower:.4f}, generated from "
        f"{decision.upper:.4f}, unsure between."
    )


def _parse(model: str) -> tuple[str, str | None]:
    """Split ``NAME``, ``NAME@ALIAS`` or ``NAME/VERSION``.

    Example:
        >>> _parse("classifier@champion"), _parse("classifier/3"), _parse("classifier")
        (('classifier', 'champion'), ('classifier', '3'), ('classifier', None))
    """
    for separator in "@/":
        name, found, rest = model.partition(separator)
        if found:
            return name, rest
    return model, None


def _repair(registry: Registry, name: str) -> None:
    """Finish what a killed process left, and say so where it cannot be taken for output."""
    from assay.registry import repair

    for sentence in repair(name, registry=registry):
        typer.echo(f"note: {sentence}", err=True)


def _read(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        UserError: it is not a file that can be read.
    """
    from assay.errors import UserError

    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give an image file.") from error


def _describe(event: dict[str, Any]) -> str:
    """Return what an event did, with the numbers it rests on, in one line."""
    parts = []
    if event["kind"] == "gate":
        parts.append(f"{event['decision']}: {' '.join(event['reasons'])}")
    elif "champion" in event:
        before, after = event["champion"]
        parts.append(f"champion {before or 'none'} → {after}: {event['reason']}")
        if event.get("step") != "done":
            parts.append(f"({event['step']})")
    else:
        parts.append(event["reason"])
    return " ".join(parts)


def _print_version(version: Version, as_json: bool) -> None:
    """Print everything that is recorded about one version, except the mirrored events."""
    tags = {key: value for key, value in sorted(version.tags.items()) if not key.startswith("assay.event.")}
    values: dict[str, Any] = {
        "model": version.name,
        "version": version.number,
        "aliases": ", ".join(version.aliases),
        "registered": _time(version.created),
        "MLflow run": version.run_id,
        **tags,
    }
    if as_json:
        typer.echo(json.dumps(values, indent=2))
    else:
        _print([{"field": key, "value": value} for key, value in values.items()], as_json=False, empty="")


def _print(rows: list[dict[str, Any]], as_json: bool, empty: str) -> None:
    """Print rows with the same keys as JSON or as a table."""
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in rows[0]:
        numeric = isinstance(rows[0][column], int | float)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    # Piped output is read by programs and people with wide screens: it is not cut at 80 columns.
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _time(iso: str) -> str:
    """Return a UTC time to the second, as people read it."""
    return iso[:19].replace("T", " ")
