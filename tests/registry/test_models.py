import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException

from assay.errors import UserError
from assay.registry import Lineage
from tests.registry.conftest import CLASSES

LINEAGE = Lineage(data_revision="d1", seed=7)


def test_a_loaded_model_answers_as_the_module_for_every_batch_size(registry, models, digits):
    images = digits.split("train").images
    loaded = registry.load("digits", 1)
    for count in (1, 2, 3, 513):
        with torch.no_grad():
            expected = models[0](images[:count]).double().numpy()
        answers = loaded.predict(images[:count].numpy())
        assert answers.dtype == np.float64
        np.testing.assert_allclose(answers, expected, atol=1e-6)
    assert loaded.predict(images[:0]).shape == (0, 10)
    assert (loaded.class_names, loaded.image_size, loaded.channels) == (tuple(CLASSES), (16, 16), 1)


def test_the_lineage_and_metrics_are_tags(registry):
    tags = registry.resolve("digits", 2).tags
    expected = {"data_revision": "d1", "git_commit": "c1", "image": "i1", "pipeline_run": "r1", "seed": "1"}
    assert {key: tags[key] for key in expected} == expected
    assert float(tags["metric.accuracy"]) == 0.75


def test_the_same_content_is_registered_once_whoever_made_it(registry, models, pixels):
    def register(module, lineage):
        return registry.register("digits", module, pixels, lineage=lineage, class_names=CLASSES)

    third = register(models[2], LINEAGE)
    again = Lineage(data_revision="d1", seed=7, pipeline_run="another", git_commit="later")
    assert third == register(models[2], again) == 3
    assert register(models[2], Lineage(data_revision="d2", seed=7)) == 4
    changed = models[2].state_dict()["means"][0, 0]
    changed += 1e-3
    assert register(models[2], LINEAGE) == 5
    changed -= 1e-3


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_lost_answer_registers_a_version_once(registry, models, pixels, monkeypatch, carried_out):
    create = registry.client._client.create_model_version
    calls = []

    def lose_the_first_answer(*args, **kwargs):
        calls.append(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
        if len(calls) > 1 or carried_out:
            made = create(*args, **kwargs)
        if len(calls) == 1:
            raise MlflowException("API request failed: Max retries exceeded")
        return made

    monkeypatch.setattr(registry.client._client, "create_model_version", lose_the_first_answer)
    assert registry.register("digits", models[2], pixels, lineage=LINEAGE, class_names=CLASSES) == 3
    assert [version.number for version in registry.versions("digits")] == [1, 2, 3]
    assert calls == ["0"] * (1 if carried_out else 2), "MLflow itself must not repeat the request"


METADATA = {
    "method": "npr",
    "decision": {"threshold": 1 / 3, "lower": -5e-324, "upper": 1.0000000000000002, "confidence": 0.95},
    "shown": (1, 2),
}


def test_metadata_travels_with_a_model_and_is_part_of_its_content(registry, models, pixels):
    def register(metadata):
        return registry.register("digits", models[0], pixels, lineage=LINEAGE, class_names=CLASSES, metadata=metadata)

    plain = register(None)
    assert register({}) == plain and registry.load("digits", plain).metadata == {}
    with_decision = register(METADATA)
    assert with_decision == register(METADATA) == plain + 1
    loaded = registry.load("digits", with_decision)
    assert loaded.metadata == {**METADATA, "shown": [1, 2]}
    assert loaded.metadata["decision"] == METADATA["decision"]  # to the last digit
    assert loaded.class_names == tuple(CLASSES) and loaded.label == f"digits/{with_decision}"
    assert register({**METADATA, "method": "rgb"}) == plain + 2


@pytest.mark.parametrize("metadata", [{"threshold": float("nan")}, {"model": object()}])
def test_metadata_that_is_not_json_is_refused(registry, models, pixels, metadata):
    with pytest.raises(UserError, match="The metadata of digits cannot be written as JSON"):
        registry.register("digits", models[0], pixels, lineage=LINEAGE, class_names=CLASSES, metadata=metadata)


def test_the_parent_is_the_champion_at_registration(registry, models, pixels):
    registry.client.set_registered_model_alias("digits", "champion", "2")
    version = registry.register("digits", models[2], pixels, lineage=LINEAGE, class_names=CLASSES)
    assert registry.resolve("digits", version).tags["parent_version"] == "2"
    assert "parent_version" not in registry.resolve("digits", "champion").tags


def test_registering_prints_nothing(registry, models, pixels, capfd):
    for lineage in (LINEAGE, Lineage(data_revision="d9")):
        registry.register("digits", models[0], pixels, lineage=lineage, class_names=CLASSES)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("images", [np.zeros((1, 1, 16, 16), np.uint8), np.zeros((2, 1, 16, 16), np.float32)])
def test_an_example_that_torch_export_would_misread_is_refused(registry, models, images):
    with pytest.raises(UserError, match="two or more uint8 images"):
        registry.register("digits", models[0], images, lineage=LINEAGE, class_names=CLASSES)


def test_sentences_name_what_there_is(registry):
    with pytest.raises(UserError, match="no registered model 'digit': the registered models are digits"):
        registry.resolve("digit", 1)
    with pytest.raises(UserError, match="no version or alias 'champion': it has 1, 2"):
        registry.load("digits")
    with pytest.raises(UserError, match="not a valid model name"):
        registry.resolve("../digits", 1)
    with pytest.raises(UserError, match=r"takes uint8 images \[N, 1, 16, 16\], not uint8 \[2, 1, 8, 8\]"):
        registry.load("digits", 1).predict(np.zeros((2, 1, 8, 8), np.uint8))


@pytest.mark.slow
def test_a_model_loads_without_this_package(registry, pixels, tmp_path):
    np.save(tmp_path / "pixels.npy", pixels)
    program = (
        "import sys, json, numpy, torch, mlflow.pytorch\n"
        f"mlflow.set_tracking_uri({registry.client.uri!r})\n"
        "model = mlflow.pytorch.load_model('models:/digits/1')\n"
        f"images = torch.from_numpy(numpy.load({str(tmp_path / 'pixels.npy')!r}))\n"
        "assert not any(name.split('.')[0] in ('assay', 'tests') for name in sys.modules)\n"
        "print(json.dumps(model(images).tolist()))\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    answers = np.array(json.loads(done.stdout.splitlines()[-1]))
    np.testing.assert_allclose(answers, registry.load("digits", 1).predict(pixels), atol=1e-6)
