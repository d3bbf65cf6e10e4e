"""The servers themselves: where they listen, what they keep to themselves, and that nothing is lost between them."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from assay.errors import AssayError, UserError
from assay.project import Project
from assay.services import postgres
from assay.services.processes import Process, Service, start, stop
from assay.services.profile import activate
from assay.services.stack import Stack
from tests.pipelines.conftest import CANARY

NAMES = {"s3", "postgres", "mlflow"}


def everything(team) -> list[psutil.Process]:
    leaders = [psutil.Process(pid) for pid in team.processes().values()]
    return [process for leader in leaders for process in (leader, *leader.children(recursive=True))]


@pytest.mark.services
def test_every_listener_is_on_loopback(team):
    listening = {
        connection.laddr
        for process in everything(team)
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address.ip for address in listening} == {"127.0.0.1"}
    ports = json.loads((team.services / "services.json").read_text())["ports"]
    assert {address.port for address in listening} == set(ports.values())


@pytest.mark.services
def test_no_secret_is_in_an_environment_or_a_command_line_and_its_files_are_private(team):
    files = [
        team.services / name for name in ("credentials", "postgres.pass", "s3/identities.json", "s3/security.toml")
    ]
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    secrets = [line.split()[-1] for line in files[0].read_text().splitlines()[1:]]
    secrets += [line.rpartition(":")[2] for line in files[1].read_text().splitlines()]
    assert len(set(secrets)) == 4 and min(map(len, secrets)) >= 20
    for process in everything(team):
        shown = Path(f"/proc/{process.pid}/environ").read_bytes() + " ".join(process.cmdline()).encode()
        for secret in [CANARY, *secrets]:
            assert secret.encode() not in shown, process.name()
    for log in (team.services / "logs").iterdir():
        assert not [secret for secret in secrets if secret in log.read_text(errors="replace")], log


@pytest.mark.services
def test_the_store_and_the_database_answer_only_to_their_account(team):
    import psycopg2

    ports = json.loads((team.services / "services.json").read_text())["ports"]
    with pytest.raises(psycopg2.OperationalError, match=r"password"):
        psycopg2.connect(host="127.0.0.1", port=ports["postgres"], user="mlflow", dbname="mlflow", passfile="/dev/null")
    import urllib.error
    import urllib.request

    for name, path in (("s3", "/assay/health"), ("filer", "/buckets/assay/health")):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{ports[name]}{path}")
        assert caught.value.code in (401, 403)


@pytest.mark.services
def test_up_leaves_alone_what_runs_and_starts_only_what_does_not(team):
    before = team.processes()
    assert "starting" not in team.assay("services", "up")
    assert team.processes() == before
    team.kill("mlflow")
    deadline = time.monotonic() + 10
    while is_running(before["mlflow"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    told = subprocess.run(
        [sys.executable, "-m", "assay.cli", "services", "status"],
        cwd=team.root,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 1 and "mlflow    down" in told.stdout
    assert "is down: start it with `assay services up`" in team.assay("models", "list", expect=1)
    said = team.assay("services", "up")
    assert said.count("starting") == 1 and "starting The MLflow server" in said
    after = team.processes()
    assert {name for name in NAMES if after[name] != before[name]} == {"mlflow"}
    assert "down" not in team.assay("services", "status")


@pytest.mark.services
def test_down_and_up_lose_nothing(team, first):
    before = team.versions()
    ports = json.loads((team.services / "services.json").read_text())["ports"]
    pids = team.processes()
    team.assay("services", "down")
    assert not [pid for pid in pids.values() if is_running(pid)]
    team.assay("services", "down")
    team.assay("services", "up")
    assert json.loads((team.services / "services.json").read_text())["ports"] == ports
    assert team.versions() == before
    image = sorted((team.root / "photos" / "digit-7").iterdir())[0]
    (answer,) = json.loads(team.assay("models", "predict", "digits@champion", str(image), "--json"))
    assert answer["class"] == "digit-7"


def is_running(pid: int) -> bool:
    """Say whether a process runs; one that has ended and that nobody has reaped yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_process_of_the_same_number_is_not_taken_for_the_server(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as other:
        recycled = Process(other.pid, "another-boot/1")
        assert not recycled.alive
        stop(_service(tmp_path, ["true"]), recycled)
        assert other.poll() is None
        other.kill()


def test_a_server_that_ends_as_it_starts_is_one_sentence_with_its_last_line(tmp_path):
    command = [sys.executable, "-c", "print('no room'); raise SystemExit(3)"]
    with pytest.raises(AssayError, match=r"The example ended as it started \(no room\): its log is"):
        start(_service(tmp_path, command), tmp_path / "log")


def test_the_workers_of_a_killed_server_are_stopped_too(tmp_path):
    worker = "import time; time.sleep(60)"
    code = (
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {worker!r}]).pid, flush=True); {worker}"
    )
    log = tmp_path / "log"
    service = _service(tmp_path, [sys.executable, "-c", code], lambda: "" if log.read_text().strip() else "not yet")
    process = start(service, log)
    (left,) = map(int, log.read_text().split())
    os.kill(process.pid, signal.SIGKILL)
    stop(service, process)
    assert not process.alive
    assert not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE


def test_ports_that_somebody_took_are_chosen_anew(project):
    stack = Stack(Project(project))
    known = {"ports": {}, "processes": {}}
    assert stack._move_taken_ports(known)
    before = dict(known["ports"])
    assert len(set(before.values())) == len(before)
    assert not stack._move_taken_ports(known)
    with socket.socket() as other:
        other.bind(("127.0.0.1", before["postgres"]))
        other.listen()
        assert stack._move_taken_ports(known)
    assert {name for name in before if known["ports"][name] != before[name]} == {"postgres"}


def test_an_absent_postgres_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(postgres, "_INSTALLED", tmp_path / "none")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"PostgreSQL is not installed: run `apt-get install postgresql`"):
        postgres.prepare(tmp_path)


def test_data_of_another_version_names_the_package(tmp_path):
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(
        UserError, match=r"is of PostgreSQL 9, which is not installed: run `apt-get install postgresql-9`"
    ):
        postgres.service(tmp_path, {"postgres": 1})


@pytest.mark.skipif(os.getuid() != 0, reason="only root runs PostgreSQL as another account")
def test_a_folder_that_postgres_cannot_reach_is_one_sentence(tmp_path):
    root = tmp_path / "closed" / "services"
    root.mkdir(parents=True)
    root.parent.chmod(0o700)
    with pytest.raises(UserError, match=r"the account '\w+' cannot reach .*set ASSAY_HOME"):
        postgres.prepare(root)


def test_a_wrong_profile_and_services_that_are_down_are_one_sentence(project, monkeypatch):
    activate(Project(project))
    monkeypatch.setenv("ASSAY_PROFILE", "cloud")
    with pytest.raises(UserError, match=r"ASSAY_PROFILE=cloud is not a profile"):
        activate(Project(project))
    monkeypatch.setenv("ASSAY_PROFILE", "services")
    with pytest.raises(AssayError, match=r"is down: start it with `assay services up`"):
        activate(Project(project))


def _service(folder: Path, command: list[str], problem=lambda: "not yet") -> Service:
    return Service("example", "The example", "nowhere", folder, command, problem)
