"""An MLflow server that keeps its record in PostgreSQL and its artifacts in S3."""

import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from assay.services import object_store, postgres
from assay.services.processes import Service

PORTS = ("mlflow",)


def address(ports: Mapping[str, int]) -> str:
    """Return the server's address."""
    return f"http://127.0.0.1:{ports['mlflow']}"


def prepare(root: Path) -> None:
    """Make the folder that the server runs in."""
    (root / "mlflow").mkdir(mode=0o700, exist_ok=True)


def service(root: Path, ports: Mapping[str, int]) -> Service:
    """Return how to run the server; PostgreSQL and S3 are up before it."""
    folder = root / "mlflow"
    port = ports["mlflow"]
    options = {
        "host": "127.0.0.1",
        "port": port,
        "workers": 1,
        "backend-store-uri": postgres.uri(root, ports).replace("postgresql:", "postgresql+psycopg2:", 1),
        "artifacts-destination": f"s3://{object_store.BUCKET}/mlflow",
        "allowed-hosts": f"127.0.0.1:{port},localhost:{port}",
    }
    return Service(
        name="mlflow",
        title="The MLflow server",
        address=address(ports),
        folder=folder,
        command=[sys.executable, "-m", "mlflow", "server", *(f"--{name}={value}" for name, value in options.items())],
        problem=lambda: _problem(address(ports)),
        environment={
            "AWS_ENDPOINT_URL": object_store.endpoint(ports),
            "MLFLOW_S3_ENDPOINT_URL": object_store.endpoint(ports),
            "AWS_SHARED_CREDENTIALS_FILE": str(object_store.credentials_file(root)),
            "AWS_PROFILE": object_store.PROFILE,
            "AWS_DEFAULT_REGION": object_store.REGION,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "GIT_PYTHON_REFRESH": "quiet",
        },
        seconds=180.0,  # the first start makes the tables
    )


def _problem(url: str) -> str:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):  # noqa: S310  our own address
            return ""
    except OSError as error:
        return str(getattr(error, "reason", error))
