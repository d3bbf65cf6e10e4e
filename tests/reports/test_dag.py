import re

from hypothesis import given
from hypothesis import strategies as st

from assay.reports.dag import Box, dag_svg, layers, reduce_edges


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    count = draw(st.integers(1, 9))
    names = [f"n{k}" for k in range(count)]
    return {name: draw(st.lists(st.sampled_from(names[:k]), unique=True)) if k else [] for k, name in enumerate(names)}


def _ancestors(graph: dict[str, list[str]], node: str) -> set[str]:
    return set(graph[node]).union(*(_ancestors(graph, parent) for parent in graph[node]))


@given(graphs())
def test_every_dependency_is_in_an_earlier_layer(graph):
    depth = layers(graph)
    assert all(depth[parent] < depth[node] for node, parents in graph.items() for parent in parents)


@given(graphs())
def test_the_reduction_keeps_what_is_reachable_and_no_edge_too_many(graph):
    reduced = reduce_edges(graph)
    for node in graph:
        assert _ancestors(reduced, node) == _ancestors(graph, node)
        for parent in reduced[node]:
            without = {**reduced, node: [other for other in reduced[node] if other != parent]}
            assert parent not in _ancestors(without, node)


@given(graphs(), st.booleans())
def test_boxes_lie_inside_the_drawing_and_do_not_overlap(graph, down):
    svg = dag_svg([Box(name, name, parents, "succeeded", "1 s") for name, parents in graph.items()], down=down)
    width, height = (float(n) for n in re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())
    corners = [(float(x), float(y)) for x, y in re.findall(r'<rect x="([\d.-]+)" y="([\d.-]+)"', svg)]
    assert len(corners) == len(graph)
    for index, (x, y) in enumerate(corners):
        assert x >= 0 and y >= 0 and x + 132 <= width + 1 and y + 58 <= height + 1
        assert all(abs(x - a) >= 132 or abs(y - b) >= 58 for a, b in corners[:index])


def test_names_are_escaped():
    svg = dag_svg([Box("a", '<b>"x"', [], "failed", "<i>", "#x")])
    assert "<b>" not in svg
    assert "<i>" not in svg
