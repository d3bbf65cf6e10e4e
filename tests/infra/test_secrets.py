"""What `secrets.sh` makes, through the real `kubectl create secret` without a cluster."""

import configparser
import json


def credentials(text: str) -> tuple[str, str]:
    parser = configparser.ConfigParser()
    parser.read_string(text)
    return parser["assay"]["aws_access_key_id"], parser["assay"]["aws_secret_access_key"]


def test_the_secrets_fit_together(cluster, policy) -> None:
    done = cluster.run("kubeflow")
    assert done.returncode == 0, done.stderr
    made = cluster.secrets()
    assert set(made) == {("assay", name) for name in policy.SECRETS} | {("kubeflow", "s3-assay")}
    assert made["kubeflow", "s3-assay"] == made["assay", "s3-assay"]

    service = configparser.ConfigParser()
    service.read_string(made["assay", "postgres-client"]["pg_service.conf"])
    assert service["mlflow"]["password"] == made["assay", "postgres-server"]["mlflow-password"]
    assert service["mlflow"]["password"] != made["assay", "postgres-server"]["superuser-password"]

    identities = json.loads(made["assay", "object-store"]["s3.json"])["identities"]
    for identity in identities:
        (pair,) = identity["credentials"]
        assert len(pair["secretKey"]) == 40
        assert (pair["accessKey"], pair["secretKey"]) == credentials(
            made["assay", f"s3-{identity['name']}"]["credentials"]
        )
    actions = {identity["name"]: identity["actions"] for identity in identities}
    assert actions["admin"] == ["Admin"]
    assert all(action.endswith(":assay") for action in actions["assay"])
    assert all(action.endswith(":mlflow") for action in actions["mlflow"])


def test_no_value_is_printed_or_on_a_command_line_or_left_on_the_disk(cluster) -> None:
    done = cluster.run()
    seen = done.stdout + done.stderr + cluster.calls.read_text()
    made = cluster.secrets()
    values = [made["assay", "postgres-server"][key] for key in ("superuser-password", "mlflow-password")]
    for name in ("s3-admin", "s3-mlflow", "s3-assay"):
        values += credentials(made["assay", name]["credentials"])
    assert len(set(values)) == 8
    assert not any(value in seen for value in values)
    assert list(cluster.scratch.iterdir()) == []


def test_secrets_that_exist_are_left_alone(cluster) -> None:
    done = cluster.run(existing="s3-mlflow")
    assert done.returncode == 2
    assert done.stderr.startswith("the secret s3-mlflow exists in assay: delete ")
    assert not cluster.made.exists()
