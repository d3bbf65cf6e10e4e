"""A server that answers like the Kubernetes API does for RayJobs, pods and logs, and checks what it is asked."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate

NAMESPACE = "vision"
JOBS = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayjobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
# ray-operator/apis/ray/v1: what a cluster prunes or refuses is a mistake here.
FIELDS = {
    "spec": "activeDeadlineSeconds backoffLimit rayClusterSpec submitterPodTemplate metadata clusterSelector "
    "submitterConfig managedBy deletionStrategy entrypoint runtimeEnvYAML jobId submissionMode entrypointResources "
    "entrypointNumCpus entrypointNumGpus ttlSecondsAfterFinished shutdownAfterJobFinishes suspend",
    "cluster": "suspend managedBy autoscalerOptions headServiceAnnotations enableInTreeAutoscaling "
    "gcsFaultToleranceOptions headGroupSpec rayVersion workerGroupSpecs",
    "head": "template headService enableIngress rayStartParams serviceType",
    "group": "suspend groupName replicas minReplicas maxReplicas idleTimeoutSeconds rayStartParams template "
    "scaleStrategy numOfHosts",
}


def check_fields(kind, body):
    unknown = set(body) - set(FIELDS[kind].split())
    assert not unknown, f"unknown fields of {kind}: {unknown}"


def check_template(template, restart="Always"):
    """Validate a pod template against the published schema, and against the pod security standard "restricted"."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x", **template["metadata"]},
        "spec": template["spec"],
    }
    kubernetes_validate.validate(pod, "1.33", strict=True)
    spec = template["spec"]
    assert spec.get("restartPolicy", "Always") == restart
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any("hostPath" in volume for volume in spec["volumes"])
    for container in spec["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"] == container["resources"]["requests"]


def check_rayjob(body):
    assert (body["apiVersion"], body["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", body["metadata"]["name"])
    assert len(body["metadata"]["name"]) <= 47  # KubeRay adds suffixes
    assert body["metadata"]["namespace"] == NAMESPACE
    spec, cluster = body["spec"], body["spec"]["rayClusterSpec"]
    check_fields("spec", spec)
    check_fields("cluster", cluster)
    check_fields("head", cluster["headGroupSpec"])
    check_template(cluster["headGroupSpec"]["template"])
    for group in cluster["workerGroupSpecs"]:
        check_fields("group", group)
        check_template(group["template"])
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    params = [cluster["headGroupSpec"]["rayStartParams"], *(g["rayStartParams"] for g in cluster["workerGroupSpecs"])]
    assert all(isinstance(value, str) for group in params for value in group.values())
    check_template(spec["submitterPodTemplate"], restart="Never")
    assert spec["activeDeadlineSeconds"] > 0 and spec["shutdownAfterJobFinishes"] is True


class KubernetesApi:
    """One namespace's RayJobs; ``run`` says what becomes of a job, one status for each time it is read."""

    def __init__(self):
        self.jobs, self.bodies, self.requests, self.mistakes = {}, [], [], []
        self.statuses = [{}]
        self.log = ""
        self.failures = []  # (verb, path, HTTP status) that the next matching requests get
        self.on_create = lambda body: None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def kubeconfig(self):
        cluster = {"name": "c", "cluster": {"server": self.url}}
        user = {"name": "u", "user": {"token": "canary-token"}}
        context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [cluster],
            "users": [user],
            "contexts": [context],
            "current-context": "x",
        }

    def answer(self, verb, path, query, body):
        """Return the HTTP status and the body for a request."""
        self.requests.append((verb, path))
        for index, (failing, where, status) in enumerate(self.failures):
            if failing == verb and path.startswith(where):
                del self.failures[index]
                return status, _error(status)
        if verb == "POST" and path == JOBS:
            return self._create(body)
        if (found := re.fullmatch(f"{JOBS}/([a-z0-9-]+)", path)) and verb in ("GET", "DELETE"):
            name = found[1]
            if name not in self.jobs:
                return 404, _error(404)
            if verb == "DELETE":
                assert query.get("propagationPolicy") == ["Foreground"]
                del self.jobs[name]
                return 200, {"kind": "Status", "status": "Success"}
            # The last status stays.
            self.jobs[name]["status"] = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            return 200, self.jobs[name]
        if verb == "GET" and path == PODS:
            assert query["labelSelector"][0].removeprefix("job-name=") in [b["metadata"]["name"] for b in self.bodies]
            return 200, {"kind": "PodList", "apiVersion": "v1", "items": [{"metadata": {"name": "submitter-x"}}]}
        if verb == "GET" and path == f"{PODS}/submitter-x/log":
            assert query["container"] == ["ray-job-submitter"] and query["timestamps"] == ["True"]
            return 200, self.log
        raise AssertionError(f"unexpected request: {verb} {path}")

    def _create(self, body):
        check_rayjob(body)
        name = body["metadata"]["name"]
        if name in self.jobs:
            return 409, _error(409)
        self.jobs[name] = body
        self.bodies.append(body)
        self.on_create(body)
        return 201, body

    def _handler(api):
        class Handler(BaseHTTPRequestHandler):
            def respond(self):
                parts = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                content = self.rfile.read(length)
                try:
                    assert self.headers["Authorization"] == "Bearer canary-token"
                    body = json.loads(content) if content else None
                    status, answer = api.answer(self.command, parts.path, parse_qs(parts.query), body)
                except Exception as error:
                    api.mistakes.append(repr(error))
                    status, answer = 500, _error(500)
                data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                kind = "text/plain" if isinstance(answer, str) else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = respond

            def log_message(self, *arguments):
                pass

        return Handler


def _error(status):
    return {"kind": "Status", "status": "Failure", "code": status, "message": f"the server says {status}"}
