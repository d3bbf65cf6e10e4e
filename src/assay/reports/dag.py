"""A pipeline's graph as SVG: a layered layout, left to right for a desktop or top to bottom for a phone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

_ICONS = {
    "pending": "○",
    "running": "◐",
    "succeeded": "✓",
    "cached": "↺",
    "failed": "✕",
    "skipped": "–",
    "interrupted": "■",
}
_WIDTH, _HEIGHT = 132, 58  # of a box: seven in a row fit a page of 1,280 pixels
_ACROSS, _DOWN, _LANE = 22, 30, 22  # between layers in either direction, between neighbours in a layer
_MARGIN = 4
_LONGEST = 14  # letters of a title that fit into a box


@dataclass(frozen=True)
class Box:
    """One step to draw: ``state`` is one of ``assay.reports.records.State``, ``note`` a second line."""

    id: str
    title: str
    depends: Sequence[str]
    state: str
    note: str
    link: str = ""


def layers(depends: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return each node's layer: one more than the deepest node that it depends on.

    Example:
        >>> layers({"a": [], "b": ["a"], "c": ["a", "b"]})
        {'a': 0, 'b': 1, 'c': 2}
    """
    depth: dict[str, int] = {}

    def visit(node: str) -> int:
        if node not in depth:
            depth[node] = 1 + max((visit(parent) for parent in depends[node]), default=-1)
        return depth[node]

    for node in depends:
        visit(node)
    return {node: depth[node] for node in depends}


def reduce_edges(depends: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Drop every dependency that a longer path implies (transitive reduction), so that a chain reads as one.

    Example:
        >>> reduce_edges({"a": [], "b": ["a"], "c": ["a", "b"]})
        {'a': [], 'b': ['a'], 'c': ['b']}
    """
    above: dict[str, set[str]] = {}

    def ancestors(node: str) -> set[str]:
        if node not in above:
            above[node] = set(depends[node]).union(*(ancestors(parent) for parent in depends[node]))
        return above[node]

    return {
        node: [p for p in dict.fromkeys(parents) if not any(p in ancestors(q) for q in parents if q != p)]
        for node, parents in depends.items()
    }


def dag_svg(boxes: Sequence[Box], *, down: bool = False, label: str = "The pipeline's steps") -> Markup:
    """Draw the steps and their dependencies; colours come from the page's CSS classes.

    Args:
        boxes: the steps; names in ``depends`` that are not among them are left out.
        down: top to bottom instead of left to right.
        label: what a screen reader says.
    """
    known = {box.id for box in boxes}
    edges = reduce_edges({box.id: [parent for parent in box.depends if parent in known] for box in boxes})
    rows, chains = _arrange(edges)
    place = {
        node: _centre(rank, lane - (len(row) - 1) / 2, down)
        for rank, row in enumerate(rows)
        for lane, node in enumerate(row)
    }
    wide, high = (_WIDTH / 2 + _MARGIN, _HEIGHT / 2 + _MARGIN)
    left = min((x for x, _ in place.values()), default=0) - wide
    top = min((y for _, y in place.values()), default=0) - high
    width = max((x for x, _ in place.values()), default=0) + wide - left
    height = max((y for _, y in place.values()), default=0) + high - top
    place = {node: (x - left, y - top) for node, (x, y) in place.items()}
    summary = "; ".join(f"{box.title}: {box.state}, {box.note}" for box in boxes)
    parts = [
        f'<svg class="dag" role="img" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{escape(label)}</title><desc>{escape(summary)}</desc>",
        *(f'<path class="edge" d="{_curve([place[node] for node in chain], down)}"/>' for chain in chains),
        *(_box(box, *place[box.id]) for box in boxes),
        "</svg>",
    ]
    return Markup("".join(parts))  # noqa: S704  every text in it was escaped above


def _arrange(edges: Mapping[str, Sequence[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the rows of nodes by layer, and each edge as the chain of places that it passes.

    An edge over several layers gets an empty place in each of them, so that it runs around the boxes.
    """
    depth = layers(edges)
    rows: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node, rank in depth.items():
        rows[rank].append(node)
    chains = []
    for node, parents in edges.items():
        for parent in parents:
            bends = [f"{parent}\0{node}\0{rank}" for rank in range(depth[parent] + 1, depth[node])]
            for rank, bend in enumerate(bends, start=depth[parent] + 1):
                rows[rank].append(bend)
            chains.append([parent, *bends, node])
    parents_of: dict[str, list[str]] = {}
    for chain in chains:
        for parent, child in pairwise(chain):
            parents_of.setdefault(child, []).append(parent)
    for above, row in pairwise(rows):
        order = {node: lane for lane, node in enumerate(above)}
        means = {
            node: sum(order[p] for p in parents_of[node]) / len(parents_of[node]) if node in parents_of else 0.0
            for node in row
        }
        row.sort(key=lambda node: means[node])
    return rows, chains


def _centre(rank: int, lane: float, down: bool) -> tuple[float, float]:
    if down:
        return lane * (_WIDTH + _LANE), rank * (_HEIGHT + _DOWN)
    return rank * (_WIDTH + _ACROSS), lane * (_HEIGHT + _LANE)


def _curve(points: Sequence[tuple[float, float]], down: bool) -> str:
    """Return the path through the points: straight across boxes' places, curved between the layers."""
    reach = (0, _HEIGHT / 2) if down else (_WIDTH / 2, 0)
    x, y = points[0][0] + reach[0], points[0][1] + reach[1]
    path = [f"M{x:.1f} {y:.1f}"]
    for number, (cx, cy) in enumerate(points[1:], start=1):
        ex, ey = cx - reach[0], cy - reach[1]
        mx, my = (x + ex) / 2, (y + ey) / 2
        control = f"{x:.1f} {my:.1f} {ex:.1f} {my:.1f}" if down else f"{mx:.1f} {y:.1f} {mx:.1f} {ey:.1f}"
        path.append(f"C{control} {ex:.1f} {ey:.1f}")
        x, y = cx + reach[0], cy + reach[1]
        if number < len(points) - 1:
            path.append(f"L{x:.1f} {y:.1f}")
    return "".join(path)


def _box(box: Box, x: float, y: float) -> str:
    title = box.title if len(box.title) <= _LONGEST else box.title[: _LONGEST - 1] + "…"
    left, top = x - _WIDTH / 2, y - _HEIGHT / 2
    drawing = (
        f'<g class="box {escape(box.state)}"><title>{escape(f"{box.title}: {box.state}, {box.note}")}</title>'
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{_WIDTH}" height="{_HEIGHT}" rx="9"/>'
        f'<text class="icon" x="{left + 10:.1f}" y="{top + 25:.1f}">{_ICONS.get(box.state, "")}</text>'
        f'<text class="name" x="{left + 27:.1f}" y="{top + 25:.1f}">{escape(title)}</text>'
        f'<text class="note" x="{left + 27:.1f}" y="{top + 43:.1f}">{escape(box.note)}</text></g>'
    )
    return f'<a href="{escape(box.link)}">{drawing}</a>' if box.link else drawing
