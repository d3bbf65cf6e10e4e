"""Nodes that vanish, a driver that is killed, and clusters of other machines: nothing is lost."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from assay.classification import pretrain
from assay.classification.config import ClassificationConfig
from assay.classification.pretrain import Splits, _train
from assay.errors import AssayError, UserError
from assay.files import tree_digest
from assay.training import launch, rayjob
from tests.training.conftest import free_ports
from tests.training.kubernetes_api import NAMESPACE, KubernetesApi
from tests.training.ray_loop import make_train

pytestmark = pytest.mark.ray
LOOP = Path(__file__).with_name("ray_loop.py")


def weights(result):
    return torch.cat([value.flatten() for value in load_file(result.checkpoint / "model.safetensors").values()])


@pytest.fixture(scope="module")
def in_process(tmp_path_factory):
    return launch(make_train(), {"epochs": 3}, storage=tmp_path_factory.mktemp("runs"), name="here", seed=2)


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "elastic"])
def test_a_node_that_is_lost_in_an_epoch_costs_that_epoch_only(tmp_path, in_process, replaced):
    from ray.cluster_utils import Cluster

    # A node that does not answer is declared lost after a second, not after a quarter of a minute.
    soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 2}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": soon}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        second = cluster.add_node(num_cpus=1)
        # Ray counts the nodes every 20 s, and until then tries to place workers on the one that is lost.
        environment = os.environ | {"RAY_ADDRESS": cluster.address, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10"}
        if not replaced:
            environment["ASSAY_MIN_WORKERS"] = "1"
        with (tmp_path / "log").open("w") as log:
            driver = subprocess.Popen(
                [sys.executable, str(LOOP), str(tmp_path)], env=environment, stdout=log, stderr=log
            )
        wait_for((tmp_path / "reached").exists)
        raylet = psutil.Process(second.all_processes["raylet"][0].process.pid)
        for process in raylet.children(recursive=True):  # a machine that is gone takes its workers with it
            process.kill()
        cluster.remove_node(second, allow_graceful=False)
        if replaced:
            cluster.add_node(num_cpus=1)
        (tmp_path / "go").touch()
        assert driver.wait(timeout=120) == 0, (tmp_path / "log").read_text()
    finally:
        cluster.shutdown()
    assert "continuing after epoch 1" in (tmp_path / "log").read_text()
    result = launch(make_train(), {"epochs": 3}, storage=tmp_path / "runs", name="run", seed=2)  # nothing is left to do
    assert [record["workers"] for record in result.history] == ([2, 2, 2] if replaced else [2, 1, 1])
    losses = [[record["loss"] for record in run.history] for run in (result, in_process)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert torch.allclose(weights(result), weights(in_process), atol=1e-6)


def ray_processes(of):
    """Return the processes of the Ray that a driver started: those with its session's folder or its environment."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if process.environ().get("ASSAY_TEST_OF") == of and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_a_driver_that_is_killed_continues_when_it_is_started_again(tmp_path, in_process):
    environment = os.environ | {"ASSAY_TEST_OF": str(tmp_path)}
    command = [sys.executable, str(LOOP), str(tmp_path)]
    first = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "reached").exists)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    wait_for(lambda: not ray_processes(str(tmp_path)))  # Ray's own processes notice, and go
    (tmp_path / "go").touch()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "continuing after epoch 1" in again.stderr + again.stdout
    result = launch(make_train(), {"epochs": 3}, storage=tmp_path / "runs", name="run", seed=2)  # nothing is left to do
    assert [record["workers"] for record in result.history] == [2, 2, 2]
    assert torch.allclose(weights(result), weights(in_process), atol=1e-6)


@pytest.fixture
def cluster(s3, digits, tmp_path, monkeypatch):
    """A Ray cluster that was started by somebody else, and that does not see the data: its folder is hidden."""
    if os.getuid() or not shutil.which("unshare"):
        pytest.skip("hiding a folder from a process needs root and unshare")
    (port,) = free_ports(1)
    folder = Path(tempfile.gettempdir()) / f"ray-{port}"  # short: the path of a socket has 107 characters at most
    start = f"--head --block --port={port} --num-cpus=2 --include-dashboard=false --node-ip-address=127.0.0.1"
    ray = Path(sys.executable).with_name("ray")
    hidden = shlex.quote(str(digits.path))
    script = f"mount -t tmpfs none {hidden} && exec {ray} start {start} --temp-dir={folder}"
    environment = os.environ | {"ASSAY_DATA_CACHE": str(tmp_path / "cache"), "ASSAY_TEST_OF": str(tmp_path)}
    environment["RAY_AUTH_MODE"] = os.environ.get("RAY_AUTH_MODE", "disabled")  # as in this process
    with (tmp_path / "ray.log").open("w") as log:
        process = subprocess.Popen(["unshare", "-m", "sh", "-c", script], env=environment, stdout=log, stderr=log)
    wait_for(lambda: "Ray runtime started" in (tmp_path / "ray.log").read_text() or process.poll() is not None)
    assert process.poll() is None, (tmp_path / "ray.log").read_text()
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    monkeypatch.setenv("ASSAY_CHECKPOINTS", f"s3://assay/{tmp_path.name}/training")
    yield process
    for left in ray_processes(str(tmp_path)):  # terminated, it would drain for half a minute
        left.kill()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_cluster_that_does_not_see_this_machines_files_trains_a_step(cluster, digits, project, tmp_path, monkeypatch):
    paths = {name: tmp_path / "out" / name for name in ("model", "logits", "report", "metrics")}
    summary = pretrain(digits.path, {"epochs": 3, "batch_size": 64, "learning_rate": 0.1}, **paths, workers=2)
    assert summary["epochs"] == 3 and summary["test_accuracy"] > 0.5
    (copy,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert copy.name == tree_digest(digits.path) == tree_digest(copy)

    monkeypatch.setattr("assay.training.ray.library_digest", lambda: "0" * 64)
    with pytest.raises(AssayError, match="has another version of assay"):
        pretrain(digits.path, {"epochs": 1}, **paths, workers=2)


def test_the_command_of_a_rayjob_trains_and_its_refusal_arrives(cluster, digits, project, tmp_path, monkeypatch):
    """Kubernetes is played by a server; what the job runs is real: its command, Ray, the object store."""
    api = KubernetesApi()
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(api.kubeconfig()))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    settings = {"namespace": NAMESPACE, "image": "assay", "cpus_per_worker": 1}
    monkeypatch.setenv(rayjob.SETTINGS, json.dumps(settings))
    api.statuses = [{"jobStatus": "RUNNING"}]

    def run(body):
        def wait():
            code = subprocess.run(command, cwd="/", capture_output=True).returncode
            api.statuses = [{"jobStatus": "FAILED" if code else "SUCCEEDED", "message": f"exit code {code}"}]

        command = [sys.executable, *shlex.split(body["spec"]["entrypoint"])[1:]]
        threading.Thread(target=wait).start()

    api.on_create = run
    storage = os.environ["ASSAY_CHECKPOINTS"]
    splits = Splits(digits.path)

    def start(name, **config):
        config = {"splits": splits, "settings": ClassificationConfig(**config)}
        return launch(_train, config, storage=storage, name=name, workers=2)

    try:
        result = start("run", epochs=2, batch_size=64, learning_rate=0.1)
        assert [record["step"] for record in result.history] == [1, 2]
        api.statuses = [{"jobStatus": "RUNNING"}]
        with pytest.raises(UserError, match="batch normalisation needs 2"):
            start("refused", batch_size=2)
    finally:
        api.close()
    assert not api.mistakes and not api.jobs
