"""The tables of the report: all models, every backend, what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from netsuke.measure.page import figures
from netsuke.measure.page.markup import Markup, join, tag

Model = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of figures: its value (which sorts it), its text, and which end of it is better."""

    group: str
    title: str
    unit: str
    value: Callable[[Model], Any]
    text: Callable[[Model], str]
    better: Callable[[Any], Any] | None = None  # max or min of the values; None where neither is


def _figure(
    group: str,
    title: str,
    unit: str,
    key: str,
    text: Callable[[Any], str] = figures.whole,
    better: Callable[[Any], Any] | None = min,
) -> Column:
    return Column(group, title, unit, lambda m: m.get(key), lambda m: text(m.get(key)), better)


def _share(title: str, key: str, count: bool = False) -> Column:
    unit = "%, mean ± sd (n)" if count else "%, mean ± sd"
    return Column(
        "right answers",
        title,
        unit,
        lambda m: figures.mean(m.get(key)),
        lambda m: figures.spread_percent(m.get(key), count),
        max,
    )


COLUMNS = (
    _share("accuracy", "accuracy", count=True),
    _share("macro F1", "f1"),
    _figure("what a device must hold", "parameters", "", "parameters"),
    _figure("what a device must hold", "size", "bytes", "size_bytes"),
    _figure("what a device must hold", "RAM", "bytes", "ram_bytes"),
    _figure("what an answer costs", "MACs", "", "macs"),
    _figure("what an answer costs", "latency", "µs, median", "latency_us", figures.digits),
    _figure("what an answer costs", "p99", "µs", "p99_us", figures.digits),
    _figure("what an answer costs", "images/s", "in batches", "images_per_s", better=max),
    Column("what an answer costs", "on", "", lambda m: m.get("backend"), lambda m: m.get("backend") or "–"),
    _figure("what an answer costs", "energy", "µJ, est.", "energy_uj", figures.digits),
    _figure("once", "load", "ms", "load_ms", figures.digits),
    Column(
        "once",
        "training",
        "s a run",
        lambda m: figures.mean(m.get("train_s")),
        lambda m: figures.digits(figures.mean(m.get("train_s"))),
        min,
    ),
)


def models_table(models: Sequence[Model]) -> Markup:
    """Every model, most accurate first; columns that no model has a figure for are left out."""
    columns = [column for column in COLUMNS if any(column.value(m) is not None for m in models)]
    best = {column.title: _best(column, models) for column in columns}
    order = sorted(range(len(models)), key=lambda k: -(figures.mean(models[k].get("accuracy")) or 0))
    rows = []
    for index in order:
        cells = [_cell(column, models[index], best[column.title]) for column in columns]
        rows.append(tag("tr", _name(index, models[index]), cells, data_m=index))
    return _scroll("All models", tag("table", _head(columns), tag("tbody", rows), class_="figures sortable"))


def _best(column: Column, models: Sequence[Model]) -> Any:
    """The best figure of a column; None where there is nothing to choose between."""
    known = {column.value(model) for model in models} - {None}
    return column.better(known) if column.better and len(known) > 1 else None


def _head(columns: Sequence[Column]) -> Markup:
    groups = list(dict.fromkeys(column.group for column in columns))
    spans = [
        tag("th", group, scope="colgroup", colspan=sum(column.group == group for column in columns))
        for group in groups
    ]
    starts = {next(c.title for c in columns if c.group == group) for group in groups}
    heads = [
        sorter(
            column.title,
            column.unit,
            order="descending" if column.title == "accuracy" else None,
            first="descending" if column.better is max else "ascending",
            class_="start" if column.title in starts else None,
        )
        for column in columns
    ]
    return tag(
        "thead",
        tag("tr", tag("td"), spans, class_="groups"),
        tag("tr", sorter("model", "", first="ascending"), heads),
    )


def sorter(
    title: str, unit: str, *, order: str | None = None, first: str, class_: str | None = None
) -> Markup:
    """A column's head with the button that sorts by it, `first` this way."""
    button = tag("button", title, tag("small", unit) if unit else None, type="button", data_first=first)
    return tag("th", button, scope="col", aria_sort=order or "none", class_=class_)


def _name(index: int, model: Model) -> Markup:
    bits = model.get("bits")
    kind = "baseline" if model.get("kind") == "baseline" else f"{bits} bit" if bits else None
    return tag(
        "th",
        tag("a", model["name"], href="#model", data_m=index),
        kind and tag("span", kind, class_="chip"),
        scope="row",
        data_v=model["name"],
    )


def _cell(column: Column, model: Model, best: Any) -> Markup:
    value = column.value(model)
    if value is None:
        return tag("td", figures.MISSING, class_="none", aria_label="not measured")
    kinds = ["best"] if best is not None and value == best else []
    kinds += ["text"] if isinstance(value, str) else []
    exact = repr(value) if isinstance(value, float) else value  # sorting must not see a rounded figure
    return tag("td", column.text(model), data_v=exact, class_=" ".join(kinds) or None)


def backends_table(models: Sequence[Model]) -> Markup | None:
    """Latency and throughput on every backend that any model was tried on; None where there is none."""
    names = list(dict.fromkeys(name for model in models for name in model.get("backends") or {}))
    if not names:
        return None
    heads = [
        sorter(title, unit, first=first, class_="start" if title == "median" else None)
        for _ in names
        for title, unit, first in (
            ("median", "µs", "ascending"),
            ("p99", "µs", "ascending"),
            ("images/s", "", "descending"),
        )
    ]
    reasons: dict[str, list[str]] = {}
    rows = []
    for index, model in enumerate(models):
        cells = []
        for name in names:
            timed = (model.get("backends") or {}).get(name) or {}
            if timed.get("missing"):
                reasons.setdefault(f"{name}: {timed['missing']}", []).append(str(model["name"]))
            cells += [
                _timed(timed, key, text)
                for key, text in (
                    ("latency_us", figures.digits),
                    ("p99_us", figures.digits),
                    ("images_per_s", figures.whole),
                )
            ]
        rows.append(tag("tr", _name(index, model), cells, data_m=index))
    spans = [tag("th", name, scope="colgroup", colspan=3) for name in names]
    head = tag(
        "thead",
        tag("tr", tag("td"), spans, class_="groups"),
        tag("tr", sorter("model", "", first="ascending"), heads),
    )
    notes = [
        tag("li", reason, f" ({', '.join(who) if len(who) <= 4 else figures.plural(len(who), 'model')})")
        for reason, who in reasons.items()
    ]
    return join(
        _scroll("Every backend", tag("table", head, tag("tbody", rows), class_="figures sortable")),
        tag("ul", notes, class_="muted") if notes else None,
    )


def _timed(timed: Model, key: str, text: Callable[[Any], str]) -> Markup:
    value = timed.get(key)
    if value is None:
        why = timed.get("missing") or "not measured"
        return tag("td", figures.MISSING, class_="none", aria_label=why, title=why)
    return tag("td", text(value), data_v=repr(value))


def _scroll(title: str, table: Markup) -> Markup:
    """A table wider than the screen scrolls by itself, by touch and by the arrow keys."""
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=title)


def conditions(document: dict[str, Any]) -> Markup:
    """What was measured, on what, with what: enough to measure it again."""
    versions = document.get("versions") or {}
    seeds = document.get("seeds") or []
    rows = {
        "data": join(document.get("data"), ", split ", document.get("split")),
        "data hash": tag("code", document["data_hash"]) if document.get("data_hash") else None,
        "images": figures.whole(document.get("n")) if document.get("n") else None,
        "classes": _listed(document.get("classes") or []),
        "seeds": ", ".join(map(str, seeds)) if seeds else None,
        "hardware": document.get("hardware"),
        "threads": document.get("threads"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()) or None,
    }
    listed = [[tag("dt", term), tag("dd", said)] for term, said in rows.items() if said]
    recipe = document.get("recipe")
    return join(
        tag("dl", listed, class_="facts"),
        recipe
        and tag(
            "details",
            tag("summary", "Recipe that every network was trained by"),
            tag("pre", json.dumps(recipe, indent=2, ensure_ascii=False)),
        ),
    )


def _listed(classes: Sequence[object]) -> str:
    names = ", ".join(map(str, classes[:12]))
    return f"{len(classes)}: {names}" + (", …" if len(classes) > 12 else "")
