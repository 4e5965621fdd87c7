"""The record that exactness.py fills: what is finished, what differs, how long the rest takes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any

import checks
import netsuke
from netsuke.export.placing import place
from netsuke.measure.latency import hardware
from peers import versions

Row = dict[str, Any]

# The sources that a check is of, by the first word of its name. A result of other sources does not count.
DEFINITION = ("kernels.py", "packing.py", "graph")
SOURCES = {
    "C": ("memory", "export/c"),
    "engine": ("export/c", "engine"),
    "WASM": ("memory", "export/c", "export/wasm"),
    "ONNX": ("export/onnx", "export/rounding.py"),
    "LiteRT": ("export/tflite", "export/rounding.py"),
}
TOOLS = ("gcc", "clang", "node", "wasm-ld", "arm-none-eabi-gcc", checks.NEON[0], checks.NEON[2])


class Results:
    """The record that grows; with a file, it is read from there and kept there."""

    def __init__(self, file: Path | None, command: str):
        self.file = file
        self.record: Row = {
            "title": "Every export against the NumPy reference, logit by logit",
            "kind": "benchmark",
            "command": command,
            "note": "differ counts images with any logit that is not the reference's; document is what --json keeps.",
            "document": {
                "hardware": hardware(),
                "versions": {},
                "artifacts": [],
            },
        }
        if file and file.exists():
            self.record = json.loads(file.read_text(encoding="utf-8")) | {"command": command}
        self.document["versions"] |= versions() | tools()
        empty = {"seeds": "", "images": 0, "alive": 0, "ops": {}, "checks": {}}
        checks = self.document.setdefault("graphs", empty)["checks"]
        for name in [name for name, row in checks.items() if row["code"] != code(part(name))]:
            del checks[name]

    @property
    def document(self) -> Row:
        return self.record["document"]

    def save(self) -> None:
        if self.file:
            place(self.file, (json.dumps(self.record, indent=1) + "\n").encode())

    def artifact(self, path: Path) -> Row:
        """The row of an artifact, by its bytes."""
        key = sha256(path.read_bytes()).hexdigest()
        for row in self.document["artifacts"]:
            if row["sha256"] == key:
                return row
        self.document["artifacts"].append({"artifact": path.stem, "sha256": key, "checks": {}})
        return self.document["artifacts"][-1]

    def left(self, name: str, seeds: Sequence[int]) -> set[int]:
        """The graphs that a check has not met."""
        return set(seeds) - numbers(self.document["graphs"]["checks"].get(name, {}).get("seeds", ""))

    def add(self, batch: Row) -> None:
        """What a batch of graphs found."""
        total, seeds = self.document["graphs"], set(batch["graphs"])
        known, ops = numbers(total["seeds"]), Counter(total["ops"])
        for facts in (batch["graphs"][seed] for seed in seeds - known):
            total["images"] += facts["images"]
            total["alive"] += facts["alive"]
            ops += facts["ops"]
        total["seeds"], total["ops"] = spans(seeds | known), dict(sorted(ops.items()))
        for name, found in batch["checks"].items():
            empty = {
                "code": code(part(name)),
                "seeds": "",
                "graphs": 0,
                "images": 0,
                "differ": 0,
                "failures": [],
            }
            row = total["checks"].setdefault(name, empty)
            row["seeds"] = spans(seeds | numbers(row["seeds"]))
            for key, value in found.items():
                row[key] += value

    def failures(self) -> list[str]:
        """What must be equal and is not, and what did not run."""
        found = [
            f"{row['artifact']}: {name}: {told(check)}"
            for row in self.document["artifacts"]
            for name, check in row["checks"].items()
            if "broken" in check or (check.get("differ") and not name.startswith("LiteRT"))
        ]
        rows = self.document["graphs"]["checks"].items()
        return found + [f"{name}: {failure}" for name, row in rows for failure in row["failures"]]


class Pace:
    """How long the rest takes, from what the work so far took."""

    def __init__(self, work: float):
        self.left, self.done, self.start = work, 0.0, monotonic()

    def after(self, work: float) -> str:
        self.left -= work
        self.done += work
        seconds = (monotonic() - self.start) / self.done * self.left
        return f"{seconds / 60:.0f} min left" if seconds > 90 else f"{max(seconds, 0):.0f} s left"


def told(check: Row) -> str:
    for key in ("broken", "absent"):
        if key in check:
            return f"{key}: {check[key]}"
    if "helpers" in check:
        return f"needs {', '.join(check['helpers']) or 'nothing'}"
    text = f"{check['differ']} of {check['images']} images differ"
    if "quanta" in check:
        text += f", by at most {check['quanta']:.2f} steps; class the same {check['same_top1']:.2%}"
    return text


def table(document: Row) -> str:
    """Markdown: a row an artifact, and the graphs."""
    lines = [
        "| artifact | builds that must be equal | images | images that differ | LiteRT, XNNPACK | LiteRT, built-in |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for row in document["artifacts"]:
        exact = [c for n, c in row["checks"].items() if "differ" in c and not n.startswith("LiteRT")]
        images = max((c["images"] for c in exact), default=0)
        tail = [
            f"{c['differ']}, {c['quanta']:.2f} steps, class {c['same_top1']:.2%}"
            if "quanta" in c
            else "absent"
            for c in (row["checks"].get(f"LiteRT, {how}", {}) for how in ("XNNPACK", "built-in"))
        ]
        cells = [row["artifact"], len(exact), images, sum(c["differ"] for c in exact), *tail]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    graphs = document["graphs"]
    if graphs["checks"]:
        differ = sum(check["differ"] for check in graphs["checks"].values())
        met = min(len(numbers(check["seeds"])) for check in graphs["checks"].values())
        cells = [
            f"{met} random graphs",
            len(graphs["checks"]),
            graphs["images"],
            differ,
            "",
            "",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def tools() -> dict[str, str]:
    """The first line that each compiler says of itself."""
    found = {}
    for tool in TOOLS:
        if shutil.which(tool):
            text = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False).stdout
            found[tool] = text.splitlines()[0] if text else ""
    return found


@cache
def code(*parts: str) -> str:
    """A hash of the sources that checks of these names are of."""
    folder = Path(netsuke.__file__).parent
    made_of = sha256()
    for source in dict.fromkeys((*DEFINITION, *(name for part in parts for name in SOURCES[part]))):
        path = folder / source
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.suffix != ".pyc":
                made_of.update(file.read_bytes())
    return made_of.hexdigest()[:16]


def numbers(text: str) -> set[int]:
    """The set that `spans` wrote."""
    ends = [span.split("-") for span in text.split(", ") if span]
    return {number for end in ends for number in range(int(end[0]), int(end[-1]) + 1)}


def spans(found: set[int]) -> str:
    """Numbers in a few words: 0-19, 40-59."""
    firsts = sorted(n for n in found if n - 1 not in found)
    lasts = sorted(n for n in found if n + 1 not in found)
    return ", ".join(f"{a}-{b}" if a < b else f"{a}" for a, b in zip(firsts, lasts, strict=True))


def part(check: str) -> str:
    """The key in SOURCES of a check's name."""
    return check.replace(",", " ").split()[0]
