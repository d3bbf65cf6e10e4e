"""The three servers together: up in the order of their need, down in the opposite one."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from assay.errors import AssayError, UserError
from assay.files import disk_errors, write_json
from assay.project import Project
from assay.services import object_store, postgres, tracking
from assay.services.processes import Process, Service, choose_ports, port_is_free, start, stop, wait_until_it_answers

_LOCK_SECONDS = 300.0
_BUSY_SECONDS = 30.0  # a server that has much to do is not restarted
_MODULES: dict[str, Any] = {"s3": object_store, "postgres": postgres, "mlflow": tracking}
"""In the order of their start: each needs those before it."""


@dataclass(frozen=True)
class Status:
    """How one server is: ``state`` is ``up``, ``down``, or why it does not answer."""

    name: str
    title: str
    state: str
    pid: int | None
    address: str
    size_bytes: int


class Stack:
    """The local services of a project, below ``<state>/services``.

    ``services.json`` remembers each server's ports and process. A process is known by its number and the moment it
    started, so nothing else is ever stopped.
    """

    def __init__(self, project: Project) -> None:
        self.root = project.state / "services"
        self._file = self.root / "services.json"

    def up(self, tell: Callable[[str], None] = lambda _: None) -> None:
        """Start what does not run; what runs and answers is left alone.

        Args:
            tell: called with a line when a server starts.

        Raises:
            UserError: a program is not installed, or the folder cannot be used.
            AssayError: a server does not start.
        """
        with self._lock():
            known = self._read()
            if self._move_taken_ports(known):  # who needs a server must learn of its new ports
                self._stop("mlflow", known)
            for name, module in _MODULES.items():
                process = self._process(name, known)
                if process and process.alive:
                    running = self._service(name, known)
                    if not wait_until_it_answers(running, process, _BUSY_SECONDS):
                        continue
                self._stop(name, known)
                module.prepare(self.root)
                service: Service = module.service(self.root, known["ports"])
                tell(f"starting {service.title}")
                process = start(service, self.log(name))
                known["processes"][name] = vars(process)
                self._write(known)

    def down(self, tell: Callable[[str], None] = lambda _: None) -> None:
        """Stop what runs; data, credentials and ports stay."""
        if not self._file.is_file():
            return
        with self._lock():
            known = self._read()
            for name in reversed(_MODULES):
                process = self._process(name, known)
                if process and process.alive:
                    tell(f"stopping {self._service(name, known).title}")
                self._stop(name, known)

    def status(self) -> list[Status]:
        """Return how each server is, in the order of their start."""
        known = self._read()
        found = []
        for name in _MODULES:
            process = self._process(name, known)
            alive = process is not None and process.alive
            service = self._service(name, known) if alive else None
            state = (service.problem() or "up") if service else "down"
            address = service.address if service else ""
            pid = process.pid if process and alive else None
            found.append(Status(name, _TITLES[name], state, pid, address, _size(self.root / name)))
        return found

    def log(self, name: str) -> Path:
        """Return the log of a server."""
        return self.root / "logs" / f"{name}.log"

    @property
    def ports(self) -> Mapping[str, int]:
        """The ports of the servers.

        Raises:
            AssayError: one of the servers is down.
        """
        known = self._read()
        for name in _MODULES:
            process = self._process(name, known)
            if process is None or not process.alive:
                raise AssayError(f"{_TITLES[name]} of {self.root} is down: start it with `assay services up`.")
        return known["ports"]

    def _service(self, name: str, known: Mapping[str, Any]) -> Service:
        return _MODULES[name].service(self.root, known["ports"])

    def _stop(self, name: str, known: dict[str, Any]) -> None:
        if process := self._process(name, known):
            stop(self._service(name, known), process)
            del known["processes"][name]
            self._write(known)

    @staticmethod
    def _process(name: str, known: Mapping[str, Any]) -> Process | None:
        return Process(**known["processes"][name]) if name in known["processes"] else None

    def _move_taken_ports(self, known: dict[str, Any]) -> bool:
        """Choose ports for what has none, and for what is down and whose ports somebody else took meanwhile."""
        moved = False
        for name, module in _MODULES.items():
            process = self._process(name, known)
            if process and process.alive:
                continue
            if process:
                self._stop(name, known)  # workers of a killed server hold its port
            if not all(name in known["ports"] and port_is_free(known["ports"][name]) for name in module.PORTS):
                known["ports"].update(zip(module.PORTS, choose_ports(len(module.PORTS)), strict=True))
                moved = True
        return moved

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(self._file.read_text())
        except FileNotFoundError:
            return {"ports": {}, "processes": {}}
        except ValueError:
            raise UserError(
                f"{self._file} is not what Assay wrote: restore it, or remove it and stop the servers."
            ) from None

    def _write(self, known: Mapping[str, Any]) -> None:
        write_json(self._file, known)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            # For root, PostgreSQL's account must pass through; what is secret is 0600 or below a folder of 0700.
            self.root.chmod(0o711 if os.getuid() == 0 else 0o700)
        try:
            with FileLock(self.root / "lock", timeout=_LOCK_SECONDS):
                yield
        except Timeout:
            raise AssayError(
                f"Another command has been starting or stopping the services of {self.root} for "
                f"{_LOCK_SECONDS:.0f} s: end it, then try again."
            ) from None


def bypass_proxies() -> None:
    """Let no HTTP client of this process and its children ask a proxy for what is on loopback."""
    for name in ("NO_PROXY", "no_proxy"):
        known = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join(dict.fromkeys([*known, "127.0.0.1", "localhost"]))


_TITLES = {"s3": "The object store (SeaweedFS)", "postgres": "PostgreSQL", "mlflow": "The MLflow server"}


def _size(folder: Path) -> int:
    """Return how many bytes a folder takes on the disk."""
    total = 0
    for parent, _, names in os.walk(folder, onerror=lambda _: None):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).lstat().st_blocks * 512
    return total
