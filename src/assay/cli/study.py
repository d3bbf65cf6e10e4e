"""``assay study``."""

from pathlib import Path
from typing import Annotated

import typer

from assay.errors import UserError


def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The study: sctl.")],
    smoke: Annotated[bool, typer.Option("--smoke", help="The same study on embedded data, in a minute.")] = False,
    data: Annotated[
        str, typer.Option(help="A data set of data/, or the folder of a data set artifact.")
    ] = "fashion-mnist",
    logits: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Judge this file of logits; nothing is trained.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Trainings for each setting; default 5.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where the table, JSON and figure go.")] = None,
) -> None:
    """Run the experiment that decides what a paper claims; finished cells are not computed again."""
    if name != "sctl":
        raise UserError(f"There is no study {name!r}: the studies are sctl.")
    from assay.studies.sctl_run import run_study

    run_study(data=data, logits=logits, seeds=seeds, smoke=smoke, output=output)
