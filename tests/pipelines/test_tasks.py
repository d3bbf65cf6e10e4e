"""What the steps get on a cluster, from one settings object, and that a run on this machine does not see it."""

import json
from pathlib import Path

import pytest
import yaml

from assay.errors import UserError
from assay.project import Project
from assay.running.compile import compile_pipeline
from assay.running.pipelines import Pipeline, load_pipeline, to_yaml

ROOT = Path(__file__).parents[2]
TRAININGS = {
    "classification": {"exec-pretraining"},
    "detection": {"exec-detector-training"},
    "forensics": {"exec-detector-training", "exec-generator-training"},
}


@pytest.fixture(scope="module", params=list(TRAININGS))
def compiled(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict, dict]:
    file = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compile_pipeline(request.param, file, ["dataset=fashion-mnist"], project=Project(ROOT))
    spec, platform = yaml.safe_load_all(file.read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    containers = {name: entry["container"] for name, entry in spec["deploymentSpec"]["executors"].items()}
    return request.param, containers, executors


def test_every_step_gets_settings_secrets_user_and_a_timeout(compiled) -> None:
    _, containers, executors = compiled
    assert set(executors) == set(containers)
    for name, step in executors.items():
        (settings,) = step["configMapAsEnv"]
        assert settings["configMapName"] == "assay-settings"
        assert "MLFLOW_TRACKING_URI" in {entry["envVar"] for entry in settings["keyToEnv"]}, name
        (secret,) = step["secretAsVolume"]
        assert (secret["secretName"], secret["mountPath"]) == ("s3-assay", "/run/secrets/assay")
        assert "secretAsEnv" not in step
        assert step["securityContext"] == {"runAsNonRoot": True, "runAsUser": "10001"}
        assert int(step["activeDeadlineSeconds"]) >= 3600
        resources = containers[name]["resources"]
        assert resources["resourceCpuRequest"] == resources["resourceCpuLimit"]
        assert resources["resourceMemoryRequest"] == resources["resourceMemoryLimit"]


def test_trainings_alone_get_a_gpu_its_nodes_shared_memory_and_the_settings_of_ray(compiled) -> None:
    pipeline, containers, executors = compiled
    assert {name for name, entry in containers.items() if "accelerator" in entry["resources"]} == TRAININGS[pipeline]
    for name, step in executors.items():
        if name not in TRAININGS[pipeline]:
            assert not {"nodeSelector", "tolerations", "emptyDirMounts", "fieldPathAsEnv"} & set(step), name
            continue
        accelerator = containers[name]["resources"]["accelerator"]
        assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "1")
        assert step["nodeSelector"]["labels"] == {"nvidia.com/gpu.present": "true"}
        assert step["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        (memory,) = step["emptyDirMounts"]
        assert (memory["mountPath"], memory["medium"], memory["sizeLimit"]) == ("/dev/shm", "Memory", "2Gi")  # noqa: S108
        assert step["fieldPathAsEnv"] == [
            {"name": "ASSAY_RAY_JOB", "fieldPath": "metadata.annotations['assay/ray-job']"}
        ]
        job = json.loads(step["podMetadata"]["annotations"]["assay/ray-job"])
        assert job["image"] == containers[name]["image"]
        assert job["credentials_secret"] == "s3-assay"


def test_a_run_on_this_machine_sees_nothing_of_it(compiled) -> None:
    _, containers, _ = compiled
    for name, container in containers.items():
        # All that is in the cache's key, and all that the task's process gets, apart from its inputs.
        assert set(container) == {"image", "command", "args", "resources"}, name


def test_wrong_settings_of_ray_are_refused_before_anything_is_written() -> None:
    pipeline = load_pipeline(Project(ROOT), "classification")
    platform = json.loads(json.dumps(pipeline.platform))
    step = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-pretraining"]
    job = json.loads(step["podMetadata"]["annotations"]["assay/ray-job"])
    step["podMetadata"]["annotations"]["assay/ray-job"] = json.dumps({**job, "gpu": 1})
    with pytest.raises(UserError, match=r"^cluster\.yaml\.ray\.gpu is not a setting: "):
        to_yaml(Pipeline(pipeline.name, pipeline.spec, platform, pipeline.configs))
