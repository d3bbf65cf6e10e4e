"""The client of a Kubeflow Pipelines server (v2 API): time-outs, retries, and one sentence for each refusal.

A request that only reads, deletes or switches is repeated when its answer is lost. One that creates is not: the
server may have done the work, so what was to be created is looked for before it is tried again.
"""

import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from assay.cluster import load_cluster_settings
from assay.errors import AssayError, UserError
from assay.project import Project

Record = dict[str, Any]
"""An object of the server, by the field names of the API."""

_PATIENCE = (0.5, 1.0, 2.0, 4.0)  # seconds before each further try
_TIMEOUT = 30.0
_PAGE = 100


class Unavailable(AssayError):
    """No usable answer came, for now; ``late`` when the server may still be at work on the request."""

    def __init__(self, sentence: str, *, late: bool = False) -> None:
        super().__init__(sentence)
        self.late = late


class NotFound(AssayError):
    """The server does not have what was asked for."""


class Unsure(AssayError):
    """What was to be created may be there: the server says so (409), or failed on the way (500)."""


@dataclass(frozen=True)
class Address:
    """Where the server is and how to be let in; the token stays in its file until a request needs it.

    Args:
        host: the API's address, without ``/apis``.
        token_file: holds the bearer token, if the server wants one; read again for each request, as such tokens rotate.
        ca_file: certificates to trust instead of the usual ones.
        namespace: the Kubeflow profile on a server for several users.
        timezone: what the server reads cron expressions in (its ``CRON_SCHEDULE_TIMEZONE``).
        service_account: runs the steps; empty for the server's default.
    """

    host: str
    token_file: Path | None = None
    ca_file: Path | None = None
    namespace: str = ""
    timezone: str = "UTC"
    service_account: str = ""

    @classmethod
    def from_environment(cls, host: str = "", project: Project | None = None) -> Self:
        """Read ``ASSAY_KFP_*``, and from the project's ``cluster.yaml`` the service account.

        Args:
            host: goes before ``ASSAY_KFP_HOST``.
            project: whose pipelines are submitted.

        Raises:
            UserError: there is no host, or it is not an address.
        """
        host = (host or os.environ.get("ASSAY_KFP_HOST", "")).rstrip("/")
        if not host:
            raise UserError("No Kubeflow Pipelines server is named: set ASSAY_KFP_HOST, or add --host ADDRESS.")
        parts = urlsplit(host)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise UserError(
                "The address of the Kubeflow Pipelines server must be http[s]://HOST[:PORT][/PATH] without a password: "
                "correct ASSAY_KFP_HOST or --host."
            )

        def file(*names: str) -> Path | None:
            found = next((os.environ[name] for name in names if os.environ.get(name)), None)
            return Path(found) if found else None

        return cls(
            host,
            file("ASSAY_KFP_TOKEN_FILE"),
            file("ASSAY_KFP_CA_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
            os.environ.get("ASSAY_KFP_NAMESPACE", ""),
            os.environ.get("ASSAY_KFP_TIMEZONE") or "UTC",
            (load_cluster_settings(project).service_account or "") if project else "",
        )

    def token(self) -> str:
        """Return the token, or nothing where no file is named.

        Raises:
            UserError: the file cannot be read or is empty.
        """
        if self.token_file is None:
            return ""
        try:
            token = self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            token = ""
        if not token or len(token.split()) != 1:
            raise UserError(
                f"{self.token_file} holds no token: put it there, on one line, or correct ASSAY_KFP_TOKEN_FILE."
            )
        return token


class Server:
    """The requests that this project makes of a Kubeflow Pipelines server.

    Args:
        address: where it is.
        timeout: seconds to connect and to answer, for each request.
        patience: seconds to wait before each further try.

    Raises:
        UserError: the token or the certificates cannot be read.
    """

    def __init__(self, address: Address, *, timeout: float = _TIMEOUT, patience: tuple[float, ...] = _PATIENCE) -> None:
        import kfp_server_api as api
        import urllib3

        self.address = address
        self._timeout = timeout
        self._patience = patience
        configuration = api.Configuration(host=address.host)
        # The library's own retries would repeat a POST, and a redirect is the way to a login page.
        configuration.retries = urllib3.Retry(
            total=None, connect=0, read=0, status=0, other=0, redirect=0, raise_on_redirect=False
        )
        if address.ca_file is not None:
            if not address.ca_file.is_file():
                raise UserError(f"{address.ca_file} does not exist: name a file of certificates in ASSAY_KFP_CA_FILE.")
            configuration.ssl_ca_cert = str(address.ca_file)
        parts = urlsplit(address.host)
        if not urllib.request.proxy_bypass(parts.hostname or ""):
            configuration.proxy = urllib.request.getproxies().get(parts.scheme)
        if token := address.token():
            configuration.api_key["authorization"] = token
            configuration.api_key_prefix["authorization"] = "Bearer"
            configuration.refresh_api_key_hook = lambda it: it.api_key.update(authorization=address.token())
        client = api.ApiClient(configuration)
        self._pipelines = api.PipelineServiceApi(client)
        self._uploads = api.PipelineUploadServiceApi(client)
        self._experiments = api.ExperimentServiceApi(client)
        self._runs = api.RunServiceApi(client)
        self._recurring = api.RecurringRunServiceApi(client)

    # Pipelines and their versions

    def find_pipeline(self, name: str) -> Record | None:
        """Return the pipeline of this name."""
        found = self._pages("pipelines", self._pipelines.pipeline_service_list_pipelines, **self._namespace)
        return next((pipeline for pipeline in found if _name(pipeline) == name), None)

    def pipeline(self, name: str, description: str = "") -> Record:
        """Return the pipeline of this name, created if it is new."""
        from kfp_server_api import V2beta1Pipeline

        body = V2beta1Pipeline(name=name, display_name=name, description=description, **self._namespace)
        return self.find_pipeline(name) or self._create(
            lambda: self.find_pipeline(name), self._pipelines.pipeline_service_create_pipeline, body
        )

    def find_version(self, pipeline_id: str, digest: str) -> Record | None:
        """Return the version whose name ends in ``-<digest>``."""
        method = self._pipelines.pipeline_service_list_pipeline_versions
        found = self._pages("pipeline_versions", method, pipeline_id, sort_by="created_at desc")
        return next((version for version in found if _name(version).endswith(f"-{digest}")), None)

    def upload_version(self, pipeline_id: str, name: str, package: Path, description: str = "") -> Record:
        """Upload IR YAML as a version of a pipeline; ``name`` ends in the digest by which it is found again."""
        digest = name.rpartition("-")[2]
        return self._create(
            lambda: self.find_version(pipeline_id, digest),
            self._uploads.upload_pipeline_version,
            str(package),
            name=name,
            display_name=name,
            pipelineid=pipeline_id,
            description=description,
        )

    # Experiments

    def experiment(self, name: str) -> Record:
        """Return the experiment of this name, created if it is new."""
        from kfp_server_api import V2beta1Experiment

        body = V2beta1Experiment(display_name=name, **self._namespace)
        return self.find_experiment(name) or self._create(
            lambda: self.find_experiment(name), self._experiments.experiment_service_create_experiment, body
        )

    def find_experiment(self, name: str) -> Record | None:
        """Return the experiment of this name."""
        method = self._experiments.experiment_service_list_experiments
        found = self._pages("experiments", method, **self._namespace)
        return next((experiment for experiment in found if _name(experiment) == name), None)

    # Runs

    def create_run(
        self, name: str, version: Record, experiment_id: str, arguments: Mapping[str, Any], description: str = ""
    ) -> Record:
        """Start a run; ``name`` must be its own, as a run whose answer was lost is found by it."""
        from kfp_server_api import V2beta1Run, V2beta1RuntimeConfig

        body = V2beta1Run(
            display_name=name,
            description=description,
            experiment_id=experiment_id,
            pipeline_version_reference=_reference(version),
            runtime_config=V2beta1RuntimeConfig(parameters=dict(arguments)),
            **self._account,
        )

        def find() -> Record | None:
            method = self._runs.run_service_list_runs
            newest = self._pages("runs", method, experiment_id=experiment_id, sort_by="created_at desc", pages=1)
            return next((run for run in newest if _name(run) == name), None)

        return self._create(find, self._runs.run_service_create_run, body)

    def run(self, run_id: str) -> Record:
        """Return a run with its state and tasks.

        Raises:
            NotFound: there is none of this id.
        """
        return self._safe(self._runs.run_service_get_run, run_id)

    def run_url(self, run_id: str) -> str:
        """Return the page of a run in the server's user interface."""
        return f"{self.address.host}/#/runs/details/{run_id}"

    # Recurring runs

    def recurring_runs(self) -> list[Record]:
        """Return every recurring run of the namespace, newest first."""
        method = self._recurring.recurring_run_service_list_recurring_runs
        return list(self._pages("recurringRuns", method, sort_by="created_at desc", **self._namespace))

    def create_recurring_run(self, find: Callable[[], Record | None], **fields: Any) -> Record:
        """Create a recurring run from fields of the API; ``find`` finds it after an answer was lost."""
        from kfp_server_api import V2beta1RecurringRun, V2beta1RuntimeConfig

        body = V2beta1RecurringRun(
            pipeline_version_reference=_reference(fields.pop("version")),
            runtime_config=V2beta1RuntimeConfig(parameters=dict(fields.pop("parameters"))),
            **fields,
            **self._namespace,
            **self._account,
        )
        return self._create(find, self._recurring.recurring_run_service_create_recurring_run, body)

    def enable_recurring_run(self, recurring_run_id: str, enabled: bool) -> None:
        """Switch a recurring run on or off."""
        api = self._recurring
        on, off = api.recurring_run_service_enable_recurring_run, api.recurring_run_service_disable_recurring_run
        self._safe(on if enabled else off, recurring_run_id)

    def delete_recurring_run(self, recurring_run_id: str) -> None:
        """Delete a recurring run; one that is gone already is no error."""
        try:
            self._safe(self._recurring.recurring_run_service_delete_recurring_run, recurring_run_id)
        except NotFound:
            return

    # Requests

    @property
    def _namespace(self) -> dict[str, Any]:
        return {"namespace": self.address.namespace} if self.address.namespace else {}

    @property
    def _account(self) -> dict[str, str]:
        return {"service_account": self.address.service_account} if self.address.service_account else {}

    def _pages(
        self, field: str, method: Callable[..., Any], *arguments: str, pages: int = 1000, **options: Any
    ) -> Iterator[Record]:
        """Yield the objects of a list, page after page."""
        for _ in range(pages):
            try:
                answer = self._safe(method, *arguments, page_size=_PAGE, **options)
            except NotFound:
                raise self._stranger("it has no v2 API at this address") from None
            yield from answer.get(field) or []
            options["page_token"] = answer.get("next_page_token")
            if not options["page_token"]:
                return

    def _safe(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Record:
        """Send a request that does no harm when it is repeated."""
        for delay in self._patience:
            try:
                return self._send(method, *arguments, **options)
            except Unavailable as error:
                if error.late:
                    raise
            time.sleep(delay)
        return self._send(method, *arguments, **options)

    def _create(
        self, find: Callable[[], Record | None], method: Callable[..., Any], *arguments: Any, **options: Any
    ) -> Record:
        """Send a request that creates; after a lost answer, look for the result before trying again."""
        for delay in (*self._patience, None):
            try:
                return self._send(method, *arguments, **options)
            except (Unavailable, Unsure) as error:
                time.sleep(delay or 0)
                if (found := find()) is not None:
                    return found
                # After a time-out the server may still be at work: another request could make two of it.
                if delay is None or isinstance(error, Unsure) or error.late:
                    raise
        raise AssertionError("the last turn returns or raises")

    def _send(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Record:
        """Send one request and return the answer's JSON."""
        import urllib3
        from kfp_server_api import ApiException

        seconds = (self._timeout, self._timeout)
        try:
            response = method(*arguments, _preload_content=False, _request_timeout=seconds, **options)
            content = response.data
        except ApiException as error:
            raise self._refused(error.status, error.body) from None  # the original holds the headers
        except urllib3.exceptions.HTTPError as error:
            raise self._lost(error) from None
        except UnicodeDecodeError:
            raise self._stranger("the answer is not text") from None
        try:
            answer = json.loads(content or b"{}")
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._stranger("the answer is not the JSON of its API")
        return answer

    def _refused(self, status: int, body: str | None) -> AssayError:
        host = self.address.host
        if status in (502, 503, 504):
            return Unavailable(f"{host} is not available (HTTP {status}): see to the server, then try again.")
        message = _message(body)
        if status in (401, 403):
            advice = "set ASSAY_KFP_TOKEN_FILE to a file that holds one"
            if self.address.token_file is not None:
                advice = f"see that the one in {self.address.token_file} is valid and allowed to do this"
            namespace = f" in the namespace {self.address.namespace}" if self.address.namespace else ""
            refusal = "wants a valid token" if status == 401 else f"does not allow this{namespace}"
            return AssayError(f"{host} {refusal} (HTTP {status}): {advice}.")
        if 300 <= status < 400:
            return self._stranger("it sends to another page, as a login does; a token may be missing")
        kinds: dict[int, type[AssayError]] = {404: NotFound, 409: Unsure, 500: Unsure}
        kind = kinds.get(status, AssayError)
        return kind(f"{host} refuses the request (HTTP {status}): {message or 'it gives no reason'}.")

    def _lost(self, error: Exception) -> AssayError:
        """Return what a transport error means; its own text can hold no token, but is not a sentence."""
        import urllib3

        host = self.address.host
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, urllib3.exceptions.SSLError):
            return AssayError(
                f"The certificate of {host} is not trusted: set ASSAY_KFP_CA_FILE to the certificates to trust."
            )
        if isinstance(reason, urllib3.exceptions.TimeoutError) and not isinstance(
            reason, urllib3.exceptions.NewConnectionError
        ):
            return Unavailable(
                f"{host} did not answer within {self._timeout:g} s: see whether the server is up, then try again.",
                late=True,
            )
        if isinstance(reason, urllib3.exceptions.NewConnectionError):
            return Unavailable(f"{host} cannot be reached: check ASSAY_KFP_HOST and that the server is up.")
        return Unavailable(f"The connection to {host} broke off: see to the server, then try again.")

    def _stranger(self, reason: str) -> AssayError:
        return AssayError(
            f"{self.address.host} does not answer as a Kubeflow Pipelines server ({reason}): check ASSAY_KFP_HOST."
        )


def _reference(version: Mapping[str, Any]) -> Any:
    from kfp_server_api import V2beta1PipelineVersionReference

    return V2beta1PipelineVersionReference(
        pipeline_id=version["pipeline_id"], pipeline_version_id=version["pipeline_version_id"]
    )


def _name(record: Mapping[str, Any]) -> str:
    """Return the name; servers of before 2.5 know the display name alone."""
    return record.get("name") or record.get("display_name") or ""


def _message(body: str | None) -> str:
    """Return the first line of the server's own message, if it sent one."""
    try:
        answer = json.loads(body or "")
        text = str(answer.get("message") or answer.get("error_message") or answer.get("error") or "")
    except (ValueError, AttributeError):
        return ""
    return next(iter(text.splitlines()), "").strip().rstrip(".")[:300]
