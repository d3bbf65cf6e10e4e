"""``assay calibrate``."""

from pathlib import Path
from typing import Annotated

import typer

_TABLE_WIDTH = 124


def calibrate(
    logits: Annotated[
        Path,
        typer.Argument(
            metavar="LOGITS.npz",
            help="calibration_logits [N, K] (or validation_, val_), ..._labels [N]; test_logits, test_labels.",
        ),
    ],
    report: Annotated[Path, typer.Option(help="The HTML page to write.")] = Path("calibration.html"),
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML: calibrator, loss, normalisation, calibrators, ...")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep the fitted calibrator in this folder.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every calibrator: PTS, MS and ETS on logits too (a minute more).")
    ] = False,
) -> None:
    """Calibrate anybody's logits: the table of calibrators and losses, and a page with reliability diagrams."""
    from typing import get_args

    from rich.console import Console
    from rich.table import Table

    from assay.calibration import CalibrationConfig
    from assay.calibration.calibrate import calibrate_logits
    from assay.calibration.config import CalibratorName, read_settings
    from assay.calibration.logits import load_logits
    from assay.calibration.report import COLUMNS, cells, sentences, write_report

    values = read_settings(config) if config else {}
    if everything:
        values["calibrators"] = get_args(CalibratorName)
    settings = CalibrationConfig.parse(values, where="calibration")
    file = load_logits(logits)
    result = calibrate_logits(file, settings)
    if save:
        result.calibrator.save(save)
    write_report(report, result, file, title="Calibration", subtitle=logits.name)

    chosen = (result.after.calibrator, result.after.loss)
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("calibrator", "loss") else "right", no_wrap=True)
    for row in result.rows:
        table.add_row(*cells(row), style="bold" if (row.calibrator, row.loss) == chosen else "")
    console = Console(width=max(Console().width, _TABLE_WIDTH))
    console.print(table)
    console.print("Accuracy and calibration errors in percent; brackets: bootstrap interval.", style="dim")
    for sentence in sentences(result, file):
        console.print(sentence, highlight=False)
    console.print(f"Report: {report}", highlight=False, soft_wrap=True)
