"""Tasks in containers: what a container sees, what it may use, and how it ends.

`kfp.local.DockerRunner` starts one container for each task. Its way of running it is replaced by `Containers.run`
(see `kfp_local`): it takes a container that is gone for one that succeeded, cannot stop one, and sets no limits.
"""

import codecs
import contextlib
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound
from docker.models.containers import Container
from docker.types import LogConfig, Mount

from assay.data.sources import has_remote
from assay.errors import AssayError, UserError
from assay.project import Project
from assay.running.history import is_alive

_RUN, _STATE, _PID, _HOST = "assay.run", "assay.state", "assay.pid", "assay.host"  # labels
_SCRATCH = "/scratch"  # in a container: for temporary files, a folder of the run; /tmp is small and in memory
_PIDS = 4096
_GRACE = 5  # seconds between asking a container to stop and killing it
_SMALL = 64 << 20
_ANSWER = 60  # seconds in which the daemon must answer

_PREFIXES = ("ASSAY_", "AWS_", "HF_", "MLFLOW_", "RAY_")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
_NAMES = ("TZ", *_PROXIES, *map(str.upper, _PROXIES))
_FILES = ("AWS_CA_BUNDLE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
_SERVERS = ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "RAY_ADDRESS", *_PROXIES[:2])


@dataclass(frozen=True)
class Limits:
    """What one task may use: processors and bytes of memory; None is no limit but the machine's."""

    cpus: float | None = None
    memory: int | None = None

    @classmethod
    def of(cls, resources: Any) -> "Limits":
        """Read the limits of a container in a pipeline's specification."""
        from kubernetes.utils.quantity import parse_quantity

        cpus, memory = resources.resource_cpu_limit, resources.resource_memory_limit
        return cls(
            float(parse_quantity(cpus)) if cpus else None,
            int(parse_quantity(memory)) if memory else None,
        )


class Containers:
    """The containers of one run: started, watched, stopped and removed.

    Each has the invoking user's number, no capability, a root file system that cannot be written, and a scratch
    folder. It sees the project (read-only) and the state folder under their own paths, without the services'
    files. Its network is the host's only if a server that it needs listens on this machine's loopback, else docker's
    bridge.

    Args:
        project: whose folders are mounted.
        run: the id of the run, in every container's name and label.
        environment: the variables of every task, which win over those of this process.

    Raises:
        UserError: docker does not answer, or does not let this user in.
    """

    def __init__(self, project: Project, run: str, environment: Mapping[str, str]) -> None:
        self._run = run
        self._project = project
        hub = Path.home() / ".cache" / "huggingface"
        self._environment = {
            **({"HF_HOME": str(hub)} if hub.is_dir() else {}),  # what was downloaded once is there for every task
            **inherited(os.environ),
            **environment,
            "PYTHONPATH": str(project.root),
        }
        self._mounts = mounts(project, self._environment)
        self._network = network(self._environment)
        self._live: set[Container] = set()
        self._lock = threading.Lock()
        try:
            self._client = docker.from_env(timeout=_ANSWER)
            self._machine = self._client.info()
        except (DockerException, requests.RequestException) as error:
            raise _unreachable(error) from error
        self._labels = {
            _RUN: run,
            _STATE: str(project.state),
            _PID: str(os.getpid()),
            _HOST: socket.gethostname(),
        }

    def require(self, images: Iterable[str]) -> None:
        """Check that every image is here: a task must not wait for a download, nor run another image.

        Raises:
            UserError: one is missing.
        """
        for image in sorted(set(images)):
            try:
                self._client.images.get(image)
            except ImageNotFound as error:
                hint = "run `make images`" if image == self._project.image else f"run `docker pull {image}`"
                raise UserError(f"The image {image} is not on this machine: {hint}.") from error

    def name(self, task: str) -> str:
        """Return the name of a task's container."""
        return f"{self._run}-{task}"

    def run(
        self,
        task: str,
        image: str,
        command: list[str],
        *,
        volumes: Mapping[str, Mapping[str, str]],
        environment: Mapping[str, str],
        scratch: Path,
        limits: Limits,
        line: Callable[[str], None],
    ) -> int:
        """Run one task in a container, to its end, and return the exit code.

        Args:
            task: its name in the run.
            image: must be here.
            command: what runs in it.
            volumes: further folders, ``{source: {"bind": target}}``, writable.
            environment: over the run's variables.
            scratch: where the container's folder for temporary files is made; it is removed afterwards.
            limits: capped at what the machine has.
            line: called with each line that it prints.

        Raises:
            AssayError: it ran out of memory, or docker cannot start it or is lost.
        """
        memory = min(limits.memory or sys.maxsize, int(self._machine["MemTotal"]))
        cpus = min(limits.cpus or sys.maxsize, int(self._machine["NCPU"]))
        temporary = scratch / task
        container = None
        for folder in (temporary, *map(Path, volumes)):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            container = self._client.containers.create(
                image,
                command,
                name=self.name(task),
                labels=self._labels,
                environment=self._variables(environment, cpus),
                mounts=[
                    *self._mounts,
                    *(Mount(entry["bind"], folder, type="bind") for folder, entry in volumes.items()),
                    Mount(_SCRATCH, str(temporary), type="bind"),
                    Mount("/tmp", None, type="tmpfs", tmpfs_size=_SMALL),  # noqa: S108
                ],
                network_mode=self._network,
                user=f"{os.getuid()}:{os.getgid()}",
                group_add=list(map(str, os.getgroups())),
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                read_only=True,
                pids_limit=_PIDS,
                mem_limit=memory,
                memswap_limit=memory,
                nano_cpus=int(cpus * 1e9),
                shm_size=memory // 2,  # torch's and Ray's workers share tensors there; it counts as memory
                init=True,  # passes signals on, and collects the children of a task that has many
                healthcheck={"test": ["NONE"]},
                log_config=LogConfig(type="none"),  # the run keeps the log, without secrets
            )
            with self._lock:
                self._live.add(container)
            output = container.attach(stream=True)
            container.start()
            for text in _lines(output):
                line(text)
            code = int(container.wait(timeout=None)["StatusCode"])
            container.reload()
            if code and container.attrs["State"]["OOMKilled"]:
                raise AssayError(_out_of_memory(task, memory, everything=memory == self._machine["MemTotal"]))
            return code
        except APIError as error:
            raise AssayError(f"Docker cannot run {task}: {str(error.explanation or error).rstrip('.')}.") from error
        except (DockerException, requests.RequestException) as error:
            raise AssayError(
                f"Docker was lost while {task} ran: when it answers again (`docker info`), run the same command again."
            ) from error
        finally:
            if container is not None:
                with self._lock:
                    self._live.discard(container)
                _remove(container)
            shutil.rmtree(temporary, ignore_errors=True)

    def stop(self, signal: str) -> None:
        """Send a signal to every container that runs."""
        with self._lock:
            live = list(self._live)
        for container in live:
            with contextlib.suppress(DockerException, requests.RequestException):
                container.kill(signal)

    def close(self) -> None:
        """Remove what an interruption in the middle of a call to docker may have left."""
        with contextlib.suppress(DockerException, requests.RequestException):
            for container in self._client.containers.list(all=True, filters={"label": f"{_RUN}={self._run}"}):
                _remove(container)
        self._client.close()

    def clear(self) -> None:
        """Remove the containers of this project's runs whose own process is gone, killed or with the machine."""
        found = self._client.containers.list(all=True, filters={"label": f"{_STATE}={self._project.state}"})
        for container in found:
            here = container.labels[_HOST] == socket.gethostname()
            if here and not is_alive(int(container.labels[_PID])):
                _remove(container)

    def _variables(self, environment: Mapping[str, str], cpus: float) -> dict[str, str]:
        variables = {**self._environment, **environment}
        threads = min(int(variables.get("OMP_NUM_THREADS", cpus)), max(1, int(cpus)))
        return {
            **variables,
            "OMP_NUM_THREADS": str(threads),
            "HOME": _SCRATCH,
            "TMPDIR": _SCRATCH,
            "RAY_TMPDIR": _SCRATCH,
            "TINI_KILL_PROCESS_GROUP": "1",  # docker's init passes signals to the shell alone without it
        }


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of this process that a container gets: Assay's, the stores', proxies, CA bundles.

    Example:
        >>> inherited({"PATH": "/bin", "LD_PRELOAD": "x.so", "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"})
        {'MLFLOW_TRACKING_URI': 'http://127.0.0.1:5000'}
    """
    wanted = {*_NAMES, *_FILES}
    return {name: value for name, value in environment.items() if name in wanted or name.startswith(_PREFIXES)}


def network(environment: Mapping[str, str]) -> str:
    """Return the network that a task needs: the host's for a server on this machine's loopback, else the bridge.

    Example:
        >>> network({"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"})
        'host'
        >>> network({"MLFLOW_TRACKING_URI": "https://mlflow.example.org"})
        'bridge'
    """
    for name in _SERVERS:
        address = environment.get(name) or environment.get(name.upper()) or ""
        host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
        if host in ("localhost", "::1") or host.startswith("127."):
            return "host"
    return "bridge"


def mounts(project: Project, environment: Mapping[str, str]) -> list[Mount]:
    """Return the folders and files that a task sees, each under its own path; only the state can be written."""
    state = project.state
    writable = [state, *_local_folders(environment)]
    readable = [project.root, project.data.resolve()]
    if has_remote(project):  # what is missing is pulled into data/
        writable += [project.data, project.root / ".dvc"]
    for folder in writable:
        folder.mkdir(parents=True, exist_ok=True)
    found = {str(path): Mount(str(path), str(path), type="bind", read_only=True) for path in readable if path.is_dir()}
    found |= {str(path): Mount(str(path), str(path), type="bind") for path in writable}
    if (state / "services").is_dir():
        # The servers' own files are no business of a task's.
        found[str(state / "services")] = Mount(str(state / "services"), None, type="tmpfs")
    for path in (Path(environment[name]) for name in _FILES if name in environment):
        if path.is_file():
            found[str(path)] = Mount(str(path), str(path.resolve()), type="bind", read_only=True)
    return list(found.values())


def _local_folders(environment: Mapping[str, str]) -> Iterator[Path]:
    """Give the folders for the record, checkpoints, artifacts and downloads, where these are folders.

    Example:
        >>> [str(path) for path in _local_folders({"MLFLOW_TRACKING_URI": "sqlite:////records/mlflow.db"})]
        ['/records']
    """
    tracking = environment.get("MLFLOW_TRACKING_URI", "")
    if tracking.startswith("sqlite:///"):
        yield Path(tracking.removeprefix("sqlite:///")).absolute().parent
    elif tracking.startswith("file:"):
        yield Path(urlsplit(tracking).path)
    for name in ("ASSAY_CHECKPOINTS", "ASSAY_ARTIFACTS", "HF_HOME"):
        place = environment.get(name, "")
        if place and "://" not in place:
            yield Path(place).absolute()


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Join what a container prints into lines, each with its end."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + decoder.decode(chunk)).split("\n")
        yield from (f"{text}\n" for text in whole)
    if rest := rest + decoder.decode(b"", final=True):
        yield f"{rest}\n"


def _remove(container: Container) -> None:
    """Leave nothing of a container behind: ask it to end if it runs, then remove it."""
    with contextlib.suppress(DockerException, requests.RequestException):
        container.stop(timeout=_GRACE)
    with contextlib.suppress(DockerException, requests.RequestException):
        container.remove(force=True, v=True)


def _out_of_memory(task: str, memory: int, everything: bool) -> str:
    size, less = f"{memory / 1e9:.3g} GB", "make the step need less (a smaller batch or model)"
    if everything:
        return f"{task} ran out of memory at {size}, all that docker has: {less}."
    return f"{task} ran out of memory: its container had {size}: raise its memory in pipelines/, or {less}."


def _unreachable(error: Exception) -> UserError:
    if "Permission denied" in str(error):
        return UserError(
            "Docker does not let this user in: add the user to the group docker and log in again, "
            "or run without --on docker."
        )
    place = os.environ.get("DOCKER_HOST", "its socket")
    return UserError(f"Docker does not answer at {place}: start it, or run without --on docker.")
