import pytest

from assay.errors import AssayError
from assay.running import kfp_local


def test_the_installed_kfp_is_the_one_that_the_adapter_knows():
    kfp_local.check_internals()


def test_another_kfp_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr(kfp_local.subprocess_task_handler, "run_local_subprocess", lambda command, shell: 0)
    with pytest.raises(AssayError, match=r"^kfp 2\.17\.0 has another .*: install the versions of requirements.lock\.$"):
        kfp_local.check_internals()


def test_what_was_replaced_is_put_back(run_example):
    before = kfp_local.task_executor.execute_single_task, kfp_local.cache.get_local_cache
    run_example("amount=99", mood="bug")
    assert (kfp_local.task_executor.execute_single_task, kfp_local.cache.get_local_cache) == before


def test_a_condition_that_kfp_cannot_decide_fails_the_run(run_example):
    # KFP itself warns of the quote in "it's", runs neither branch, and reports success.
    result = run_example(name="quoted")
    assert isinstance(result.error, AssayError)
    assert str(result.error).startswith("KFP cannot decide a condition of this pipeline")
    assert result.run.state == "failed"


def test_retries_are_for_the_cluster_and_names_become_nodes(example):
    from assay.running.pipelines import load_pipeline

    spec = load_pipeline(example, "example").spec
    assert "retryPolicy" in spec["root"]["dag"]["tasks"]["make"]
    prepared = kfp_local._prepared(spec)
    assert "retryPolicy" not in prepared["root"]["dag"]["tasks"]["make"]
    assert prepared["components"]["comp-for-loop-1"]["dag"]["tasks"]["turn"]["taskInfo"]["name"] == "for-loop-1/turn"
    assert spec["root"]["dag"]["tasks"]["make"]["taskInfo"]["name"] == "Make numbers"
