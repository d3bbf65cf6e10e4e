from assay.running.graph import pipeline_nodes
from assay.running.pipelines import load_pipeline


def test_loops_and_conditions_become_steps_with_their_dependencies(example):
    nodes = {node.id: node for node in pipeline_nodes(load_pipeline(example, "example").spec)}
    assert {name: node.depends for name, node in nodes.items()} == {
        "make": [],
        "train": ["make"],
        "decide": ["train"],
        "for-loop-1/turn": ["train"],
        "condition-2/promote": ["decide"],
    }
    assert [name for name, node in nodes.items() if node.loop] == ["for-loop-1/turn"]
    assert [name for name, node in nodes.items() if node.conditional] == ["condition-2/promote"]
    assert nodes["make"].title == "Make numbers"


def test_what_follows_a_group_depends_on_the_ends_of_it():
    leaf = {"executorLabel": "x"}
    group = {"dag": {"tasks": {"a": _task("leaf"), "b": _task("leaf", "a")}}}
    root = {
        "dag": {"tasks": {"first": _task("leaf"), "group": _task("group", "first"), "last": _task("leaf", "group")}}
    }
    nodes = pipeline_nodes({"root": root, "components": {"leaf": leaf, "group": group}})
    assert {node.id: node.depends for node in nodes} == {
        "first": [],
        "group/a": ["first"],
        "group/b": ["group/a"],
        "last": ["group/b"],
    }


def _task(component: str, *after: str) -> dict[str, object]:
    return {"componentRef": {"name": component}, "dependentTasks": list(after)}
