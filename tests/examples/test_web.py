"""The page that draws and classifies: served by a process of its own, used in a browser by mouse, finger and keys."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from browser import CHROMIUM, Browser
from graphs import small_artifact
from netsuke import zoo
from netsuke.artifact import Artifact
from netsuke.export import wasm
from netsuke.image.ink import fit

PAGE = Path(__file__).resolve().parents[2] / "examples" / "web"
ABSENT = [tool for tool in ("clang", "wasm-ld") if not shutil.which(tool)] + ["chromium"] * (CHROMIUM is None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(ABSENT), reason=f"install {' and '.join(ABSENT)}"),
]
Points = list[tuple[float, float]]


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> Points:
    """Points of an ellipse in degrees, clockwise from the right."""
    angles = [math.radians(start + (end - start) * i / 16) for i in range(17)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def line(*corners: tuple[float, float]) -> Points:
    """Points along straight lines."""
    points: Points = []
    for (x, y), (to_x, to_y) in pairwise(corners):
        points += [(x + (to_x - x) * i / 6, y + (to_y - y) * i / 6) for i in range(6)]
    return [*points, corners[-1]]


# As a hand writes them, on a paper from 0 to 1.
DIGITS: dict[str, list[Points]] = {
    "0": [arc(0.5, 0.5, 0.18, 0.28, -90, 270)],
    "1": [line((0.5, 0.2), (0.48, 0.8))],
    "2": [arc(0.48, 0.36, 0.16, 0.15, -170, 35) + line((0.58, 0.5), (0.32, 0.78), (0.7, 0.76))],
    "3": [arc(0.48, 0.35, 0.15, 0.15, -150, 90) + arc(0.48, 0.65, 0.18, 0.16, -90, 150)],
    "4": [line((0.36, 0.22), (0.33, 0.52), (0.68, 0.5)), line((0.62, 0.24), (0.58, 0.82))],
    "5": [line((0.4, 0.24), (0.37, 0.48)) + arc(0.48, 0.62, 0.17, 0.17, -130, 140), line((0.4, 0.24), (0.66, 0.22))],
    "6": [line((0.58, 0.2), (0.42, 0.42), (0.36, 0.6)) + arc(0.5, 0.64, 0.15, 0.15, 180, 530)],
    "7": [line((0.3, 0.25), (0.7, 0.25), (0.45, 0.8))],
    "8": [arc(0.5, 0.36, 0.13, 0.14, 90, 450) + arc(0.5, 0.65, 0.17, 0.15, -90, 270)],
    "9": [arc(0.5, 0.36, 0.15, 0.15, 0, 360) + line((0.65, 0.38), (0.62, 0.6), (0.56, 0.82))],
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with the shipped model and a small one of other classes and another size beside it."""
    folder = tmp_path_factory.mktemp("site") / "web"
    shutil.copytree(PAGE, folder)
    wasm.write(Artifact.load(zoo.path("digit-small")), folder, "digit-small")
    wasm.write(small_artifact(), folder, "tiny")
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    command = [
        sys.executable,
        "-u",
        "-m",
        "http.server",
        "0",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(site),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        port = server.stdout.readline().split("port ")[1].split()[0]
        yield f"http://127.0.0.1:{port}/"
        server.terminate()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("home")) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, address: str) -> Browser:
    """The page, loaded and blank, in a window of a laptop."""
    browser.screen(1000, 760)
    return loaded(browser, address)


def loaded(browser: Browser, address: str) -> Browser:
    browser.open(address)
    browser.until("document.documentElement.dataset.state === 'ready'")
    return browser


def draw(page: Browser, strokes: list[Points], *, touch: bool = False) -> None:
    x, y, width, height = page.box("#paper")
    for stroke in strokes:
        page.draw([(x + u * width, y + v * height) for u, v in stroke], touch=touch)


def answer(page: Browser) -> str:
    """The digit that is shown once two frames have passed."""
    frame = "new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"
    page.js(frame)
    return str(page.js("document.getElementById('digit').textContent"))


def text(page: Browser, name: str) -> str:
    return str(page.js(f"document.getElementById({json.dumps(name)}).innerText"))


def seen(page: Browser) -> np.ndarray:
    """What the model was given, as the page shows it."""
    pixels = (
        "[...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 0)"
    )
    flat = page.js(f"(() => {{ const c = document.getElementById('seen'); return {pixels} }})()")
    return np.array(flat, np.uint8).reshape(1, 1, 28, 28)


@pytest.mark.parametrize("digit", DIGITS)
def test_a_drawn_digit_is_read(digit: str, page: Browser) -> None:
    draw(page, DIGITS[digit])
    assert answer(page) == digit
    image = seen(page)
    logits = Artifact.load(zoo.path("digit-small")).logits(image)[0]
    assert str(logits.argmax()) == digit
    shares = [
        float(cell.split()[0]) / 100 for cell in page.js("bars.map((row) => row.lastChild.textContent)")
    ]
    scale = Artifact.load(zoo.path("digit-small")).graph.ops[-1].attrs["scale"]
    terms = np.exp((logits - logits.max()) * scale)
    np.testing.assert_allclose(shares, terms / terms.sum(), atol=6e-4)
    assert text(page, "sure").endswith(f"{100 * max(shares):.1f} %")
    assert page.log == []


def test_the_ink_is_fitted_as_the_reader_does(page: Browser) -> None:
    draw(page, DIGITS["5"])
    answer(page)
    alpha = "(() => { const p = paper.pixels(); return Array.from(p.data).filter((_, i) => i % 4 === 3) })()"
    ink = np.array(page.js(alpha), np.uint8).reshape(448, 448)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    want = fit(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    gap = np.abs(seen(page)[0, 0].astype(int) - want)
    assert gap.max() <= 2


def test_nothing_comes_from_elsewhere(page: Browser, address: str) -> None:
    draw(page, DIGITS["3"])
    assert answer(page) == "3"
    assert page.requests
    assert all(request.startswith((address, "data:")) for request in page.requests), page.requests
    assert sum(request.endswith(".wasm") for request in page.requests) == 1
    got = page.js("fetch('https://example.org/').then(() => 'sent', () => 'refused')")
    assert got == "refused"


def test_buttons(page: Browser) -> None:
    enabled = "['undo', 'clear'].map((id) => !document.getElementById(id).disabled)"
    assert page.js(enabled) == [False, False]
    draw(page, DIGITS["4"])
    assert answer(page) == "4"
    assert page.js(enabled) == [True, True]
    page.click("#undo")
    assert answer(page) != "4"  # one of its two strokes is left
    page.click("#clear")
    assert answer(page) == "–"
    assert page.js(enabled) == [False, False]
    assert text(page, "facts") == ""


def test_another_button_and_a_second_finger_do_not_draw(page: Browser) -> None:
    x, y, width, height = page.box("#paper")
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=x + 50, y=y + 50, button="right", clickCount=1)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + width / 2, y=y + height / 2)
    assert answer(page) == "–"


def test_a_stroke_may_leave_the_paper(page: Browser) -> None:
    draw(page, [line((0.5, -0.1), (0.5, 0.2))])
    assert answer(page) == "–"  # it began outside
    draw(page, [line((0.5, 0.2), (0.5, 0.9), (0.5, 1.3)), line((0.5, 0.3), (0.5, 0.4))])
    assert answer(page) == "1"


def test_by_keys_alone(page: Browser) -> None:
    page.key("Tab")
    assert page.js("document.activeElement.id") == "paper"
    for key in ("ArrowUp",) * 9 + (" ",) + ("ArrowDown",) * 18 + (" ",):
        page.key(key)
    assert answer(page) == "1"
    assert page.js("scrollY") == 0
    page.key("z", ctrl=True)
    assert answer(page) == "–"
    page.key(" ")
    page.key("ArrowLeft")
    assert answer(page) != "–"
    page.key("Escape")
    assert answer(page) == "–"
    page.key("Tab")
    assert page.js("document.activeElement.id") == "open"  # the others have nothing to do


@pytest.mark.parametrize("width", [320, 390])
def test_by_a_finger_on_a_phone(width: int, browser: Browser, address: str) -> None:
    browser.screen(width, 740, phone=True)
    page = loaded(browser, address)
    for digit in ("2", "7"):
        draw(page, DIGITS[digit], touch=True)
        assert answer(page) == digit
        page.js("document.getElementById('clear').click()")
    assert page.js("[scrollX, scrollY, document.documentElement.scrollWidth]") == [0, 0, width]
    for name in ("#undo", "#clear", "#open"):
        x, _, w, h = page.box(name)
        assert h >= 44
        assert x >= 0
        assert x + w <= width
    assert page.box("#paper")[1] + page.box("#paper")[3] <= 740  # answer and paper are seen together


def test_dark(browser: Browser, address: str) -> None:
    browser.screen(1000, 760, dark=True)
    page = loaded(browser, address)
    draw(page, DIGITS["8"])
    assert answer(page) == "8"
    before = seen(page)
    colours = (
        "['color', 'backgroundColor'].map((key) => getComputedStyle(document.body)[key].match(/\\d+/g)[0])"
    )
    ink, ground = map(int, page.js(colours))
    assert ink > 200 > 60 > ground
    page.screen(1000, 760)
    ink, ground = map(int, page.js(colours))
    assert ground > 200 > 60 > ink
    page.js("new Promise((go) => setTimeout(go, 100))")
    opaque = "(v, i) => i % 4 === 3 && v === 255"
    point = page.js(f"(({{ data }}) => data[data.findIndex({opaque}) - 3])(paper.pixels())")
    assert point < 60  # what was drawn has turned dark, too
    np.testing.assert_array_equal(seen(page), before)


def picture(path: Path, digit: str, ink: int, paper: int) -> Path:
    import cv2

    image = np.full((300, 400), paper, np.uint8)
    for stroke in DIGITS[digit]:
        points = np.array([(50 + 300 * x, 300 * y) for x, y in stroke]).astype(np.int32)
        cv2.polylines(image, [points], False, ink, 16, cv2.LINE_AA)
    cv2.imwrite(str(path), image)
    return path


def test_a_picture_is_read(page: Browser, tmp_path: Path) -> None:
    for digit, ink, paper in (("6", 20, 235), ("9", 250, 10), ("3", 90, 180)):
        page.choose("#file", picture(tmp_path / f"{digit}.png", digit, ink, paper))
        page.until(f"document.getElementById('digit').textContent === '{digit}'", 10)
    page.click("#undo")
    assert answer(page) == "–"
    page.choose("#file", picture(tmp_path / "blank.png", "1", 200, 200))
    page.until("document.getElementById('sure').textContent === 'No ink is found'", 10)
    (tmp_path / "a.png").write_bytes(b"no picture")
    page.choose("#file", tmp_path / "a.png")
    page.until("!document.getElementById('error').hidden", 10)
    assert text(page, "error") == "a.png is not a picture that this browser can read."
    page.click("#clear")
    draw(page, DIGITS["1"])
    assert answer(page) == "1"
    assert page.js("document.getElementById('error').hidden")


def test_another_model(browser: Browser, address: str) -> None:
    """Its classes, and images that are not square."""
    page = loaded(browser, f"{address}?model=tiny")
    draw(page, DIGITS["1"])
    assert answer(page) in small_artifact().classes
    assert page.js("[seen.width, seen.height, bars.length]") == [10, 12, 3]
    assert page.log == []


def failure(browser: Browser, address: str) -> str:
    browser.open(address)
    browser.until("document.documentElement.dataset.state === 'failed'")
    assert not browser.js("document.getElementById('error').hidden")
    assert text(browser, "sure") == "No model"
    return text(browser, "error")


def test_a_model_that_cannot_be_loaded(browser: Browser, address: str, site: Path) -> None:
    said = failure(browser, f"{address}?model=none")
    assert "The model none cannot be loaded" in said
    assert "netsuke export none.netsuke --to wasm writes them" in said
    assert "letters, digits" in failure(browser, f"{address}?model=../secret")
    shutil.copy(site / "tiny.js", site / "alone.js")
    (site / "alone.js").write_text((site / "tiny.js").read_text().replace('"tiny"', '"alone"'))
    assert "alone.simd.wasm cannot be loaded: 404" in failure(browser, f"{address}?model=alone")
    (site / "alone.simd.wasm").write_bytes(b"\0asm nonsense")
    assert "cannot be loaded: WebAssembly" in failure(browser, f"{address}?model=alone")


def test_opened_as_a_file(browser: Browser, site: Path) -> None:
    assert "python -m http.server" in failure(browser, (site / "index.html").as_uri())
