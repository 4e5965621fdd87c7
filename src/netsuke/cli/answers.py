"""What `read` prints: a line a number, a JSON document, a CSV table; each as soon as it is known."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Entry = Mapping[str, Any]
COLUMNS = (
    "file", "page", "number", "text", "confidence", "state", "x", "y", "w", "h", "alternatives", "error",
)  # fmt: skip
WORTH = 0.0005  # confidence from which a guess is told: one that is not shown as 0.0 %


class Lines:
    """Text for a person: a line a number."""

    def __init__(self, *, boxes: bool, alternatives: bool):
        self.boxes, self.alternatives, self.out = boxes, alternatives, sys.stdout

    def add(self, entry: Entry) -> None:
        if "error" in entry:
            return
        name = entry["file"] + (f", page {entry['page']}" if "page" in entry else "")
        for line in map(self._line, entry["results"]) if entry["results"] else ("no number found",):
            self.out.write(f"{name}: {line}\n")
        self.out.flush()

    def end(self) -> None:
        pass

    def _line(self, result: Entry) -> str:
        digits, state = result["digits"], result["state"]
        first = digits[0]
        if not result["text"]:
            guess = f", if one a {first['digit']} at {first['confidence']:.1%}"
            parts = ["no digit" + guess * (first["confidence"] >= WORTH)]
        else:
            parts = [f"{result['text']}  {result['confidence']:.1%} sure"]
            parts += [_doubt(digits, state)] if state != "digit" else []
            if len(digits) == 1:
                parts.append(f"then {first['runner_up']} at {first['runner_up_confidence']:.1%}")
            elif self.alternatives:
                parts += [f"or {a['text']} at {a['probability']:.1%}" for a in result["alternatives"]]
        if self.boxes:
            parts.append(_where(result["box"]))
            if len(digits) > 1:
                parts += [f"{d['digit']} {d['confidence']:.1%} {_where(d['box'])}" for d in digits]
        return ", ".join(parts)


class Document:
    """One JSON list on stdout, an entry a page; written as it grows, and whole even where it ends early."""

    def __init__(self) -> None:
        self.out, self.before = sys.stdout, "[\n  "

    def add(self, entry: Entry) -> None:
        text = json.dumps(entry, indent=2, ensure_ascii=False).replace("\n", "\n  ")
        self.out.write(self.before + text)
        self.before = ",\n  "

    def end(self) -> None:
        self.out.write("[]\n" if self.before.startswith("[") else "\n]\n")


class Table:
    """CSV, a row a number; an empty image and one that failed have a row as well."""

    def __init__(self, path: str):
        self.path, self.out = path, io.StringIO(newline="") if path != "-" else sys.stdout
        self.rows = csv.writer(self.out, lineterminator="\n")
        self.rows.writerow(COLUMNS)

    def add(self, entry: Entry) -> None:
        start = (entry["file"], entry.get("page", ""))
        if not entry["results"]:
            self.rows.writerow((*start, *[""] * 9, entry.get("error", "")))
        for number, result in enumerate(entry["results"], 1):
            others = " ".join(f"{a['text']}:{a['probability']:.4f}" for a in result["alternatives"])
            sure = f"{result['confidence']:.4f}"
            shown = (number, result["text"], sure, result["state"], *result["box"], others, "")
            self.rows.writerow((*start, *shown))

    def end(self) -> None:
        from netsuke.errors import OptionError
        from netsuke.files import write_whole

        if isinstance(self.out, io.StringIO):
            try:
                write_whole(Path(self.path), self.out.getvalue().encode("utf-8", errors="surrogateescape"))
            except OSError as error:
                raise OptionError(f"cannot write {self.path}: {error.strerror}") from error


def _doubt(digits: Sequence[Entry], state: str) -> str:
    """What of a number is not accepted: a number may be sure enough as a whole, and a digit of it not."""
    doubtful = [d["digit"] for d in digits if d.get("state", "digit") != "digit"]
    return f"unsure of {', '.join(doubtful)}" if len(digits) > 1 and doubtful else state


def _where(box: Any) -> str:
    x, y, w, h = box
    return f"at {x},{y} {w}x{h}"
