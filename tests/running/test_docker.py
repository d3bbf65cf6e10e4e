"""What a container gets to see, decided without docker."""

from types import SimpleNamespace

import pytest

from assay.project import Project
from assay.running.docker import Limits, mounts, network


@pytest.fixture
def seen(project, monkeypatch):
    """Return how each mounted path may be used: ``read``, ``write`` or ``hidden``."""

    def seen(environment: dict[str, str] | None = None) -> dict[str, str]:
        found = mounts(Project(project), environment or {})
        use = {mount["Target"]: "read" if mount["ReadOnly"] else "write" for mount in found}
        return use | {mount["Target"]: "hidden" for mount in found if mount["Type"] == "tmpfs"}

    return seen


def test_the_project_can_be_read_and_the_state_written(project, seen):
    (project / "data").mkdir()
    assert seen() == {str(project): "read", str(project / "data"): "read", str(project / ".assay"): "write"}


def test_data_can_be_written_where_a_remote_may_fill_it(project, seen):
    (project / ".dvc").mkdir()
    (project / ".dvc" / "config").write_text(
        "[core]\n    remote = far\n    no_scm = true\n['remote \"far\"']\n    url = /far\n"
    )
    assert seen()[str(project / "data")] == seen()[str(project / ".dvc")] == "write"


def test_of_the_services_a_task_sees_the_credentials_alone(project, seen):
    credentials = project / ".assay" / "services" / "credentials"
    credentials.parent.mkdir(parents=True)
    credentials.write_text("[assay]\n")
    found = seen({"AWS_SHARED_CREDENTIALS_FILE": str(credentials)})
    assert found[str(credentials.parent)] == "hidden"
    assert found[str(credentials)] == "read"


def test_stores_that_are_folders_elsewhere_can_be_written(tmp_path, seen):
    places = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/records/mlflow.db", "ASSAY_CHECKPOINTS": f"{tmp_path}/kept"}
    assert {str(tmp_path / "records"), str(tmp_path / "kept")} <= {
        path for path, use in seen(places).items() if use == "write"
    }
    assert not [path for path in seen({"ASSAY_CHECKPOINTS": "s3://bucket/x"}) if "bucket" in path]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "bridge"),
        ({"MLFLOW_TRACKING_URI": "sqlite:////records/mlflow.db"}, "bridge"),
        ({"AWS_ENDPOINT_URL": "https://s3.example.org"}, "bridge"),
        ({"AWS_ENDPOINT_URL": "http://localhost:8333"}, "host"),
        ({"RAY_ADDRESS": "127.0.0.1:6379"}, "host"),
        ({"MLFLOW_TRACKING_URI": "http://[::1]:5000"}, "host"),
    ],
)
def test_the_hosts_network_is_for_servers_on_its_loopback(environment, expected):
    assert network(environment) == expected


def test_limits_are_read_as_kubernetes_reads_them():
    resources = SimpleNamespace(resource_cpu_limit="1500m", resource_memory_limit="2Gi")
    assert Limits.of(resources) == Limits(1.5, 2 << 30)
    assert Limits.of(SimpleNamespace(resource_cpu_limit="", resource_memory_limit="")) == Limits(None, None)
