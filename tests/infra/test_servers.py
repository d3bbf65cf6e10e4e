"""The scripts, arguments and secrets of the manifests against the real PostgreSQL and the real object store."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

KUBERNETES = Path(__file__).parents[2] / "infra" / "kubernetes"
BIN = Path(sys.executable).parent
NOBODY = 65534

pytestmark = pytest.mark.services


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path that an unprivileged user can enter: PostgreSQL refuses root, sockets a long path."""
    path = Path(subprocess.check_output(["mktemp", "-d", "/tmp/assay-XXXXXX"], text=True).strip())  # noqa: S108
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def secrets(cluster, folder: Path) -> Path:
    """The secrets as they are mounted: a folder each."""
    assert cluster.run().returncode == 0
    for (_, name), files in cluster.secrets().items():
        for key, value in files.items():
            path = folder / "secrets" / name / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(value)
    return folder / "secrets"


@pytest.fixture
def postgres(folder: Path, secrets: Path) -> Iterator[dict[str, str]]:
    """A server with the role and database of roles.sh; the environment of the backup's container."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed")
    programs, (port,) = found[-1].parent, free_ports(1)
    data = folder / "data"
    data.mkdir()
    (folder / "backups").mkdir()
    user = {"user": NOBODY, "group": NOBODY} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(data, NOBODY, NOBODY)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "PGPORT": str(port)}

    def run(*words: object, **more: str) -> None:
        subprocess.run(list(map(str, words)), env=environment | more, check=True, cwd=folder, **user)

    run("initdb", "--pgdata", data, "--username=postgres", "--auth-host=scram-sha-256", "--auth-local=trust")
    options = f"-p {port} -k {data} -c listen_addresses=127.0.0.1"
    run("pg_ctl", "--pgdata", data, "--options", options, "--log", data / "log", "--wait", "start")
    try:
        run(KUBERNETES / "base/postgres/roles.sh", PGHOST=str(data), SECRETS=str(secrets / "postgres-server"))
        service = secrets / "postgres-client" / "pg_service.conf"
        service.write_text(service.read_text().replace("host=postgres", "host=127.0.0.1").replace("5432", str(port)))
        yield environment | {"PGSERVICEFILE": str(service), "BACKUPS": str(folder / "backups"), "KEEP": "2"}
    finally:
        run("pg_ctl", "--pgdata", data, "--mode=fast", "--wait", "stop")


def test_a_backup_brings_the_database_back(postgres: dict[str, str]) -> None:
    def task(name: str, **more: str) -> subprocess.CompletedProcess:
        script = KUBERNETES / f"base/postgres/{name}.sh"
        return subprocess.run([script], env=postgres | more, capture_output=True, text=True)

    def sql(text: str) -> str:
        command = ["psql", "--dbname=service=mlflow", "-Atqc", text]
        return subprocess.run(command, env=postgres, capture_output=True, text=True, check=True).stdout.strip()

    sql("CREATE TABLE runs (name text); INSERT INTO runs VALUES ('first')")
    backups = Path(postgres["BACKUPS"])
    for _ in range(3):
        done = task("backup")
        assert done.returncode == 0, done.stderr
        time.sleep(1.1)  # a dump is named after its second
    assert len(list(backups.iterdir())) == 2

    sql("INSERT INTO runs VALUES ('second'); CREATE TABLE younger (x int)")
    (backups / "mlflow-damaged.dump").write_text("PGDMP")
    for wrong, code in (("mlflow-damaged.dump", 1), ("nothing.dump", 2)):
        assert task("restore", BACKUP=wrong).returncode == code
        assert sql("SELECT count(*) FROM runs") == "2"
    (backups / "mlflow-damaged.dump").unlink()

    done = task("restore")
    assert done.returncode == 0, done.stderr
    assert sql("SELECT name FROM runs") == "first"
    assert sql("SELECT to_regclass('younger') IS NULL") == "t"
    assert len(list(backups.iterdir())) == 2, "the restore left something behind"

    shutil.move(backups, backups.with_name("elsewhere"))
    assert task("backup").returncode != 0, "a dump that was not written is no success"


@pytest.fixture
def store(folder: Path, secrets: Path, render) -> Iterator[str]:
    """The object store with the manifest's own arguments; only places and ports are this machine's."""
    (server,) = [
        entry
        for entry in render(KUBERNETES / "overlays/production")
        if (entry["kind"], entry["metadata"]["name"]) == ("StatefulSet", "object-store")
    ]
    _, *arguments = server["spec"]["template"]["spec"]["containers"][0]["command"]
    names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"]
    names += ["s3.port", "s3.port.grpc"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    (folder / "objects").mkdir()
    changed = {
        "-dir=/data": f"-dir={folder / 'objects'}",
        "-s3.ip.bind=0.0.0.0": "-s3.ip.bind=127.0.0.1",
        "-s3.config=/run/secrets/object-store/s3.json": f"-s3.config={secrets / 'object-store' / 's3.json'}",
    }
    assert set(changed) <= set(arguments)
    arguments = [changed.get(word, word) for word in arguments if not word.startswith("-s3.port=")]
    arguments += [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen([BIN / "weed", *arguments], stdout=log, stderr=log, cwd=folder)
    try:
        yield f"http://127.0.0.1:{ports['s3.port']}"
    finally:
        process.kill()  # what it holds is thrown away
        process.wait()


def test_the_stores_keys_open_their_own_bucket_alone(store: str, secrets: Path) -> None:
    import boto3
    from botocore.exceptions import ClientError

    environment = os.environ | {
        "AWS_ENDPOINT_URL": store,
        "AWS_PROFILE": "assay",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_SHARED_CREDENTIALS_FILE": str(secrets / "s3-admin" / "credentials"),
    }
    script = [sys.executable, KUBERNETES / "base/object-store/buckets.py"]
    deadline = time.monotonic() + 60
    while (done := subprocess.run(script, env=environment, capture_output=True, text=True)).returncode:
        assert time.monotonic() < deadline, done.stderr[-500:]
    again = subprocess.run(script, env=environment, capture_output=True, text=True)
    assert again.stdout.splitlines() == ["assay was there", "mlflow was there"]

    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = str(secrets / "s3-assay" / "credentials")
    try:
        session = boto3.Session(profile_name="assay", region_name="us-east-1")
        client = session.client("s3", endpoint_url=store)
        client.put_object(Bucket="assay", Key="training/x", Body=b"1")
    finally:
        del os.environ["AWS_SHARED_CREDENTIALS_FILE"]
    assert client.get_object(Bucket="assay", Key="training/x")["Body"].read() == b"1"
    for forbidden in (
        lambda: client.put_object(Bucket="mlflow", Key="x", Body=b"1"),
        lambda: client.list_objects_v2(Bucket="mlflow"),
        lambda: client.create_bucket(Bucket="mine"),
        lambda: client.delete_bucket(Bucket="assay"),
    ):
        with pytest.raises(ClientError, match=r"AccessDenied|BucketNotEmpty"):
            forbidden()
