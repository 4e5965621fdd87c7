"""The HTML report: what a browser makes of it, that nothing in the data becomes markup, that gaps stay gaps."""

from __future__ import annotations

import base64
import copy
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.errors import NetsukeError
from netsuke.measure import page
from netsuke.measure.page import axes, figures, labels
from netsuke.measure.page.markup import embedded, finite, tag
from netsuke.measure.page.pareto import front

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<img src=x onerror=\"document.title='owned'\">&amp;'`</script><script>throw 1</script><!--"
NAMES = ["lenet5", "resnet-small", "mobilenet-v2", "shufflenet-v2", "squeezenet", "ghostnet"]
NAMES += ["efficientnet-b0", "vgg11", "convnet"]


def spread(mean: float, stdev: float | None = None, n: int = 1) -> dict[str, Any]:
    return {"mean": mean, "stdev": stdev, "n": n}


def png(rng: np.random.Generator) -> str:
    image = cv2.GaussianBlur(rng.integers(0, 256, (28, 28)).astype(np.uint8), (7, 7), 0)
    return base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()


def network(name: str, classes: list[str], rng: np.random.Generator, n: int, runs: int) -> dict[str, Any]:
    size = int(10 ** rng.uniform(3.4, 6))
    error = float(np.clip(0.012 * (30_000 / size) ** 0.3 * rng.uniform(0.6, 1.8), 1e-4, 0.4))
    count = len(classes)
    matrix = np.zeros((count, count), int)
    for i in range(count):
        wrong = rng.multinomial(
            rng.binomial(n // count, error), np.delete(rng.dirichlet(np.full(count, 0.3)), i) / 1.01
        )
        matrix[i] = np.insert(wrong, i, n // count - wrong.sum())
    latency = size**0.6 * float(rng.uniform(0.05, 0.3))
    epochs = 12

    def per_class(i: int) -> dict[str, Any]:
        right = matrix[i, i]
        precision, recall = right / max(1, matrix[:, i].sum()), right / matrix[i].sum()
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        return {
            "class": classes[i],
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "support": int(matrix[i].sum()),
        }

    return {
        "name": name,
        "kind": "network",
        "model": name.split("-")[0],
        "options": {"width": 0.5},
        "bits": 8 if rng.random() < 0.3 else None,
        **{
            key: spread(1 - error, error * 0.06 if runs > 1 else None, runs)
            for key in ("accuracy", "f1", "precision", "recall")
        },
        "loss": spread(error * 3),
        "parameters": size // 4,
        "macs": size * int(rng.integers(4, 40)),
        "size_bytes": size,
        "ram_bytes": int(size**0.8),
        "file_bytes": size + 4_000,
        "load_ms": float(rng.uniform(0.5, 9)),
        "backends": {
            "native": {"latency_us": latency, "p99_us": latency * 1.4, "min_us": latency * 0.9, "n": 900}
            | {"images_per_s": 2e6 / latency},
            "onnxruntime": {"latency_us": latency * 2, "p99_us": latency * 3, "images_per_s": 1e6 / latency},
            "openvino": {"missing": "openvino is not installed: pip install openvino"},
        },
        "latency_us": latency,
        "p99_us": latency * 1.4,
        "images_per_s": 2e6 / latency,
        "backend": "native",
        "energy_uj": size * 2e-5,
        "train_s": spread(120.0, 3.0, runs),
        "per_class": [per_class(i) for i in range(count)],
        "confusion": matrix.tolist(),
        "history": [
            {
                "epoch": epoch,
                "loss": error * (1 + 20 / epoch),
                "accuracy": 1 - error * (1 + 6 / epoch),
                "val_accuracy": 1 - error * (1 + 5 / epoch**1.3) * float(rng.uniform(0.9, 1.1)),
                "val_loss": error * 3 * (1 + 9 / epoch),
                "seconds": 9.5,
            }
            for epoch in range(1, epochs + 1)
        ],
        "confused": [
            {"index": int(rng.integers(n)), "label": k % count, "said": (k + 3) % count}
            | {"confidence": 0.99 - k / 50, "image": png(rng)}
            for k in range(12)
        ],
        "runs": [
            {"seed": seed, "accuracy": 1 - error, "file": f"{name}-{seed}.netsuke"} for seed in range(runs)
        ],
    }


ABSENT = "bits loss parameters macs ram_bytes file_bytes load_ms energy_uj train_s model per_class confusion"


def baseline(name: str) -> dict[str, Any]:
    """What a classical baseline may lack, it lacks."""
    return {
        **dict.fromkeys(ABSENT.split()),
        "name": name,
        "kind": "baseline",
        "options": {},
        "accuracy": spread(0.9688),
        "f1": None,
        "precision": None,
        "recall": None,
        "size_bytes": 47_040_000,
        "backends": {},
        "history": None,
        "latency_us": 9_000.0,
        "p99_us": None,
        "images_per_s": None,
        "backend": None,
        "confused": [],
        "runs": [],
    }


def comparison(
    models: int = 9, classes: int = 10, n: int = 10_000, runs: int = 3, seed: int = 0
) -> dict[str, Any]:
    """A made-up comparison, as `netsuke compare --json` writes it."""
    rng = np.random.default_rng(seed)
    labels_ = [str(k) for k in range(10)] if classes == 10 else [f"class {k}" for k in range(classes)]
    names = [
        NAMES[k % len(NAMES)] + (f"-w{k // len(NAMES)}" if k >= len(NAMES) else "") for k in range(models)
    ]
    return {
        "schema": 1,
        "title": "Ten architectures on MNIST",
        "data": "mnist",
        "data_hash": "sha256:" + "0123456789abcdef" * 4,
        "split": "test",
        "n": n,
        "classes": labels_,
        "recipe": {"steps": [{"step": "train", "epochs": 12, "batch": 128}], "seed": 0},
        "seeds": list(range(runs)),
        "hardware": "Intel Xeon (Sapphire Rapids), 2 cores",
        "threads": 1,
        "versions": {"netsuke": "0.1.0", "numpy": "2.3.1", "onnxruntime": "1.31.0"},
        "energy": {"source": "Horowitz, ISSCC 2014", "formula": "MACs × (4.6 pJ) + bytes × 5 pJ"},
        "models": [network(name, labels_, rng, n, runs) for name in names]
        + ([baseline("knn"), baseline("hog + svm")] if models > 2 else []),
        "notes": ["Latency on one thread, median of single images."],
    }


def hostile() -> dict[str, Any]:
    """Every text of the document tries to become markup."""

    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {
                (HOSTILE + k if key in ("versions", "options", "recipe") else k): spoil(v, k)
                for k, v in value.items()
            }
        if isinstance(value, list):
            return [spoil(item, key) for item in value]
        return HOSTILE + value if isinstance(value, str) and key not in ("image", "kind") else value

    return spoil(comparison(4))


class Page(HTMLParser):
    """Elements, attributes and texts as a parser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attributes)))
        if name == "script":
            self.scripts.append("")
        if name not in ("meta", "link", "br"):
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.text += data


def browse(path: Path, tmp_path: Path) -> tuple[str, str]:
    """The page after its script has run, as HTML, and what the browser's console said."""
    if CHROMIUM is None:
        pytest.skip("needs a browser: install chromium to run it (apt install chromium)")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    )
    flags += (
        " --disable-component-update --disable-sync --disable-dev-shm-usage --enable-logging=stderr --v=0"
    )
    done = subprocess.run(
        [CHROMIUM, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def nulled() -> dict[str, Any]:
    """Everything that may be missing, missing; NaN where a figure failed."""
    document = comparison(2)
    document |= {"recipe": None, "notes": [], "seeds": [], "versions": {}, "models": [baseline("knn")]}
    document["models"][0] |= {"latency_us": float("nan"), "size_bytes": 10}
    return document


def equal() -> dict[str, Any]:
    document = comparison(5)
    for model in document["models"]:
        model["accuracy"] = spread(1.0, 0.0, 3)
        model["size_bytes"] = 4_096
    document["models"][0]["accuracy"] = spread(1.0, 0.0, 3)
    return document


def zero() -> dict[str, Any]:
    document = comparison(3)
    document["models"][0]["accuracy"] = spread(0.0, 0.0, 3)
    document["models"][1]["history"] = document["models"][1]["history"][:1]
    document["models"][1]["macs"] = 0
    return document


DOCUMENTS = {
    "usual": comparison,
    "one model": lambda: comparison(1, runs=1),
    "many models": lambda: comparison(40),
    "two classes": lambda: comparison(3, classes=2),
    "hundred classes": lambda: comparison(3, classes=100),
    "hostile": hostile,
    "nothing known": nulled,
    "all equal": equal,
    "accuracy 0": zero,
}


@pytest.mark.parametrize("case", [case for case in DOCUMENTS if case not in ("two classes", "all equal")])
def test_browser_runs_the_page_without_an_error(case: str, tmp_path: Path) -> None:
    document = DOCUMENTS[case]()
    page.write(document, tmp_path / "report.html")
    dom, console = browse(tmp_path / "report.html", tmp_path)
    assert console == ""
    assert 'data-ready="yes"' in dom[:400]  # the last statement of the script
    shown = dom.split('<script type="application/json"')[0]
    assert re.search(r"\[object|undefined|NaN|(?<!blob:)\bnull\b", shown.split("</style>")[1]) is None
    assert "<title>owned" not in dom
    first = max(document["models"], key=lambda model: model["accuracy"]["mean"])
    classes = len(document["classes"])
    cells = len(re.findall(r'<td[^>]*style="--a:[^>]*>', dom))
    assert cells == (classes**2 if first["confusion"] else 0)
    assert dom.count('src="data:image/png;base64,') == len(first["confused"])
    assert 'href="blob:' in dom


HANDS = """
  const table = document.querySelector("#models table");
  const rows = () => [...table.tBodies[0].rows].map((row) => row.cells[0].dataset.v);
  const sorter = (title) => [...table.querySelectorAll("button")].find((one) => one.textContent.startsWith(title));
  const send = (element, event, type, more) => element.dispatchEvent(new event(type, { bubbles: true, ...more }));
  const click = (element) => send(element, MouseEvent, "click", { cancelable: true });
  const press = (element, key) => send(element, KeyboardEvent, "keydown", { key, cancelable: true });
  const seen = { first: rows() };
  const size = sorter("size");
  click(size); seen.bySize = rows(); seen.sort = size.parentNode.getAttribute("aria-sort");
  click(size); seen.bySizeDown = rows();
  click(sorter("load")); seen.byLoad = rows();
  const plot = document.querySelector("#plots svg.wide");
  const point = plot.querySelector('.point[tabindex="0"]');
  point.focus(); press(point, "ArrowRight");
  seen.tabStops = plot.querySelectorAll('.point[tabindex="0"]').length;
  seen.walked = document.activeElement !== point && document.activeElement.matches(".point");
  const last = plot.querySelector('.point[data-m="2"]');
  send(last, PointerEvent, "pointerover", { clientX: 100, clientY: 100 });
  seen.tip = document.getElementById("tip").textContent; seen.hidden = document.getElementById("tip").hidden;
  seen.hot = [...new Set([...document.querySelectorAll(".hot")].map((element) => element.dataset.m))];
  click(last); seen.chosen = document.querySelector("#details h3").textContent;
  const cell = document.querySelector(".matrix td.ok");
  cell.focus(); seen.readout = document.getElementById("readout").textContent;
  press(cell, "ArrowDown"); seen.below = document.getElementById("readout").textContent;
  const choice = document.getElementById("choice");
  choice.value = "0"; send(choice, Event, "change");
  seen.selected = document.querySelector("#details h3").textContent;
  document.body.append(Object.assign(document.createElement("pre"), { id: "seen", textContent: JSON.stringify(seen) }));
"""


def test_hands_on_the_page(tmp_path: Path) -> None:
    """Sorts, points, walks by keys and chooses, with a script that only this copy's policy lets run."""
    document = comparison()
    text = re.sub('script-src [^"]*', "script-src 'unsafe-inline'", page.render(document), count=1)
    (tmp_path / "hands.html").write_text(text.replace("</body>", f"<script>{{{HANDS}}}</script></body>"))
    dom, console = browse(tmp_path / "hands.html", tmp_path)
    assert console == ""
    seen = json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', dom, re.S)[1]))  # type: ignore[index]
    by_name = {model["name"]: model for model in document["models"]}
    accuracies = [by_name[name]["accuracy"]["mean"] for name in seen["first"]]
    sizes = [by_name[name]["size_bytes"] for name in seen["bySize"]]
    loads = [by_name[name]["load_ms"] for name in seen["byLoad"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert sizes == sorted(sizes)
    assert [by_name[name]["size_bytes"] for name in seen["bySizeDown"]] == sizes[::-1]
    assert seen["sort"] == "ascending"
    assert loads == [*sorted(load for load in loads if load), None, None]
    assert seen["walked"]
    assert seen["tabStops"] == 1
    assert seen["tip"].startswith(document["models"][2]["name"] + "\n")
    assert not seen["hidden"]
    assert seen["hot"] == ["2"]
    assert seen["chosen"] == document["models"][2]["name"]
    right = document["models"][2]["confusion"]
    assert seen["readout"].startswith(f"Label 0, answer 0: {right[0][0]:,} of 1,000")
    assert seen["below"].startswith(f"Label 1, answer 0: {right[1][0]:,} of 1,000")
    assert seen["selected"] == document["models"][0]["name"]


def test_policy_stops_every_other_script(tmp_path: Path) -> None:
    text = page.render(comparison(1)).replace("</body>", "<script>document.title = 'ran'</script></body>")
    (tmp_path / "page.html").write_text(text)
    dom, console = browse(tmp_path / "page.html", tmp_path)
    assert "Content Security Policy" in console
    assert "<title>ran" not in dom


@pytest.mark.parametrize("case", DOCUMENTS)
def test_page_is_whole_and_asks_for_nothing(case: str) -> None:
    document = DOCUMENTS[case]()
    text = page.render(document)
    parsed = Page(text)
    assert parsed.open == []
    data, code = parsed.scripts
    assert json.loads(data) == finite(document)
    assert "NaN" not in text.replace(data, "")
    assert re.search(r"\bnan\b|\binf\b|None\b", parsed.text) is None
    for name, attributes in parsed.tags:
        assert not [key for key in attributes if key.startswith("on")]
        assert name not in ("img", "iframe", "object", "base", "form")
        for key in ("src", "href", "action", "xlink:href"):
            assert (attributes.get(key) or "#").startswith(("#", "data:,"))
    assert "@import" not in text.replace(data, "")
    assert "url(" not in text.replace(data, "")
    assert "innerHTML" not in code
    assert "eval" not in code


def test_hostile_names_are_shown_as_they_are() -> None:
    parsed = Page(page.render(hostile()))
    assert HOSTILE + "lenet5" in parsed.text
    assert any(HOSTILE in (attributes.get("data-tip") or "") for _, attributes in parsed.tags)
    assert "throw 1" not in parsed.scripts[1]


@given(st.text())
def test_text_survives_tags_and_attributes(text: str) -> None:
    shown = Page(tag("p", text, title=text) + "")
    expected = text.replace("\0", "\ufffd").replace("\r\n", "\n").replace("\r", "\n")
    assert [name for name, _ in shown.tags] == ["p"]
    assert shown.text.replace("\r\n", "\n").replace("\r", "\n") == expected
    assert (shown.tags[0][1]["title"] or "").replace("\r\n", "\n").replace("\r", "\n") == expected


@given(
    st.recursive(st.text() | st.integers() | st.none(), lambda s: st.lists(s) | st.dictionaries(st.text(), s))
)
def test_embedded_json_never_ends_its_script(value: Any) -> None:
    text = embedded(value)
    assert "<" not in text
    assert json.loads(text) == value


@settings(max_examples=10)
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_name_leaves_the_page_whole(name: str, label: str) -> None:
    document = copy.deepcopy(SMALL)
    document |= {"title": name, "classes": [label, name], "notes": [label], "hardware": name}
    document["models"][0] |= {"name": name, "backend": label}
    parsed = Page(page.render(document))
    assert parsed.open == []
    assert [t for t, _ in parsed.tags] == [t for t, _ in Page(page.render(document | {"title": "x"})).tags]
    assert json.loads(parsed.scripts[0]) == document


SMALL = comparison(2, classes=2, runs=1)
costs = st.floats(1, 1e9) | st.integers(1, 4).map(float)  # small numbers bring ties
points = st.lists(st.tuples(costs, st.floats(0, 1) | st.sampled_from([0.5, 0.9])), min_size=1)


@given(points)
def test_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    def beaten(point: tuple[float, float]) -> bool:
        return any(other[0] <= point[0] and other[1] >= point[1] and other != point for other in points)

    kept = front(points)
    assert sorted(kept) == [index for index, point in enumerate(points) if not beaten(point)]
    assert [points[index] for index in kept] == sorted(points[index] for index in kept)


@given(st.lists(st.floats(0, 1), min_size=1), st.sampled_from([0.5, 5e-5, 5e-7]))
def test_accuracy_axis_keeps_order_and_frame(accuracies: list[float], floor: float) -> None:
    axis = axes.error_axis(accuracies, floor, 300, 0)
    drawn = [axis(accuracy) for accuracy in sorted(accuracies)]
    assert drawn == sorted(drawn, reverse=True)
    assert all(-1e-6 <= y <= 300 + 1e-6 for y in drawn)
    assert all(-1e-6 <= axis(value) <= 300 + 1e-6 for value, _ in axis.ticks)
    for value, label in axis.ticks:
        assert float(label) == pytest.approx(100 * value, abs=1e-4)


@given(st.lists(st.floats(1e-6, 1e15), min_size=1))
def test_log_axis_has_ticks_in_its_frame(values: list[float]) -> None:
    axis = axes.log_axis(values, 50, 550)
    assert 1 <= len(axis.ticks) <= 9
    assert all(50 <= axis(value) <= 550 for value in values)
    assert len({label for _, label in axis.ticks}) == len(axis.ticks)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(60, 580), st.floats(40, 380), st.text(max_size=40)), max_size=30))
def test_labels_never_meet(points: list[tuple[float, float, str]]) -> None:
    frame = labels.Box(50, 30, 600, 390)
    dots = [labels.Box(x - 7, y - 7, x + 7, y + 7) for x, y, _ in points]
    placed = labels.place(points, range(len(points)), [4] * len(points), dots, [], frame)
    boxes = [label.box for label in placed]
    assert not any(a.meets(b) for k, a in enumerate(boxes) for b in [*boxes[:k], *dots])
    assert all(box.within(frame) for box in boxes)


def test_every_front_label_of_a_usual_page_finds_room() -> None:
    wide = re.findall(r'<svg viewBox="0 0 600 420".*?</svg>', page.render(comparison()), re.S)
    assert len(wide) == 4
    for plot in wide:
        on_front = re.search(r"On the Pareto front: ([^\"]*)", plot)[1].split(", ")  # type: ignore[index]
        shown = re.findall(r'class="name \w+">([^<]*)', plot)
        assert set(on_front) <= set(shown)


def test_figures_read_as_people_write_them() -> None:
    assert figures.spread_percent(spread(0.99123, 0.00051, 3), count=True) == "99.12 ± 0.05 (3)"
    assert figures.spread_percent(spread(0.5)) == figures.spread_percent(spread(0.5, 0.0, 1)) == "50.00"
    assert [figures.digits(v) for v in (0, 0.01234, 12.345, 1234.5, None)] == [
        "0",
        "0.0123",
        "12.3",
        "1,234",
        "–",
    ]
    assert [figures.short(v) for v in (50, 1000, 20_000, 1.5e6)] == ["50", "1k", "20k", "1.5M"]
    assert [figures.plural(1, "class"), figures.plural(10_000, "class")] == ["1 class", "10,000 classes"]


def test_missing_figures_have_reasons() -> None:
    text = page.render(comparison())
    assert "openvino: openvino is not installed: pip install openvino (9 models)" in Page(text).text
    assert "Not drawn, for want of a figure: knn, hog + svm." in Page(text).text


def test_unwritable_path_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        NetsukeError, match=r"file/report.html: .*cannot be written: (File exists|Not a directory)"
    ):
        page.write(comparison(1), tmp_path / "file" / "report.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(NetsukeError, match="cannot be written"):
        page.write(comparison(1), tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_another_schema_is_refused() -> None:
    with pytest.raises(NetsukeError, match="schema 2"):
        page.render(comparison(1) | {"schema": 2})
