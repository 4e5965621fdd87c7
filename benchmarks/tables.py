"""Write the tables of the READMEs and of some guides from the records: `python benchmarks/tables.py`.

With --check only compare. A page holds `<!-- table: NAME -->` … `<!-- end -->`; everything between is made here:
nothing where a table's record is not there yet.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "README.zh-CN.md", "docs/peers.md", "docs/read.md", "docs/reject.md", "docs/wasm.md")


def summary(record: str) -> dict[str, Any]:
    return json.loads((ROOT / "records" / record / "record.json").read_text(encoding="utf-8"))


def share(figure: dict[str, float]) -> str:
    return f"{figure['mean']:.2%} ± {figure['stdev'] * 100:.2f}"


def mnist() -> str:
    """Accuracy, size and cost of everything trained on MNIST."""
    rows = [
        "| MNIST | test accuracy | n | stored bytes | MACs | RAM, bytes | record |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, title in (
        ("mnist-4096", "`shrink --max-bytes 4096`"),
        ("mnist-16384", "`shrink --max-bytes 16384`"),
        ("mnist-lenet5", "`train --model lenet5`, float"),
        ("mnist-convnet", "`train --model convnet`, float"),
    ):
        record = summary(name)
        s = record["summary"]
        cells = (
            title,
            share(s["accuracy"]),
            s["accuracy"]["n"],
            f"{s['size_bytes']['mean']:,.0f}",
            f"{s['macs']['mean']:,.0f}",
            f"{s['ram_bytes']['mean']:,.0f}",
            f"[{name}](records/{name}/record.json)",
        )
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def carved() -> str:
    """What the shipped recipes make of MNIST; records without runs are left out."""
    rows = [
        "| Recipe | network | test accuracy | n | bytes, all told | MACs | RAM, bytes | record |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, network in CARVED.items():
        s = summary(name).get("summary")
        if s is None:
            continue
        cells = (
            f"`{name}`",
            f"`{network}`",
            share(s["accuracy"]),
            s["accuracy"]["n"],
            f"{s['encoded_bytes']['mean']:,.0f}",
            f"{s['macs']['mean']:,.0f}",
            f"{s['ram_bytes']['mean']:,.0f}",
            f"[{name}](records/{name}/record.json)",
        )
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


CARVED = {
    **{f"separable-{size}": "separable" for size in ("1k", "2k", "4k", "8k", "small-ram")},
    "lenet5-3k": "lenet5_caffe",
    "deep-compression": "lenet5_caffe",
}


def zoo() -> str:
    """Every network of the small zoo on two data sets: accuracy, cost, time."""
    mnist, fashion = (
        {row["name"]: row for row in summary(f"zoo-{data}")["document"]["models"]}
        for data in ("mnist", "fashion-mnist")
    )
    rows = [
        "| Small zoo | MNIST | Fashion-MNIST | parameters | MACs | bytes | latency, µs | energy, µJ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in mnist.items():
        other = fashion[name]["accuracy"] if name in fashion else None
        costs = (
            f"{row[key]:,}" if row[key] is not None else "–" for key in ("parameters", "macs", "size_bytes")
        )
        times = (f"{row[key]:,.1f}" if row[key] is not None else "–" for key in ("latency_us", "energy_uj"))
        cells = (f"`{name}`", share(row["accuracy"]), share(other) if other else "–", *costs, *times)
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def compression() -> str:
    """The same network made smaller by several libraries."""
    from compression import table

    return table(summary("compression-peers")["document"])


def wasm() -> str:
    """The WebAssembly export beside ONNX Runtime Web."""
    from wasm import table

    return table(summary("wasm")["document"])


def family() -> str:
    """The models that read, as benchmarks/family.py shipped them."""
    rows = [
        "| | bytes | MACs | RAM, bytes | MNIST test | digits kept | wrong, of these | outliers accepted | record |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in ("digit-base", "digit-micro", "finder", "scanner"):
        found = summary(name)["document"]
        costs = (f"{found[key]:,}" for key in ("size_bytes", "macs", "ram_bytes"))
        judged = found.get("handwriting_val")
        shares = (f"{judged[key]['share']:.1%}" if judged else "–" for key in ("kept", "errors", "accepted"))
        accuracy = f"{found['mnist_test']['accuracy']:.2%}" if judged else "–"
        cells = (f"`{name}`", *costs, accuracy, *shares, f"[{name}](../records/{name}/record.json)")
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def curve() -> str:
    """What a threshold keeps and lets pass, of the two shipped models side by side."""
    rows = [
        "| threshold | digit-base keeps | of these wrong | outliers accepted | digit-micro keeps | wrong | accepted |",
        "|---|---|---|---|---|---|---|",
    ]
    both = (summary(name)["document"]["curve"] for name in ("digit-base", "digit-micro"))
    for base, micro in zip(*both, strict=True):
        cells = (
            f"{share:.2%}" for _, wrong, kept, passed in (base, micro) for share in (kept, wrong, passed)
        )
        rows.append(f"| {base[0]:g} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


NOTHING = "no digit: "  # what the sets begin with in which no digit is
READING = (  # of a reader: set, figure, title
    ("exam-digits", "exact", "exam digits"),
    ("screen-digits", "exact", "screen digits"),
    ("cheque-strings", "exact", "cheques, exact"),
    ("cheque-strings", "digits_right", "cheques, digits"),
    ("touching digits", "exact", "touching, exact"),
    ("MNIST pushed together", "exact", "MNIST pushed together, exact"),
    ("pages", "exact", "numbers of pages"),
    ("pages", "f1", "digits of pages, F1"),
    ("photographs", "exact", "numbers of photographs"),
    ("photographs", "f1", "digits of photographs, F1"),
    (NOTHING, "invented", "invented where there is none"),
    ("exam-digits", "ms", "ms a crop"),
    ("pages", "ms", "ms a page"),
)


def reading() -> str:
    """What netsuke and its peers read of the same images; nothing while there is no record."""
    if not (ROOT / "records" / "reading" / "record.json").is_file():
        return ""
    found = summary("reading")["document"]
    rows = [
        "| Reading | " + " | ".join(title for _, _, title in READING) + " | bytes |",
        "|---" * (len(READING) + 2) + "|",
    ]
    for name, reader in found["readers"].items():
        title = f"`{name}`" if reader["version"] == name else f"{name} ({reader['version']})"
        cells = (read(reader["sets"], *chosen) for *chosen, _ in READING)
        rows.append(f"| {title} | " + " | ".join(cells) + f" | {reader['bytes']:,} |")
    first = next(iter(found["readers"].values()))["sets"]
    counts = {name: figures["n"] for name, figures in first.items() if not name.startswith(NOTHING)}
    none = sum(figures["n"] for name, figures in first.items() if name.startswith(NOTHING))
    said = ", ".join(f"{name} {n:,}" for name, n in (*counts.items(), ("without a digit", none)))
    told = "A crop counts where it is right and accepted at the default threshold; `digit-small` and peers accept all. "
    told += f"Images: {said}. {found['hardware']}, one thread, load {found['load_1min']}; "
    return "\n".join([*rows, "", f"{told}[record](records/reading/record.json)."])


def read(sets: dict[str, dict[str, Any]], name: str, figure: str) -> str:
    """One figure of one set, or of all whose names begin so; – where it was not measured."""
    found = [
        (figures[figure], figures["n"])
        for key, figures in sets.items()
        if key.startswith(name) and figures.get(figure) is not None
    ]
    if figure == "ms":
        return f"{found[0][0]:,.1f}" if found else "–"
    known = [(value["value"], n) for value, n in found if value["value"] is not None]
    return f"{sum(v * n for v, n in known) / sum(n for _, n in known):.1%}" if known else "–"


TABLES = {
    "carved": carved,
    "mnist": mnist,
    "family": family,
    "curve": curve,
    "reading": reading,
    "zoo": zoo,
    "compression": compression,
    "wasm": wasm,
}


def filled(text: str) -> str:
    """The text with every table made anew."""

    def table(match: re.Match[str]) -> str:
        made = TABLES[match[1]]()
        return f"<!-- table: {match[1]} -->\n{made and made + chr(10)}<!-- end -->"

    return re.sub(r"<!-- table: (\S+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def main() -> int:
    stale = []
    for name in PAGES:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        if filled(text) != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(filled(text), encoding="utf-8")
    print(f"{'stale' if '--check' in sys.argv else 'written'}: {', '.join(stale) or 'none'}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
