import sys

import pytest

from assay.errors import UserError
from assay.running.pipelines import load_pipeline, pipeline_names


def test_the_files_are_the_pipelines(example):
    assert pipeline_names(example) == ["broken", "empty", "example", "quoted"]


@pytest.mark.parametrize("name", ["exmaple", "../example", "/etc/passwd", "", ".example"])
def test_any_other_name_is_refused(example, name):
    with pytest.raises(UserError):
        load_pipeline(example, name)


def test_an_unknown_name_lists_the_known_ones(example):
    with pytest.raises(UserError, match="broken, empty, example, quoted"):
        load_pipeline(example, "other")


def test_a_file_that_does_not_import_is_named_with_its_line(example):
    with pytest.raises(UserError, match=r"pipelines/broken.py does not load: ModuleNotFoundError: .*broken.py, line 1"):
        load_pipeline(example, "broken")


def test_a_file_without_its_function_says_what_to_add(example):
    with pytest.raises(UserError, match="no pipeline function 'empty'"):
        load_pipeline(example, "empty")


def test_the_project_comes_before_another_package_of_that_name(example, tmp_path, monkeypatch):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("pipelines", None)
    __import__("pipelines")
    assert load_pipeline(example, "example").defaults["amount"] == 3


def test_defaults_are_plain_python(example):
    defaults = load_pipeline(example, "example").defaults
    assert defaults == {"amount": 3, "scale": 2, "workers": 0, "making": {"colour": "red"}, "items": [7, 8, 9]}
    assert isinstance(defaults["amount"], int)
