"""What a cluster would be given: every object is one that Kubernetes knows, and the names in it fit together."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from assay.cluster import load_cluster_settings
from assay.project import Project

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "infra" / "kubernetes"
FOLDERS = ["overlays/dev", "overlays/production", "standalone"]
BIN = Path(sys.executable).parent


def one(manifests: list, kind: str, name: str) -> dict:
    (found,) = [entry for entry in manifests if entry["kind"] == kind and entry["metadata"]["name"] == name]
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_kubernetes_knows_every_field(render, folder: str) -> None:
    from kubernetes_validate import latest_version, validate

    for manifest in render(KUBERNETES / folder):
        if manifest["kind"] != "RayCluster":
            validate(manifest, latest_version(), strict=True)


@pytest.mark.parametrize("folder", ["overlays/dev", "overlays/production"])
def test_the_ray_cluster_has_kuberays_fields_and_pods_that_kubernetes_knows(render, folder: str) -> None:
    from kubernetes_validate import latest_version, validate

    spec = one(render(KUBERNETES / folder), "RayCluster", "ray")["spec"]
    assert set(spec) == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert spec["rayVersion"] == version("ray")
    assert set(spec["headGroupSpec"]) == {"serviceType", "rayStartParams", "template"}
    for group in spec["workerGroupSpecs"]:
        assert set(group) == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        template = {"apiVersion": "v1", "kind": "PodTemplate", "template": group["template"]}
        validate(template, latest_version(), strict=True)


def test_the_command_of_the_readme_accepts_production() -> None:
    if not (BIN / "kubectl").exists():
        pytest.skip("kubectl is not beside this Python")
    command = f"'{BIN}/kubectl' kustomize infra/kubernetes/overlays/production | '{BIN}/kubernetes-validate' --strict -"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("passed") > 30


def test_the_steps_find_what_their_settings_name(render, policy) -> None:
    manifests = render(KUBERNETES / "overlays/production")
    settings = load_cluster_settings(Project(ROOT))
    assert {entry["metadata"].get("namespace", "") for entry in manifests} == {settings.namespace, ""}
    one(manifests, "ServiceAccount", settings.service_account)
    one(manifests, "ServiceAccount", settings.ray["service_account"])
    for name, keys in settings.config_maps.items():
        assert set(keys) == set(one(manifests, "ConfigMap", name)["data"])
    assert set(settings.secret_files) | {settings.ray["credentials_secret"]} <= policy.SECRETS
    told = one(manifests, "ConfigMap", "assay-settings")["data"]
    assert told["AWS_SHARED_CREDENTIALS_FILE"] == settings.secret_files["s3-assay"] + "/credentials"
    for variable in ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL"):
        host, port = re.fullmatch(r"http://(\S+?)\.assay\.svc\.cluster\.local:(\d+)", told[variable]).groups()
        assert [entry["port"] for entry in one(manifests, "Service", host)["spec"]["ports"]] == [int(port)]


def test_our_pods_have_the_user_of_our_image(policy, render) -> None:
    user = int(re.search(r"^USER (\d+)", (ROOT / "infra/images/Dockerfile").read_text(), re.MULTILINE)[1])
    assert load_cluster_settings(Project(ROOT)).run_as_user == user
    for pod in policy.pods(render(KUBERNETES / "overlays/production")):
        if "/assay" in pod.spec["containers"][0]["image"]:
            assert pod.spec["securityContext"]["runAsUser"] == user, pod.owner


def test_the_network_lets_each_client_reach_its_server_and_nobody_else(policy, render) -> None:
    manifests = render(KUBERNETES / "overlays/production")
    labels = {pod.owner.split("/")[1]: pod.labels for pod in policy.pods(manifests)}
    labels["step"] = {"workflows.argoproj.io/workflow": "classification-x"}
    labels["stranger"] = {"app": "stranger"}

    def allowed(client: str, server: str, port: int) -> bool:
        def has(direction: str, here: str, there: str, peers: str) -> bool:
            return any(
                policy.selects(entry["spec"]["podSelector"], labels[here])
                and any(
                    any(
                        "podSelector" in peer
                        and policy.selects(peer["podSelector"], labels[there])
                        and "namespaceSelector" not in peer
                        for peer in rule[peers]
                    )
                    and ("ports" not in rule or port in [known["port"] for known in rule["ports"]])
                    for rule in entry["spec"].get(direction, [])
                )
                for entry in manifests
                if entry["kind"] == "NetworkPolicy"
            )

        return has("egress", client, server, "to") and has("ingress", server, client, "from")

    wanted = {
        ("mlflow", "postgres", 5432), ("postgres-backup", "postgres", 5432),
        ("mlflow", "object-store", 8333), ("buckets", "object-store", 8333),
        ("step", "object-store", 8333), ("ray head", "object-store", 8333), ("ray gpu", "object-store", 8333),
        ("step", "mlflow", 5000), ("ray head", "mlflow", 5000), ("ray gpu", "mlflow", 5000),
    }  # fmt: skip
    servers = {"postgres": 5432, "object-store": 8333, "mlflow": 5000}
    found = {
        (client, server, port)
        for client in labels
        for server, port in servers.items()
        if client != server and allowed(client, server, port)
    }
    assert found == wanted
    assert allowed("ray gpu", "ray head", 6379)
    assert not allowed("stranger", "ray head", 8265)
