"""The classification DAG: what it compiles to, and that its steps depend on what they must."""

import pytest
import yaml

from assay.project import Project


@pytest.fixture(scope="module")
def specification(tmp_path_factory: pytest.TempPathFactory) -> dict:
    from kfp import compiler

    from pipelines.classification import classification

    path = tmp_path_factory.mktemp("compiled") / "classification.yaml"
    compiler.Compiler().compile(classification, str(path))
    return next(iter(yaml.safe_load_all(path.read_text())))


def test_every_step_carries_image_resources_and_display_name(specification: dict) -> None:
    for name, executor in specification["deploymentSpec"]["executors"].items():
        container = executor["container"]
        assert container["image"] == Project.find().image, name
        assert {"cpuLimit", "memoryLimit"} <= {key for key in container["resources"] if not key.startswith("resource")}
        assert "pip install" not in " ".join(container["command"]), f"{name} installs packages when it starts"
    tasks = specification["root"]["dag"]["tasks"]
    assert all(task["taskInfo"]["name"] != key for key, task in tasks.items() if key != "condition-1")


def test_training_waits_for_validation_and_promotion_for_the_gate(specification: dict) -> None:
    tasks = specification["root"]["dag"]["tasks"]
    assert "data-validation" in tasks["pretraining"]["dependentTasks"]
    assert tasks["pretraining"]["retryPolicy"]["maxRetryCount"] == 2
    branch = tasks["condition-1"]
    assert "gate" in branch["dependentTasks"]
    assert "passed" in branch["triggerPolicy"]["condition"]


def test_the_data_revision_is_a_parameter_of_the_steps_that_depend_on_it(specification: dict) -> None:
    tasks = specification["root"]["dag"]["tasks"]
    for step in ("data-import", "gate"):
        revision = tasks[step]["inputs"]["parameters"]["revision"]
        assert revision == {"componentInputParameter": "revision"}


def test_each_configuration_parameter_is_checked_by_a_model_that_exists(specification: dict) -> None:
    import importlib

    from pipelines.classification import CONFIGS

    parameters = specification["root"]["inputDefinitions"]["parameters"]
    dictionaries = {name for name, value in parameters.items() if value["parameterType"] == "STRUCT"}
    assert set(CONFIGS) == dictionaries
    for location in CONFIGS.values():
        module, _, name = location.partition(":")
        assert getattr(importlib.import_module(module), name).model_fields
