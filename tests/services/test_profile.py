"""With ``ASSAY_PROFILE=services`` the data, the record and what tasks make live in the servers."""

import json
import shutil
from pathlib import Path

import pytest

from tests.pipelines.conftest import Example
from tests.pipelines.test_end_to_end import SETTINGS, states

pytestmark = pytest.mark.services


def test_a_fresh_clone_pulls_its_data_from_the_object_store(team, tmp_path):
    assert "s3://assay/dvc" in team.assay("data", "push")
    assert "(0 files sent)" in team.assay("data", "push")
    (tmp_path / "clone").mkdir()
    clone = Example(tmp_path / "clone")
    clone.environment |= team.environment | {"ASSAY_HOME": str(team.state)}
    shutil.copy(team.root / "data.dvc", clone.root)
    assert "fetched from the DVC remote" in clone.assay("data", "pull")
    assert "matches" in clone.assay("data", "status")
    assert "s3" not in (clone.root / ".dvc" / "config").read_text()
    assert not (clone.root / ".dvc" / "config.local").exists()


def test_a_run_is_recorded_in_postgresql_and_its_outputs_in_s3(team, first, activated):
    import psycopg2

    from assay.files import tree_digest
    from assay.services import postgres
    from assay.storage import ObjectStore

    assert set(states(first).values()) == {"succeeded"}
    assert first["tracking_uri"].startswith("http://127.0.0.1:")
    ports = json.loads((team.services / "services.json").read_text())["ports"]
    connection = psycopg2.connect(postgres.uri(team.services, ports))
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT version FROM registered_model_aliases WHERE name = 'digits' AND alias = 'champion'")
        assert cursor.fetchone() == (1,)
    connection.close()
    assert [key for key in ObjectStore("s3://assay").keys("mlflow") if key.endswith("model.pt2")]
    kept = ObjectStore("s3://assay/artifacts")
    outputs = [output["uri"] for task in first["tasks"] for output in task["outputs"].values() if output.get("uri")]
    assert len(outputs) > 10
    for path in outputs:
        assert kept.exists(tree_digest(path)), path


def test_a_cached_result_whose_files_are_gone_is_brought_back(team, first):
    artifacts = first["folder"] / "artifacts"
    before = outputs(artifacts)
    shutil.rmtree(artifacts)
    again = team.run("classification", *SETTINGS)
    assert set(states(again).values()) == {"cached"}
    assert outputs(artifacts) == before


def outputs(artifacts: Path) -> dict[str, bytes]:
    """Return what tasks made; `executor_output.json` is KFP's own."""
    files = [path for path in artifacts.rglob("*") if path.is_file() and path.name != "executor_output.json"]
    return {str(path.relative_to(artifacts)): path.read_bytes() for path in files}


def test_no_secret_of_the_environment_is_written_down(team, first):
    assert not team.files_with_the_canary()
