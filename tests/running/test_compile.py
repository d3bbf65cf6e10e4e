import pytest
import yaml

from assay.errors import UserError
from assay.running.compile import compile_pipeline


@pytest.fixture(scope="module")
def compiled(example, tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "example.yaml"
    return compile_pipeline("example", path, ["amount=11", "making.shade=2"], project=example)


def test_the_yaml_carries_resources_retries_and_image(compiled):
    spec = yaml.safe_load(compiled.read_text())
    container = spec["deploymentSpec"]["executors"]["exec-make"]["container"]
    assert container["image"] == "example-python:1"
    assert container["resources"]["resourceCpuLimit"] == "2"
    assert container["resources"]["resourceMemoryLimit"] == "1G"
    assert spec["root"]["dag"]["tasks"]["make"]["retryPolicy"]["maxRetryCount"] == 2


def test_the_settings_are_its_defaults(compiled):
    parameters = yaml.safe_load(compiled.read_text())["root"]["inputDefinitions"]["parameters"]
    assert parameters["amount"]["defaultValue"] == 11
    assert parameters["making"]["defaultValue"] == {"colour": "red", "shade": 2}


def test_kfp_reads_it_back(compiled):
    from kfp import components

    pipeline = components.load_component_from_file(str(compiled))
    assert pipeline.component_spec.inputs["amount"].default == 11


def test_nothing_is_written_after_a_wrong_setting(example, tmp_path):
    with pytest.raises(UserError):
        compile_pipeline("example", tmp_path / "out.yaml", ["nothing=1"], project=example)
    assert not (tmp_path / "out.yaml").exists()
