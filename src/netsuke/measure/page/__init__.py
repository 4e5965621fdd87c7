"""The report of a comparison as one HTML file that needs no network: `write(document, path)`.

Python makes the tables and the plots, so that they are there without a script; `script.js` sorts, highlights
and shows the model that the reader picks, from the document embedded in the page.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from netsuke.errors import NetsukeError
from netsuke.measure.page import curves, figures, frame, pareto, tables
from netsuke.measure.page.markup import Markup, embedded, finite, join, tag

__all__ = ["render", "write"]

Document = dict[str, Any]
SCRIPT = "script.js"


def write(document: Document, path: str | Path) -> None:
    """Write the page of a comparison (schema 1 of `netsuke compare --json`) in one step.

    Raises NetsukeError where the file cannot be written or the document is of another schema.
    """
    frame.save(render(document), path)


def render(document: Document) -> str:
    """The page as text: one self-contained HTML document."""
    if document.get("schema") != 1:
        raise NetsukeError(f"a report of schema {document.get('schema')!r}: this version draws schema 1")
    document = finite(document)
    models = document["models"]
    n = document.get("n")
    body = tag(
        "body",
        _header(document),
        tag(
            "main",
            _highlights(models),
            _models(models),
            _plots(models, n),
            _one(models),
            curves.section(models, n),
            _about(document),
        ),
        _footer(document),
        tag("div", id="tip", aria_hidden="true", hidden=""),
        tag("script", embedded(document), type="application/json", id="data"),
        tag("script", frame.resource(SCRIPT)),
    )
    return f"<!doctype html>\n{tag('html', frame.head(document.get('title'), SCRIPT), body, lang='en')}\n"


def _header(document: Document) -> Markup:
    seeds = document.get("seeds") or []
    parts = [
        figures.plural(len(document["models"]), "model"),
        f"{document.get('data')} ({document.get('split')} split)",
        figures.plural(document["n"], "image") if document.get("n") else None,
        figures.plural(len(document.get("classes") or []), "class"),
        figures.plural(len(seeds), "seed") if seeds else None,
        document.get("hardware"),
    ]
    links = [("#models", "Table"), ("#plots", "Trade-offs"), ("#model", "One model")]
    links += [("#curves", "Learning curves")] if any(m.get("history") for m in document["models"]) else []
    links += [("#about", "How it was measured")]
    return tag(
        "header",
        tag("h1", document.get("title")),
        tag("p", " · ".join(str(part) for part in parts if part), class_="muted"),
        tag(
            "nav",
            [tag("a", text, href=href) for href, text in links],
            tag("a", "Download data (JSON)", id="download", hidden="", class_="button"),
            aria_label="Sections",
        ),
    )


def _highlights(models: list[Document]) -> Markup | None:
    """The extremes, each with its accuracy: the smallest model may be a poor one."""
    extremes = (
        ("most accurate", lambda m: figures.mean(m.get("accuracy")), max, None),
        ("smallest", lambda m: m.get("size_bytes"), min, lambda v: f"{figures.whole(v)} bytes"),
        ("fastest", lambda m: m.get("latency_us"), min, lambda v: f"{figures.digits(v)} µs"),
        ("least energy", lambda m: m.get("energy_uj"), min, lambda v: f"{figures.digits(v)} µJ"),
    )
    cards = []
    for title, value, best, text in extremes:
        known = [(value(m), -index) for index, m in enumerate(models) if value(m) is not None]
        if not known:
            continue
        index = -(max(known) if best is max else min(known, key=lambda pair: (pair[0], -pair[1])))[1]
        model = models[index]
        accuracy = figures.spread_percent(model.get("accuracy"))
        parts = [text(value(model)) if text else None, f"{accuracy} %"]
        cards.append(
            tag(
                "li",
                tag("span", title, class_="muted"),
                tag("a", model["name"], href="#model", data_m=index),
                tag("span", " · ".join(part for part in parts if part)),
            )
        )
    return tag("ul", cards, class_="cards", aria_label="Highlights") if len(models) > 1 else None


def _models(models: list[Document]) -> Markup:
    best = " The best figure of each column is bold." if len(models) > 1 else ""
    backends = tables.backends_table(models)
    return tag(
        "section",
        tag("h2", "All models"),
        tag(
            "p", f"Press a column's name to sort by it, a model's name for its details.{best}", class_="muted"
        ),
        tables.models_table(models),
        backends and tag("h3", "Latency on every backend"),
        backends,
        id="models",
    )


def _plots(models: list[Document], n: int | None) -> Markup | None:
    plots = pareto.plots(models, n)
    if not plots:
        return None
    accuracies = [a for a in (figures.mean(m.get("accuracy")) for m in models) if a is not None]
    said = [
        "The line is the Pareto front: models that no other beats in both accuracy and cost.",
        "The vertical axis is logarithmic in the error, so each equal step up removes the same share of it."
        " Bars are ± one standard deviation over runs. Where points crowd, some have no name: point at them.",
    ]
    if n:
        best = max(accuracies)
        wrong = max(1 - best, 1 / n)  # no error among n images does not make the next one sure
        error = math.sqrt(wrong * (1 - wrong) / n)
        said.append(
            f"On {figures.plural(n, 'image')} an accuracy of {figures.percent(best)} % has itself a standard "
            f"error of {figures.percent(error)} points: do not read more into a difference than that."
        )
    kinds = [("point best", "on the front"), ("point", "not on it")]
    key = [tag("span", _sample(class_, False), text) for class_, text in kinds]
    if any(m.get("kind") == "baseline" for m in models):
        key.append(tag("span", _sample("point", True), "classical baseline (square)"))
    return tag(
        "section",
        tag("h2", "Trade-offs"),
        tag("p", " ".join(said), class_="muted"),
        tag("p", key, class_="key"),
        tag("div", plots, class_="pair"),
        id="plots",
    )


def _sample(class_: str, square: bool) -> Markup:
    """A marker for the key, as the plots draw it."""
    if square:
        shape = tag("rect", x=2.5, y=2.5, width=9, height=9, class_="dot")
    else:
        shape = tag("circle", cx=7, cy=7, r=5, class_="dot")
    return tag("svg", tag("g", shape, class_=class_), width=14, height=14, aria_hidden="true")


def _one(models: list[Document]) -> Markup:
    """A place for one model's confusion matrix, classes and errors; the script fills it."""
    order = sorted(range(len(models)), key=lambda k: -(figures.mean(models[k].get("accuracy")) or 0))
    options = [tag("option", models[k]["name"], value=k) for k in order]
    return tag(
        "section",
        tag("h2", "One model"),
        tag(
            "noscript",
            tag("p", "Confusion matrices and errors are drawn by a script, which is switched off."),
        ),
        tag(
            "p",
            tag("label", "Model ", tag("select", options, id="choice", autocomplete="off")),
            class_="pick",
        ),
        tag("div", id="details"),
        id="model",
    )


def _about(document: Document) -> Markup:
    energy = document.get("energy") or {}
    notes = document.get("notes") or []
    return tag(
        "section",
        tag("h2", "How it was measured"),
        tables.conditions(document),
        energy
        and join(
            tag("h3", "Energy"),
            tag("p", "Energy for an image is estimated, not measured:"),
            tag("p", tag("code", energy.get("formula")), class_="formula"),
            tag("p", "Source: ", energy.get("source")),
        ),
        notes and join(tag("h3", "Notes"), tag("ul", [tag("li", note) for note in notes])),
        id="about",
    )


def _footer(document: Document) -> Markup:
    version = (document.get("versions") or {}).get("netsuke")
    return tag("footer", tag("p", f"Made by netsuke {version or ''} with `netsuke compare`.", class_="muted"))
