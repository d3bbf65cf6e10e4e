import os
from pathlib import Path

import pytest
from kfp import dsl

from assay.running import content_cache
from assay.running.content_cache import ContentCache


@pytest.fixture
def cache(tmp_path) -> ContentCache:
    cache = ContentCache(tmp_path / "cache", "run-1")
    cache.begin()
    return cache


def _model(path: Path, text: str = "weights") -> dsl.Model:
    path.mkdir(parents=True)
    (path / "model.txt").write_text(text)
    return dsl.Model(name=path.name, uri=str(path), metadata={"size": 3.0})


def _key(cache: ContentCache, **arguments: object) -> str:
    return cache.compute_key(component_name="c", image="i", full_command=["sh"], arguments=arguments)


def test_the_key_follows_the_content_not_the_place(cache, tmp_path):
    key = _key(cache, model=_model(tmp_path / "one"))
    assert _key(cache, model=_model(tmp_path / "two")) == key
    assert _key(cache, model=_model(tmp_path / "three", "other")) != key
    assert _key(cache, models=[_model(tmp_path / "four")]) != key


def test_a_file_that_changes_in_place_changes_the_key(cache, tmp_path):
    model = _model(tmp_path / "one")
    key = _key(cache, model=model)
    (tmp_path / "one" / "model.txt").write_text("changed!")
    assert _key(cache, model=model) != key


def test_whole_floats_are_integers_and_bools_are_not(cache):
    # A default value comes back from protobuf as 5.0, and --set gives 5.
    assert _key(cache, config={"epochs": 5.0, "rates": [1.0]}) == _key(cache, config={"epochs": 5, "rates": [1]})
    assert _key(cache, flag=True) != _key(cache, flag=1)


def test_an_entry_is_a_hit_while_its_outputs_hold_what_they_held(cache, tmp_path):
    model = _model(tmp_path / "one")
    cache.put("key", {"model": model, "passed": True})
    found = cache.get("key")
    assert found["passed"] is True
    assert (found["model"].uri, found["model"].metadata) == (model.uri, {"size": 3.0})
    assert cache.origin.run == "run-1"
    file = tmp_path / "one" / "model.txt"
    os.utime(file, (1, 1))
    assert cache.get("key") is not None, "a new time on the same bytes is no change"
    file.write_text("damaged")
    assert cache.get("key") is None
    file.unlink()
    assert cache.get("key") is None


def test_metrics_need_no_file_to_be_cached(cache, tmp_path):
    metrics = dsl.Metrics(name="metrics", uri=str(tmp_path / "metrics"), metadata={"accuracy": 0.9})
    cache.put("key", {"metrics": metrics})
    assert cache.get("key")["metrics"].metadata == {"accuracy": 0.9}


def test_a_big_artifact_is_read_once(cache, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(content_cache, "tree_digest", lambda path: read.append(path) or "digest")
    model = _model(tmp_path / "one")
    cache.put("key", {"model": model})
    _key(cache, model=model)
    later = ContentCache(tmp_path / "cache", "run-2")
    later.begin()
    _key(later, model=later.get("key")["model"])
    assert len(read) == 1
