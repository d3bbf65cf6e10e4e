from pathlib import Path

import pytest

from assay.cluster import ClusterSettings, load_cluster_settings
from assay.errors import UserError
from assay.project import Project

ROOT = Path(__file__).parents[1]


def write(root: Path, text: str) -> Project:
    (root / "pipelines").mkdir()
    (root / "pipelines" / "cluster.yaml").write_text(text)
    return Project(root)


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert load_cluster_settings(Project(tmp_path)) == ClusterSettings()
    assert ClusterSettings().sizes.training.gpus == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("namespaces: x", "cluster.yaml.namespaces is not a setting: "),
        ("sizes: {huge: {cpus: '1', memory: 1G}}", "cluster.yaml.sizes.huge is not a setting: "),
        ("sizes: {small: {cpus: '1', memory: 1 gigabyte}}", "cluster.yaml.sizes.small.memory = '1 gigabyte' "),
        ("sizes: {small: {cpus: '1'}}", "cluster.yaml.sizes.small.memory = "),
        ("run_as_user: 0", "cluster.yaml.run_as_user = 0 is not valid: "),
        ("a: [", "cannot be read as YAML"),
        ("- a", "must hold settings such as `namespace: assay`"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    project = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_cluster_settings(project)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ray_workers_go_where_training_steps_go_unless_told_otherwise() -> None:
    training = {
        "cpus": "4",
        "memory": "8Gi",
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu", "effect": "NoSchedule"}],
    }
    settings = ClusterSettings.parse(
        {"namespace": "team", "sizes": {"training": training}, "ray": {"gpus_per_worker": 1}}, "cluster.yaml"
    )
    assert settings.ray_job("image@sha256:1") == {
        "namespace": "team",
        "image": "image@sha256:1",
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "gpus_per_worker": 1,
    }
    elsewhere = settings.model_copy(update={"ray": {"node_selector": {"pool": "large"}}})
    assert elsewhere.ray_job("image")["node_selector"] == {"pool": "large"}
    assert ClusterSettings().ray_job("image") is None


def test_the_projects_own_settings_are_what_the_launcher_reads() -> None:
    from assay.training.rayjob import RayJobSettings

    settings = load_cluster_settings(Project(ROOT))
    job = RayJobSettings.parse(settings.ray_job("registry.example/assay@sha256:0"), where="ASSAY_RAY_JOB")
    assert job.namespace == settings.namespace
    assert job.tolerations[0].key == "nvidia.com/gpu"
