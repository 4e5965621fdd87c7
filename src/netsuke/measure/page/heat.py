"""The heat map of `netsuke sensitivity` as one HTML file that needs no network and no script."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from netsuke.errors import NetsukeError
from netsuke.measure.page import figures, frame
from netsuke.measure.page.markup import Markup, finite, tag

Document = dict[str, Any]
Cells = dict[str, dict[float, Document]]

# technique: heading, what a level is called, and what is said of it
TECHNIQUES = {
    "bits": (
        "Width of the weights",
        "{:g} bit",
        "Weights rounded to so many bits, one scale an output channel.",
    ),
    "unstructured": (
        "Single weights pruned",
        "{:.0%}",
        "The smallest weights set to 0. Zeros alone save no bytes and no time.",
    ),
    "channels": (
        "Channels pruned",
        "{:.0%}",
        "Output channels of the smallest L1 norm taken out, with all that falls with them.",
    ),
}
LEGEND = (0.0, 0.001, 0.005, 0.02, 0.1, 0.5)  # falls in accuracy that the key shows
FAINT = 0.001  # of accuracy: where colour begins to show


def write(document: Document, path: str | Path) -> None:
    """Write the page of a sensitivity analysis (schema 1 of `netsuke sensitivity --json`) in one step.

    Raises NetsukeError where the file cannot be written or the document is of another schema.
    """
    frame.save(render(document), path)


def render(document: Document) -> str:
    """The page as text: one self-contained HTML document."""
    if document.get("schema") != 1:
        raise NetsukeError(f"a sensitivity of schema {document.get('schema')!r}: this version draws schema 1")
    document = finite(document)
    maps = [_map(technique, document) for technique in TECHNIQUES]
    body = tag("body", _header(document), tag("main", _key(document), maps, _about(document)))
    return f"<!doctype html>\n{tag('html', frame.head(_title(document)), body, lang='en')}\n"


def shade(fall: float) -> float:
    """How strongly a fall in accuracy is coloured, 0 to 1: logarithmic, since a tenth of a point matters as well."""
    return min(1.0, math.log1p(max(fall, 0.0) / FAINT) / math.log1p(1 / FAINT))


def points(fall: float) -> str:
    """A change of accuracy in points as a cell shows it: -0.35, 0.00, +0.05."""
    text = f"{-100 * fall:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text.replace("-", "\u2212")


def _title(document: Document) -> str:
    return f"Sensitivity of {document.get('artifact')} on {document.get('data')}"


def _header(document: Document) -> Markup:
    baseline = document["baseline"]
    parts = (
        f"{figures.percent(baseline['accuracy'])} % right, loss {baseline['loss']:.4f}, as it is",
        f"{figures.plural(document['n'], 'image')} of the {document['split']} split",
        figures.plural(len({row["layer"] for row in document["rows"]}), "layer"),
    )
    return tag("header", tag("h1", _title(document)), tag("p", " · ".join(parts), class_="muted"))


def _key(document: Document) -> Markup:
    samples = [tag("span", points(fall), class_="heat-cell", style=_style(fall)) for fall in LEGEND]
    error = math.sqrt(max(_wrong(document), 1 / document["n"]) / document["n"])
    said = (
        "Each cell is the change of accuracy, in points of a hundred, when this layer alone is changed so far and all"
        " others stay as they are. On so many images an accuracy has itself a standard error of"
        f" {figures.percent(error)} points. What several layers lose together is not in the map."
    )
    return tag(
        "section", tag("p", said), tag("p", "Colour: ", samples, class_="key", aria_label="Colour scale")
    )


def _wrong(document: Document) -> float:
    accuracy = document["baseline"]["accuracy"]
    return float(accuracy * (1 - accuracy))


def _style(fall: float) -> str:
    return f"--a: {shade(fall):.3f}"


def _map(technique: str, document: Document) -> Markup | None:
    rows = [row for row in document["rows"] if row["technique"] == technique]
    if not rows:
        return None
    heading, level_text, said = TECHNIQUES[technique]
    levels = sorted({row["level"] for row in rows}, reverse=technique == "bits")
    cells: Cells = {}
    for row in rows:
        cells.setdefault(row["layer"], {})[row["level"]] = row
    heads = [tag("th", level_text.format(level), scope="col") for level in levels]
    columns = (tag("th", name, scope="col") for name in ("layer", "kind", "weights"))
    body = [_layer(found, [found.get(level) for level in levels]) for found in cells.values()]
    table = tag("table", tag("thead", tag("tr", columns, heads)), tag("tbody", body), class_="figures heat")
    return tag(
        "section",
        tag("h2", heading),
        tag("p", said, class_="muted"),
        tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=heading),
        id=technique,
    )


def _layer(found: dict[float, Document], cells: list[Document | None]) -> Markup:
    any_row = next(iter(found.values()))
    return tag(
        "tr",
        tag("th", any_row["layer"], scope="row"),
        tag("td", any_row["kind"], class_="text"),
        tag("td", figures.whole(any_row["parameters"])),
        [_cell(row) for row in cells],
    )


def _cell(row: Document | None) -> Markup:
    if row is None or row["accuracy"] is None:
        return tag("td", figures.MISSING, class_="none", aria_label="not measured")
    fall = row["baseline"] - row["accuracy"]
    loss = "not finite" if row["loss"] is None else f"{row['loss']:.4f}"
    said = f"{figures.percent(row['accuracy'])} % right, loss {loss}; weights take {row['bytes']:,} bytes"
    return tag("td", points(fall), style=_style(fall), title=said)


def _about(document: Document) -> Markup:
    version = (document.get("versions") or {}).get("netsuke")
    said = (
        f"Drawn with seed {document['seed']} from the {document['split']} split; test images were not looked at. "
        "Activations stay in float, so that a map tells of weights only."
    )
    made = f"Made by netsuke {version or ''} with `netsuke sensitivity`."
    return tag("section", tag("h2", "How it was measured"), tag("p", said), tag("p", made, class_="muted"))
