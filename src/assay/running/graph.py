"""The steps of a compiled pipeline as one flat graph: what the live view, the record and the report show."""

from collections.abc import Mapping
from typing import Any

from assay.reports.records import Node


def pipeline_nodes(spec: Mapping[str, Any]) -> list[Node]:
    """Flatten loops, conditions and nested pipelines into steps with their dependencies.

    A step inside a group depends on what the group depends on; what depends on a group depends on the
    steps in it that nothing else in it waits for.

    Args:
        spec: the IR as plain data.
    """
    nodes: dict[str, Node] = {}
    _flatten(spec, spec["root"]["dag"], "root", (), False, False, nodes)
    return list(nodes.values())


def node_id(dag: str, task: str) -> str:
    """Return the id of a step: its name, with the component of the group around it if it is in one.

    Example:
        >>> node_id("root", "pretrain"), node_id("comp-for-loop-1", "train")
        ('pretrain', 'for-loop-1/train')
    """
    return task if dag == "root" else f"{dag.removeprefix('comp-')}/{task}"


def dags(spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return every graph of the specification by its component's name; the outermost is ``root``."""
    inner = {name: entry["dag"] for name, entry in spec.get("components", {}).items() if "dag" in entry}
    return {"root": spec["root"]["dag"], **inner}


def _flatten(
    spec: Mapping[str, Any],
    dag: Mapping[str, Any],
    dag_name: str,
    above: tuple[str, ...],
    loop: bool,
    conditional: bool,
    nodes: dict[str, Node],
) -> list[str]:
    """Add the steps of one graph; return the ids of those that nothing in it waits for."""
    components = spec.get("components", {})
    ends: dict[str, list[str]] = {}
    waited: set[str] = set()
    for name in _in_order(dag["tasks"]):
        task = dag["tasks"][name]
        parents = [parent for parent in task.get("dependentTasks", []) if parent in ends]
        waited.update(parents)
        depends = tuple(end for parent in parents for end in ends[parent]) or above
        component = task["componentRef"]["name"]
        in_loop = loop or "parameterIterator" in task or "artifactIterator" in task
        if_any = conditional or "condition" in task.get("triggerPolicy", {})
        if "dag" in components[component]:
            inner = components[component]["dag"]
            ends[name] = _flatten(spec, inner, component, depends, in_loop, if_any, nodes) or list(depends)
            continue
        identity = node_id(dag_name, name)
        title = task.get("taskInfo", {}).get("name", name)
        known = nodes.get(identity)
        merged = list(dict.fromkeys([*(known.depends if known else []), *depends]))
        nodes[identity] = Node(id=identity, title=title, depends=merged, loop=in_loop, conditional=if_any)
        ends[name] = [identity]
    return [end for name, found in ends.items() if name not in waited for end in found]


def _in_order(tasks: Mapping[str, Any]) -> list[str]:
    """Return the names so that each comes after what it depends on."""
    ordered: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in ordered:
            for parent in sorted(tasks[name].get("dependentTasks", [])):
                if parent in tasks:
                    visit(parent)
            ordered[name] = None

    for name in tasks:
        visit(name)
    return list(ordered)
