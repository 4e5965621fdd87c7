"""Reading of handwriting beside Tesseract and RapidOCR 3.10: the same images, one run, one core.

    python benchmarks/reading.py --quick --peers none            # under two minutes
    python benchmarks/reading.py --model mine.netsuke --python peers/bin/python --json found.json
    python benchmarks/reading.py --python peers/bin/python --record records/reading/record.json   # the README's table

Crops: exam-digits and screen-digits. Nothing to read: letters, signs, scribbles, printed words, blank and lined paper,
Kuzushiji, Fashion-MNIST and noise, each photographed; a digit there is an invention. Strips: cheque-strings, and
synthetic numbers whose digits touch; digits of MNIST's test set pushed together. Pages: synthetic, a megapixel with 50
digits; and as many photographs of notes and of puzzles (benchmarks/photographs.py). Every model given is read, beside
the shipped one where none is. RapidOCR stands there as shipped and `forced`: its recogniser masked to digits. It gets
strips without its detector, which loses digits there; Tesseract is told to read digits. A strip or page is right where
its digits are, in order, separators left out. Milliseconds are medians. Bytes are of a reader's model files;
netsuke's count the finder and the scanner that look beside its classifier.

Needs `pip install 'netsuke[lab]'`, and the data sets in $NETSUKE_DATA; RapidOCR may live in another environment,
whose Python --python names: `pip install 'rapidocr==3.10.*' onnxruntime`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np

import photographs
from netsuke import data, zoo
from netsuke.artifact import Artifact
from netsuke.errors import DataError, NetsukeError
from netsuke.lab import pens, scenes
from netsuke.lab.pens import outliers
from netsuke.measure import reading
from netsuke.measure.latency import hardware
from netsuke.reader import DEFAULT, Reader
from netsuke.reader.reader import FINDER, SCANNER

SURE = 0.9
PEERS = {"rapidocr": ("rapidocr", "rapidocr-forced"), "tesseract": ("tesseract",)}
NOTHING: dict[str, Callable[..., Any]] = {
    "letters": outliers._letter, "signs": outliers._sign, "scribbles": outliers._scribble,
    "printed words": outliers._print, "blank paper": outliers._blank, "lined paper": outliers._lines,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Item:
    """An image uint8 [H, W] or [H, W, 3], how it is read, and its truth: a text of crops and strips, or a scene."""

    image: np.ndarray
    kind: str  # crop, strip, page
    text: str = ""
    scene: scenes.Scene | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """Texts with confidences, milliseconds, and of netsuke its digits (box, class, mask)."""

    texts: list[tuple[str, float]]
    ms: float
    digits: list[Any] = field(default_factory=list)


# --- images ------------------------------------------------------------------------------------------


def images(sample: int, pages: int, seed: int) -> dict[str, list[Item]]:
    """Every set by name."""
    rng = np.random.default_rng(seed)
    out = {name: _digits(name, sample, rng) for name in ("exam-digits", "screen-digits")}
    for name, make in NOTHING.items():
        signs = (make(rng, "val") for _ in range(sample // 2))
        out[f"no digit: {name}"] = [Item(pens.take(sign, rng).pixels, "crop") for sign in signs]
    for name in ("kmnist", "fashion-mnist"):
        pictures = data.load(name).test.images
        chosen = pictures[rng.choice(len(pictures), sample // 2, replace=False), 0]
        out[f"no digit: {name}"] = [Item(_framed(255 - picture), "crop") for picture in chosen]
    out["no digit: noise"] = [
        Item(rng.integers(0, 256, (40, 40), np.uint8), "crop") for _ in range(sample // 2)
    ]
    out["cheque-strings"] = _cheques(sample, rng)
    made = (scenes.string(rng, spacing="touching", split="val") for _ in range(sample))
    out["touching digits"] = [
        Item(scene.image, "strip", scene.strings[0].text) for scene in made if scene.strings
    ]
    out["MNIST pushed together"] = [
        Item(image, "strip", text) for image, text in (photographs.touching(rng) for _ in range(sample))
    ]
    out["pages"] = [
        Item(scene.image, "page", scene=scene)
        for scene in (scenes.page(rng, size=(1000, 1000), digits=50, split="val") for _ in range(pages))
    ]
    made = (make(rng) for _ in range(pages) for make in (photographs.notes, photographs.puzzle))
    out["photographs"] = [Item(scene.image, "page", scene=scene) for scene in made]
    return out


def _framed(picture: np.ndarray) -> np.ndarray:
    """A small picture on white paper, with a margin and twice as large: peers see little in 28 pixels."""
    return cv2.resize(
        np.pad(picture, 6, constant_values=255), None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR
    )


def _digits(name: str, sample: int, rng: np.random.Generator) -> list[Item]:
    test = data.load(name).test
    chosen = rng.choice(len(test.labels), min(sample, len(test.labels)), replace=False)
    return [Item(test.images[i, 0], "crop", str(test.labels[i])) for i in chosen]


def _cheques(sample: int, rng: np.random.Generator) -> list[Item]:
    folder = Path(os.environ.get("NETSUKE_DATA", ".")) / "cheque-strings"
    if not (folder / "labels.csv").is_file():
        raise DataError(f"cheque-strings is not there; it belongs into {folder}")
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    chosen = sorted(rng.choice(len(rows), min(sample, len(rows)), replace=False))
    read = (cv2.imread(str(folder / "images" / rows[i]["file"]), cv2.IMREAD_GRAYSCALE) for i in chosen)
    return [Item(image, "strip", rows[i]["label"]) for image, i in zip(read, chosen, strict=True)]


# --- answers -----------------------------------------------------------------------------------------


def netsuke(path: str | Path, sets: dict[str, list[Item]]) -> dict[str, Any]:
    """What one model says of every set."""
    artifact = Artifact.load(path)
    reader = Reader(artifact)
    reader.read(np.full((28, 28), 255, np.uint8))
    beside = sum(zoo.path(name).stat().st_size for name in (FINDER, SCANNER)) if reader.sight else 0
    return {
        "version": Path(path).stem, "bytes": Path(path).stat().st_size + beside,
        "answers": {name: [_read(reader, item) for item in items] for name, items in sets.items()},
    }  # fmt: skip


def _read(reader: Reader, item: Item) -> Answer:
    start = perf_counter()
    found = [reader.read(item.image)] if item.kind == "crop" else reader.read_all(item.image)
    ms = (perf_counter() - start) * 1e3
    taken = [r for r in found if item.kind != "crop" or r.state == "digit"]
    digits = [d for r in found for d in r.digits if not d.separator]
    return Answer([(r.text, r.confidence) for r in taken], ms, digits)


def peer(name: str, python: str, sets: dict[str, list[Item]], folder: Path) -> dict[str, Any] | str:
    """The same of a peer in a process of its own; why it is absent, where it is."""
    out = folder / f"{name}.json"
    script = Path(__file__).with_name("reading_peer.py")
    done = subprocess.run(
        [python, str(script), name, str(folder), str(out)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        return said[-1] if said else f"{name}: it ended with {done.returncode}"
    got = json.loads(out.read_text())
    flat = iter(got["answers"])
    answers = {
        key: [Answer([(t, c) for t, c in a["texts"]], a["ms"]) for a in (next(flat) for _ in items)]
        for key, items in sets.items()
    }
    return {**got, "answers": answers}


def save(sets: dict[str, list[Item]], folder: Path) -> None:
    """All images as PNG, with the index that peers read."""
    index: list[tuple[str, str]] = []
    for items in sets.values():
        for item in items:
            index.append((f"{len(index)}.png", item.kind))
            cv2.imwrite(
                str(folder / index[-1][0]), item.image[..., ::-1] if item.image.ndim == 3 else item.image
            )
    (folder / "index.json").write_text(json.dumps(index))


# --- figures -----------------------------------------------------------------------------------------


def bare(text: str) -> str:
    """Its digits alone."""
    return "".join(sign for sign in text if sign in "0123456789")


def figures(items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, Any]:
    """What a set asks for, each a share with its interval, and the median time."""
    out: dict[str, Any] = {
        "n": len(items),
        "ms": float(np.median([a.ms for a in answers])) if answers else None,
    }
    if not items:
        return out
    if items[0].kind == "page":
        return out | _pages(items, answers)
    said = ["".join(bare(text) for text, _ in answer.texts) for answer in answers]
    sure = [min((c for t, c in answer.texts if bare(t)), default=0.0) for answer in answers]
    if not any(item.text for item in items):
        for name, floor in (("invented", 0.0), ("invented_sure", SURE)):
            out[name] = reading.share(
                sum(bool(s) and c >= floor for s, c in zip(said, sure, strict=True)), len(items)
            )
        return out
    truth = [bare(item.text) for item in items]
    right = [a == b for a, b in zip(truth, said, strict=True)]
    out["exact"] = reading.share(sum(right), len(right))
    out["wrong_sure"] = reading.share(
        sum(not r and c >= SURE for r, c in zip(right, sure, strict=True)), len(right)
    )
    kept = [(reading.align(a, b)[1], len(a)) for a, b in zip(truth, said, strict=True)]
    out["digits_right"] = reading.ratio(kept)
    return out


def _pages(items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, Any]:
    exact, counts, overlaps = [], [], []
    for item, answer in zip(items, answers, strict=True):
        scene, texts = item.scene, [bare(part) for text, _ in answer.texts for part in text.split()]
        assert scene is not None
        wanted = Counter(bare(line.text) for line in scene.strings)
        exact.append(((wanted & Counter(texts)).total(), wanted.total()))
        found = [d for d in answer.digits if d.state != "not a digit"]
        pairs = reading.match(
            [m.box for m in scene.digits], [d.box for d in found], [d.confidence for d in found]
        )
        counts.append((len(pairs), len(found), len(scene.digits)))
        overlaps += [_overlap(scene, scene.digits[i], found[j]) for i, j in pairs]
    out = {"exact": reading.ratio(exact)}
    if any(answer.digits for answer in answers):
        out["f1"] = reading.ratio(counts, reading.f1)
        out["mask_iou"] = {"value": float(np.mean(overlaps)) if overlaps else None, "n": len(overlaps)}
    return out


def _overlap(scene: scenes.Scene, truth: Any, found: Any) -> float:
    """Intersection over union of two digits' masks, in the box around both."""
    x, y = (min(truth.box[k], found.box[k]) for k in (0, 1))
    right, bottom = (max(truth.box[k] + truth.box[k + 2], found.box[k] + found.box[k + 2]) for k in (0, 1))
    own = np.zeros((bottom - y, right - x), bool)
    own[found.box[1] - y :, found.box[0] - x :][: found.box[3], : found.box[2]] = found.mask
    return reading.mask_iou(scene.mask[y:bottom, x:right] == truth.number, own)


def table(found: dict[str, Any]) -> str:
    """Markdown: a row a figure, a column a reader."""
    readers = found["readers"]
    lines = [
        f"{found['hardware']}; one thread; load {found['load_1min']}", "",
        "| | n | " + " | ".join(readers) + " |", "|---" * (len(readers) + 2) + "|",
    ]  # fmt: skip
    names = {
        "exact": "exact", "digits_right": "digits right", "wrong_sure": "wrong at 0.9 or surer",
        "invented": "a digit invented", "invented_sure": "at 0.9 or surer", "f1": "detection F1",
        "mask_iou": "mask IoU", "ms": "ms",
    }  # fmt: skip
    for key, first in next(iter(readers.values()))["sets"].items():
        for figure, name in names.items():
            if figure not in first or (first["n"] and figure == "digits_right" and key.endswith("-digits")):
                continue
            cells = [_cell(each["sets"][key].get(figure)) for each in readers.values()]
            lines.append(f"| {key}: {name} | {first['n']} | " + " | ".join(cells) + " |")
    lines.append("| bytes | | " + " | ".join(f"{each['bytes']:,}" for each in readers.values()) + " |")
    return "\n".join([*lines, *(["", *found["absent"]] if found["absent"] else [])])


def _cell(figure: Any) -> str:
    value = figure["value"] if isinstance(figure, dict) else figure
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if isinstance(figure, dict) else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", default=[], help="a .netsuke file; may be given again")
    parser.add_argument("--peers", default="rapidocr,tesseract", help="which, separated by commas, or none")
    parser.add_argument("--python", default=sys.executable, help="the Python that has rapidocr")
    parser.add_argument(
        "--sample", type=int, default=200, help="images of a set, half of each that shows no digit"
    )
    parser.add_argument("--pages", type=int, default=20, help="pages of a megapixel")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and the synthetic images")
    parser.add_argument("--quick", action="store_true", help="20 images a set and 2 pages")
    parser.add_argument("--json", type=Path, help="keep every figure in this file")
    parser.add_argument("--record", type=Path, help="keep them in this record, with the command")
    chosen = parser.parse_args()
    peers = [] if chosen.peers == "none" else [name for name in chosen.peers.split(",") if name]
    if unknown := sorted(set(peers) - set(PEERS)):
        parser.error(f"no peer {unknown[0]!r}; there are {', '.join(PEERS)} and none")
    if os.environ.get("OMP_NUM_THREADS") != "1":  # NumPy reads it as it loads, so start again
        os.environ["OMP_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    cv2.setNumThreads(1)
    sample, pages = (20, 2) if chosen.quick else (chosen.sample, chosen.pages)
    found: dict[str, Any] = {
        "hardware": hardware(), "load_1min": round(os.getloadavg()[0], 2), "sample": sample, "pages": pages,
        "seed": chosen.seed, "readers": {}, "absent": [],
    }  # fmt: skip
    try:
        sets = images(sample, pages, chosen.seed)
        for path in chosen.model or [zoo.path(DEFAULT)]:
            _keep(found, Path(path).stem, netsuke(path, sets), sets)
    except NetsukeError as error:
        parser.exit(2, f"{error}\n")
    with tempfile.TemporaryDirectory() as name:
        save(sets, Path(name))
        for each in (part for key in peers for part in PEERS[key]):
            got = peer(each, chosen.python, sets, Path(name))
            if isinstance(got, str):
                found["absent"].append(got)
            else:
                _keep(found, each, got, sets)
    found["absent"] = list(dict.fromkeys(found["absent"]))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")
    if chosen.record:
        chosen.record.parent.mkdir(parents=True, exist_ok=True)
        chosen.record.write_text(json.dumps(record(found, chosen), indent=1) + "\n")
    print(table(found))


def record(found: dict[str, Any], chosen: argparse.Namespace) -> dict[str, Any]:
    """What was found, as benchmarks/tables.py takes it; the command without this machine's folders."""
    size = ["--quick"] if chosen.quick else ["--sample", str(chosen.sample), "--pages", str(chosen.pages)]
    words = [*(f"--model {Path(path).name}" for path in chosen.model), *size, f"--seed {chosen.seed}"]
    return {
        "title": "Reading beside RapidOCR and Tesseract: the same images, one run, one thread",
        "kind": "benchmark",
        "command": " ".join(["python benchmarks/reading.py", *words, f"--peers {chosen.peers}"]),
        "note": "document is what --json keeps. No shipped model is trained on exam-digits, screen-digits or "
        "cheque-strings, nor on the writers of the synthetic strips and pages.",
        "document": found,
    }


def _keep(found: dict[str, Any], name: str, got: dict[str, Any], sets: dict[str, list[Item]]) -> None:
    print(name, file=sys.stderr, flush=True)
    found["readers"][name] = {
        "version": got["version"], "bytes": got["bytes"],
        "sets": {key: figures(items, got["answers"][key]) for key, items in sets.items()},
    }  # fmt: skip


if __name__ == "__main__":
    main()
