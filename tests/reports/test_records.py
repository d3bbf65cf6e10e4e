import pytest

from assay.errors import UserError
from assay.reports.records import Node, Output, Run, State, Task


def _run(*states: State, state: State = State.RUNNING) -> Run:
    tasks = [Task(name=f"a.{k}", node="a", title="A", state=each) for k, each in enumerate(states)]
    return Run(id="demo", pipeline="demo", state=state, nodes=[Node(id="a", title="A")], tasks=tasks)


def test_a_record_survives_the_disk(tmp_path):
    run = _run(State.CACHED)
    run.tasks[0].outputs["m"] = Output(type="system.Metrics", metadata={"accuracy": 0.9, "n": 3})
    run.write(tmp_path)
    assert Run.read(tmp_path) == run
    assert run.tasks[0].metrics == {"accuracy": 0.9, "n": 3}


@pytest.mark.parametrize("content", [None, "", "{}", '{"id": 3}', "[]"])
def test_anything_else_is_refused_by_name(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json"):
        Run.read(tmp_path)


@pytest.mark.parametrize(
    ("states", "whole"),
    [
        ([State.SUCCEEDED, State.FAILED, State.RUNNING], State.FAILED),
        ([State.SUCCEEDED, State.RUNNING], State.RUNNING),
        ([State.SUCCEEDED, State.CACHED], State.SUCCEEDED),
        ([State.CACHED, State.CACHED], State.CACHED),
        ([], State.PENDING),
    ],
)
def test_a_loop_is_as_its_worst_turn(states, whole):
    assert _run(*states).node_state("a") == whole


def test_a_step_that_a_finished_run_never_reached_was_skipped():
    assert _run(state=State.FAILED).node_state("a") == State.SKIPPED
