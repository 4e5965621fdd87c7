"""The page of `netsuke evaluate --images --html`: figures, accuracy over coverage, every error with its reasons."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from netsuke.measure.page import figures, frame
from netsuke.measure.page.markup import Markup, finite, tag
from netsuke.measure.reasons import REASONS

Document = dict[str, Any]
WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM = 560, 260, 52, 24, 36
STYLE = """
.gallery { display: grid; list-style: none; padding: 0;
  grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: .8rem; }
.gallery li { background: var(--panel); border-radius: 8px; padding: .6rem .8rem;
  overflow-wrap: anywhere; font-size: .88rem; }
.gallery img { width: 100%; max-height: 12rem; object-fit: contain; background: #fff; border-radius: 4px; }
.gallery b { font-variant-numeric: tabular-nums; font-size: 1.05rem; }
.line { fill: none; stroke: var(--accent); stroke-width: 2; }
.axis { stroke: var(--rule); } text { fill: var(--muted); font-size: 12px; }
"""


def write(document: Document, path: str | Path) -> None:
    """Write the page in one step. Raises NetsukeError where the file cannot be written."""
    frame.save(render(document), path)


def render(document: Document) -> str:
    """The page as text: one HTML document without script, which fetches nothing."""
    d = finite(document)
    wrong = [row for row in d["images"] if not row["exact"]]
    body = tag(
        "body",
        tag("header", tag("h1", f"{d['model']} on {d['folder']}"), tag("p", _said(d), class_="muted")),
        tag(
            "main",
            tag("section", tag("h2", "Figures"), _table(d)),
            tag("section", tag("h2", "Accuracy of the surest answers"), _curve(d["curve"])),
            tag(
                "section",
                tag("h2", f"Errors ({len(wrong)})"),
                _reasons(wrong),
                tag("ul", map(_card, wrong), class_="gallery"),
            ),
        ),
        tag("style", Markup(STYLE)),
    )
    return f"<!doctype html>\n{tag('html', frame.head(d['folder']), body, lang='en')}\n"


def lines(document: Document) -> list[tuple[str, str, str, str]]:
    """(figure, value, 95 % interval, of how many) for the tables of the page and of the terminal."""
    d = document
    rows = [
        _line("exact strings", d["exact"], "images"),
        _line(
            "digits right",
            d["digits_right"],
            f"digits in {d['digits_right']['n']} images",
            d["digits_right"]["digits"],
        ),
        _line("character error rate", d["character_error_rate"], "images"),
        _line("accepted (coverage)", d["coverage"], "images"),
        _line("exact among the accepted", d["accuracy_accepted"], "images"),
    ]
    if d.get("calibration_error") is not None:
        rows.append(
            ("expected calibration error", f"{d['calibration_error']:.4f}", "", f"{d['exact']['n']:,} images")
        )
    if "invented" in d:
        rows.append(_line("a digit accepted where there is none", d["invented"], "images"))
    if "detection" in d:
        found, n = d["detection"], d["detection"]["digits"]
        for key, what in (("precision", "box precision"), ("recall", "box recall"), ("f1", "box F1")):
            rows.append(_line(f"{what} at IoU {found['iou']:g}", found[key], "digits", n))
        rows.append(_line("digits found and right", found["found_and_right"], "digits", n))
    if "segmentation" in d:
        rows.append(_line("mask IoU", d["segmentation"]["iou"], "digits", d["segmentation"]["digits"]))
    return rows


def _line(what: str, share: dict[str, Any], unit: str, n: int | None = None) -> tuple[str, str, str, str]:
    if share["value"] is None:
        return what, figures.MISSING, "", f"0 {unit}"
    between = "" if share["low"] is None else f"{share['low']:.2%} to {share['high']:.2%}"
    return what, f"{share['value']:.2%}", between, f"{share['n'] if n is None else n:,} {unit}"


def _said(d: Document) -> str:
    failed = f", {d['failed']} of them unreadable" if d["failed"] else ""
    return f"{figures.plural(d['n'], 'image')}{failed}. Intervals are 95 %: Wilson's, or a bootstrap over images."


def _table(d: Document) -> Markup:
    head = [tag("th", text) for text in ("figure", "value", "95 % interval", "of")]
    rows = [tag("tr", tag("th", row[0]), [tag("td", cell) for cell in row[1:]]) for row in lines(d)]
    return tag(
        "div",
        tag("table", tag("thead", tag("tr", head)), tag("tbody", rows), class_="figures"),
        class_="scroll",
    )


def _curve(points: list[dict[str, float]]) -> Markup:
    """Accuracy over coverage as an SVG line."""
    if len(points) < 2:
        return tag("p", "Too few answers for a curve.", class_="muted")
    low = min(0.9, *(p["accuracy"] for p in points))

    def at(coverage: float, accuracy: float) -> tuple[float, float]:
        x = LEFT + coverage * (WIDTH - LEFT - RIGHT)
        return x, 12 + (1 - accuracy) / (1 - low) * (HEIGHT - BOTTOM - 12)

    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(p["coverage"], p["accuracy"]) for p in points))
    marks = []
    for i in range(5):
        y = at(0, low + (1 - low) * i / 4)[1]
        marks += [
            tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="axis"),
            tag("text", f"{low + (1 - low) * i / 4:.1%}", x=LEFT - 6, y=y + 4, text_anchor="end"),
            tag("text", f"{i / 4:.0%}", x=at(i / 4, 1)[0], y=HEIGHT - BOTTOM + 18, text_anchor="middle"),
        ]
    line = tag("polyline", points=path, class_="line")
    view = f"0 0 {WIDTH} {HEIGHT}"
    return tag(
        "figure",
        tag("figcaption", "Share of the images answered (across), share of these that is exact (up)."),
        tag("svg", marks, line, viewBox=view, width=WIDTH, role="img", aria_label="accuracy over coverage"),
    )


def _reasons(wrong: list[Document]) -> Markup | None:
    counts = Counter(reason for row in wrong for reason in row.get("reasons", ()))
    if not counts:
        return None
    items = [
        tag("li", tag("strong", f"{name}: {n}"), f" ({REASONS[name]})") for name, n in counts.most_common()
    ]
    return tag("ul", items)


def _card(row: Document) -> Markup:
    picture = row.get("image")
    said = row["said"] or "nothing"
    return tag(
        "li",
        picture and tag("img", src=f"data:image/jpeg;base64,{picture}", alt=f"{row['text']} read as {said}"),
        tag("p", tag("b", f"{row['text'] or 'no digit'} → {said}"), f"  {row['confidence']:.1%} sure"),
        tag("p", ", ".join(row.get("reasons", ())) or "no plain reason", class_="muted"),
        tag("p", row["file"], class_="muted"),
    )
