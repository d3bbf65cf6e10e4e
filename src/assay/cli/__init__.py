"""The command line: ``assay``."""

import contextlib
import os
import sys
import traceback
from typing import Annotated

import typer

from assay import __version__
from assay.cli import data, models, run, schedule, services
from assay.cli.calibrate import calibrate
from assay.cli.study import study
from assay.errors import AssayError

app = typer.Typer(
    name="assay",
    help="Train, calibrate, test and promote vision models that can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("compile")(run.compile_to_yaml)
app.command("submit")(schedule.submit)
app.add_typer(schedule.schedule, name="schedule")
run.runs.command("follow")(schedule.follow)
app.add_typer(run.runs, name="runs")
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(services.app, name="services")
app.command("calibrate")(calibrate)
app.command("study")(study)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"assay {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Set what ``ASSAY_PROFILE`` stands for. ``main`` reads ``--debug``; it is an option so that the help shows it."""
    asked_for_help = not {"-h", "--help"}.isdisjoint(sys.argv)
    if os.environ.get("ASSAY_PROFILE") and context.invoked_subcommand != "services" and not asked_for_help:
        from assay.project import Project
        from assay.services.profile import activate

        activate(Project.find())


def main() -> None:
    """Run the command line; every failure ends in one sentence and an exit code.

    Exit codes: 0 success, 1 a failure of ours or of a service, 2 the user's mistake, 130 interrupted.
    """
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    if len(arguments) < len(sys.argv) - 1:  # anywhere on the line, as it is added to a command that failed
        os.environ["ASSAY_DEBUG"] = "1"
    code = 1
    try:
        code = app(args=arguments, prog_name="assay", standalone_mode=False) or 0
    except typer.TyperException as error:  # a wrong option or argument
        _complain(f"{error.format_message().rstrip('.')} (`{_command(error)} --help` lists what there is).")
        code = 2
    except AssayError as error:
        _complain(str(error))
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _complain("Interrupted; run the same command again to continue.")
        code = 130
    except BrokenPipeError:
        # The reader (head, less) has gone: that is no error, and the interpreter must not flush into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        name = type(error).__name__
        message = next(iter(str(error).splitlines()), "")
        _complain(f"{name}: {message or 'no message'} (unexpected; add --debug for the traceback)")
    sys.exit(code)


def _command(error: typer.TyperException) -> str:
    """Return the command that was typed wrongly, such as ``assay run``."""
    context = getattr(error, "ctx", None)
    return context.command_path if context else "assay"


def _complain(sentence: str) -> None:
    if os.environ.get("ASSAY_DEBUG"):
        traceback.print_exc()
    with contextlib.suppress(BrokenPipeError):
        typer.echo(f"error: {sentence}", err=True)
