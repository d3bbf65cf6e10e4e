"""A Kubeflow Pipelines server for tests: real HTTP on loopback, real state, and every request and answer checked.

What is checked against is not our reading of the API: the operations (verb, path, path and query parameters, body and
answer) are read from the code that was generated from the published description (package ``kfp-server-api``), and
fields, their types and enumerations from its models.
"""

import ast
import contextlib
import functools
import inspect
import json
import re
import socket
import ssl
import struct
import textwrap
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import kfp_server_api
import kfp_server_api.api as generated
import yaml

# The published description


@dataclass(frozen=True)
class Operation:
    name: str
    verb: str
    path: str
    query: dict[str, str]
    body: str
    files: tuple[str, ...]
    answer: str

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        parts = re.split(r"\{([^}]+)\}", self.path)
        names = [f"(?P<{part.replace('.', '_')}>[^/:]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)]
        return re.compile("".join(names))


@functools.cache
def operations() -> tuple[Operation, ...]:
    """Read every operation from the generated ``*_with_http_info`` methods."""
    found = []
    for _, api in inspect.getmembers(generated, inspect.isclass):
        for name, method in inspect.getmembers(api, inspect.isfunction):
            if name.endswith("_with_http_info"):
                found.append(_operation(name.removesuffix("_with_http_info"), method))
    return tuple(found)


def _operation(name: str, method: Any) -> Operation:
    documented = dict(re.findall(r":type (\w+): (.+)", method.__doc__ or ""))
    call, query, body, files = None, {}, "", []
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(method)))):
        text = ast.unparse(node) if isinstance(node, ast.Call | ast.Assign) else ""
        if found := re.fullmatch(r"query_params\.append\(\('([^']+)', local_var_params\['(\w+)'\]\)\)", text):
            query[found[1]] = documented[found[2]]
        elif found := re.fullmatch(r"body_params = local_var_params\['(\w+)'\]", text):
            body = documented[found[1]]
        elif found := re.fullmatch(r"local_var_files\['(\w+)'\] = local_var_params\['\w+'\]", text):
            files.append(found[1])
        elif text.startswith("self.api_client.call_api("):
            call = node
    path, verb = (argument.value for argument in call.args[:2])
    answer = next((word.value.value for word in call.keywords if word.arg == "response_type"), None)
    return Operation(name, verb, path, query, body, tuple(files), answer or "object")


def faults_in(value: Any, kind: str, where: str) -> list[str]:
    """Return how a JSON value departs from a type of the description."""
    if kind == "object":
        return []
    if found := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [fault for i, item in enumerate(value) for fault in faults_in(item, found[1], f"{where}[{i}]")]
    if found := re.fullmatch(r"dict\((\w+), (.+)\)", kind):
        if not isinstance(value, dict):
            return [f"{where} is no map"]
        return [fault for key, item in value.items() for fault in faults_in(item, found[2], f"{where}.{key}")]
    if kind in ("str", "int", "float", "bool"):
        right = type(value) is {"str": str, "int": int, "float": float, "bool": bool}[kind]
        return [] if right else [f"{where} = {value!r} is no {kind}"]
    if kind == "datetime":
        try:
            return [] if datetime.fromisoformat(value).tzinfo else [f"{where} = {value!r} has no time zone"]
        except (TypeError, ValueError):
            return [f"{where} = {value!r} is no time"]
    model = getattr(kfp_server_api.models, kind)
    if allowed := getattr(model, "allowable_values", None):
        return [] if value in allowed else [f"{where} = {value!r} is none of {allowed}"]
    if not isinstance(value, dict):
        return [f"{where} is no {kind}"]
    types = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
    unknown = [f"{where}.{key} is no field of {kind}" for key in value if key not in types]
    known = [
        fault for key, item in value.items() if key in types for fault in faults_in(item, types[key], f"{where}.{key}")
    ]
    return unknown + known


# The server


class Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Fault:
    """What to do with the next requests: an operation's name (or its start), a kind, and how often."""

    operation: str
    kind: str
    times: int = 1


@dataclass
class KfpServer:
    """The state of the server; ``url`` is where it listens."""

    url: str = ""
    token: str = ""
    page: int = 2  # objects on a page at most: every list of a test has several pages
    pipelines: dict[str, dict] = field(default_factory=dict)
    versions: dict[str, dict] = field(default_factory=dict)
    packages: dict[str, list] = field(default_factory=dict)
    experiments: dict[str, dict] = field(default_factory=dict)
    runs: dict[str, dict] = field(default_factory=dict)
    recurring: dict[str, dict] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    outcome: str = "SUCCEEDED"
    lock: threading.RLock = field(default_factory=threading.RLock)
    released: threading.Event = field(default_factory=threading.Event)
    clock: Iterator[datetime] = field(default_factory=lambda: _clock())

    def count(self, operation: str) -> int:
        return sum(name == operation for name in self.requests)

    def fail(self, operation: str, kind: str, times: int = 1) -> None:
        self.faults.append(Fault(operation, kind, times))

    def fault(self, operation: str) -> str:
        for fault in self.faults:
            if fault.times and operation.startswith(fault.operation):
                fault.times -= 1
                return fault.kind
        return ""

    # Operations, by their published names

    def pipeline_service_list_pipelines(self, path, query, body):
        found = [p for p in self.pipelines.values() if p.get("namespace", "") == query.get("namespace", "")]
        return self._page("pipelines", found, query)

    def pipeline_service_create_pipeline(self, path, query, body):
        names = {(p.get("namespace", ""), p["name"]) for p in self.pipelines.values()}
        if (body.get("namespace", ""), body["name"]) in names:
            raise Refusal(409, f"Already exist error: the name {body['name']} already exists.")
        return self._keep(self.pipelines, "pipeline_id", body)

    def pipeline_service_list_pipeline_versions(self, path, query, body):
        found = [v for v in self.versions.values() if v["pipeline_id"] == path["pipeline_id"]]
        return self._page("pipeline_versions", found, query)

    def upload_pipeline_version(self, path, query, body):
        if query["pipelineid"] not in self.pipelines:
            raise Refusal(404, "Pipeline not found.")
        siblings = {v["name"] for v in self.versions.values() if v["pipeline_id"] == query["pipelineid"]}
        if query["name"] in siblings:
            raise Refusal(409, f"Already exist error: the version {query['name']} already exists.")
        documents = list(yaml.safe_load_all(body["uploadfile"]))
        if documents[0].get("schemaVersion") != "2.1.0":
            raise Refusal(400, "Invalid pipeline specification.")
        fields = {"pipeline_id": query["pipelineid"], "name": query["name"], "display_name": query["display_name"]}
        version = self._keep(self.versions, "pipeline_version_id", {**fields, "description": query["description"]})
        self.packages[version["pipeline_version_id"]] = documents
        return version

    def experiment_service_list_experiments(self, path, query, body):
        found = [e for e in self.experiments.values() if e.get("namespace", "") == query.get("namespace", "")]
        return self._page("experiments", found, query)

    def experiment_service_create_experiment(self, path, query, body):
        if body["display_name"] in {e["display_name"] for e in self.experiments.values()}:
            raise Refusal(409, "Already exist error: the experiment already exists.")
        return self._keep(self.experiments, "experiment_id", body)

    def run_service_create_run(self, path, query, body):
        self._check_version(body)
        return self._keep(self.runs, "run_id", {**body, "state": "PENDING"})

    def run_service_list_runs(self, path, query, body):
        found = [r for r in self.runs.values() if r["experiment_id"] == query["experiment_id"]]
        return self._page("runs", found, query)

    def run_service_get_run(self, path, query, body):
        """Go one state further with each look."""
        run = self.runs.get(path["run_id"])
        if run is None:
            raise Refusal(404, f"Run {path['run_id']} not found.")
        run["state"] = {"PENDING": "RUNNING", "RUNNING": self.outcome}.get(run["state"], run["state"])
        if run["state"] == "FAILED":
            run["error"] = {"code": 2, "message": "step train exited with code 1"}
        task = {"task_id": "1", "display_name": "Pretrain", "state": run["state"]}
        run["run_details"] = {"task_details": [{"task_id": "0", "display_name": "root", "state": run["state"]}, task]}
        return run

    def recurring_run_service_list_recurring_runs(self, path, query, body):
        found = [r for r in self.recurring.values() if r.get("namespace", "") == query.get("namespace", "")]
        return self._page("recurringRuns", found, query)

    def recurring_run_service_create_recurring_run(self, path, query, body):
        self._check_version(body)
        cron = body["trigger"].get("cron_schedule", {}).get("cron")
        if cron is not None and len(cron.split()) != 6:
            raise Refusal(400, "Schedule cron is invalid: expected 6 fields.")
        if not 1 <= int(body["max_concurrency"]) <= 10:
            raise Refusal(400, "The max concurrency is out of range.")
        status = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[body["mode"]]
        return self._keep(self.recurring, "recurring_run_id", {**body, "status": status})

    def recurring_run_service_delete_recurring_run(self, path, query, body):
        if self.recurring.pop(path["recurring_run_id"], None) is None:
            raise Refusal(404, "Recurring run not found.")
        return {}

    def recurring_run_service_enable_recurring_run(self, path, query, body):
        self.recurring[path["recurring_run_id"]]["status"] = "ENABLED"
        return {}

    def recurring_run_service_disable_recurring_run(self, path, query, body):
        self.recurring[path["recurring_run_id"]]["status"] = "DISABLED"
        return {}

    def _keep(self, shelf: dict, key: str, record: dict) -> dict:
        record = {**record, key: str(uuid.uuid4()), "created_at": next(self.clock).isoformat()}
        shelf[record[key]] = record
        return record

    def _page(self, name: str, found: list[dict], query: dict) -> dict:
        if query.get("sort_by") == "created_at desc":
            found = sorted(found, key=lambda record: record["created_at"], reverse=True)
        size, first = min(self.page, int(query.get("page_size", 20))), int(query.get("page_token") or 0)
        more = first + size < len(found)
        answer = {name: found[first : first + size], "total_size": len(found)}
        return {**answer, "next_page_token": str(first + size)} if more else answer

    def _check_version(self, body: dict) -> None:
        reference = body["pipeline_version_reference"]
        version = self.versions.get(reference["pipeline_version_id"])
        if version is None or version["pipeline_id"] != reference["pipeline_id"]:
            raise Refusal(404, "Pipeline version not found.")
        if body["experiment_id"] not in self.experiments:
            raise Refusal(404, "Experiment not found.")
        root = self.packages[reference["pipeline_version_id"]][0]["root"]
        known = root.get("inputDefinitions", {}).get("parameters", {})
        if unknown := set(body["runtime_config"]["parameters"]) - set(known):
            raise Refusal(400, f"Unknown parameters {unknown}.")


def _clock() -> Iterator[datetime]:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    while True:
        now += timedelta(seconds=1)
        yield now


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet
    state: KfpServer

    def handle_one(self) -> None:
        state = self.state
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        url = urlsplit(self.path)
        found = [
            (operation, match)
            for operation in operations()
            if operation.verb == self.command and (match := operation.pattern.fullmatch(url.path))
        ]
        if not found:
            state.violations.append(f"{self.command} {url.path} is no operation of the API")
            return self.answer(404, {"error": "Not Found", "code": 5, "message": "Not Found"})
        operation, match = min(found, key=lambda pair: len(pair[1].groups()))
        path = {key: unquote(value) for key, value in match.groupdict().items()}
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        body = self.body(operation, raw)
        with state.lock:
            state.requests.append(operation.name)
            state.headers.append(dict(self.headers.items()))
            state.violations += [f"{operation.name}: {fault}" for fault in self.check(operation, query, body)]
            fault = state.fault(operation.name)
        if self.early(fault):
            return None
        try:
            if state.token and self.headers.get("Authorization") != f"Bearer {state.token}":
                raise Refusal(401, "Unauthenticated.")
            with state.lock:
                answer = json.loads(json.dumps(getattr(state, operation.name)(path, query, body)))
        except Refusal as refusal:
            return self.answer(refusal.status, {"error": str(refusal), "code": 1, "message": str(refusal)})
        state.violations += [f"{operation.name}: {fault}" for fault in faults_in(answer, operation.answer, "answer")]
        if fault == "reset after":
            return self.reset()
        if fault == "503 after":
            return self.answer(503, {"message": "upstream connect error"})
        if fault == "silence after":
            state.released.wait(10)
            return self.reset()
        return self.answer(200, answer)

    def early(self, fault: str) -> bool:
        """Give the answer of a fault that comes before any work."""
        if fault in ("502", "503", "504"):
            self.answer(int(fault), {"message": "no healthy upstream"})
        elif fault in ("401", "403"):
            self.answer(int(fault), {"message": "RBAC: access denied", "code": 7})
        elif fault == "reset":
            self.reset()
        elif fault == "silence":
            self.state.released.wait(10)
            self.reset()
        elif fault == "html":
            self.answer(200, "<html>Sign in</html>")
        elif fault == "half":
            self.answer(200, '{"recurringRuns": [')
        elif fault == "500 exists":
            self.answer(500, {"error_message": "Failed to create a pipeline version: it already exists"})
        elif fault == "binary":
            self.answer(500, b"\xff\xfe\x00")
        elif fault == "login":
            self.send_response(302)
            self.send_header("Location", "/dex/auth")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            return False
        return True

    def body(self, operation: Operation, raw: bytes) -> Any:
        if operation.files:
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            parts = BytesParser(policy=HTTP).parsebytes(head + raw).iter_parts()
            return {
                part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts
            }
        return json.loads(raw) if raw else None

    def check(self, operation: Operation, query: dict[str, str], body: Any) -> list[str]:
        faults = [f"{key} is no query parameter" for key in query if key not in operation.query]
        for key, value in query.items():
            if operation.query.get(key) == "int" and not value.isdecimal():
                faults.append(f"{key} = {value} is no int")
        if operation.files:
            faults += [] if set(body) == set(operation.files) else [f"the form has {set(body)}"]
        elif operation.body:
            faults += faults_in(body, operation.body, "body")
        elif body:
            faults.append("a body where there is none")
        return faults

    def answer(self, status: int, content: Any) -> None:
        data = content if isinstance(content, bytes) else str(content).encode()
        if isinstance(content, dict):
            data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if isinstance(content, dict) else "text/html")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def reset(self) -> None:
        """Break the connection off, as a server that is killed does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = handle_one

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the connection was reset on purpose
            super().finish()

    def log_message(self, *_: Any) -> None:
        return


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        return


def serve(tls: ssl.SSLContext | None = None) -> Iterator[KfpServer]:
    """Serve on a free port of loopback until the generator goes on; no request may have violated the API."""
    state = KfpServer()
    listener = _Listener(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    if tls is not None:
        listener.socket = tls.wrap_socket(listener.socket, server_side=True)
    state.url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        listener.shutdown()
        listener.server_close()
        thread.join()
    assert not state.violations, state.violations
