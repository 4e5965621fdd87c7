"""Tables come from records, and records hold what a rerun needs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from statistics import mean, stdev

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECORDS = sorted((ROOT / "records").glob("*/record.json"))
KINDS = {path: json.loads(path.read_text(encoding="utf-8")).get("kind", "") for path in RECORDS}
COMPARISONS = [path for path, kind in KINDS.items() if "comparison" in kind]
BENCHMARKS = [path for path, kind in KINDS.items() if kind == "benchmark"]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["README.md", "README.zh-CN.md", "docs/peers.md", "docs/read.md", "docs/wasm.md"]
)
def test_tables_are_those_of_the_records(name, tables):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert tables.filled(text) == text, "run python benchmarks/tables.py"
    assert "<!-- table:" in text


def test_table_of_reading(tables, monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    empty = "a\n<!-- table: reading -->\n<!-- end -->\nb"
    assert tables.filled(empty) == empty  # no record yet

    def share(value):
        return {"value": value, "low": 0.0, "high": 1.0, "n": 4}

    def sets(page):
        crop = {"n": 4, "ms": 0.5, "exact": share(0.75)}
        return {
            "exam-digits": crop,
            "screen-digits": crop,
            "no digit: letters": {"n": 1, "ms": 1.0, "invented": share(1.0)},
            "no digit: noise": {"n": 3, "ms": 1.0, "invented": share(0.0)},
            "cheque-strings": crop | {"digits_right": share(0.9)},
            "touching digits": {"n": 0, "ms": None},
            "MNIST pushed together": crop,
            "pages": {"n": 2, "ms": 1234.5, "exact": share(0.5), **page},
            "photographs": {"n": 4, "ms": 99.0, "exact": share(0.25), **page},
        }

    readers = {
        "digit-base": {"version": "digit-base", "bytes": 1234, "sets": sets({"f1": share(0.98)})},
        "rapidocr": {"version": "rapidocr 3.10", "bytes": 12345678, "sets": sets({})},
    }
    document = {"hardware": "a machine", "load_1min": 0.1, "readers": readers}
    (tmp_path / "records" / "reading").mkdir(parents=True)
    (tmp_path / "records" / "reading" / "record.json").write_text(json.dumps({"document": document}))
    made = tables.filled(empty)
    assert tables.filled(made) == made
    _, _, head, line, own, peer, _, said, *_ = made.splitlines()
    assert head.count("|") == line.count("|") == own.count("|") == peer.count("|")
    assert own.endswith(
        "| 75.0% | 75.0% | 75.0% | 90.0% | – | 75.0% | 50.0% | 98.0% | 25.0% | 98.0% | 25.0% | 0.5 | 1,234.5 | 1,234 |"
    )
    assert peer.startswith("| rapidocr (rapidocr 3.10) | ")
    assert "| 50.0% | – | 25.0% | – | 25.0% |" in peer
    assert "pages 2, photographs 4, without a digit 4. a machine" in said


@pytest.mark.parametrize(
    "path", [p for p in RECORDS if p not in COMPARISONS + BENCHMARKS], ids=lambda p: p.parent.name
)
def test_record_is_complete_and_its_summary_is_that_of_its_runs(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    assert "{seed}" in record["command"]
    assert "{out}" in record["command"]
    assert [str(seed) for seed in record["seeds"]] == list(record["results"])
    assert record["hardware"]
    for key, figure in record["summary"].items():
        values = [run[key] for run in record["results"].values()]
        assert figure["n"] == len(values)
        assert figure["mean"] == pytest.approx(mean(values))
        assert figure["stdev"] == pytest.approx(stdev(values))


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda p: p.parent.name)
def test_comparison_is_complete_and_its_means_are_those_of_its_runs(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    assert "{work}" in record["command"]
    assert record["hardware"] == record["document"]["hardware"]
    assert record["document"]["models"]
    for row in record["document"]["models"]:
        accuracies = [run["accuracy"] for run in row["runs"]]
        assert row["accuracy"]["n"] == len(accuracies)
        assert row["accuracy"]["mean"] == pytest.approx(mean(accuracies))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda p: p.parent.name)
def test_benchmark_names_its_command_and_its_means_are_those_of_its_runs(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    python, script = record["command"].split()[:2]
    assert python == "python"
    assert (ROOT / script).is_file()
    document = record["document"]
    assert document["hardware"]
    for row in document.get("artifacts", ()):  # builds that must be equal are
        exact = [check for name, check in row["checks"].items() if "LiteRT" not in name]
        assert not any(check.get("differ") or "broken" in check for check in exact)
    for row in document.get("graphs", {}).get("checks", {}).values():
        assert (row["differ"], row["failures"]) == (0, [])
    for net in document.get("nets", ()):  # clocks have no seeds
        own = net["rows"][0]
        assert (own["engine"], own["faster"], own["batch_faster"]) == ("native int8", 1, 1)
        assert all(row["n"] > 20 for row in net["rows"])
    for row in document.get("results", ()):  # of WebAssembly
        assert all(
            ratio["n"] > 20 and ratio["p5"] <= ratio["median"] <= ratio["p95"]
            for ratio in row["ratio"].values()
        )
        assert row["equal_logits_on"] == "mnist"
    for row in document.get("rows", ()):
        assert [run["seed"] for run in row["runs"]] == document["seeds"]
        for key, figure in row["summary"].items():
            values = [run[key] for run in row["runs"]]
            assert figure["n"] == len(values)
            assert figure["mean"] == pytest.approx(mean(values))
            assert figure["stdev"] == pytest.approx(stdev(values))
