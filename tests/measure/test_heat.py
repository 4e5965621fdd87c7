"""The heat map: what its cells and colours say, in a browser and to a parser, whatever the names hold."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measure.test_page import HOSTILE, Page, browse
from netsuke.errors import NetsukeError
from netsuke.measure.page import heat


def row(layer: str, technique: str, level: float, accuracy: float, loss: float = 0.1) -> dict[str, Any]:
    return {
        "layer": layer, "kind": "conv2d", "parameters": 1200, "bytes": 600, "technique": technique, "level": level,
        "accuracy": accuracy, "loss": loss, "baseline": 0.9,
    }  # fmt: skip


DOCUMENT: dict[str, Any] = {
    "schema": 1,
    "artifact": "lenet5.netsuke",
    "data": "mnist",
    "baseline": {"accuracy": 0.9, "loss": 0.1},
    "split": "val",
    "n": 2000,
    "seed": 0,
    "versions": {"netsuke": "0.1.0"},
    "rows": [
        row("first", "bits", 8, 0.9),
        row("first", "bits", 1, 0.4),
        row("last", "bits", 8, 0.9005),
        row("first", "unstructured", 0.5, 0.8965),
        row("first", "channels", 0.5, 0.85),
    ],
}


def cells(text: str) -> list[str]:
    return re.findall(r'<td style="--a: [0-9.]+" title="[^"]*">([^<]*)</td>', text)


def test_cells_are_changes_in_points() -> None:
    text = heat.render(DOCUMENT)
    assert cells(text) == ["0.00", "\u221250.00", "+0.05", "\u22120.35", "\u22125.00"]
    assert "40.00 % right, loss 0.1000; weights take 600 bytes" in text
    assert text.count('aria-label="not measured"') == 1  # the last layer was not tried at one bit
    parsed = Page(text)
    assert parsed.open == []
    heads = [attributes for name, attributes in parsed.tags if name == "th"]
    assert all(attributes.get("scope") in ("col", "row") for attributes in heads)
    assert "0.67 points" in parsed.text  # sqrt(0.9 * 0.1 / 2000)


def test_the_page_asks_for_nothing_and_runs_nothing() -> None:
    text = heat.render(DOCUMENT)
    parsed = Page(text)
    policy = next(a["content"] for n, a in parsed.tags if n == "meta" and a.get("http-equiv"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not parsed.scripts
    for name, attributes in parsed.tags:
        assert name not in ("img", "iframe", "object", "form")
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_a_larger_fall_is_never_fainter(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 0 <= heat.shade(low) <= heat.shade(high) <= 1


def test_no_change_has_no_colour_and_a_tenth_of_a_point_has_some() -> None:
    assert heat.shade(0) == heat.shade(-0.3) == 0
    assert 0.05 < heat.shade(0.001) < 0.2
    assert heat.shade(1) == 1
    assert heat.points(0.00001) == heat.points(-0.00001) == "0.00"


def contrast(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """WCAG's ratio of two colours of 0..255."""

    def luminance(colour: tuple[float, ...]) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_figures_can_be_read_on_the_strongest_colour(dark: bool) -> None:
    style = (Path(heat.__file__).parent / "style.css").read_text()
    themes = re.findall(r"--(panel|ink|s1): (#[0-9a-f]{6})", style)
    named = dict(themes[3:] if dark else themes[:3])
    assert set(named) == {"panel", "ink", "s1"}
    colours = {name: tuple(int(code[k : k + 2], 16) for k in (1, 3, 5)) for name, code in named.items()}
    share = int(re.search(r"var\(--a\) \* (\d+)%\), var\(--panel\)\); color: var\(--ink\)", style)[1]) / 100  # type: ignore[index]
    mixed = tuple(share * s + (1 - share) * p for s, p in zip(colours["s1"], colours["panel"], strict=True))
    assert contrast(mixed, colours["ink"]) > 4.5


def test_what_failed_is_said() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["rows"][0] |= {"accuracy": float("nan"), "loss": float("nan")}
    document["rows"][1]["loss"] = float("inf")
    text = heat.render(document)
    assert len(cells(text)) == 4
    assert "40.00 % right, loss not finite" in text
    assert re.search(r"\bnan\b|\binf\b|None\b", Page(text).text) is None


@settings(max_examples=20)
@given(st.text(max_size=40))
def test_any_name_leaves_the_page_whole(name: str) -> None:
    document = copy.deepcopy(DOCUMENT) | {"artifact": name, "data": name}
    document["rows"] = [r | {"layer": name, "kind": name} for r in document["rows"]]
    parsed = Page(heat.render(document))
    assert parsed.open == []
    plain = copy.deepcopy(DOCUMENT)
    plain["rows"] = [r | {"layer": "x"} for r in plain["rows"]]
    assert [tag for tag, _ in parsed.tags] == [tag for tag, _ in Page(heat.render(plain)).tags]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(NetsukeError, match="schema 2: this version draws schema 1"):
        heat.render(DOCUMENT | {"schema": 2})
    with pytest.raises(NetsukeError, match="cannot be written"):
        heat.write(DOCUMENT, tmp_path)


def test_a_browser_shows_it(tmp_path: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["rows"] += [row(HOSTILE, "bits", 8, 0.7)]
    heat.write(document, tmp_path / "heat.html")
    dom, console = browse(tmp_path / "heat.html", tmp_path)
    assert console == ""
    assert len(cells(dom)) == 6
    assert "<title>owned" not in dom
