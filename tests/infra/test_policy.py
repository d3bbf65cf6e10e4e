"""Each rule of infra/kubernetes/policy.py keeps the manifests as they are and refuses them with one thing changed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "infra" / "kubernetes"
OWN_IMAGE = "registry.invalid/assay"
DIGEST = "sha256:051f7b7b3abdd564d5d1bd1e8c4b9c1b6e77087d1dd22020ede611c096a272e0"


class Manifests(list):
    """The rendered manifests, found by kind and name."""

    def one(self, kind: str, name: str) -> dict:
        (found,) = [entry for entry in self if entry["kind"] == kind and entry["metadata"]["name"] == name]
        return found

    def pod(self, kind: str, name: str) -> dict:
        return self.one(kind, name)["spec"]["template"]["spec"]

    def container(self, kind: str, name: str) -> dict:
        return self.pod(kind, name)["containers"][0]

    def drop(self, kind: str, name: str) -> None:
        self.remove(self.one(kind, name))

    def worker(self) -> dict:
        return self.one("RayCluster", "ray")["spec"]["workerGroupSpecs"][0]["template"]["spec"]

    def role(self) -> list:
        return self.one("Role", "ray-launcher")["rules"]

    def policy(self, name: str) -> dict:
        return self.one("NetworkPolicy", name)["spec"]


@pytest.fixture
def manifests(render) -> Manifests:
    return Manifests(render(KUBERNETES / "overlays/production"))


@pytest.mark.parametrize("folder", ["overlays/dev", "overlays/production"])
def test_the_overlays_keep_every_rule(render, policy, folder: str) -> None:
    assert policy.check(render(KUBERNETES / folder), unpinned=OWN_IMAGE) == []


def test_the_access_of_steps_in_kubeflows_namespace_is_least(render, policy) -> None:
    manifests = render(KUBERNETES / "standalone")
    for rule in (policy.least_privilege, policy.narrow_network, policy.secrets_by_reference):
        assert list(rule(manifests)) == []


MUTATIONS = {
    "the namespace is not restricted": (
        "restricted_namespace",
        lambda m: m.one("Namespace", "assay")["metadata"]["labels"].pop("pod-security.kubernetes.io/enforce"),
    ),
    "the namespace is baseline": (
        "restricted_namespace",
        lambda m: m.one("Namespace", "assay")["metadata"]["labels"].update(
            {"pod-security.kubernetes.io/enforce": "baseline"}
        ),
    ),
    "an object without a namespace": (
        "restricted_namespace",
        lambda m: m.one("Service", "mlflow")["metadata"].pop("namespace"),
    ),
    "a pod may be root": (
        "restricted_pods",
        lambda m: m.pod("Deployment", "mlflow")["securityContext"].pop("runAsNonRoot"),
    ),
    "a pod is root": (
        "restricted_pods",
        lambda m: m.pod("StatefulSet", "postgres")["securityContext"].update(runAsUser=0),
    ),
    "no seccomp": ("restricted_pods", lambda m: m.worker()["securityContext"].pop("seccompProfile")),
    "escalation": (
        "restricted_pods",
        lambda m: m.container("StatefulSet", "object-store")["securityContext"].update(allowPrivilegeEscalation=True),
    ),
    "privileged": (
        "restricted_pods",
        lambda m: m.container("Job", "buckets")["securityContext"].update(privileged=True),
    ),
    "a capability": (
        "restricted_pods",
        lambda m: m.worker()["containers"][0]["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
    ),
    "an initial container keeps capabilities": (
        "restricted_pods",
        lambda m: m.pod("Deployment", "mlflow")["initContainers"][0]["securityContext"].pop("capabilities"),
    ),
    "the host's network": ("restricted_pods", lambda m: m.pod("Deployment", "mlflow").update(hostNetwork=True)),
    "the host's files": (
        "restricted_pods",
        lambda m: m.worker()["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    ),
    "the host's port": (
        "restricted_pods",
        lambda m: m.container("StatefulSet", "postgres")["ports"][0].update(hostPort=5432),
    ),
    "a writable root": (
        "read_only_root",
        lambda m: m.container("StatefulSet", "postgres")["securityContext"].pop("readOnlyRootFilesystem"),
    ),
    "no limit": ("resources", lambda m: m.container("Deployment", "mlflow")["resources"]["limits"].pop("memory")),
    "no request": ("resources", lambda m: m.worker()["containers"][0]["resources"].pop("requests")),
    "an unbounded folder": (
        "resources",
        lambda m: m.pod("Deployment", "mlflow")["volumes"].append({"name": "x", "emptyDir": {}}),
    ),
    "no liveness probe": ("probes", lambda m: m.container("StatefulSet", "object-store").pop("livenessProbe")),
    "a worker of Ray without a probe": ("probes", lambda m: m.worker()["containers"][0].pop("readinessProbe")),
    "the default account": (
        "accounts",
        lambda m: m.pod("StatefulSet", "postgres").update(serviceAccountName="default"),
    ),
    "a token": ("accounts", lambda m: m.worker().pop("automountServiceAccountToken")),
    "another verb": ("least_privilege", lambda m: m.role()[0]["verbs"].append("update")),
    "every resource": ("least_privilege", lambda m: m.role()[0].update(resources=["*"])),
    "all secrets": ("least_privilege", lambda m: m.one("Role", "pipeline-executor")["rules"][2].pop("resourceNames")),
    "a cluster's role": (
        "least_privilege",
        lambda m: m.append({"kind": "ClusterRole", "metadata": {"name": "all", "namespace": "assay"}, "rules": []}),
    ),
    "everybody may": (
        "least_privilege",
        lambda m: m.one("RoleBinding", "ray-launcher")["subjects"].append(
            {"kind": "Group", "name": "system:authenticated"}
        ),
    ),
    "nothing is denied": ("default_deny", lambda m: m.drop("NetworkPolicy", "default-deny")),
    "egress is not denied": ("default_deny", lambda m: m.policy("default-deny").update(policyTypes=["Ingress"])),
    "a pod without a policy": ("default_deny", lambda m: m.drop("NetworkPolicy", "buckets")),
    "the whole internet": (
        "narrow_network",
        lambda m: m.policy("mlflow")["egress"].append({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}),
    ),
    "from everywhere": (
        "narrow_network",
        lambda m: m.policy("postgres")["ingress"].append({"ports": [{"port": 5432}]}),
    ),
    "from every namespace": (
        "narrow_network",
        lambda m: m.policy("training")["ingress"].append({"from": [{"namespaceSelector": {}}]}),
    ),
    "a load balancer": ("narrow_network", lambda m: m.one("Service", "mlflow")["spec"].update(type="LoadBalancer")),
    "an ingress": (
        "narrow_network",
        lambda m: m.append({"kind": "Ingress", "metadata": {"name": "x", "namespace": "assay"}}),
    ),
    "a secret in the tree": (
        "secrets_by_reference",
        lambda m: m.append({"kind": "Secret", "metadata": {"name": "x", "namespace": "assay"}, "data": {}}),
    ),
    "a password in the environment": (
        "secrets_by_reference",
        lambda m: m.container("StatefulSet", "postgres")["env"].append({"name": "POSTGRES_PASSWORD", "value": "x"}),
    ),
    "a password in a URL": (
        "secrets_by_reference",
        lambda m: m.container("Deployment", "mlflow")["command"].append(
            "--backend-store-uri=postgresql://mlflow:x@postgres/mlflow"
        ),
    ),
    "a password in a ConfigMap": (
        "secrets_by_reference",
        lambda m: m.one("ConfigMap", "assay-settings")["data"].update(AWS_SECRET_ACCESS_KEY="x"),
    ),
    "a secret that nobody makes": (
        "secrets_by_reference",
        lambda m: m.pod("Deployment", "mlflow")["volumes"].append({"name": "x", "secret": {"secretName": "y"}}),
    ),
    "a ConfigMap that is not there": ("references", lambda m: m.drop("ConfigMap", "assay-settings")),
    "a claim that is not there": ("references", lambda m: m.drop("PersistentVolumeClaim", "postgres-backups")),
    "no budget for a server": ("disruption_budgets", lambda m: m.drop("PodDisruptionBudget", "mlflow")),
    "no budget for Ray's head": ("disruption_budgets", lambda m: m.drop("PodDisruptionBudget", "ray-head")),
    "no backup": ("backups", lambda m: m.drop("CronJob", "postgres-backup")),
    "a suspended backup": ("backups", lambda m: m.one("CronJob", "postgres-backup")["spec"].update(suspend=True)),
    "two backups at a time": (
        "backups",
        lambda m: m.one("CronJob", "postgres-backup")["spec"].update(concurrencyPolicy="Allow"),
    ),
    "a GPU anywhere": ("gpus", lambda m: m.worker().pop("nodeSelector")),
    "a GPU whose taint is not borne": ("gpus", lambda m: m.worker().update(tolerations=[])),
    "a GPU without shared memory": ("gpus", lambda m: m.worker()["containers"][0]["volumeMounts"].pop(1)),
    "a tag": (
        "pinned_images",
        lambda m: m.container("StatefulSet", "postgres").update(image="postgres:17"),
    ),
    "an invented digest": (
        "pinned_images",
        lambda m: m.container("StatefulSet", "postgres").update(image="postgres@sha256:" + "a" * 64),
    ),
    "half a digest": (
        "pinned_images",
        lambda m: m.container("StatefulSet", "postgres").update(image="postgres@sha256:051f"),
    ),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_a_broken_rule_is_named(manifests: Manifests, policy, what: str) -> None:
    rule, change = MUTATIONS[what]
    change(manifests)
    broken = policy.check(manifests, unpinned=OWN_IMAGE)
    assert {line.split(":")[0] for line in broken} == {rule}, broken


def test_every_rule_is_broken_by_some_mutation(policy) -> None:
    assert {rule.__name__ for rule in policy.RULES} == {rule for rule, _ in MUTATIONS.values()}


def run(folder: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run([folder / words[0], *words[1:]], capture_output=True, text=True)


def test_production_is_refused_until_our_image_is_pinned(render, policy, tmp_path: Path) -> None:
    copy = shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    image = copy / "image" / "kustomization.yaml"
    image.write_text(image.read_text().split("images:")[0] + f"images:\n  - name: {OWN_IMAGE}\n    newTag: unpinned\n")
    before = policy.check(render(copy / "overlays/production"))
    assert before and all(line.startswith("pinned_images: ") and OWN_IMAGE in line for line in before)

    done = run(copy, "pin.sh", f"registry.example:5000/team/assay:1@{DIGEST}")
    assert done.returncode == 0, done.stderr
    for overlay in ("dev", "production"):
        # Another path: what is rendered is remembered by folder.
        manifests = render(shutil.copytree(copy, tmp_path / overlay) / "overlays" / overlay)
        assert policy.check(manifests) == []
        images = {container["image"] for pod in policy.pods(manifests) for container in pod.containers}
        assert f"registry.example:5000/team/assay@{DIGEST}" in images
        assert not any(OWN_IMAGE in image for image in images)


@pytest.mark.parametrize("wrong", ["", "assay", "registry.example/assay@sha256:12"])
def test_pinning_needs_a_whole_reference(tmp_path: Path, wrong: str) -> None:
    copy = shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    before = (copy / "image/kustomization.yaml").read_text()
    assert run(copy, "pin.sh", wrong).returncode == 2
    assert (copy / "image/kustomization.yaml").read_text() == before


def test_as_a_command_it_says_what_is_broken() -> None:
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: y}\n"
    command = [sys.executable, KUBERNETES / "policy.py", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 1
    assert "secrets_by_reference: Secret/x holds its values" in done.stdout
    assert subprocess.run(command, input="", capture_output=True).returncode == 1
    assert subprocess.run(command, input="a: [", capture_output=True, text=True).returncode == 2
