import hashlib

import pytest

from assay.errors import UserError
from assay.running.arguments import resolve_arguments
from assay.running.pipelines import Pipeline, load_pipeline


@pytest.fixture
def pipeline(example):
    return load_pipeline(example, "example")


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("amount=5", "amount", 5),
        ("making.shade=2", "making", {"colour": "red", "shade": 2}),
        ("making={shade: 2}", "making", {"colour": "red", "shade": 2}),
        ("making.colour=a=b", "making", {"colour": "a=b"}),
        ("items=[1, 2]", "items", [1, 2]),
    ],
)
def test_a_setting_goes_over_the_default(pipeline, example, setting, name, value):
    assert resolve_arguments(pipeline, example, [setting])[name] == value


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("amonut=5", "amonut is not a parameter of example (did you mean amount?): its parameters are "),
        ("epochs=5", "epochs is not a parameter of example: its parameters are amount, items, making, scale, workers."),
        ("amount=many", "amount = 'many' does not fit: amount is a whole number."),
        ("amount=1.5", "amount = 1.5 does not fit"),
        ("amount=true", "amount = True does not fit"),
        ("items=7", "items = 7 does not fit: items is a list"),
        ("making.colour.dark=1", "making.colour.dark: colour is not a dictionary"),
        ("amount.x=1", "amount.x: amount is not a dictionary; set it as amount=VALUE."),
        ("making.hue=1", "making.hue is not a setting: the settings of making are colour, shade."),
        ("making.shade=dark", "making.shade = 'dark' is not valid"),
        ("amount", "--set 'amount' is not key=value"),
        ("=5", "is not key=value"),
        ("items=[1", "is not valid YAML"),
    ],
)
def test_a_wrong_setting_is_one_sentence(pipeline, example, setting, sentence):
    with pytest.raises(UserError) as caught:
        resolve_arguments(pipeline, example, [setting])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_pipelines_defaults_stay_as_they_are(pipeline, example):
    resolve_arguments(pipeline, example, ["making.shade=2"])
    assert resolve_arguments(pipeline, example)["making"] == {"colour": "red"}


def test_workers_need_a_parameter_of_that_name(pipeline, example):
    assert resolve_arguments(pipeline, example, workers=2)["workers"] == 2
    with pytest.raises(UserError, match="workers is not a parameter of quoted"):
        resolve_arguments(load_pipeline(example, "quoted"), example, workers=2)


def _pipeline(**parameters: dict[str, object]) -> Pipeline:
    return Pipeline("some", {"root": {"inputDefinitions": {"parameters": parameters}}}, {}, {})


def test_a_parameter_without_default_must_be_set(example):
    pipeline = _pipeline(name={"parameterType": "STRING"})
    with pytest.raises(UserError, match="some needs a value for name: add --set name=VALUE"):
        resolve_arguments(pipeline, example)
    assert resolve_arguments(pipeline, example, ["name=12"]) == {"name": "12"}


def test_the_revision_is_the_pinned_one_unless_it_is_set(project):
    from assay.data.pins import pin
    from assay.project import Project

    text = {"parameterType": "STRING"}
    pipeline = _pipeline(dataset={**text, "defaultValue": "tiny"}, revision={**text, "defaultValue": ""})
    (project / "data" / "tiny").mkdir(parents=True)
    (project / "data" / "tiny" / "a.txt").write_text(hashlib.md5(b"a").hexdigest())  # noqa: S324
    revision = pin(project, "tiny")
    place = Project(project)
    assert resolve_arguments(pipeline, place)["revision"] == revision
    assert resolve_arguments(pipeline, place, ["revision=abc"])["revision"] == "abc"
    with pytest.raises(UserError, match="other"):
        resolve_arguments(pipeline, place, ["dataset=other"])
