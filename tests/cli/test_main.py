import os
import subprocess
import sys
from pathlib import Path

import pytest

import assay
from assay import cli
from assay.errors import AssayError, UserError

HEAVY = {"torch", "mlflow", "kfp", "ray", "transformers", "great_expectations", "pandas", "numpy", "matplotlib", "dvc"}
SOURCE = Path(assay.__file__).parents[1]


def _assay(*arguments: str, code: str = "from assay.cli import main; main()", **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, **options)


def test_help_loads_nothing_heavy():
    code = """
import atexit, sys
atexit.register(lambda: print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules})))
from assay.cli import main
main()
"""
    done = _assay("--help", code=code)
    assert done.returncode == 0
    loaded = set(done.stdout.split("LOADED")[1].split())
    assert loaded.isdisjoint(HEAVY)
    for command in ("run", "compile", "submit", "schedule", "runs", "data", "models", "calibrate", "study"):
        assert command in done.stdout


@pytest.mark.parametrize(
    "command", ["run", "compile", "submit", "schedule", "runs", "data", "models", "calibrate", "study"]
)
def test_every_command_has_help(command, monkeypatch, capsys):
    assert _run([command, "--help"], monkeypatch) == 0
    assert f"{command} " in capsys.readouterr().out


def test_version(monkeypatch, capsys):
    assert _run(["--version"], monkeypatch) == 0
    assert capsys.readouterr().out == f"assay {assay.__version__}\n"


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (UserError("a.png is truncated: replace it."), 2, "error: a.png is truncated: replace it.\n"),
        (AssayError("the server is away."), 1, "error: the server is away.\n"),
        (KeyboardInterrupt(), 130, "error: Interrupted; run the same command again to continue.\n"),
        (BrokenPipeError(), 0, ""),
        (
            ValueError("odd\nsecond line"),
            1,
            "error: ValueError: odd (unexpected; add --debug for the traceback)\n",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_a_failure_is_one_sentence_and_an_exit_code(monkeypatch, capfd, error, code, sentence):
    def fail(**_):
        raise error

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(os, "dup2", lambda *_: None)  # or a broken pipe would silence the tests after this one
    assert _run(["--help"], monkeypatch) == code
    assert capfd.readouterr().err == sentence


def test_debug_shows_the_traceback(project, monkeypatch, capfd):
    monkeypatch.setenv("ASSAY_DEBUG", "")
    assert _run(["runs", "show", "--debug"], monkeypatch) == 2
    error = capfd.readouterr().err
    assert "Traceback" in error
    assert error.splitlines()[-1].startswith("error: There are no runs")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--nothing"], "error: No such option: --nothing"),
        (["nothing"], "error: No such command 'nothing'"),
        (["run"], "error: Missing argument 'PIPELINE' (`assay run --help` lists what there is)."),
        (["run", "x", "--workers", "many"], "error: Invalid value for '--workers'"),
        (["run", "x", "--on", "moon"], "error: Invalid value for '--on'"),
    ],
)
def test_a_wrong_option_is_one_sentence(monkeypatch, capfd, arguments, sentence):
    assert _run(arguments, monkeypatch) == 2
    error = capfd.readouterr().err
    assert error.startswith(sentence)
    assert error.count("\n") == 1


def test_a_closed_pipe_is_quiet():
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(0.5); from assay.cli import main; main()", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        text=True,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


def _run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command line in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["assay", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code or 0
