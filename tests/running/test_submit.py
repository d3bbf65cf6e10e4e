import io
import os
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from assay.errors import AssayError, UserError
from assay.project import Project
from assay.running.pipelines import to_yaml
from assay.running.server import Address, Server
from assay.running.submit import follow, submit
from tests.running.kfp_server import serve


@pytest.fixture
def kfp():
    yield from serve()


@pytest.fixture
def server(kfp):
    return Server(Address(kfp.url), timeout=2, patience=(0.01, 0.01))


def _submit(server, project, *settings, **options):
    output = io.StringIO()
    run = submit("example", server, settings=settings, console=Console(file=output), project=project, **options)
    return run, output.getvalue()


def test_a_run_starts_with_the_arguments_of_assay_run(kfp, server, example):
    run, output = _submit(server, example, "making.colour=blue", "scale=4", workers=2)
    record = kfp.runs[run]
    assert record["runtime_config"]["parameters"] == {
        "amount": 3, "scale": 4, "workers": 2, "making": {"colour": "blue"}, "items": [7, 8, 9],
    }  # fmt: skip
    assert kfp.experiments[record["experiment_id"]]["display_name"] == "example"
    assert f"Run {run}" in output
    assert f"{kfp.url}/#/runs/details/{run}" in output.splitlines()
    version = kfp.packages[record["pipeline_version_reference"]["pipeline_version_id"]]
    assert "making" in version[0]["root"]["inputDefinitions"]["parameters"]


def test_the_same_content_is_uploaded_once(kfp, server, example, monkeypatch):
    monkeypatch.setenv("ASSAY_GIT_COMMIT", "a" * 40)
    _submit(server, example)
    monkeypatch.setenv("ASSAY_GIT_COMMIT", "b" * 40 + "-dirty")
    _, output = _submit(server, example, experiment="trials")
    assert [version["name"][:13] for version in kfp.versions.values()] == ["a" * 12 + "-"]
    assert "uploaded" not in output
    assert len(kfp.runs) == 2
    monkeypatch.setattr("assay.running.submit.to_yaml", lambda pipeline: to_yaml(pipeline) + "# changed\n")
    _submit(server, example)
    assert [version["name"][:19] for version in kfp.versions.values()][1:] == ["b" * 12 + "-dirty-"]
    assert (len(kfp.pipelines), len(kfp.versions)) == (1, 2)


def test_the_service_account_is_that_of_cluster_yaml(kfp, example):
    path = example.root / "pipelines" / "cluster.yaml"
    path.write_text("service_account: pipeline-runner\n")
    server = Server(Address.from_environment(kfp.url, example))
    path.unlink()
    assert kfp.runs[_submit(server, example)[0]]["service_account"] == "pipeline-runner"


def test_a_wrong_setting_reaches_no_server(kfp, server, example):
    with pytest.raises(UserError, match="did you mean scale"):
        _submit(server, example, "scal=4")
    assert kfp.requests == []


def test_the_image_of_this_machine_alone_is_pointed_out(server, example, monkeypatch):
    monkeypatch.setattr(Project, "image", "assay-python:1-abc")
    assert "ASSAY_IMAGE names another" in _submit(server, example)[1]
    monkeypatch.setattr(Project, "image", "registry.example/assay@sha256:0")
    assert "ASSAY_IMAGE" not in _submit(server, example)[1]


def test_following_shows_each_change_once_and_rides_out_an_outage(kfp, server, example):
    run, _ = _submit(server, example)
    kfp.fail("run_service_get_run", "503", times=3)
    output = io.StringIO()
    follow(run, server, Console(file=output, width=200), every=0.01)
    lines = [line.split("  ", 1)[1] for line in output.getvalue().splitlines()]
    assert "Still waiting." in lines[0]
    assert lines[1:] == ["Pretrain  running", f"Run {run}  running", "Pretrain  succeeded", f"Run {run}  succeeded"]


def test_a_run_that_failed_fails_with_its_reason(kfp, server, example):
    kfp.outcome = "FAILED"
    run, _ = _submit(server, example)
    with pytest.raises(AssayError, match=f"{run} ended as failed: step train exited with code 1; see {kfp.url}"):
        follow(run, server, Console(file=io.StringIO()), every=0.01)


# The command line


def _command(example, kfp, *words, **options):
    environment = {**os.environ, "ASSAY_PROJECT": str(example.root), "ASSAY_KFP_HOST": kfp.url}
    command = [sys.executable, "-m", "assay.cli", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**environment, **options}, **pipes)


@pytest.mark.parametrize("words", [("submit", "example", "--wait"), ("run", "example", "--on", "cluster")])
def test_waiting_ends_with_the_runs_result(kfp, example, words):
    kfp.outcome = "FAILED"
    process = _command(example, kfp, *words)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Pretrain  failed" in output
    assert error.startswith("error: The run ")


def test_ctrl_c_leaves_the_run_going_and_says_how_to_follow_it(kfp, example):
    kfp.outcome = "RUNNING"
    process = _command(example, kfp, "submit", "example", "--wait")
    until = time.monotonic() + 60
    while not kfp.count("run_service_get_run") and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    run = next(iter(kfp.runs))
    assert process.returncode == 130
    assert error.strip() == f"The run goes on at the server; `assay runs follow {run}` shows it again."
    assert not kfp.count("run_service_terminate_run")
