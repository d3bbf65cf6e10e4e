import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from assay.cli.models import app
from assay.errors import UserError
from assay.project import Project
from assay.registry import Lineage, Registry, promote
from tests.registry.conftest import CLASSES, Centroids, make_project


@pytest.fixture(scope="session")
def state(digits, tmp_path_factory):
    """The state of a project with two versions of `digits`, the second promoted over the first."""
    root = tmp_path_factory.mktemp("cli") / "project"
    registry = Registry(make_project(root))
    train = digits.split("train")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ASSAY_HOME", raising=False)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for version, sharpness in enumerate((10.0, 40.0), start=1):
            module = Centroids(train.images, train.labels, sharpness)
            lineage = Lineage(data_revision="d" * 32, git_commit="c" * 40, seed=version)
            registry.register(
                "digits",
                module,
                train.images[:2],
                lineage=lineage,
                class_names=CLASSES,
                metrics={"accuracy": 0.9},
            )
            promote("digits", version, reason=f"reason {version}", registry=registry)
        return Project(root).state


@pytest.fixture
def assay(project, state):
    """Run `assay models` in a project of one's own; a failure is raised as `main` would see it."""
    shutil.copytree(state, project / ".assay", ignore=shutil.ignore_patterns("mlartifacts"))

    def run(*arguments: str):
        result = CliRunner().invoke(app, list(arguments))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result

    return run


@pytest.fixture(scope="session")
def seven(digits) -> np.ndarray:
    """A training image of a 7, which its own class mean recognises."""
    train = digits.split("train")
    return train.images[train.labels == 7][0, 0].numpy()


def test_list_show_and_history_tell_who_is_champion(assay):
    (row,) = json.loads(assay("list", "--json").stdout)
    assert (row["model"], row["champion"], row["previous champion"], row["versions"]) == ("digits", 2, 1, 2)
    shown = json.loads(assay("show", "digits", "--json").stdout)
    assert [(r["version"], r["alias"], r["accuracy"]) for r in shown] == [
        (1, "previous_champion", 0.9),
        (2, "champion", 0.9),
    ]
    assert shown[0]["data revision"] == "d" * 12
    for spelling in ("digits@champion", "digits/2"):
        one = json.loads(assay("show", spelling, "--json").stdout)
        assert (one["version"], one["seed"], one["parent_version"]) == (2, "2", "1")
    told = assay("history", "digits").stdout
    for text in ("registration", "champion none → 1: reason 1", "champion 1 → 2: reason 2"):
        assert text in told
    assert "digits" in assay("list").stdout and "champion" in assay("show", "digits").stdout
    assert "data_revision" in assay("show", "digits@champion").stdout


def test_rollback_and_promote_are_one_command_each(assay):
    told = assay("rollback", "digits", "--reason", "dark images").stdout
    assert told == "digits/1 is the champion again, and version 2 is now the previous champion.\n"
    assert assay("promote", "digits", "2", "--reason", "repaired").stdout.startswith("digits/2 is the champion")
    events = json.loads(assay("history", "digits", "--json").stdout)
    assert [event["reason"] for event in events[-2:]] == ["dark images", "repaired"]


def test_predict_reads_every_kind_of_image_as_the_data_room_does(assay, seven, tmp_path):
    grey = Image.fromarray(seven)
    rgba = grey.convert("RGBA").resize((48, 48), Image.Resampling.NEAREST)
    wide = Image.fromarray(seven.astype(np.int32) * 257).convert("I;16")
    files = {"grey.png": grey, "rgba.png": rgba, "sixteen.tiff": wide, "palette.gif": grey.convert("P")}
    for name, image in files.items():
        image.save(tmp_path / name)
    paths = [str(tmp_path / name) for name in files]
    answers = json.loads(assay("predict", "digits@champion", *paths, "--json").stdout)
    assert [answer["file"] for answer in answers] == paths
    expected = Registry().load("digits").predict(torch.from_numpy(seven[None, None]))[0]
    for answer in answers:
        assert (answer["class"], answer["model"]) == ("7", "digits/2")
        resized = answer["file"].endswith("rgba.png")
        assert answer["probability"] == pytest.approx(expected[7], abs=0.1 if resized else 1e-6)
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
    table = assay("predict", "digits/1", paths[0]).stdout
    assert "digits/1" in table and "7" in table


def test_a_bad_image_is_one_sentence(assay, seven, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(seven).save(buffer, "PNG")
    (tmp_path / "good.png").write_bytes(buffer.getvalue())
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:60])
    (tmp_path / "text.jpg").write_text("not an image")
    for name, why in (
        ("cut.png", "is truncated"),
        ("text.jpg", "is not an image"),
        ("none.png", "No such file"),
    ):
        with pytest.raises(UserError, match=rf"{name}.*{why}"):
            assay("predict", "digits", str(tmp_path / "good.png"), str(tmp_path / name))


class BrightnessDetector(torch.nn.Module):
    """Takes bright images for generated."""

    def forward(self, images):
        generated = torch.sigmoid((images.float().mean((1, 2, 3)) - 128) / 16)
        return torch.stack([1 - generated, generated], dim=1)


@pytest.fixture
def detector(assay):
    """The registered model `detector`, the champion, with a decision."""
    registry = Registry()
    registry.register(
        "detector",
        BrightnessDetector(),
        np.zeros((2, 1, 16, 16), np.uint8),
        lineage=Lineage(),
        class_names=["real", "generated"],
        metadata={"decision": {"threshold": 0.5, "lower": 0.2, "upper": 0.8, "confidence": 0.95}},
    )
    promote("detector", 1, reason="first", registry=registry)
    return assay


def test_a_detector_gives_a_verdict_on_every_kind_of_image_and_says_what_resizing_does(detector, tmp_path):
    noise = np.random.default_rng(0).integers(200, 256, (16, 16), dtype=np.uint8)
    grey = Image.fromarray(noise)
    framed = Image.new("L", (48, 48), 0)  # dark, but bright in the middle
    framed.paste(255, (16, 16, 32, 32))
    files = {
        "grey.png": grey,
        "colour.jpg": grey.convert("RGB").resize((40, 30)),
        "rgba.png": grey.convert("RGBA"),
        "sixteen.png": Image.fromarray(noise.astype(np.uint16) * 257),
        "palette.gif": grey.convert("P"),
        "constant.png": Image.new("L", (16, 16), 128),
        "framed.png": framed,
    }
    for name, image in files.items():
        image.save(tmp_path / name)
    paths = {name: str(tmp_path / name) for name in files}
    answers = json.loads(detector("predict", "detector@champion", *paths.values(), "--json").stdout)
    assert [answer["file"] for answer in answers] == list(paths.values())
    verdicts = dict(zip(files, (answer["verdict"] for answer in answers), strict=True))
    assert verdicts == {**dict.fromkeys(files, "generated"), "constant.png": "unsure", "framed.png": "real"}
    assert {answer["model"] for answer in answers} == {"detector/1"}
    assert answers[0]["decision"] == {"threshold": 0.5, "lower": 0.2, "upper": 0.8, "confidence": 0.95}
    assert (answers[-1]["changes"], answers[-1]["resized_to"]) == (["centre crop to 16 x 16"], [16, 16])
    assert answers[-2]["range"] == [0.5, 0.5]

    told = detector("predict", "detector", paths["framed.png"], paths["constant.png"]).stdout
    assert f"{paths['framed.png']}: real (detector/1)" in told
    assert "real       resized from 48 x 48 to 16 x 16" in told
    assert "the verdict changes after centre crop to 16 x 16 (generated)." in told
    assert f"{paths['constant.png']}: unsure (detector/1)" in told
    assert "The probability goes from 0.5000 to 0.5000, and the verdict stays." in told
    assert told.endswith("real up to 0.2000, generated from 0.8000, unsure between.\n")


def test_a_detector_names_a_file_that_it_cannot_read(detector, tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    for name, why in (("text.jpg", "is not an image"), ("none.png", "No such file")):
        with pytest.raises(UserError, match=rf"{name}.*{why}"):
            detector("predict", "detector", str(tmp_path / name))


def test_an_interrupted_promotion_is_completed_and_reported_beside_the_output(assay, project):
    registry = Registry()
    with registry.log.path.open("a") as log:
        event = {
            "id": "29990101T000000000000-abcdef",
            "time": "2999-01-01T00:00:00.000+00:00",
            "kind": "promotion",
            "model": "digits",
            "version": 1,
            "actor": "somebody",
            "reason": "killed",
            "champion": [2, 1],
            "previous_champion": [1, 2],
            "step": "intent",
        }
        log.write(json.dumps(event) + "\n")
    result = assay("list", "--json")
    assert "note: The interrupted promotion of digits/1 was completed." in result.stderr
    assert json.loads(result.stdout)[0]["champion"] == 1


def test_unknown_names_are_one_sentence(assay):
    for arguments in (["show", "letters"], ["history", "letters"], ["predict", "letters", __file__]):
        with pytest.raises(UserError, match="no registered model 'letters': the registered models are digits"):
            assay(*arguments)
    with pytest.raises(UserError, match="no version or alias 'best': it has 1, 2, "):
        assay("show", "digits@best")
