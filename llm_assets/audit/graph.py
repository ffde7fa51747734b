"""A lineage as a picture: a layered drawing of a graph without circles (Sugiyama: layers, order, places), written as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 208, 62  # of a box, pixels
GAP, RISE = 26, 46  # between boxes of a layer, between layers
LANE = 24  # width kept free where an edge passes through a layer
SWEEPS = 4  # over the layers, each ordering one by the mean place of its neighbours
FILLS = {"present": "#eef6ee", "removed": "#f2f2f2", "missing": "#fbe3e0", "unreadable": "#fbe3e0", "source": "#e8f0fb", "release": "#fdf3d8"}
STYLE = (
    "text{font-family:system-ui,sans-serif;font-size:11px;fill:#222}"
    ".name{font-size:13px;font-weight:600}"
    "rect{stroke:#8a8f98}"
    "path{fill:none;stroke:#8a8f98;stroke-width:1.2}"
)


@dataclass(frozen=True)
class Box:
    """One node as it is drawn."""

    title: str
    lines: tuple[str, ...]  # at most two, below the title
    kind: str  # a key of FILLS
    target: str | None = None  # where a click leads


Edge = tuple[str, str]  # ids of boxes, from what was used to what was made


def svg(boxes: Mapping[str, Box], edges: Sequence[Edge]) -> str:
    """The drawing, what was used above what was made from it. ``boxes`` maps id to box, each after those it was made from."""
    layers, lanes = _layers(boxes, edges)
    _order(layers, lanes)
    centres = _places(layers, boxes)
    width = max((x + WIDTH / 2 for x, _ in centres.values()), default=0) + GAP
    height = len(layers) * (HEIGHT + RISE) + GAP
    lines = [_curve([centres[one] for one in lane], boxes, lane) for lane in lanes]
    shapes = [_shape(box, *centres[one]) for one, box in boxes.items()]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}" role="img">'
    return "\n".join([head, f"<style>{STYLE}</style>", *lines, *shapes, "</svg>"]) + "\n"


def _layers(boxes: Mapping[str, Box], edges: Sequence[Edge]) -> tuple[list[list[str]], list[list[str]]]:
    """Ids by layer, the longest way from a source deciding; and each edge as a lane of ids, one a layer that it crosses."""
    depth: dict[str, int] = {}
    for one in boxes:
        depth[one] = 1 + max((depth[used] for used, made in edges if made == one), default=-1)
    for one in reversed(list(boxes)):  # what only a deep node uses stands just above it
        below = [depth[made] for used, made in edges if used == one]
        if below and not any(made == one for _, made in edges):
            depth[one] = min(below) - 1
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for one, layer in depth.items():
        layers[layer].append(one)
    lanes = []
    for used, made in edges:
        passed = [f"{used}>{made}@{layer}" for layer in range(depth[used] + 1, depth[made])]
        for layer, one in enumerate(passed, depth[used] + 1):
            layers[layer].append(one)
        lanes.append([used, *passed, made])
    return layers, lanes


def _order(layers: list[list[str]], lanes: Sequence[Sequence[str]]) -> None:
    """Sort each layer by the mean place of its neighbours above, then below, a few times: fewer edges cross."""
    above: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for lane in lanes:
        for upper, lower in pairwise(lane):
            above.setdefault(lower, []).append(upper)
            below.setdefault(upper, []).append(lower)
    for sweep in range(SWEEPS):
        neighbours = above if sweep % 2 == 0 else below
        place = {one: index - len(layer) / 2 for layer in layers for index, one in enumerate(layer)}
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            means = {one: _mean([place[other] for other in neighbours.get(one, ())], place[one]) for one in layer}
            layer.sort(key=means.__getitem__)
            place |= {one: index - len(layer) / 2 for index, one in enumerate(layer)}


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _places(layers: Sequence[Sequence[str]], boxes: Mapping[str, Box]) -> dict[str, tuple[float, float]]:
    """The centre of every box and lane, layers centred on each other."""
    widths = [sum((WIDTH if one in boxes else LANE) + GAP for one in layer) for layer in layers]
    centres = {}
    for number, (layer, width) in enumerate(zip(layers, widths, strict=True)):
        left = (max(widths) - width) / 2 + GAP
        for one in layer:
            size = WIDTH if one in boxes else LANE
            centres[one] = (left + size / 2, GAP + number * (HEIGHT + RISE) + HEIGHT / 2)
            left += size + GAP
    return centres


def _curve(points: Sequence[tuple[float, float]], boxes: Mapping[str, Box], lane: Sequence[str]) -> str:
    """An edge from the lower side of one box to the upper side of another, straight where it passes a layer."""
    x, y = points[0]
    path = f"M{x:.0f},{y + HEIGHT / 2:.0f}"
    bottom = y + HEIGHT / 2
    for one, (x_next, y_next) in zip(lane[1:], points[1:], strict=True):
        top = y_next - HEIGHT / 2
        middle = (bottom + top) / 2
        path += f" C{x:.0f},{middle:.0f} {x_next:.0f},{middle:.0f} {x_next:.0f},{top:.0f}"
        x, bottom = x_next, y_next + HEIGHT / 2
        if one not in boxes:
            path += f" V{bottom:.0f}"
    return f'<path d="{path}"/>'


def _shape(box: Box, x: float, y: float) -> str:
    left, top = x - WIDTH / 2, y - HEIGHT / 2
    texts = [f'<text class="name" x="{left + 10:.0f}" y="{top + 20:.0f}">{escape(box.title)}</text>']
    texts += [f'<text x="{left + 10:.0f}" y="{top + 36 + 14 * number:.0f}">{escape(line)}</text>' for number, line in enumerate(box.lines[:2])]
    shape = f'<rect x="{left:.0f}" y="{top:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{FILLS[box.kind]}"/>' + "".join(texts)
    return f'<a href="{escape(box.target)}">{shape}</a>' if box.target else shape
