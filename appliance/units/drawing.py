"""The graph of units as DOT, and as a picture that needs nothing from elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from appliance.units.graph import Edges, Graph, closure

_COLOURS = {
    "ready": "#2e7d32", "exited": "#2e7d32", "starting": "#b26a00", "waiting": "#b26a00", "reloading": "#b26a00",
    "stopping": "#b26a00", "backoff": "#c62828", "failed": "#c62828",
}  # fmt: skip
_STYLES = {
    "requires": "color=black", "binds_to": "color=black,penwidth=2", "wants": "color=grey60",
    "part_of": "color=steelblue,style=dashed", "conflicts": "color=red,dir=both", "after": "color=green,style=dotted",
    "on_failure": "color=red,style=dashed", "on_success": "color=green,style=dashed",
}  # fmt: skip
_WIDTH, _HEIGHT, _ACROSS, _DOWN = 150, 30, 180, 56
_UNITS_DRAWN_MAX = 300


def near(graph: Graph, names: Iterable[str]) -> frozenset[str]:
    """These and all that they are tied to, near or far; everything when there are none."""
    some = tuple(names)
    if not some:
        return graph.names
    down: tuple[Edges, ...] = (graph.requires, graph.wants, graph.part_of, graph.on_failure, graph.on_success)
    return frozenset((*some, *closure(some, down), *graph.stopped_with(some)))


def to_dot(graph: Graph, names: frozenset[str], states: Mapping[str, str]) -> str:
    """For Graphviz: an arrow leads from a unit to what it requires, wants, comes after."""
    lines = ["digraph units {", "  rankdir=LR;", '  node [shape=box, style=rounded, fontname="sans-serif"];']
    for name in sorted(names):
        colour = _COLOURS.get(states.get(name, ""), "#757575")
        lines.append(f'  {_quoted(name)} [color="{colour}", tooltip={_quoted(states.get(name, ""))}];')
    for kind, style in _STYLES.items():
        edges: Edges = getattr(graph, kind)
        for name in sorted(names & edges.keys()):
            for other in edges[name]:
                bound = kind == "requires" and other in graph.binds_to.get(name, ())
                if other in names and not bound and (kind != "conflicts" or name < other):
                    lines.append(f"  {_quoted(name)} -> {_quoted(other)} [{style}, tooltip={_quoted(kind)}];")
    return "\n".join([*lines, "}"]) + "\n"


def to_svg(graph: Graph, names: frozenset[str], states: Mapping[str, str]) -> str:
    """Columns from left to right in the order of the start; lines for what is required, wanted, waited for."""
    drawn = sorted(names)[:_UNITS_DRAWN_MAX]
    column = _columns(graph, drawn)
    rows: dict[int, int] = {}
    place = {}
    for name in sorted(drawn, key=lambda name: (column[name], name)):
        row = rows[column[name]] = rows.get(column[name], -1) + 1
        place[name] = (10 + column[name] * _ACROSS, 10 + row * _DOWN)
    width = 20 + max((x for x, _ in place.values()), default=0) + _WIDTH
    height = 20 + max((y for _, y in place.values()), default=0) + _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="sans-serif" font-size="12"><title>Units and what they need</title>'
    ]
    for kind, colour, dash in (("after", "#9e9e9e", "2 4"), ("wants", "#9e9e9e", ""), ("requires", "#616161", ""),
                               ("conflicts", "#c62828", "6 3")):  # fmt: skip
        edges: Edges = getattr(graph, kind)
        for name in drawn:
            for other in edges.get(name, ()):
                if other in place and (kind != "conflicts" or name < other):
                    parts.append(_line(place[other], place[name], colour, dash, f"{name}: {kind} {other}"))
    for name, (x, y) in place.items():
        state = states.get(name, "")
        colour = _COLOURS.get(state, "#757575")
        label = name if len(name) <= 20 else f"{name[:18]}…"
        parts.append(
            f'<g><title>{escape(name)}: {escape(state)}</title>'
            f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" '
            f'rx="6" fill="{colour}" fill-opacity="0.12" stroke="{colour}"/><text x="{x + _WIDTH // 2}" y="{y + 19}" '
            f'text-anchor="middle" fill="currentColor">{escape(label)}</text></g>'
        )
    return "".join([*parts, "</svg>"]) + "\n"


def _columns(graph: Graph, drawn: list[str]) -> dict[str, int]:
    known = set(drawn)
    column = dict.fromkeys(drawn, 0)
    for _ in range(min(len(drawn), 60)):  # a circle of requirements ends here
        moved = False
        for name in drawn:
            before = {*graph.after.get(name, ()), *graph.requires.get(name, ()), *graph.wants.get(name, ())} & known
            least = max((column[one] + 1 for one in before - {name}), default=0)
            if least > column[name] and least < 60:
                column[name], moved = least, True
        if not moved:
            break
    return column


def _line(start: tuple[int, int], end: tuple[int, int], colour: str, dash: str, words: str) -> str:
    x, y, to_x, to_y = start[0] + _WIDTH, start[1] + _HEIGHT // 2, end[0], end[1] + _HEIGHT // 2
    middle = (x + to_x) // 2
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<path d="M{x} {y}C{middle} {y} {middle} {to_y} {to_x} {to_y}" fill="none" stroke="{colour}"{dashes}>'
        f"<title>{escape(words)}</title></path>"
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
