"""The commands as a user types them, in a project of their own."""

import os
import subprocess
import sys
import webbrowser
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

import assay
from assay import cli
from assay.project import Project
from assay.reports.records import Run, State
from assay.running.history import run_folder

PIPELINE = """
from kfp import dsl
from kfp.dsl import Metrics, Output


@dsl.component(base_image="tiny-python:1", install_kfp_package=False)
def measure(count: int, metrics: Output[Metrics]):
    from assay.errors import UserError

    if count < 0:
        raise UserError("count is negative: give 0 or more.")
    metrics.metadata.update({"count": count, "share": 0.5, "share_low": 0.4, "share_high": 0.6})


@dsl.pipeline(name="tiny")
def tiny(count: int = 3):
    measure(count=count)
"""


@pytest.fixture
def tiny(project, monkeypatch) -> Iterator[Path]:
    """A project with one pipeline; what loading it changes in this process is undone."""
    (project / "pipelines" / "tiny.py").write_text(PIPELINE)
    before = {name: sys.modules.pop(name) for name in _project_modules()}
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield project
    for name in _project_modules():
        del sys.modules[name]
    sys.modules.update(before)


def _project_modules() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] in ("pipelines", "components")]


def _assay(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(Path(assay.__file__).parents[1]), "COLUMNS": "100"}
    command = [sys.executable, "-c", "from assay.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, timeout=60)


def test_a_run_ends_with_metrics_and_a_report_and_a_second_one_is_cached(tiny):
    first = _assay(tiny, "run", "tiny", "--set", "count=1200")
    assert (first.returncode, first.stderr) == (0, "")
    assert "1,200" in first.stdout
    assert "0.5000 [0.4000, 0.6000]" in first.stdout
    report = Path(first.stdout.splitlines()[-1].removeprefix("Report: "))
    assert report.is_file()
    second = _assay(tiny, "run", "tiny", "--set", "count=1200")
    assert "measure cached" in second.stdout
    listing = _assay(tiny, "runs", "list").stdout.splitlines()
    assert [line.split()[1] for line in listing[1:]] == ["succeeded", "succeeded"]
    assert "1 (1 cached)" in listing[1]


def test_a_users_mistake_in_a_task_has_exit_code_2(tiny):
    done = _assay(tiny, "run", "tiny", "--set", "count=-1")
    assert done.returncode == 2
    assert done.stderr == "error: count is negative: give 0 or more.\n"
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "tiny", "--set", "epochs=3"], "epochs is not a parameter of tiny: its parameters are count."),
        (["run", "other"], "the pipelines are tiny"),
        (["compile", "tiny", "--set", "count=many"], "count is a whole number"),
        (["runs", "show", "none"], "There are no runs"),
    ],
)
def test_a_wrong_command_is_one_sentence_and_leaves_nothing(tiny, monkeypatch, capfd, arguments, sentence):
    before = sorted(tiny.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["assay", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    error = capfd.readouterr().err
    assert caught.value.code == 2
    assert sentence in error
    assert error.count("\n") == 1
    assert [path for path in sorted(tiny.rglob("*")) if "__pycache__" not in path.parts] == before


def test_compile_writes_the_ir_with_the_settings(tiny, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["assay", "compile", "tiny", "-o", "out/tiny.yaml", "--set", "count=7"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().out == "out/tiny.yaml\n"
    spec = yaml.safe_load((tiny / "out" / "tiny.yaml").read_text())
    assert spec["root"]["inputDefinitions"]["parameters"]["count"]["defaultValue"] == 7


def test_open_prints_the_path_and_starts_a_browser_unless_told_not_to(tiny, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    run = Run(id="tiny-1", pipeline="tiny", state=State.SUCCEEDED, started=datetime.now(UTC))
    folder = run_folder(Project(tiny), run.id)
    run.write(folder)
    (folder / "report.html").write_text("")
    for arguments in (["runs", "open", "--no-browser"], ["runs", "open", "tiny"]):
        monkeypatch.setattr(sys, "argv", ["assay", *arguments])
        with pytest.raises(SystemExit):
            cli.main()
        assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert opened == [(folder / "report.html").as_uri()]
