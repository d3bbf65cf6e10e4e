"""Refuse rendered manifests that break a rule of this project.

    kubectl kustomize infra/kubernetes/overlays/production | python infra/kubernetes/policy.py -

Every rule is a function below, and its name is what is printed. Exit codes: 0 all kept, 1 one is broken, 2 no YAML.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Manifest = Mapping[str, Any]
Violation = str

SECRETS = {"postgres-server", "postgres-client", "object-store", "s3-admin", "s3-mlflow", "s3-assay"}
"""What ``secrets.sh`` makes."""

ALLOWED = {
    ("ray.io", "rayjobs"): {"create", "get", "watch", "delete"},
    ("", "pods"): {"list"},
    ("", "pods/log"): {"get"},
    ("argoproj.io", "workflowtaskresults"): {"create", "patch"},
    ("", "configmaps"): {"get"},
    ("", "secrets"): {"get"},
}
"""The most that any role may grant; ConfigMaps and Secrets by name alone."""

_SECRET_WORDS = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|PRIVATE_KEY", re.IGNORECASE)
_CREDENTIALS_IN_URL = re.compile(r"://[^/@\s:]+:[^/@\s]+@")
_PINNED = re.compile(r"[^@\s]+@sha256:(?!(.)\1{63})[0-9a-f]{64}")


class Pod(NamedTuple):
    """A pod template and what it belongs to."""

    owner: str
    kind: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        """All containers, those of the start included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def stays(self) -> bool:
        """Whether it is meant to run for ever."""
        return self.kind in ("Deployment", "StatefulSet", "DaemonSet", "RayCluster")


def title(manifest: Manifest) -> str:
    """Return ``Kind/name``."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def pods(manifests: Sequence[Manifest]) -> Iterator[Pod]:
    """Yield the pod templates of every workload."""
    for manifest in manifests:
        kind, spec, owner = manifest["kind"], manifest.get("spec", {}), title(manifest)
        if kind == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if kind in ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"):
            yield _pod(owner, kind, spec["template"])
        elif kind == "Pod":
            yield Pod(owner, kind, manifest["metadata"].get("labels", {}), spec)
        elif kind == "RayCluster":
            name = manifest["metadata"]["name"]
            added = {"ray.io/cluster": name, "ray.io/node-type": "head"}  # by KubeRay
            yield _pod(f"{owner} head", kind, spec["headGroupSpec"]["template"], added)
            for group in spec.get("workerGroupSpecs", []):
                added = {"ray.io/cluster": name, "ray.io/node-type": "worker"}
                yield _pod(f"{owner} {group['groupName']}", kind, group["template"], added)


def _pod(owner: str, kind: str, template: Mapping[str, Any], added: Mapping[str, str] | None = None) -> Pod:
    labels = {**template.get("metadata", {}).get("labels", {}), **(added or {})}
    return Pod(owner, kind, labels, template["spec"])


def of_kind(manifests: Sequence[Manifest], *kinds: str) -> list[Manifest]:
    """Return the manifests of these kinds."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Say whether a label selector matches."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for rule in selector.get("matchExpressions", []):
        present = rule["key"] in labels
        kept = {
            "Exists": present,
            "DoesNotExist": not present,
            "In": labels.get(rule["key"]) in rule.get("values", []),
            "NotIn": labels.get(rule["key"]) not in rule.get("values", []),
        }[rule["operator"]]
        if not kept:
            return False
    return True


def restricted_namespace(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """The namespace enforces the pod security standard "restricted", and everything is in a namespace."""
    spaces = of_kind(manifests, "Namespace")
    for space in spaces:
        labels = space["metadata"].get("labels", {})
        if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{title(space)} does not enforce the pod security standard restricted"
    if not spaces:
        yield "there is no Namespace"
    for manifest in manifests:
        if manifest["kind"] != "Namespace" and not manifest["metadata"].get("namespace"):
            yield f"{title(manifest)} names no namespace"


def restricted_pods(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """No pod runs as root, shares the host, gains privileges, or goes without a seccomp profile."""
    for pod in pods(manifests):
        security = pod.spec.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or security.get("runAsUser", 1) == 0:
            yield f"{pod.owner} may run as root"
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{pod.owner} has no seccomp profile RuntimeDefault"
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(key):
                yield f"{pod.owner} sets {key}"
        for volume in pod.spec.get("volumes", []):
            if "hostPath" in volume:
                yield f"{pod.owner} mounts a folder of the host ({volume['name']})"
        for container in pod.containers:
            yield from _restricted(pod, container)


def _restricted(pod: Pod, container: Mapping[str, Any]) -> Iterator[Violation]:
    name, security = f"{pod.owner} ({container['name']})", container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        yield f"{name} may gain privileges"
    if security.get("capabilities") != {"drop": ["ALL"]}:
        yield f"{name} does not drop all capabilities"
    if security.get("runAsNonRoot") is False or security.get("runAsUser", 1) == 0:
        yield f"{name} may run as root"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield f"{name} opens a port of the host"


def read_only_root(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """No container can write to its image's file system."""
    for pod in pods(manifests):
        for container in pod.containers:
            if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
                yield f"{pod.owner} ({container['name']}) can write to its root file system"


def resources(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """Every container asks for processors and memory, and is bounded in both; what is written to memory is bounded."""
    for pod in pods(manifests):
        for container in pod.containers:
            given = container.get("resources", {})
            for bound in ("requests", "limits"):
                for resource in ("cpu", "memory"):
                    if resource not in given.get(bound, {}):
                        yield f"{pod.owner} ({container['name']}) has no {resource} in its {bound}"
        for volume in pod.spec.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
                yield f"{pod.owner} has a volume without a size ({volume['name']})"


def probes(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """What runs for ever says when it is ready and when it is dead."""
    for pod in pods(manifests):
        for container in pod.spec["containers"] if pod.stays else []:
            for probe in ("readinessProbe", "livenessProbe"):
                if probe not in container:
                    yield f"{pod.owner} ({container['name']}) has no {probe}"


def accounts(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """Every pod has an account of its own that exists, and no token of Kubernetes."""
    known = {account["metadata"]["name"] for account in of_kind(manifests, "ServiceAccount")}
    for pod in pods(manifests):
        if pod.spec.get("serviceAccountName") not in known:
            yield f"{pod.owner} has the service account {pod.spec.get('serviceAccountName')}, which is not defined"
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.owner} gets a token of Kubernetes"


def least_privilege(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """Roles grant what the steps of a pipeline need, in one namespace, and nothing else."""
    for manifest in of_kind(manifests, "ClusterRole", "ClusterRoleBinding"):
        yield f"{title(manifest)} reaches beyond its namespace"
    for role in of_kind(manifests, "Role"):
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in set(rule["verbs"]) - ALLOWED.get((group, resource), set()):
                        yield f"{title(role)} may {verb} {resource}"
                    if resource in ("secrets", "configmaps") and not rule.get("resourceNames"):
                        yield f"{title(role)} may read all {resource}"
    for binding in of_kind(manifests, "RoleBinding"):
        for subject in binding["subjects"]:
            if subject["kind"] != "ServiceAccount":
                yield f"{title(binding)} is for the {subject['kind'].lower()} {subject['name']}"


def default_deny(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """Every namespace with pods denies all traffic first, and each kind of pod has a policy that allows some."""
    policies = of_kind(manifests, "NetworkPolicy")
    denied = {
        policy["metadata"]["namespace"]
        for policy in policies
        if policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    }
    for space in of_kind(manifests, "Namespace"):
        if space["metadata"]["name"] not in denied:
            yield f"{title(space)} has no policy that denies all traffic"
    chosen = [policy for policy in policies if policy["spec"]["podSelector"]]
    for pod in pods(manifests):
        if not any(selects(policy["spec"]["podSelector"], pod.labels) for policy in chosen):
            yield f"{pod.owner} has no network policy of its own"


def narrow_network(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """No policy opens a pod to everybody or to the internet, and no service leaves the cluster."""
    for policy in of_kind(manifests, "NetworkPolicy"):
        spec = policy["spec"]
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(direction, []):
                if not rule.get(peers):
                    yield f"{title(policy)} allows {direction} {peers} everywhere"
                for peer in rule.get(peers, []):
                    if peer.get("ipBlock", {}).get("cidr", "").endswith("/0"):
                        yield f"{title(policy)} allows {direction} {peers} every address"
                    if peer.get("podSelector") == {} or peer.get("namespaceSelector") == {}:
                        yield f"{title(policy)} allows {direction} {peers} every pod"
    for service in of_kind(manifests, "Service"):
        if service["spec"].get("type", "ClusterIP") != "ClusterIP":
            yield f"{title(service)} is of type {service['spec']['type']}"
    for ingress in of_kind(manifests, "Ingress"):
        yield f"{title(ingress)} leads into the cluster"


def secrets_by_reference(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """No secret's value is in a manifest, and every Secret that is named is one that ``secrets.sh`` makes."""
    for manifest in of_kind(manifests, "Secret"):
        yield f"{title(manifest)} holds its values"
    for manifest in of_kind(manifests, "ConfigMap"):
        for key, value in manifest.get("data", {}).items():
            if (_SECRET_WORDS.search(key) and value) or _CREDENTIALS_IN_URL.search(value):
                yield f"{title(manifest)} holds what looks like a secret ({key})"
    for pod in pods(manifests):
        for container in pod.containers:
            words = [*container.get("command", []), *container.get("args", [])]
            values = [(entry["name"], entry.get("value", "")) for entry in container.get("env", [])]
            for name, value in [*values, *(("its command", word) for word in words)]:
                named = (
                    _SECRET_WORDS.search(name) and not name.endswith("_FILE") and name != "AWS_SHARED_CREDENTIALS_FILE"
                )
                if value and (named or _CREDENTIALS_IN_URL.search(value)):
                    yield f"{pod.owner} ({container['name']}) holds what looks like a secret ({name})"
        for name in sorted(set(_named_secrets(pod)) - SECRETS):
            yield f"{pod.owner} needs the secret {name}, which secrets.sh does not make"


def _named_secrets(pod: Pod) -> Iterator[str]:
    for volume in pod.spec.get("volumes", []):
        if "secret" in volume:
            yield volume["secret"]["secretName"]
    for container in pod.containers:
        for entry in container.get("env", []):
            if "secretKeyRef" in entry.get("valueFrom", {}):
                yield entry["valueFrom"]["secretKeyRef"]["name"]
        for source in container.get("envFrom", []):
            if "secretRef" in source:
                yield source["secretRef"]["name"]


def references(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """Every ConfigMap and every claim that a pod names is there."""
    maps = {manifest["metadata"]["name"] for manifest in of_kind(manifests, "ConfigMap")}
    claims = {manifest["metadata"]["name"] for manifest in of_kind(manifests, "PersistentVolumeClaim")}
    for pod in pods(manifests):
        named = [volume["configMap"]["name"] for volume in pod.spec.get("volumes", []) if "configMap" in volume]
        for container in pod.containers:
            named += [
                source["configMapRef"]["name"] for source in container.get("envFrom", []) if "configMapRef" in source
            ]
        for name in sorted(set(named) - maps):
            yield f"{pod.owner} needs the ConfigMap {name}, which is not defined"
        for volume in pod.spec.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and claim not in claims:
                yield f"{pod.owner} needs the claim {claim}, which is not defined"


def disruption_budgets(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """A node that is drained does not take the servers and the head of Ray with it unasked."""
    budgets = [budget["spec"]["selector"] for budget in of_kind(manifests, "PodDisruptionBudget")]
    for pod in pods(manifests):
        worker = pod.labels.get("ray.io/node-type") == "worker"
        if pod.stays and not worker and not any(selects(selector, pod.labels) for selector in budgets):
            yield f"{pod.owner} has no PodDisruptionBudget"


def backups(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """Where there is a PostgreSQL, it is dumped to a claim of its own, one dump at a time."""
    if not any(manifest["metadata"]["name"] == "postgres" for manifest in of_kind(manifests, "StatefulSet")):
        return
    jobs = [job for job in of_kind(manifests, "CronJob") if job["metadata"]["name"] == "postgres-backup"]
    if not jobs:
        yield "PostgreSQL has no CronJob postgres-backup"
    for job in jobs:
        spec = job["spec"]
        volumes = spec["jobTemplate"]["spec"]["template"]["spec"].get("volumes", [])
        if spec.get("suspend"):
            yield f"{title(job)} is suspended"
        if spec.get("concurrencyPolicy") != "Forbid":
            yield f"{title(job)} may run twice at a time"
        if not any("persistentVolumeClaim" in volume for volume in volumes):
            yield f"{title(job)} keeps its dumps in no claim"


def gpus(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """A pod with a GPU goes to the nodes that have one, and has shared memory in memory."""
    for pod in pods(manifests):
        limits = [container.get("resources", {}).get("limits", {}) for container in pod.containers]
        if not any("nvidia.com/gpu" in limit for limit in limits):
            continue
        if not pod.spec.get("nodeSelector"):
            yield f"{pod.owner} has a GPU and no nodeSelector"
        if not any(toleration.get("key") == "nvidia.com/gpu" for toleration in pod.spec.get("tolerations", [])):
            yield f"{pod.owner} has a GPU and does not bear its taint"
        memory = {
            volume["name"]
            for volume in pod.spec.get("volumes", [])
            if (volume.get("emptyDir") or {}).get("medium") == "Memory"
        }
        mounts = [mount for container in pod.containers for mount in container.get("volumeMounts", [])]
        if not any(mount["mountPath"] == "/dev/shm" and mount["name"] in memory for mount in mounts):  # noqa: S108
            yield f"{pod.owner} has a GPU and no shared memory"


def pinned_images(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """Every image is named by its digest."""
    for pod in pods(manifests):
        for container in pod.containers:
            if not _PINNED.fullmatch(image := container["image"]):
                yield f"{pod.owner} ({container['name']}) runs {image}, which no digest pins: see pin.sh"


RULES: tuple[Callable[[Sequence[Manifest]], Iterator[Violation]], ...] = (
    restricted_namespace,
    restricted_pods,
    read_only_root,
    resources,
    probes,
    accounts,
    least_privilege,
    default_deny,
    narrow_network,
    secrets_by_reference,
    references,
    disruption_budgets,
    backups,
    gpus,
    pinned_images,
)


def check(manifests: Sequence[Manifest], unpinned: str = "") -> list[str]:
    """Return every violation as ``rule: what``.

    Args:
        manifests: as rendered.
        unpinned: an image that nobody pushed yet, which may be without a digest.
    """
    found = [f"{rule.__name__}: {violation}" for rule in RULES for violation in rule(manifests)]
    excused = f" runs {unpinned}:" if unpinned else None
    return [line for line in found if not (excused and line.startswith(pinned_images.__name__) and excused in line)]


def main() -> int:
    """Check the manifests in a file or in the standard input."""
    parser = argparse.ArgumentParser(description="Refuse rendered manifests that break a rule of this project.")
    parser.add_argument("file", help="the rendered manifests; - reads the standard input")
    parser.add_argument("--unpinned", default="", metavar="IMAGE", help="an image that may be without a digest")
    options = parser.parse_args()
    try:
        text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text(encoding="utf-8")
        manifests = [manifest for manifest in yaml.safe_load_all(text) if manifest]
    except (OSError, yaml.YAMLError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    broken = check(manifests, options.unpinned)
    for line in broken:
        print(line)
    print(f"{len(manifests)} manifests, {len(RULES)} rules, {len(broken)} violations")
    return 1 if broken or not manifests else 0


if __name__ == "__main__":
    sys.exit(main())
