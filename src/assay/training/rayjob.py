"""Training on a Ray cluster that Kubernetes makes for it: KubeRay's RayJob, from its creation to its end."""

import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from assay.config import Config
from assay.errors import AssayError, UserError
from assay.project import library_digest
from assay.storage import ObjectStore, is_remote
from assay.training.session import Session
from assay.training.travel import (
    Outcome,
    TrainingJob,
    encode,
    get_document,
    job_key,
    name_of,
    outcome_key,
    put_document,
)

SETTINGS = "ASSAY_RAY_JOB"
POLL_SECONDS = 3.0
PATIENCE_SECONDS = 60.0
# Where the store is; who may use it is in the Secret or the service account.
_FORWARDED = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_REGION")
_CREDENTIALS = "/var/run/secrets/assay"
_SCRATCH, _SHARED_MEMORY = "/tmp", "/dev/shm"  # noqa: S108 - volumes of the pod alone
_SUBMITTER = "ray-job-submitter"  # what KubeRay calls it
_JOB = "assay/job"
Result = TypeVar("Result")

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]


class Toleration(Config):
    """A taint that the pods bear, in the words of Kubernetes."""

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class RayJobSettings(Config):
    """Where and with what a step's Ray workers run on Kubernetes; ``ASSAY_RAY_JOB`` holds it as JSON.

    Attributes:
        namespace: of the RayJob and its pods.
        image: with this package in the same version, best pinned by digest.
        service_account: of the pods; it needs no right in Kubernetes.
        cpus_per_worker: processors of a worker, requested and at most.
        memory_per_worker: of a worker, requested and at most.
        gpus_per_worker: ``nvidia.com/gpu`` of a worker.
        shared_memory: size of ``/dev/shm``, where Ray keeps its objects; it counts as memory.
        node_selector: labels of the nodes that workers run on.
        tolerations: taints of nodes that workers run on.
        head_cpus: processors of the head, which does not train.
        head_memory: memory of the head.
        min_workers: how few workers may go on when nodes are lost; none: as many as the step asked for.
        credentials_secret: name of a Secret whose key ``credentials`` is an AWS credentials file; it is mounted as
            a file. Without one the service account is what the store knows.
        timeout_minutes: after which Kubernetes ends the job.

    Example:
        >>> RayJobSettings(namespace="assay", image="registry.example/assay@sha256:0").cpus_per_worker
        2
    """

    namespace: str
    image: str
    service_account: str = "default"
    cpus_per_worker: Annotated[int, Field(ge=1)] = 2
    memory_per_worker: Quantity = "4Gi"
    gpus_per_worker: Annotated[int, Field(ge=0)] = 0
    shared_memory: Quantity = "1Gi"
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list)
    head_cpus: Annotated[int, Field(ge=1)] = 1
    head_memory: Quantity = "4Gi"
    min_workers: Annotated[int, Field(ge=1)] | None = None
    credentials_secret: str = ""
    timeout_minutes: Annotated[int, Field(ge=1)] = 24 * 60


def launch_on_kubernetes(
    train: Callable[[Session, dict[str, Any]], None],
    config: dict[str, Any],
    *,
    storage: str,
    name: str,
    workers: tuple[int, int],
    session: dict[str, Any],
    max_failures: int,
    stream: str = "",
) -> None:
    """Run ``train`` in a RayJob that keeps its checkpoints in ``storage``, and follow it to its end.

    The function travels as its name, its data through the store. The job's log is copied to the standard error.
    The RayJob is deleted when it ended, whichever way, and when this process is interrupted or terminated; one
    that an earlier attempt of the same step left running is followed on.

    Args:
        train: at the top of a module of this package.
        config: of JSON, `Config` models and `DataFolder`.
        storage: ``s3://bucket/prefix``.
        name: of the run.
        workers: the fewest and the most; ``min_workers`` of the settings comes first.
        session: what `Session` is made with; what was logged goes to its tracker at the end.
        max_failures: how many times lost workers are replaced.
        stream: see `launch`.

    Raises:
        UserError: a setting is wrong, the training refused its input, or Kubernetes refuses this account.
        AssayError: the job failed, or Kubernetes stayed away.
    """
    settings = RayJobSettings.parse(_settings(), where=SETTINGS)
    if not is_remote(storage):
        raise UserError(
            f"Ray on Kubernetes keeps checkpoints in an object store, not in {storage}: "
            "set ASSAY_CHECKPOINTS to s3://BUCKET/PREFIX."
        )
    store = ObjectStore(storage)
    fewest = min(settings.min_workers or workers[0], workers[1])
    job = TrainingJob(
        function=name_of(train),
        config=encode(config, store),
        name=name,
        workers=(fewest, workers[1]),
        seed=session["seed"],
        precision=session["precision"],
        max_failures=max_failures,
        resources={"CPU": settings.cpus_per_worker}
        | ({"GPU": settings.gpus_per_worker} if settings.gpus_per_worker else {}),
        stream=stream,
        version=library_digest(),
    )
    put_document(store, job_key(name), job)
    store.delete(outcome_key(name))
    jobs = RayJobs(settings.namespace)
    body = manifest(settings, job, storage)
    with _ended_by_signals():
        try:
            jobs.ensure(body)
            failure = jobs.follow(body["metadata"]["name"])
        finally:
            jobs.delete(body["metadata"]["name"])
    if failure:
        if store.exists(outcome_key(name)):
            outcome = get_document(store, outcome_key(name), Outcome)
            raise (UserError if outcome.by_user else AssayError)(outcome.sentence)
        raise AssayError(f"The RayJob of {name} failed: {failure}")


def _settings() -> dict[str, Any]:
    try:
        return dict(json.loads(os.environ[SETTINGS]))
    except ValueError as error:
        raise UserError(f"{SETTINGS} is not JSON: give the fields of RayJobSettings.") from error


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end this process like an exception does, so that what it started is cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class RayJobs:
    """The RayJobs of one namespace, through the Kubernetes API of this pod's service account or the kubeconfig.

    A server that does not answer or is busy is asked again for ``PATIENCE_SECONDS``.
    """

    def __init__(self, namespace: str) -> None:
        from kubernetes import client, config

        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            try:
                config.load_kube_config(client_configuration=configuration)
            except (config.ConfigException, OSError) as error:
                raise UserError(
                    f"{SETTINGS} is set, but this is no pod of Kubernetes and there is no kubeconfig: "
                    "unset it, or set KUBECONFIG."
                ) from error
        configuration.retries = False
        self.namespace = namespace
        api = client.ApiClient(configuration)
        self._custom = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        self._kind = {"group": "ray.io", "version": "v1", "namespace": namespace, "plural": "rayjobs"}
        self._logged = ""
        self._warned = False

    def ensure(self, body: dict[str, Any]) -> None:
        """Create the job, or leave the one that runs already for the same training."""
        name = body["metadata"]["name"]
        while True:
            try:
                self._call("create", lambda: self._custom.create_namespaced_custom_object(**self._kind, body=body))
                return
            except _ExistsError:
                found = self.get(name)
            if found is not None and _is_running(found) and _job_of(found) == _job_of(body):
                print(f"following the RayJob {name}, which runs already", file=sys.stderr)
                return
            self.delete(name)
            while self.get(name) is not None:  # its pods go first
                time.sleep(POLL_SECONDS)

    def get(self, name: str) -> dict[str, Any] | None:
        """Return the job as it is now, None if there is none."""
        return self._call(
            "read", lambda: dict(self._custom.get_namespaced_custom_object(**self._kind, name=name)), absent=None
        )

    def delete(self, name: str) -> None:
        """Delete the job with its pods; it is no error when there is none."""
        self._call(
            "delete",
            lambda: self._custom.delete_namespaced_custom_object(
                **self._kind, name=name, propagation_policy="Foreground"
            ),
            absent=None,
        )

    def follow(self, name: str) -> str:
        """Copy the job's log until it ended; return why it failed, or nothing.

        Raises:
            AssayError: somebody deleted it.
        """
        while True:
            found = self.get(name)
            self._copy_log(name)
            if found is None:
                raise AssayError(f"The RayJob {name} was deleted while it ran: run the same command again to continue.")
            status = found.get("status") or {}
            state = status.get("jobStatus") or ""
            deployment = status.get("jobDeploymentStatus") or ""
            if state == "SUCCEEDED":
                return ""
            if state in ("FAILED", "STOPPED") or deployment in ("Failed", "ValidationFailed"):
                why = " ".join((status.get("message") or "").split()) or status.get("reason") or "no reason is given"
                return f"{state or deployment}, {why}"
            time.sleep(POLL_SECONDS)

    def _copy_log(self, name: str) -> None:
        """Print what the job's submitter wrote since the last time; a log that cannot be read stops nothing."""
        try:
            pods = self._call(
                "list pods of",
                lambda: self._core.list_namespaced_pod(self.namespace, label_selector=f"job-name={name}").items,
            )
            lines = [line for pod in pods for line in self._log(pod.metadata.name).splitlines()]
        except AssayError as error:
            if not self._warned:
                print(f"The log of the RayJob {name} is not shown. {error}", file=sys.stderr)
            self._warned = True
            return
        for line in lines:
            written, _, text = line.partition(" ")
            if written > self._logged:
                print(text, file=sys.stderr, flush=True)
        self._logged = max([self._logged, *(line.partition(" ")[0] for line in lines)])

    def _log(self, pod: str) -> str:
        return self._call(
            "read the log of",
            lambda: self._core.read_namespaced_pod_log(pod, self.namespace, container=_SUBMITTER, timestamps=True),
            absent="",
        )

    def _call(self, what: str, action: Callable[[], Result], **default: Any) -> Result:
        """Ask the API, again and again while it is away; with ``absent``, return that for what is not there."""
        import urllib3.exceptions
        from kubernetes.client import ApiException

        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return action()
            except ApiException as error:
                why = _reason(error)
                if error.status == 409 and what == "create":
                    raise _ExistsError from error
                if error.status in (400, 404) and "absent" in default:  # 400: a container that has not begun
                    return default["absent"]
                if error.status == 404 and what == "create":
                    raise UserError(
                        f"Kubernetes has no RayJobs in the namespace {self.namespace} ({why}): "
                        "install KubeRay, or correct the namespace."
                    ) from error
                if error.status in (401, 403, 422):
                    raise UserError(
                        f"Kubernetes refuses to {what} RayJobs in the namespace {self.namespace} ({why}): "
                        "correct the service account's role or the settings."
                    ) from error
                if error.status not in (409, 429) and error.status < 500:
                    raise AssayError(f"Kubernetes could not {what} the RayJob ({why}).") from error
            except urllib3.exceptions.HTTPError as error:
                why = type(error).__name__
            if time.monotonic() > deadline:
                raise AssayError(
                    f"Kubernetes did not answer for {PATIENCE_SECONDS:.0f} s ({why}): "
                    "when it is back, run the same command again to continue."
                )
            time.sleep(min(POLL_SECONDS, 2.0))


class _ExistsError(Exception):
    """A job of this name is there already."""


def _reason(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"


def _is_running(job: dict[str, Any]) -> bool:
    status = job.get("status") or {}
    ended = status.get("jobStatus") in ("SUCCEEDED", "FAILED", "STOPPED")
    return not (ended or job["metadata"].get("deletionTimestamp") or status.get("jobDeploymentStatus") == "Failed")


def _job_of(body: dict[str, Any]) -> str:
    return (body["metadata"].get("annotations") or {}).get(_JOB, "")


def job_name(run: str, storage: str) -> str:
    """Return the RayJob's name for a run: the same again after a crash, and short enough for KubeRay.

    Example:
        >>> job_name("detector-rgb.1", "s3://assay/training")
        'detector-rgb-1-0fded24236'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", run.lower())[:36].strip("-")
    return f"{slug}-{hashlib.sha256(f'{storage}/{run}'.encode()).hexdigest()[:10]}"


def manifest(settings: RayJobSettings, job: TrainingJob, storage: str) -> dict[str, Any]:
    """Return the RayJob, whose pods keep the pod security standard "restricted".

    Args:
        settings: where and with what it runs.
        job: what it runs; stored at ``storage`` under `job_key`.
        storage: ``s3://bucket/prefix``.
    """
    from importlib.metadata import version

    labels = {
        "app.kubernetes.io/name": "assay",
        "app.kubernetes.io/component": "training",
        "app.kubernetes.io/managed-by": "assay",
    }
    fewest, most = job.workers
    gpus = {"nvidia.com/gpu": str(settings.gpus_per_worker)} if settings.gpus_per_worker else {}
    head = _pod(settings, labels, "ray-head", {"cpu": str(settings.head_cpus), "memory": settings.head_memory})
    worker = _pod(
        settings,
        labels,
        "ray-worker",
        {"cpu": str(settings.cpus_per_worker), "memory": settings.memory_per_worker, **gpus},
        on_worker_nodes=True,
    )
    submitter = _pod(settings, labels, _SUBMITTER, {"cpu": "500m", "memory": "1Gi"}, restart="Never")
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": job_name(job.name, storage),
            "namespace": settings.namespace,
            "labels": labels,
            "annotations": {_JOB: hashlib.sha256(job.model_dump_json().encode()).hexdigest()},
        },
        "spec": {
            "entrypoint": shlex.join(["python", "-m", "assay.training.worker_entry", storage, job.name]),
            "submissionMode": "K8sJobMode",
            "backoffLimit": 0,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "activeDeadlineSeconds": 60 * settings.timeout_minutes,
            "submitterPodTemplate": submitter,
            "rayClusterSpec": {
                "rayVersion": version("ray"),
                "headGroupSpec": {
                    # The head only schedules: its processors are not for workers.
                    "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},  # noqa: S104 - the head's service is in front
                    "template": head,
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "workers",
                        "replicas": most,
                        "minReplicas": fewest,
                        "maxReplicas": most,
                        "rayStartParams": {},
                        "template": worker,
                    }
                ],
            },
        },
    }


def _pod(
    settings: RayJobSettings,
    labels: dict[str, str],
    container: str,
    resources: dict[str, str],
    *,
    on_worker_nodes: bool = False,
    restart: str = "",
) -> dict[str, Any]:
    """Return a pod template whose container has this name and these resources, requested and at most."""
    environment = {name: os.environ[name] for name in _FORWARDED if name in os.environ}
    environment |= {"HOME": _SCRATCH, "PYTHONUNBUFFERED": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    mounts = [{"name": "shared-memory", "mountPath": _SHARED_MEMORY}, {"name": "scratch", "mountPath": _SCRATCH}]
    volumes: list[dict[str, Any]] = [
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}},
        {"name": "scratch", "emptyDir": {}},
    ]
    if settings.credentials_secret:
        environment["AWS_SHARED_CREDENTIALS_FILE"] = f"{_CREDENTIALS}/credentials"
        if profile := os.environ.get("AWS_PROFILE"):
            environment["AWS_PROFILE"] = profile
        mounts.append({"name": "credentials", "mountPath": _CREDENTIALS, "readOnly": True})  # type: ignore[dict-item]
        secret = {
            "secretName": settings.credentials_secret,
            "items": [{"key": "credentials", "path": "credentials"}],
            "defaultMode": 0o440,
        }
        volumes.append({"name": "credentials", "secret": secret})
    spec: dict[str, Any] = {
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": container,
                "image": settings.image,
                "env": [{"name": name, "value": value} for name, value in environment.items()],
                "resources": {"requests": dict(resources), "limits": dict(resources)},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "runAsNonRoot": True,
                },
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    if on_worker_nodes:
        spec["nodeSelector"] = dict(settings.node_selector)
        spec["tolerations"] = [
            {key: value for key, value in toleration.model_dump().items() if value}
            for toleration in settings.tolerations
        ]
    if restart:
        spec["restartPolicy"] = restart
    return {"metadata": {"labels": labels}, "spec": spec}
