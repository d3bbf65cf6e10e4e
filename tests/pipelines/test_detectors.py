"""The two DAGs of generated-image detection: that loops and gates depend on what they must."""

import importlib

import pytest
import yaml

from assay.forensics.methods import METHODS
from assay.forensics.zoo import GENERATORS
from assay.project import Project


@pytest.fixture(scope="module", params=["forensics", "detection"])
def pipeline(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, dict]:
    """The module and the compiled specification."""
    from kfp import compiler

    module = importlib.import_module(f"pipelines.{request.param}")
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compiler.Compiler().compile(getattr(module, request.param), str(path))
    return module, next(iter(yaml.safe_load_all(path.read_text())))


def test_every_step_carries_image_and_resources(pipeline) -> None:
    for name, executor in pipeline[1]["deploymentSpec"]["executors"].items():
        container = executor["container"]
        assert container["image"] == Project.find().image, name
        assert {"cpuLimit", "memoryLimit"} <= container["resources"].keys(), name


def test_detectors_wait_for_the_integrity_gates(pipeline) -> None:
    tasks = pipeline[1]["root"]["dag"]["tasks"]
    (loop,) = [task for task in tasks.values() if task["taskInfo"]["name"] == "detectors"]
    assert "detection-integrity" in loop["dependentTasks"]
    assert "data-validation" in str(tasks)


def test_what_generators_learned_from_is_checked_where_there_are_generators(pipeline) -> None:
    inputs = pipeline[1]["root"]["dag"]["tasks"]["detection-integrity"]["inputs"]["artifacts"]
    assert ("source" in inputs) == hasattr(pipeline[0], "GENERATORS")


def test_each_configuration_parameter_is_checked_by_a_model_that_exists(pipeline) -> None:
    module, specification = pipeline
    parameters = specification["root"]["inputDefinitions"]["parameters"]
    dictionaries = {name for name, value in parameters.items() if value["parameterType"] == "STRUCT"}
    assert set(module.CONFIGS) == dictionaries
    for location in module.CONFIGS.values():
        name, _, model = location.partition(":")
        assert getattr(importlib.import_module(name), model).model_fields


def test_the_defaults_are_every_method_and_every_generator(pipeline) -> None:
    module, specification = pipeline
    defaults = specification["root"]["inputDefinitions"]["parameters"]
    assert set(defaults["methods"]["defaultValue"]) == set(METHODS)
    if hasattr(module, "GENERATORS"):
        assert set(defaults["generators"]["defaultValue"]) == set(GENERATORS)
