"""An S3 server of one's own, for checkpoints and data that travel through an object store."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest


def free_ports(count):
    """Return ports that are free now, and with 10,000 added too, where SeaweedFS listens for gRPC."""
    found = []
    while len(found) < count:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                other.bind(("127.0.0.1", port + 10_000 if port < 55_000 else 0))
            except OSError:
                continue
            if port < 55_000 and port not in found:
                found.append(port)
    return found


class S3Server:
    """SeaweedFS on loopback, which can be stopped and started again over the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.master, self.volume, self.filer, self.port = free_ports(4)
        key, secret = "assay-test", secrets.token_urlsafe(24)
        identity = {"name": "test", "credentials": [{"accessKey": key, "secretKey": secret}], "actions": ["Admin"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        self.credentials = folder / "credentials"
        self.credentials.write_text(f"[test]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
        self.credentials.chmod(0o600)
        self.process: subprocess.Popen | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_SHARED_CREDENTIALS_FILE": str(self.credentials),
            "AWS_PROFILE": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        (self.folder / "data").mkdir(exist_ok=True)
        command = [
            str(Path(sys.executable).with_name("weed")),
            *("server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self.folder / 'data'}"),
            *(f"-master.port={self.master}", f"-volume.port={self.volume}", f"-filer.port={self.filer}"),
            *(f"-s3.port={self.port}", f"-s3.config={self.folder / 's3.json'}"),
            *("-master.volumeSizeLimitMB=64", "-volume.max=32", "-master.telemetry=false"),
        ]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                return self._make_bucket()
            except Exception:
                time.sleep(0.3)
        pytest.fail(f"SeaweedFS did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def _make_bucket(self) -> None:
        import boto3
        from botocore.config import Config

        session = boto3.session.Session(profile_name="test")
        config = Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1})
        client = session.client("s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"], config=config)
        if "assay" not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket="assay")
        client.put_object(Bucket="assay", Key="ready", Body=b"1")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    server = S3Server(tmp_path_factory.mktemp("s3"))
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = str(server.credentials)
    server.start()
    del os.environ["AWS_SHARED_CREDENTIALS_FILE"]
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The server, named by AWS's own variables."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    return s3_server
