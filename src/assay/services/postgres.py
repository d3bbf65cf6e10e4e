"""PostgreSQL, reached over loopback with a password that is in files only."""

import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from assay.errors import AssayError, UserError
from assay.services.processes import Account, Service, run_as
from assay.services.secret_files import write_secret

PORTS = ("postgres",)
DATABASE = "mlflow"
_ADMINISTRATOR = "postgres"
_INSTALLED = Path("/usr/lib/postgresql")


def address(ports: Mapping[str, int]) -> str:
    """Return where the database listens."""
    return f"127.0.0.1:{ports['postgres']}"


def uri(root: Path, ports: Mapping[str, int], user: str = DATABASE, database: str = DATABASE) -> str:
    """Return the database's address for libpq, with the file of the password and not the password."""
    return f"postgresql://{user}@{address(ports)}/{database}?passfile={_passwords_file(root)}&connect_timeout=5"


def prepare(root: Path) -> None:
    """Make the data folder where there is none, with passwords for the administrator and for MLflow.

    Raises:
        UserError: PostgreSQL is not installed, or, for root, the account that it must run as cannot reach the folder.
        AssayError: initdb fails.
    """
    folder = root / "postgres"
    if not (folder / "PG_VERSION").is_file():
        _initialise(root, folder, _programs(folder), _account())


def service(root: Path, ports: Mapping[str, int]) -> Service:
    """Return how to run PostgreSQL; MLflow's account and database are made when it first answers.

    Raises:
        UserError: PostgreSQL is not installed, or of another version than the data.
    """
    folder = root / "postgres"
    programs = _programs(folder)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": ports["postgres"],
        "unix_socket_directories": "",
        "logging_collector": "off",
        "max_connections": 50,
    }
    return Service(
        name="postgres",
        title="PostgreSQL",
        address=address(ports),
        folder=folder,
        command=[
            str(programs / "postgres"),
            f"-D{folder}",
            *(f"-c{name}={value}" for name, value in settings.items()),
        ],
        problem=lambda: _problem(root, ports),
        user=_account(),
        stop_signal=signal.SIGINT,  # its "fast" shutdown: open transactions are rolled back, and all is written
    )


def _programs(folder: Path) -> Path:
    """Return the folder of the server's programs, of the version that made the data where there is data."""
    wanted = (folder / "PG_VERSION").read_text().strip() if (folder / "PG_VERSION").is_file() else ""
    found = {path.parent.parent.name: path.parent for path in _INSTALLED.glob("*/bin/postgres")}
    if (on_path := shutil.which("postgres")) is not None:
        told = subprocess.run([on_path, "--version"], capture_output=True, text=True).stdout
        found.setdefault(match[1] if (match := re.search(r"(\d+)", told)) else "", Path(on_path).resolve().parent)
    if wanted and wanted not in found:
        raise UserError(
            f"{folder} is of PostgreSQL {wanted}, which is not installed: run `apt-get install postgresql-{wanted}`."
        )
    if not found:
        raise UserError("PostgreSQL is not installed: run `apt-get install postgresql` (no cluster of its is used).")
    return found[wanted or max(found, key=lambda version: int(version or 0))]


def _account() -> Account | None:
    """Return the account that PostgreSQL runs as when this is root, which it refuses to be."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise UserError("PostgreSQL does not run as root, and there is no account `postgres`: run this as another user.")


def _initialise(root: Path, folder: Path, programs: Path, account: Account | None) -> None:
    """Make the data folder, with a password for its administrator; a half-made one is made again."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    owner = (account.uid, account.gid) if account else None
    if account:
        os.chown(folder, account.uid, account.gid)
        _check_reachable(folder, account)
    passwords = {name: secrets.token_urlsafe(30) for name in (_ADMINISTRATOR, DATABASE)}
    lines = [f"127.0.0.1:*:*:{name}:{password}" for name, password in passwords.items()]
    write_secret(_passwords_file(root), "\n".join(lines) + "\n")
    first = root / "postgres.first"
    write_secret(first, passwords[_ADMINISTRATOR] + "\n", owner)
    command = [str(programs / "initdb"), f"--pgdata={folder}", f"--username={_ADMINISTRATOR}", f"--pwfile={first}"]
    try:
        subprocess.run(
            [*command, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"],
            check=True,
            capture_output=True,
            text=True,
            cwd=folder,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            **run_as(account),
        )
    except subprocess.CalledProcessError as error:
        shutil.rmtree(folder, ignore_errors=True)
        told = (error.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise AssayError(f"PostgreSQL's initdb could not make {folder}: {told.rstrip('.')}.") from None
    finally:
        first.unlink()


def _check_reachable(folder: Path, account: Account) -> None:
    if subprocess.run(["test", "-w", folder], **run_as(account)).returncode:
        raise UserError(
            f"PostgreSQL does not run as root, and the account {account.name!r} cannot reach {folder}: set ASSAY_HOME "
            "to a folder all of whose parents it may enter, such as /var/lib/assay."
        )


def _passwords_file(root: Path) -> Path:
    """Return libpq's file of passwords."""
    return root / "postgres.pass"


def _problem(root: Path, ports: Mapping[str, int]) -> str:
    """Return why MLflow cannot connect yet; its account and database are made on the way."""
    import psycopg2

    try:
        psycopg2.connect(uri(root, ports)).close()
    except psycopg2.OperationalError as error:
        if "authentication failed" not in str(error) and "does not exist" not in str(error):
            return _first_line(error)
    else:
        return ""
    try:
        _make_database(root, ports)
    except psycopg2.Error as error:
        return _first_line(error)
    return ""


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


def _make_database(root: Path, ports: Mapping[str, int]) -> None:
    import psycopg2
    from psycopg2 import sql

    lines = [line.split(":") for line in _passwords_file(root).read_text().splitlines()]
    password = next(fields[4] for fields in lines if fields[3] == DATABASE)
    name = sql.Identifier(DATABASE)
    connection = psycopg2.connect(uri(root, ports, _ADMINISTRATOR, "postgres"))
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (DATABASE,))
            verb = "ALTER" if cursor.fetchone() else "CREATE"
            cursor.execute(sql.SQL(verb + " ROLE {} LOGIN PASSWORD %s").format(name), (password,))
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if not cursor.fetchone():
                cursor.execute(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(name))
    finally:
        connection.close()
