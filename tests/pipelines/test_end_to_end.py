"""The main job for real: an image folder becomes a champion, through the command that users type."""

import json

import pytest

SETTINGS = [
    "dataset=digits",
    "model_name=digits",
    "training.epochs=4",
    "training.horizontal_flip=0",
    "policy.latency_ms=100000",  # whatever else the machine does meanwhile
]


@pytest.fixture(scope="module")
def example(make_example):
    example = make_example("example")
    example.assay("data", "import", "photos", "--name", "digits")
    return example


@pytest.fixture(scope="module")
def first(example) -> dict:
    return example.run("classification", *SETTINGS)


def states(run: dict) -> dict[str, str]:
    return {task["name"]: task["state"] for task in run["tasks"]}


def test_an_image_folder_becomes_a_champion(example, first: dict) -> None:
    assert set(states(first).values()) == {"succeeded"}
    assert "promotion" in states(first)
    metrics = {
        task["name"]: output["metadata"]
        for task in first["tasks"]
        for output in task["outputs"].values()
        if output["type"] == "system.Metrics"
    }
    evaluation = metrics["evaluation"]
    assert evaluation["accuracy"] > 0.85
    assert evaluation["accuracy_low"] < evaluation["accuracy"] < evaluation["accuracy_high"]
    assert "digits" in example.assay("models", "list")


def test_what_is_registered_answers_with_its_version(example, first: dict) -> None:
    image = sorted((example.root / "photos" / "digit-7").iterdir())[0]
    (answer,) = json.loads(example.assay("models", "predict", "digits@champion", str(image), "--json"))
    assert answer["model"] == "digits/1"
    assert answer["class"] == "digit-7"
    assert 0.5 < answer["probability"] <= 1


def test_an_unchanged_run_is_all_cache_hits_and_a_changed_one_reruns_what_depends_on_it(example, first: dict) -> None:
    assert set(states(example.run("classification", *SETTINGS)).values()) == {"cached"}
    changed = states(example.run("classification", *SETTINGS, "calibration.loss=cross_entropy"))
    assert {changed[task] for task in ("data-import", "data-validation", "pretraining")} == {"cached"}
    assert {changed[task] for task in ("calibration", "evaluation", "gate")} == {"succeeded"}


def test_a_second_promotion_can_be_explained_and_undone(example, first: dict) -> None:
    example.run("classification", *SETTINGS, "training.epochs=5")
    version = json.loads(example.assay("models", "show", "digits", "--json"))[-1]["version"]
    example.assay("models", "promote", "digits", str(version), "--reason", "a test of the way back")
    assert champion(example) == version
    example.assay("models", "rollback", "digits")
    assert champion(example) == 1
    events = json.loads(example.assay("models", "history", "digits", "--json"))
    moves = [(event["kind"], event["champion"]) for event in events if event["kind"] in ("promotion", "rollback")]
    assert moves == [("promotion", [None, 1]), ("promotion", [1, version]), ("rollback", [version, 1])]


def test_no_secret_of_the_environment_is_written_down(example, first: dict) -> None:
    assert (example.root / ".assay" / "mlflow.db").is_file()
    assert (first["folder"] / "report.html").is_file()
    assert example.files_with_the_canary() == []


def champion(example) -> int:
    (row,) = json.loads(example.assay("models", "list", "--json"))
    return row["champion"]
