import pickle
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from assay.errors import UserError
from assay.registry import start_run
from assay.registry.tracking import Client, public_uri


@pytest.fixture
def closed_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run_of(registry, tracker):
    return registry.client.get_run(tracker.run_id)


def test_starting_on_an_empty_machine_prints_nothing(first_start):
    _, done = first_start
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_run_holds_params_tags_and_every_step(registry, monkeypatch):
    monkeypatch.setenv("ASSAY_RUN_ID", "run-7")
    monkeypatch.setenv("ASSAY_PIPELINE", "classification")
    monkeypatch.setenv("ASSAY_IMAGE", "assay:1")
    settings = {"seed": 3, "training": {"epochs": 2}}
    with start_run("pretrain", settings, tags={"data_revision": "d1"}) as tracker:
        tracker.log({"loss": 0.5, "accuracy": 0.8}, step=1)
        pickle.loads(pickle.dumps(tracker)).log({"loss": 0.25}, step=2)  # noqa: S301  as a Ray worker gets it
    run = run_of(registry, tracker)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "3", "training.epochs": "2"}
    assert run.data.tags.items() >= {"ASSAY_RUN_ID": "run-7", "data_revision": "d1", "image": "assay:1"}.items()
    assert registry.client.get_experiment(run.info.experiment_id).name == "classification"
    history = registry.client.get_metric_history(tracker.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.25)]


def test_an_exception_ends_the_run_as_failed(registry):
    with pytest.raises(ZeroDivisionError), start_run("pretrain") as tracker:
        1 / 0  # noqa: B018
    assert run_of(registry, tracker).info.status == "FAILED"


def test_a_joined_run_is_left_running(registry, monkeypatch):
    outer = start_run("pipeline", {"seed": 0})
    monkeypatch.setenv("MLFLOW_RUN_ID", outer.run_id)
    with start_run("pretrain", {"seed": 1}) as inner:
        inner.log({"loss": 1.0})
    run = run_of(registry, outer)
    assert (inner.run_id, run.info.status) == (outer.run_id, "RUNNING")
    assert run.data.params == {"seed": "0", "pretrain.seed": "1"}
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(UserError, match=r"MLFLOW_RUN_ID=0+ is not a run of sqlite"):
        start_run("pretrain")


@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg2"])
def test_an_unreachable_server_is_one_sentence_within_seconds(project, monkeypatch, closed_port, scheme):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://assay:hush@127.0.0.1:{closed_port}/mlflow")
    begin = time.monotonic()
    with pytest.raises(UserError, match="cannot be reached") as caught:
        start_run("pretrain")
    assert time.monotonic() - begin < 10
    assert "hush" not in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_server_that_never_answers_is_given_up_within_seconds(project, monkeypatch):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        begin = time.monotonic()
        with pytest.raises(UserError, match="cannot be reached"):
            start_run("pretrain")
        assert time.monotonic() - begin < 10


class HealthThenNothing(BaseHTTPRequestHandler):
    """A server that dies right after it was found to be there."""

    def do_GET(self):
        if self.path.endswith("/health"):
            self.send_response(200)
            self.end_headers()

    do_POST = do_GET

    def log_message(self, *_):
        pass


def test_a_server_that_dies_on_the_way_is_one_sentence(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with ThreadingHTTPServer(("127.0.0.1", 0), HealthThenNothing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(UserError, match=r"cannot be reached \(it stopped answering\)"):
            start_run("pretrain")
        server.shutdown()


def test_a_file_that_is_no_database_is_one_sentence(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database, though long enough to be taken for one" * 99)
    with pytest.raises(UserError, match=r"MLflow database sqlite:.*file is not a database"):
        Client(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "state")


def test_a_password_never_reaches_a_sentence():
    assert public_uri("http://a:pass@host/x") == "http://a@host/x"
    assert public_uri("sqlite:////a/b.db") == "sqlite:////a/b.db"
