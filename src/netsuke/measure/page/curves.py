"""Learning curves: validation accuracy and loss of every model by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netsuke.measure.page import figures
from netsuke.measure.page.axes import Axis, error_axis, linear_axis, log_axis
from netsuke.measure.page.markup import Markup, tag

LEFT, RIGHT, TOP, BOTTOM = 52, 14, 30, 40
SIZES = {"wide": (600, 330), "narrow": (350, 260)}
SERIES = 8  # colours of the style sheet; further models are grey until pointed at

Curve = list[tuple[float, float | None]]


def section(models: Sequence[dict[str, Any]], n: int | None) -> Markup | None:
    """Both plots and a table that is their legend; None where no model has a history."""
    trained = [(index, model) for index, model in enumerate(models) if model.get("history")]
    if not trained:
        return None
    trained.sort(key=lambda item: -(figures.mean(item[1].get("accuracy")) or 0))
    plots = [
        _figure(trained, "val_accuracy", "Validation accuracy", "%, logarithmic in the error", n),
        _figure(trained, "val_loss", "Validation loss", "logarithmic", n),
    ]
    return tag(
        "section",
        tag("h2", "Learning curves"),
        tag("p", "Point at a curve or a row to pick one model out of the others.", class_="muted"),
        tag("div", plots, class_="pair"),
        _legend(trained),
        id="curves",
    )


def _figure(
    trained: Sequence[tuple[int, dict[str, Any]]], key: str, title: str, unit: str, n: int | None
) -> Markup | None:
    curves = [
        (rank, index, str(model["name"]), _curve(model["history"], key))
        for rank, (index, model) in enumerate(trained)
    ]
    curves = [item for item in curves if any(value is not None for _, value in item[3])]
    if not curves:
        return None
    return tag(
        "figure",
        tag("figcaption", tag("strong", title), f", {unit}"),
        [_svg(curves, key, title, n, size) for size in SIZES],
    )


def _curve(history: Sequence[dict[str, Any]], key: str) -> Curve:
    """(epoch, value) with gaps as None; a loss of 0 is a gap, for the axis is logarithmic."""
    return [
        (
            row.get("epoch", number),
            None if key == "val_loss" and not (row.get(key) or 0) > 0 else row.get(key),
        )
        for number, row in enumerate(history, 1)
    ]


def _svg(
    curves: Sequence[tuple[int, int, str, Curve]], key: str, title: str, n: int | None, size: str
) -> Markup:
    wide, high = SIZES[size]
    values = [value for _, _, _, curve in curves for _, value in curve if value is not None]
    epochs = [epoch for _, _, _, curve in curves for epoch, _ in curve]
    x = linear_axis(min(epochs), max(epochs), LEFT, wide - RIGHT, most=10 if size == "wide" else 6)
    if key == "val_accuracy":
        y = error_axis(values, 0.5 / (n or 10_000), high - BOTTOM, TOP)
    else:
        y = log_axis(values, high - BOTTOM, TOP)
    return tag(
        "svg",
        _frame(x, y.spaced(18), wide, high, title.lower()),
        [_line(*item, x, y, "%" if key == "val_accuracy" else "") for item in reversed(curves)],
        viewBox=f"0 0 {wide} {high}",
        class_=f"plot {size}",
        role="img",
        aria_label=f"{title} by epoch of {figures.plural(len(curves), 'model')}; "
        "the table below the curves has the figures",
    )


def _frame(x: Axis, y: Axis, wide: int, high: int, title: str) -> Markup:
    right, bottom = wide - RIGHT, high - BOTTOM
    return tag(
        "g",
        [tag("line", x1=LEFT, x2=right, y1=y(v), y2=y(v), class_="grid") for v, _ in y.ticks],
        [tag("text", t, x=LEFT - 7, y=y(v) + 4, class_="tick end") for v, t in y.ticks],
        [tag("text", t, x=x(v), y=bottom + 17, class_="tick middle") for v, t in x.ticks],
        tag("text", "epoch", x=(LEFT + right) / 2, y=high - 6, class_="axis middle"),
        tag("text", title, x=8, y=14, class_="axis"),
    )


def _line(rank: int, index: int, name: str, curve: Curve, x: Axis, y: Axis, unit: str) -> Markup:
    """One curve, broken where a value is missing, under a wider one that catches the pointer."""
    path, down = "", False
    for epoch, value in curve:
        if value is not None:
            path += f"{'L' if down else 'M'}{x(epoch):.1f} {y(value):.1f}"
        down = value is not None
    last = next(value for _, value in reversed(curve) if value is not None)
    ends = figures.percent(last) if unit else figures.digits(last)
    alone = [(e, v) for e, v in curve if v is not None]
    dots = [tag("circle", cx=x(e), cy=y(v), r=3, class_="end") for e, v in alone] if len(alone) < 3 else None
    return tag(
        "g",
        tag("path", d=path, class_="curve"),
        dots,
        tag("path", d=path, class_="touch"),
        class_=f"line s{rank}" if rank < SERIES else "line",
        data_m=index,
        data_tip=f"{name}\nends at {ends} {unit}".rstrip(),
    )


def _legend(trained: Sequence[tuple[int, dict[str, Any]]]) -> Markup:
    heads = (
        "model",
        "epochs",
        "best validation accuracy, %",
        "at epoch",
        "last validation loss",
        "s an epoch",
    )
    return tag(
        "div",
        tag(
            "table",
            tag("caption", "Training, one run of each model", class_="sr"),
            tag("thead", tag("tr", [tag("th", head, scope="col") for head in heads])),
            tag("tbody", [_legend_row(rank, *item) for rank, item in enumerate(trained)]),
            class_="figures legend",
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label="Table of the learning curves",
    )


def _legend_row(rank: int, index: int, model: dict[str, Any]) -> Markup:
    history = model["history"]
    right = [
        (row["val_accuracy"], row.get("epoch")) for row in history if row.get("val_accuracy") is not None
    ]
    best = max(right, key=lambda pair: pair[0], default=(None, None))
    seconds = [row["seconds"] for row in history if row.get("seconds") is not None]
    swatch = tag("i", class_=f"swatch s{rank}" if rank < SERIES else "swatch", aria_hidden="true")
    cells = (
        len(history),
        figures.percent(best[0]),
        figures.MISSING if best[1] is None else best[1],
        figures.digits(history[-1].get("val_loss")),
        figures.digits(sum(seconds) / len(seconds) if seconds else None),
    )
    link = tag("a", swatch, model["name"], href="#model", data_m=index)
    return tag("tr", tag("th", link, scope="row"), [tag("td", cell) for cell in cells], data_m=index)
