"""The rendered manifests, as `kubectl kustomize` prints them."""

import base64
import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "infra" / "kubernetes"
KUBECTL = Path(sys.executable).parent / "kubectl"


@functools.cache
def _render(folder: Path) -> str:
    if not KUBECTL.exists():
        pytest.skip("kubectl is not beside this Python")
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def render():
    """Return the manifests of a kustomization, freshly parsed, so that a test may change them."""
    return lambda folder: list(yaml.safe_load_all(_render(Path(folder))))


@pytest.fixture(scope="session")
def policy():
    spec = importlib.util.spec_from_file_location("kubernetes_policy", KUBERNETES / "policy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# In the place of a cluster: it knows the secrets named in $EXISTING, and writes what it is given to $MADE.
CLUSTER = """#!/usr/bin/env bash
echo "$*" >>"$CALLS"
case "$3" in
  get) [[ " $EXISTING " == *" $5 "* ]] ;;
  create) {{ echo ---; {kubectl} "$@" --dry-run=client --output=yaml; }} >>"$MADE" && echo "secret/$5 created" ;;
esac
"""


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.made, self.calls, self.scratch = folder / "made", folder / "calls", folder / "scratch"
        self.bin = folder / "bin"
        for path in (self.bin, self.scratch):
            path.mkdir()
        (self.bin / "kubectl").write_text(CLUSTER.format(kubectl=KUBECTL))
        (self.bin / "kubectl").chmod(0o755)

    def run(self, *words: str, existing: str = "") -> subprocess.CompletedProcess:
        environment = os.environ | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "TMPDIR": str(self.scratch),
            "EXISTING": existing,
            "MADE": str(self.made),
            "CALLS": str(self.calls),
        }
        return subprocess.run([KUBERNETES / "secrets.sh", *words], env=environment, capture_output=True, text=True)

    def secrets(self) -> dict[tuple[str, str], dict[str, str]]:
        return {
            (entry["metadata"]["namespace"], entry["metadata"]["name"]): {
                key: base64.b64decode(value).decode() for key, value in entry["data"].items()
            }
            for entry in yaml.safe_load_all(self.made.read_text())
            if entry
        }


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    if not KUBECTL.exists():
        pytest.skip("kubectl is not beside this Python")
    return Cluster(tmp_path)
