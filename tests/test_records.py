"""Tables come from records, and records hold what a rerun needs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from statistics import mean, stdev

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECORDS = sorted((ROOT / "records").glob("*/record.json"))
COMPARISONS = [
    path for path in RECORDS if "comparison" in json.loads(path.read_text(encoding="utf-8")).get("kind", "")
]


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_readme_tables_are_those_of_the_records(name):
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    text = (ROOT / name).read_text(encoding="utf-8")
    assert tables.filled(text) == text, "run python benchmarks/tables.py"
    assert "<!-- table:" in text


@pytest.mark.parametrize("path", [p for p in RECORDS if p not in COMPARISONS], ids=lambda p: p.parent.name)
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
