"""Accuracy against a cost: one SVG, its Pareto front drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from netsuke.measure.page import figures
from netsuke.measure.page.axes import Axis, error_axis, log_axis
from netsuke.measure.page.labels import Box, place
from netsuke.measure.page.markup import Markup, tag

LEFT, RIGHT, TOP, BOTTOM = 52, 16, 30, 44  # margins in pixels
SIZES = {"wide": (600, 420), "narrow": (350, 340)}  # pixels; the style sheet shows the one that fits


@dataclass(frozen=True)
class Cost:
    """A figure of a model for the x axis."""

    key: str
    title: str
    unit: str

    def of(self, model: dict[str, Any]) -> float | None:
        """None where a logarithmic axis has no place for it."""
        value = model.get(self.key)
        return value if value is not None and value > 0 else None


COSTS = (
    Cost("size_bytes", "stored size", "bytes"),
    Cost("macs", "multiply-accumulates for one image", "MACs"),
    Cost("latency_us", "median latency of one image", "µs"),
    Cost("ram_bytes", "peak working memory", "bytes"),
)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points (cost, accuracy) that no other beats, as indices in the order of their cost.

    One point beats another if it is no worse in both and better in one: equal points stand together.
    """
    kept: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not kept or points[index][1] > points[kept[-1]][1] or points[index] == points[kept[-1]]:
            kept.append(index)
    return kept


def plots(models: Sequence[dict[str, Any]], n: int | None) -> list[Markup]:
    """A figure for each cost that any of the models has."""
    return [figure(models, cost, n) for cost in COSTS if any(_drawn(model, cost) for model in models)]


def figure(models: Sequence[dict[str, Any]], cost: Cost, n: int | None) -> Markup:
    """The plot in two sizes, for a screen and for a phone, and what it leaves out."""
    drawn = [(index, model) for index, model in enumerate(models) if _drawn(model, cost)]
    absent = [model["name"] for model in models if not _drawn(model, cost)]
    note = None
    if absent:
        names = ", ".join(map(str, absent[:6])) + (", …" if len(absent) > 6 else "")
        note = tag("p", f"Not drawn, for want of a figure: {names}.", class_="muted")
    return tag(
        "figure",
        tag("figcaption", tag("strong", "Accuracy against ", cost.title), f", {cost.unit}"),
        [_svg(drawn, cost, n, name) for name in SIZES],
        note,
    )


def _drawn(model: dict[str, Any], cost: Cost) -> bool:
    return cost.of(model) is not None and figures.mean(model.get("accuracy")) is not None


def _svg(drawn: Sequence[tuple[int, dict[str, Any]]], cost: Cost, n: int | None, size: str) -> Markup:
    wide, high = SIZES[size]
    costs = [float(cost.of(model) or 0) for _, model in drawn]
    means = [float(model["accuracy"]["mean"]) for _, model in drawn]
    spreads = [float(model["accuracy"].get("stdev") or 0) for _, model in drawn]
    ends = [m + s for m, s in zip(means, spreads, strict=True)]
    ends += [m - s for m, s in zip(means, spreads, strict=True)]
    x = log_axis(costs, LEFT, wide - RIGHT, most=7 if size == "wide" else 5).spaced(28)
    y = error_axis(ends, 0.5 / (n or 10_000), high - BOTTOM, TOP).spaced(18)
    best = front(list(zip(costs, means, strict=True)))
    places = [(x(c), y(m)) for c, m in zip(costs, means, strict=True)]
    steps = _steps([places[index] for index in best], wide - RIGHT)
    bars = [(y(m + s), y(m - s)) for m, s in zip(means, spreads, strict=True)]
    marks = [
        _mark(index, model, cost, places[k], bars[k] if spreads[k] else None, k in best, k == best[0])
        for k, (index, model) in enumerate(drawn)
    ]
    behind = [k for k in range(len(marks)) if k not in best]
    path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in steps)
    return tag(
        "svg",
        _frame(x, y, wide, high, f"{cost.title}, {cost.unit}"),
        tag("path", d=path, class_="front"),
        [marks[k] for k in (*behind, *best)],  # the front is drawn last, on top
        _labels(drawn, places, bars, best, steps, Box(LEFT, TOP - 4, wide - 2, high - BOTTOM - 2)),
        viewBox=f"0 0 {wide} {high}",
        class_=f"plot {size}",
        role="group",
        aria_label=f"Accuracy against {cost.title}. On the Pareto front: "
        + ", ".join(str(drawn[k][1]["name"]) for k in best),
    )


def _steps(corners: Sequence[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """The best accuracy that each cost can buy: a staircase through the front, on to the right edge."""
    steps = [corners[0]]
    for px, py in corners[1:]:
        steps += [(px, steps[-1][1]), (px, py)]
    return [*steps, (end, steps[-1][1])]


def _frame(x: Axis, y: Axis, wide: int, high: int, title: str) -> Markup:
    """Grid lines, ticks and the names of both axes."""
    left, right, top, bottom = LEFT, wide - RIGHT, TOP, high - BOTTOM
    return tag(
        "g",
        [tag("line", x1=left, x2=right, y1=y(v), y2=y(v), class_="grid") for v, _ in y.ticks],
        [tag("line", x1=x(v), x2=x(v), y1=top, y2=bottom, class_="grid") for v, _ in x.ticks],
        [tag("text", t, x=left - 7, y=y(v) + 4, class_="tick end") for v, t in y.ticks],
        [tag("text", t, x=x(v), y=bottom + 17, class_="tick middle") for v, t in x.ticks],
        tag("text", title, x=(left + right) / 2, y=high - 7, class_="axis middle"),
        tag("text", "accuracy, %", x=8, y=14, class_="axis"),
        aria_hidden="true",
    )


def _mark(
    index: int,
    model: dict[str, Any],
    cost: Cost,
    at: tuple[float, float],
    bar: tuple[float, float] | None,
    on_front: bool,
    first: bool,
) -> Markup:
    """A point with its error bar, a link to the model's details. Arrow keys walk; one point takes Tab."""
    px, py = at
    tip = describe(model, cost)
    if model.get("kind") == "baseline":
        shape = tag("rect", x=px - 4.5, y=py - 4.5, width=9, height=9, class_="dot")
    else:
        shape = tag("circle", cx=px, cy=py, r=5, class_="dot")
    return tag(
        "a",
        bar and tag("path", d=f"M{px:.1f} {bar[0]:.1f}V{bar[1]:.1f}", class_="bar"),
        tag("circle", cx=px, cy=py, r=11, class_="touch"),
        shape,
        href="#model",
        class_="point best" if on_front else "point",
        data_m=index,
        data_x=px,
        data_tip=tip,
        tabindex=0 if first else -1,
        aria_label=tip.replace("\n", ", "),
    )


def describe(model: dict[str, Any], cost: Cost) -> str:
    """The details of a point, a line each; the first is the name."""
    value = cost.of(model)
    shown = figures.digits(value) if cost.unit == "µs" else figures.whole(value)
    where = f" on {model['backend']}" if cost.key == "latency_us" and model.get("backend") else ""
    accuracy = f"{figures.spread_percent(model['accuracy'])} %"
    if (runs := model["accuracy"].get("n") or 1) > 1:
        accuracy += f" over {figures.plural(runs, 'run')}"
    lines = [str(model["name"]), accuracy, f"{shown} {cost.unit}{where}"]
    for other in COSTS:
        if other.key != cost.key and (value := other.of(model)) is not None:
            shown = figures.digits(value) if other.unit == "µs" else figures.whole(value)
            lines.append(f"{shown} {other.unit}" + (" RAM" if other.key == "ram_bytes" else ""))
    return "\n".join(lines)


def _labels(
    drawn: Sequence[tuple[int, dict[str, Any]]],
    places: Sequence[tuple[float, float]],
    bars: Sequence[tuple[float, float]],
    best: Sequence[int],
    steps: Sequence[tuple[float, float]],
    frame: Box,
) -> Markup:
    """Names of the front first, then of the others from the top, each where it meets nothing."""
    points = [(px, py, str(model["name"])) for (px, py), (_, model) in zip(places, drawn, strict=True)]
    order = [*best, *sorted(set(range(len(points))) - set(best), key=lambda k: places[k][1])]
    obstacles = [Box(px - 6, py - 6, px + 6, py + 6) for px, py in places]
    obstacles += [Box(places[k][0] - 2, top, places[k][0] + 2, low) for k, (top, low) in enumerate(bars)]
    lines = [
        Box(min(a[0], b[0]) - 1, min(a[1], b[1]) - 1, max(a[0], b[0]) + 1, max(a[1], b[1]) + 1)
        for a, b in pairwise(steps)
    ]
    patience = [4 if k in best else 2 for k in range(len(points))]
    marks = []
    for label in place(points, order, patience, obstacles, lines, frame):
        leader = None
        if label.leader:
            x1, y1, x2, y2 = label.leader
            leader = tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="leader")
        middle = (label.box.left + label.box.right) / 2
        to_left = label.box.right < places[label.point][0]
        to_right = label.box.left > places[label.point][0]
        at = label.box.right if to_left else label.box.left if to_right else middle
        anchor = "end" if to_left else "start" if to_right else "middle"
        text = tag("text", label.text, x=at, y=label.box.bottom - 3, class_=f"name {anchor}")
        marks.append(tag("g", leader, text, data_m=drawn[label.point][0]))
    return tag("g", marks, class_="names", aria_hidden="true")
