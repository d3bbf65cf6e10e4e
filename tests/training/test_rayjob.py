"""The RayJob client against a server that answers like Kubernetes and refuses what Kubernetes would refuse."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from assay.classification.config import ClassificationConfig
from assay.classification.pretrain import Splits, _train
from assay.errors import AssayError, UserError
from assay.storage import ObjectStore
from assay.training import launch, rayjob
from assay.training.rayjob import job_name
from assay.training.travel import Outcome, TrainingJob, get_document, job_key, look_up, outcome_key, put_document
from tests.training.kubernetes_api import JOBS, NAMESPACE, PODS, KubernetesApi
from tests.training.test_launch import train

pytestmark = pytest.mark.services

SETTINGS = {
    "namespace": NAMESPACE,
    "image": "registry.example/assay@sha256:" + "0" * 64,
    "service_account": "training",
    "gpus_per_worker": 1,
    "node_selector": {"pool": "gpu"},
    "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
    "credentials_secret": "store",
    "timeout_minutes": 30,
}
SUCCEEDED = {"jobStatus": "SUCCEEDED", "jobDeploymentStatus": "Complete"}


@pytest.fixture
def api(tmp_path, monkeypatch):
    server = KubernetesApi()
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(server.kubeconfig()))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv(rayjob.SETTINGS, json.dumps(SETTINGS))
    monkeypatch.setattr(rayjob, "POLL_SECONDS", 0.01)
    yield server
    server.close()
    assert not server.mistakes


@pytest.fixture
def storage(s3, tmp_path):
    return f"s3://assay/{tmp_path.name}/runs"


@pytest.fixture
def training(digits, storage, api):
    """Launch the classifier's training; its job leaves a checkpoint, as a real one does."""

    def leave_a_checkpoint(body):
        import shlex

        name = shlex.split(body["spec"]["entrypoint"])[-1]
        launch(train, {"epochs": 2}, storage=storage, name=name)

    api.on_create = leave_a_checkpoint
    config = {"splits": Splits(digits.path), "settings": ClassificationConfig(epochs=2)}
    return lambda workers=2, **options: launch(
        _train, config, storage=storage, name="run-1", workers=workers, **options
    )


def test_a_job_is_created_followed_and_deleted(api, training, storage, digits, capfd):
    logged = []

    class Tracker:
        def log(self, metrics, step):
            logged.append((step, metrics))

    api.statuses = [
        {"jobDeploymentStatus": "Initializing"},
        {"jobStatus": "RUNNING"},
        {"jobStatus": "RUNNING"},
        SUCCEEDED,
    ]
    api.log = "2026-01-01T00:00:00.000000001Z one\n2026-01-01T00:00:00.000000002Z two\n"
    result = training(tracker=Tracker())
    assert [step for step, _ in logged] == [record["step"] for record in result.history] == [1, 2]
    assert capfd.readouterr().err.count("two") == 1  # the log is read again and again, and printed once
    (body,) = api.bodies
    name = body["metadata"]["name"]
    assert api.requests[0] == ("POST", JOBS) and api.requests[-1] == ("DELETE", f"{JOBS}/{name}")
    assert ("GET", f"{PODS}/submitter-x/log") in api.requests
    spec = body["spec"]
    assert spec["entrypoint"] == f"python -m assay.training.worker_entry {storage} run-1"
    assert spec["activeDeadlineSeconds"] == 1800
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    worker = group["template"]["spec"]
    assert group["replicas"] == 2 and worker["nodeSelector"] == {"pool": "gpu"}
    assert worker["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert worker["containers"][0]["resources"]["limits"] == {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"}
    assert worker["serviceAccountName"] == "training"
    shared = next(volume for volume in worker["volumes"] if volume["name"] == "shared-memory")
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}

    job = get_document(ObjectStore(storage), job_key("run-1"), TrainingJob)
    assert look_up(job.function) is _train and job.workers == (2, 2) and job.resources == {"CPU": 2, "GPU": 1}
    assert job.config["settings"]["values"]["epochs"] == 2
    assert ObjectStore(storage).exists(job.config["splits"]["key"])


def test_no_secret_is_in_the_job(api, training, s3, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "canary-key")
    secret = s3.credentials.read_text().split()[-1]
    api.statuses = [SUCCEEDED]
    training()  # the profile counts more than these
    assert not [text for text in ("canary", secret) if text in json.dumps(api.bodies)]
    variables = {
        item["name"]: item["value"]
        for item in api.bodies[0]["spec"]["submitterPodTemplate"]["spec"]["containers"][0]["env"]
    }
    assert variables["AWS_SHARED_CREDENTIALS_FILE"] == "/var/run/secrets/assay/credentials"
    assert variables["AWS_ENDPOINT_URL"] == s3.environment["AWS_ENDPOINT_URL"]


def test_a_server_that_is_busy_or_away_is_asked_again(api, training):
    api.statuses = [{"jobStatus": "RUNNING"}, SUCCEEDED]
    api.failures = [
        ("POST", JOBS, 503),
        ("GET", JOBS, 503),
        ("GET", JOBS, 429),
        ("GET", PODS, 504),
        ("DELETE", JOBS, 500),
    ]
    assert len(training().history) == 2
    assert not api.jobs and not api.failures


def test_a_log_that_may_not_be_read_stops_nothing(api, training, capfd):
    api.statuses = [{"jobStatus": "RUNNING"}, SUCCEEDED]
    api.failures = [("GET", PODS, 403)] * 2
    assert len(training().history) == 2
    assert capfd.readouterr().err.count("is not shown") == 1


def test_the_job_of_an_earlier_attempt_is_followed_and_a_stale_one_replaced(api, training, capfd):
    api.statuses = [{"jobStatus": "RUNNING"}, SUCCEEDED]
    training()
    api.jobs[api.bodies[0]["metadata"]["name"]] = api.bodies[0] | {"status": None}
    api.statuses = [{"jobStatus": "RUNNING"}, SUCCEEDED]
    training()
    assert "runs already" in capfd.readouterr().err and len(api.bodies) == 1
    api.jobs[api.bodies[0]["metadata"]["name"]] = api.bodies[0] | {"status": None}
    api.statuses = [{"jobStatus": "FAILED"}, SUCCEEDED]
    training()
    assert len(api.bodies) == 2 and not api.jobs


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ({"jobStatus": "FAILED", "message": "Job entrypoint\n exited with 1"}, "FAILED, Job entrypoint exited with 1"),
        ({"jobStatus": "STOPPED"}, "STOPPED, no reason is given"),
        ({"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"}, "Failed, DeadlineExceeded"),
    ],
)
def test_a_job_that_failed_is_one_sentence_and_deleted(api, training, status, sentence):
    api.statuses = [{"jobStatus": "RUNNING"}, status]
    with pytest.raises(AssayError, match=f"The RayJob of run-1 failed: {sentence}"):
        training()
    assert not api.jobs


def test_what_the_training_refused_arrives_as_its_own_sentence(api, training, storage):
    create = api.on_create

    def refuse(body):
        create(body)
        put_document(ObjectStore(storage), outcome_key("run-1"), Outcome(sentence="lower the rate.", by_user=True))

    api.on_create = refuse
    api.statuses = [{"jobStatus": "FAILED", "message": "exit code 2"}]
    with pytest.raises(UserError, match=r"^lower the rate\.$"):
        training()


@pytest.mark.parametrize(
    ("status", "kind", "sentence"),
    [
        (401, UserError, "refuses to create RayJobs in the namespace vision .the server says 401."),
        (403, UserError, "correct the service account's role"),
        (404, UserError, "install KubeRay"),
        (422, UserError, "the server says 422"),
    ],
)
def test_what_kubernetes_refuses_is_one_sentence(api, training, status, kind, sentence):
    api.failures = [("POST", JOBS, status)]
    with pytest.raises(kind, match=sentence) as caught:
        training()
    assert "\n" not in str(caught.value) and "canary" not in str(caught.value)


def test_a_job_that_somebody_deletes_is_one_sentence(api, training):
    api.on_create = lambda body: api.jobs.clear()
    with pytest.raises(AssayError, match="was deleted while it ran"):
        training()


def test_a_server_that_stays_away_is_one_sentence(api, training, monkeypatch):
    monkeypatch.setattr(rayjob, "PATIENCE_SECONDS", 0.1)
    api.close()
    with pytest.raises(AssayError, match="Kubernetes did not answer for"):
        training()


def test_a_step_that_is_cancelled_deletes_its_job(api, storage, digits, tmp_path):
    api.statuses = [{"jobStatus": "RUNNING"}]
    code = f"""if True:
        from pathlib import Path
        from assay.classification.config import ClassificationConfig
        from assay.classification.pretrain import Splits, _train
        from assay.training import launch
        config = {{"splits": Splits(Path({str(digits.path)!r})), "settings": ClassificationConfig()}}
        launch(_train, config, storage={storage!r}, name="run-1", workers=1)
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        step = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | {"KUBECONFIG": str(tmp_path / "kubeconfig")}
        )
        deadline = time.monotonic() + 60
        while not any(verb == "GET" and path.endswith("/log") for verb, path in api.requests):
            assert time.monotonic() < deadline and step.poll() is None
            time.sleep(0.1)
        step.send_signal(number)
        assert step.wait(timeout=30) != 0
        assert not api.jobs
        api.requests.clear()


def test_what_cannot_travel_is_refused_before_anything_is_created(api, storage, tmp_path):
    with pytest.raises(AssayError, match="is not a training function of this package"):
        launch(train, {}, storage=storage, name="run", workers=1)
    with pytest.raises(UserError, match="set ASSAY_CHECKPOINTS to s3://"):
        launch(_train, {}, storage=tmp_path, name="run", workers=1)
    os.environ[rayjob.SETTINGS] = json.dumps(SETTINGS | {"images": "x"})
    with pytest.raises(UserError, match=r"ASSAY_RAY_JOB\.images is not a setting"):
        launch(_train, {}, storage=storage, name="run", workers=1)
    assert not api.requests


@pytest.mark.parametrize("name", ["a", "generator-pixel-shuffle-" + "f" * 16, "Detector.RGB_2-" + "x" * 80])
def test_a_jobs_name_is_one_that_kuberay_takes(name):
    found = job_name(name, "s3://bucket/training")
    assert len(found) <= 47 and found == job_name(name, "s3://bucket/training")
    assert found != job_name(name, "s3://bucket/other")
