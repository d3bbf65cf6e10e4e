import ipaddress
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from assay.errors import AssayError, UserError
from assay.running.server import Address, NotFound, Server, Unavailable
from tests.running.kfp_server import faults_in, operations, serve

TOKEN = "eyJ-a-token-that-nobody-may-see"
IR = "schemaVersion: 2.1.0\nroot: {inputDefinitions: {parameters: {amount: {}}}}\n"


@pytest.fixture
def kfp():
    yield from serve()


@pytest.fixture
def server(kfp):
    return Server(Address(kfp.url), timeout=0.5, patience=(0.01, 0.01, 0.01))


@pytest.fixture
def version(server, tmp_path):
    package = tmp_path / "example.yaml"
    package.write_text(IR)
    return server.upload_version(server.pipeline("example")["pipeline_id"], "abc-0123", package)


def _start(server, version, name="example-1"):
    return server.create_run(name, version, server.experiment("example")["experiment_id"], {"amount": 3})


# The description itself


def test_the_published_description_is_read_whole():
    by_name = {operation.name: operation for operation in operations()}
    assert len(by_name) >= 40
    listing = by_name["recurring_run_service_list_recurring_runs"]
    assert (listing.verb, listing.path) == ("GET", "/apis/v2beta1/recurringruns")
    assert listing.query["page_size"] == "int"
    assert listing.answer == "V2beta1ListRecurringRunsResponse"
    assert by_name["run_service_create_run"].body == "V2beta1Run"
    assert by_name["upload_pipeline_version"].files == ("uploadfile",)
    assert by_name["upload_pipeline_version"].query.keys() >= {"name", "pipelineid"}


def test_a_value_that_departs_from_the_description_is_found():
    right = {"display_name": "a", "mode": "ENABLE", "max_concurrency": "1", "trigger": {"cron_schedule": {"cron": "0"}}}
    assert faults_in(right, "V2beta1RecurringRun", "body") == []
    for wrong in ({"displayName": "a"}, {"mode": "ON"}, {"max_concurrency": 1}, {"trigger": {"cron": "0"}}):
        assert len(faults_in({**right, **wrong}, "V2beta1RecurringRun", "body")) == 1
    assert faults_in("2026-01-01T00:00:00", "datetime", "at") and not faults_in(
        "2026-01-01T00:00:00Z", "datetime", "at"
    )


def test_a_request_that_the_description_does_not_know_fails_the_test(kfp, server):
    with pytest.raises(AssayError):
        server._safe(lambda **_: server._runs.api_client.call_api("/apis/v1/runs", "GET", _preload_content=False))
    assert kfp.violations == ["GET /apis/v1/runs is no operation of the API"]
    kfp.violations.clear()


# What is created


def test_pipeline_version_experiment_and_run_are_created_once_and_found_again(kfp, server, version):
    for number in range(5):  # more than one page of everything
        server.pipeline(f"other-{number}")
        server.experiment(f"other-{number}")
    assert server.pipeline("example")["pipeline_id"] == version["pipeline_id"]
    assert server.find_version(version["pipeline_id"], "0123") == version
    assert server.find_version(version["pipeline_id"], "4567") is None
    run = _start(server, version)
    assert server.experiment("example")["experiment_id"] == run["experiment_id"]
    assert (len(kfp.pipelines), len(kfp.versions), len(kfp.experiments), len(kfp.runs)) == (6, 1, 6, 1)
    assert kfp.runs[run["run_id"]]["runtime_config"]["parameters"] == {"amount": 3}


def test_namespace_and_service_account_go_with_the_requests(kfp, tmp_path):
    server = Server(Address(kfp.url, namespace="team", service_account="runner"), timeout=2)
    package = tmp_path / "example.yaml"
    package.write_text(IR)
    version = server.upload_version(server.pipeline("example")["pipeline_id"], "abc-0123", package)
    run = _start(server, version)
    assert next(iter(kfp.pipelines.values()))["namespace"] == "team"
    assert next(iter(kfp.experiments.values()))["namespace"] == "team"
    assert run["service_account"] == "runner"


CREATIONS = {
    "pipeline_service_create_pipeline": "pipelines",
    "upload_pipeline_version": "versions",
    "experiment_service_create_experiment": "experiments",
    "run_service_create_run": "runs",
}


@pytest.mark.parametrize("kind", ["reset after", "503 after", "503", "reset"])
@pytest.mark.parametrize("operation", CREATIONS)
def test_a_creation_whose_answer_is_lost_is_neither_lost_nor_doubled(kfp, server, tmp_path, operation, kind):
    kfp.fail(operation, kind)
    package = tmp_path / "example.yaml"
    package.write_text(IR)
    version = server.upload_version(server.pipeline("example")["pipeline_id"], "abc-0123", package)
    run = _start(server, version)
    assert run["run_id"] in kfp.runs
    assert {shelf: len(getattr(kfp, shelf)) for shelf in CREATIONS.values()} == dict.fromkeys(CREATIONS.values(), 1)
    assert kfp.count(operation) == (1 if kind.endswith("after") else 2)


def test_a_creation_that_timed_out_is_looked_for_and_not_sent_again(kfp, server, version):
    kfp.fail("run_service_create_run", "silence after")
    assert _start(server, version)["run_id"] in kfp.runs
    kfp.fail("run_service_create_run", "silence")
    with pytest.raises(Unavailable, match=r"did not answer within 0\.5 s"):
        _start(server, version, "example-2")
    assert kfp.count("run_service_create_run") == 2
    assert len(kfp.runs) == 1


def test_a_name_that_somebody_else_took_meanwhile_is_used(kfp, server, version, monkeypatch):
    found = server.find_experiment("mine") or server.experiment("mine")
    looks = iter([None, found])
    monkeypatch.setattr(server, "find_experiment", lambda name: next(looks))
    assert server.experiment("mine") == found
    assert kfp.count("experiment_service_create_experiment") == 2


# What is refused


def test_a_short_outage_is_ridden_out(kfp, server):
    for kind in ("503", "502", "reset"):
        kfp.fail("recurring_run_service_list", kind)
    assert server.recurring_runs() == []
    assert kfp.count("recurring_run_service_list_recurring_runs") == 4


@pytest.mark.parametrize(
    ("kind", "sentence", "requests"),
    [
        ("503", "is not available (HTTP 503)", 4),
        ("reset", "broke off", 4),
        ("silence", "did not answer within 0.5 s", 1),
        ("401", "wants a valid token (HTTP 401)", 1),
        ("403", "does not allow this (HTTP 403)", 1),
        ("html", "does not answer as a Kubeflow Pipelines server", 1),
        ("half", "does not answer as a Kubeflow Pipelines server", 1),
        ("login", "a token may be missing", 1),
        ("binary", "does not answer as a Kubeflow Pipelines server", 1),
    ],
)
def test_a_failure_that_stays_is_one_sentence(kfp, server, kind, sentence, requests):
    kfp.fail("", kind, times=1000)
    with pytest.raises(AssayError) as caught:
        server.recurring_runs()
    message = str(caught.value)
    assert sentence in message
    assert kfp.url in message
    assert "\n" not in message and message.endswith(".")
    assert caught.value.exit_code == 1
    assert len(kfp.requests) == requests


def test_an_address_without_a_server_is_one_sentence(server, kfp, unused_port):
    with pytest.raises(AssayError, match="cannot be reached: check ASSAY_KFP_HOST"):
        Server(Address(f"http://127.0.0.1:{unused_port}"), patience=(0.01,)).recurring_runs()
    with pytest.raises(AssayError, match="no v2 API at this address"):
        Server(Address(f"{kfp.url}/elsewhere"), patience=()).recurring_runs()
    kfp.violations.clear()


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_run_that_is_not_there_is_not_found(server):
    with pytest.raises(NotFound, match="Run 123 not found"):
        server.run("123")


def test_deleting_what_is_gone_is_no_error(kfp, server):
    server.delete_recurring_run("gone")
    assert kfp.count("recurring_run_service_delete_recurring_run") == 1


def test_a_failure_inside_the_server_is_its_message(kfp, server, version):
    kfp.fail("upload_pipeline_version", "500 exists")
    assert server.upload_version(version["pipeline_id"], "def-0123", __file__) == version
    kfp.fail("recurring_run_service_list", "500 exists")
    with pytest.raises(AssayError, match=r"\(HTTP 500\): Failed to create a pipeline version: it already exists\."):
        server.recurring_runs()


# Who is there


@pytest.fixture
def certificate(tmp_path):
    """A certificate of one day for 127.0.0.1, that nobody signed but its own key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path = tmp_path / "server.pem"
    pem = serialization.Encoding.PEM
    path.write_bytes(signed.public_bytes(pem) + key.private_bytes(pem, *private))
    return path


def test_a_server_is_trusted_by_its_certificate_alone(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    for kfp in serve(context):
        with pytest.raises(AssayError, match="is not trusted: set ASSAY_KFP_CA_FILE"):
            Server(Address(kfp.url), patience=()).recurring_runs()
        assert Server(Address(kfp.url, ca_file=certificate), patience=()).recurring_runs() == []


# The token


def test_the_token_is_sent_read_anew_and_never_shown(kfp, tmp_path, caplog):
    caplog.set_level("DEBUG")
    kfp.token = TOKEN
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    server = Server(Address(kfp.url, token_file=file))
    server.recurring_runs()
    assert TOKEN not in repr(server.address)
    file.write_text("another-token")
    with pytest.raises(AssayError) as caught:
        server.recurring_runs()
    assert str(file) in str(caught.value)
    assert kfp.headers[-1]["authorization"] == "Bearer another-token"
    import traceback

    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert TOKEN not in shown and "another-token" not in shown


def test_a_token_file_without_a_token_is_the_users_mistake(tmp_path):
    for content in (None, "", "two words"):
        file = tmp_path / "token"
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_text(content)
        with pytest.raises(UserError, match="holds no token"):
            Server(Address("http://127.0.0.1:1", token_file=file))


def test_the_environment_names_the_server(monkeypatch, tmp_path):
    for name in ("ASSAY_KFP_HOST", "ASSAY_KFP_TOKEN_FILE", "ASSAY_KFP_CA_FILE", "ASSAY_KFP_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="set ASSAY_KFP_HOST"):
        Address.from_environment()
    monkeypatch.setenv("ASSAY_KFP_HOST", "https://kubeflow.example/pipeline/")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/usual.pem")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert Address.from_environment().host == "https://kubeflow.example/pipeline"
    assert str(Address.from_environment().ca_file) == "/usual.pem"
    monkeypatch.setenv("ASSAY_KFP_CA_FILE", str(tmp_path / "missing.pem"))
    with pytest.raises(UserError, match=r"missing\.pem does not exist"):
        Server(Address.from_environment())
    for wrong in ("kubeflow.example", "ftp://kubeflow.example", f"https://me:{TOKEN}@kubeflow.example"):
        with pytest.raises(UserError, match=r"http\[s\]") as caught:
            Address.from_environment(wrong)
        assert TOKEN not in str(caught.value)
