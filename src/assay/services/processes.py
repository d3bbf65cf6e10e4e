"""Starting, finding again and stopping a server that outlives the command which started it."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay.errors import AssayError
from assay.files import disk_errors

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "XDG_CACHE_HOME")
_MARK = "ASSAY_SERVICE"


@dataclass(frozen=True)
class Process:
    """A process by its number and the moment it started, so that another one of the same number is not taken for it."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return _started(self.pid) == self.started


@dataclass(frozen=True)
class Service:
    """What it takes to run one server.

    Args:
        name: also that of its log.
        title: for people.
        address: where it listens.
        folder: its data; the folder it runs in.
        command: that starts it in the foreground.
        problem: returns why the server does not answer yet, empty when it does.
        environment: over the few variables that are inherited. Nothing secret: others could read it.
        user: the account that it runs as; None is this one.
        stop_signal: asks it to end.
        seconds: the longest that its start may take.
    """

    name: str
    title: str
    address: str
    folder: Path
    command: Sequence[str]
    problem: Callable[[], str]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: "Account | None" = None
    stop_signal: signal.Signals = signal.SIGTERM
    seconds: float = 60.0


@dataclass(frozen=True)
class Account:
    """A user of this system."""

    name: str
    uid: int
    gid: int


def run_as(account: Account | None) -> dict[str, Any]:
    """Return what `subprocess` needs to run a program as another account; nothing for None."""
    return {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}


def start(service: Service, log: Path) -> Process:
    """Start a server in a session of its own and wait until it answers.

    Raises:
        AssayError: it ended, or does not answer in time; the sentence has the last line of its log.
    """
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    with disk_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            child = subprocess.Popen(
                list(service.command),
                cwd=service.folder,
                env={**inherited, **service.environment, _MARK: str(service.folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
                **run_as(service.user),
            )
    process = Process(child.pid, _started(child.pid))
    try:
        why = wait_until_it_answers(service, process, service.seconds)
        if not process.alive:
            raise AssayError(f"{service.title} ended as it started ({_last_line(log)}): its log is {log}.")
        if why:
            raise AssayError(
                f"{service.title} does not answer at {service.address} after {service.seconds:.0f} s ({why}): "
                f"its log is {log}."
            )
    except BaseException:
        stop(service, process)
        raise
    return process


def wait_until_it_answers(service: Service, process: Process, seconds: float) -> str:
    """Return why a server does not answer within some seconds; empty when it does."""
    deadline = time.monotonic() + seconds
    while (why := service.problem()) and process.alive and time.monotonic() < deadline:
        time.sleep(0.05)
    return why


def stop(service: Service, process: Process, patience: float = 30.0) -> None:
    """Ask a server to end, wait, and kill it if it does not; also what a dead one left in its session."""
    if process.alive:
        _signal(process.pid, service.stop_signal)
        _wait(lambda: not process.alive, patience)
    if process.alive:
        _signal(process.pid, signal.SIGKILL)
        _wait(lambda: not process.alive, 5.0)
    if left := _left_behind(service, process):
        for pid in left:
            _signal(pid, signal.SIGTERM)
        _wait(lambda: not _left_behind(service, process), 5.0)
        for pid in _left_behind(service, process):
            _signal(pid, signal.SIGKILL)


def choose_ports(count: int) -> list[int]:
    """Return that many different ports on loopback which nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def port_is_free(port: int) -> bool:
    """Say whether a server could listen on a port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, after their own last connections
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _started(pid: int) -> str:
    """Return the boot and the clock tick in which a process started; empty when it has ended."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # a child of this very process would stay as a zombie
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{boot}/{fields[19]}"


def _left_behind(service: Service, process: Process) -> list[int]:
    """Return the processes of a server's session that bear its mark: its workers, when it was killed."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == process.pid:
            continue
        try:
            session = (entry / "stat").read_text().rpartition(")")[2].split()[3]
            if (
                int(session) == process.pid
                and f"{_MARK}={service.folder}\0".encode() in (entry / "environ").read_bytes()
            ):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "it printed nothing"
