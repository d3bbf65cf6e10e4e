"""``assay study``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from assay.errors import UserError

_STUDIES = {"sctl": ("logits",), "forensics": ("detector_seeds", "arms", "processes")}
"""Every study, and the options that it alone has."""


def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The study: sctl or forensics.")],
    smoke: Annotated[bool, typer.Option("--smoke", help="The same study on embedded data, in a minute.")] = False,
    data: Annotated[
        str, typer.Option(help="A data set of data/, or the folder of a data set artifact.")
    ] = "fashion-mnist",
    logits: Annotated[
        Path | None, typer.Option(metavar="FILE", help="sctl: judge this file of logits; nothing is trained.")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings for each setting, default 5; forensics: of each generator, default 3."),
    ] = None,
    detector_seeds: Annotated[
        int | None, typer.Option(min=1, help="forensics: trainings of each detector; default 2.")
    ] = None,
    arms: Annotated[
        str | None, typer.Option(metavar="KEY,KEY", help="forensics: the arms to run; default all.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="forensics: default one for each core.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where the table, JSON and figure go.")] = None,
) -> None:
    """Run the experiment that decides what a paper claims; finished cells are not computed again."""
    if name not in _STUDIES:
        raise UserError(f"There is no study {name!r}: the studies are {', '.join(_STUDIES)}.")
    own: dict[str, Any] = {
        "logits": logits,
        "detector_seeds": detector_seeds,
        "arms": [key.strip() for key in arms.split(",")] if arms else None,
        "processes": processes,
    }
    for option, value in own.items():
        if value is not None and option not in _STUDIES[name]:
            raise UserError(f"The study {name} has no --{option.replace('_', '-')}: leave it out.")
    common: dict[str, Any] = {"data": data, "seeds": seeds, "smoke": smoke, "output": output}
    if name == "sctl":
        from assay.studies import sctl_run

        sctl_run.run_study(**common, logits=logits)
    else:
        from assay.studies import forensics_run

        forensics_run.run_study(**common, **{option: own[option] for option in _STUDIES["forensics"]})
