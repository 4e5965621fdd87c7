"""`netsuke rerun` on a record of two short trainings."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from netsuke.artifact import Artifact
from netsuke.cli.rerun import rerun
from netsuke.errors import DataError, NetsukeError, OptionError
from netsuke.graph import Graph, Op

COMMAND = "train --data digits --model separable --option width=6,depth=0 --epochs 2 --threads 1 --seed {seed} -o {out}"


def run(*args: object) -> str:
    """What the verb prints on stdout; its error, if it raises one, is raised here."""
    app = typer.Typer()
    app.command()(rerun)
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def write(folder: Path, record: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = record if isinstance(record, str) else json.dumps(record)
    (folder / "record.json").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, digits: Any) -> Path:
    """A record after its first rerun, with --save; the runs lie beside it."""
    folder = write(
        tmp_path_factory.mktemp("records") / "tiny",
        {"title": "Tiny", "command": COMMAND, "seeds": [0, 1], "note": "kept"},
    )
    run(folder, "--folder", folder.parent / "runs", "--save")
    return folder


def test_saves_what_was_measured(record: Path, digits: Any) -> None:
    said = json.loads((record / "record.json").read_text(encoding="utf-8"))
    assert (said["title"], said["command"], said["seeds"], said["note"]) == ("Tiny", COMMAND, [0, 1], "kept")
    assert said["hardware"]
    assert said["version"]
    for seed in ("0", "1"):
        artifact = Artifact.load(record.parent / "runs" / f"seed-{seed}.netsuke")
        right = artifact.logits(digits.test.images).argmax(1) == digits.test.labels
        assert said["results"][seed]["accuracy"] == pytest.approx(right.mean())
        assert artifact.manifest["seed"] == int(seed)
    values = [said["results"][seed]["accuracy"] for seed in ("0", "1")]
    summary = said["summary"]["accuracy"]
    assert summary == {"mean": pytest.approx(mean(values)), "stdev": pytest.approx(stdev(values)), "n": 2}
    assert said["summary"]["size_bytes"]["stdev"] == 0
    assert "seconds_per_epoch" in said["summary"]
    assert [path.name for path in record.iterdir()] == ["record.json"], "no temporary file stays"


def test_finished_runs_are_not_repeated(record: Path) -> None:
    runs = record.parent / "runs"
    before = {path.name: path.stat().st_mtime_ns for path in runs.iterdir()}
    got = json.loads(run(record, "--folder", runs, "--json"))
    assert {path.name: path.stat().st_mtime_ns for path in runs.iterdir()} == before
    assert got["now"]["accuracy"] == got["said"]["accuracy"]
    (runs / "seed-1.json").unlink()
    again = json.loads(run(record, "--folder", runs, "--seeds", "1", "--json"))
    assert again["now"]["accuracy"]["n"] == 1
    said = json.loads((record / "record.json").read_text(encoding="utf-8"))
    assert again["now"]["accuracy"]["mean"] == said["results"]["1"]["accuracy"], (
        "the same seed, the same figure"
    )
    assert (runs / "seed-0.json").stat().st_mtime_ns == before["seed-0.json"]


def test_table_sets_recorded_beside_now(record: Path) -> None:
    text = run(record, "--folder", record.parent / "runs")
    assert "recorded" in text
    assert "(n=2)" in text
    assert "accuracy" in text


BAD: dict[str, tuple[object, str]] = {
    "not JSON": ("{", "cannot be read"),
    "a list": ("[]", "command and a list of seeds"),
    "a number": ("3", "command and a list of seeds"),
    "no command": ({"seeds": [0]}, "command and a list of seeds"),
    "no seeds": ({"command": COMMAND}, "command and a list of seeds"),
    "seeds of words": ({"command": COMMAND, "seeds": ["a"]}, "command and a list of seeds"),
    "an open quote": ({"command": "train 'x", "seeds": [0]}, "command"),
    "a run that fails": (
        {"command": "train --data no-such-set -o {out}", "seeds": [7]},
        "seed 7 failed.*code 2",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_records(what: str, tmp_path: Path) -> None:
    content, word = BAD[what]
    folder = write(tmp_path / "bad", content)
    before = (folder / "record.json").read_bytes()
    with pytest.raises(NetsukeError, match=word) as caught:
        run(folder, "--folder", tmp_path / "runs", "--save")
    assert "\n" not in str(caught.value)
    assert (folder / "record.json").read_bytes() == before
    assert not list(tmp_path.glob("runs/*.json"))


def test_damaged_result_is_named(record: Path, tmp_path: Path) -> None:
    (tmp_path / "seed-0.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"seed-0\.json"):
        run(record, "--folder", tmp_path, "--seeds", "0")


def test_bad_options(record: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no record\.json"):
        run(tmp_path / "nowhere")
    with pytest.raises(OptionError, match="whole numbers"):
        run(record, "--seeds", "a,b")
    with pytest.raises(OptionError, match="at least 1"):
        run(record, "--jobs", "0")


@pytest.fixture
def comparison(tmp_path: Path, digits: Any) -> Path:
    """A record that compares one file with nothing else."""
    height, width = digits.image_shape[1:]
    ops = (
        Op("normalize", "in", ("input",), {"scales": [1 / 255], "offsets": [0.0]}),
        Op("flatten", "flat", ("in",)),
        Op("dense", "out", ("flat",)),
    )
    weight = np.random.default_rng(0).normal(size=(10, height * width)).astype(np.float32)
    tensors = {"out.weight": weight, "out.bias": np.zeros(10, np.float32)}
    manifest = {"classes": list(digits.classes)}
    Artifact(Graph((1, height, width), ops), tensors, manifest).save(tmp_path / "a.netsuke")
    command = (
        f"compare {tmp_path / 'a.netsuke'} --data digits --backends numpy --seconds 0.01 --work {{work}}"
    )
    return write(
        tmp_path / "record", {"title": "One", "command": command, "kind": "comparison", "note": "kept"}
    )


def test_comparisons_are_repeated_and_saved(comparison: Path) -> None:
    args = (comparison, "--folder", comparison.parent / "runs")
    got = json.loads(run(*args, "--json", "--save"))
    assert got["said"] == {}
    said = json.loads((comparison / "record.json").read_text(encoding="utf-8"))
    assert (said["note"], said["document"]) == ("kept", got["now"])
    assert said["hardware"]
    (row,) = said["document"]["models"]
    assert row["accuracy"]["n"] == 1
    assert not {"confused", "history"} & set(row), "pictures and curves stay out of the record"
    text = run(*args)
    assert text.count(f"{row['size_bytes']:,}") == 2, "recorded beside now"


def test_a_comparison_takes_no_seeds(comparison: Path) -> None:
    with pytest.raises(OptionError, match="names the seeds"):
        run(comparison, "--seeds", "0", "--folder", comparison.parent / "runs")


def test_a_benchmark_says_how_it_is_run(tmp_path: Path) -> None:
    folder = write(tmp_path / "speed", {"kind": "benchmark", "command": "python benchmarks/speed.py"})
    with pytest.raises(OptionError, match=r"run it by itself: python benchmarks/speed\.py"):
        run(folder, "--folder", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def older(record: Path, tmp_path: Path) -> Path:
    """The record as an older way of counting left it, with its runs."""
    import shutil

    said = json.loads((record / "record.json").read_text(encoding="utf-8"))
    for figures in said["results"].values():
        figures["ram_bytes"] += 1000
    shutil.copytree(record.parent / "runs", tmp_path / "runs")
    return write(tmp_path / "tiny", said)


def test_recounts_from_the_files_alone(older: Path, record: Path) -> None:
    (older.parent / "runs" / "seed-1.netsuke").unlink()  # the other tells what it had
    for seed in "01":
        (older.parent / "runs" / f"seed-{seed}.json").unlink()
    shown = json.loads(run(older, "--folder", older.parent / "runs", "--recount", "--save", "--json"))
    want = json.loads((record / "record.json").read_text(encoding="utf-8"))
    said = json.loads((older / "record.json").read_text(encoding="utf-8"))
    assert shown["now"] == said["summary"] == want["summary"]
    assert said == {**want, "recounted": ["ram_bytes"]}
    run(older, "--folder", older.parent / "runs", "--recount", "--save")
    assert json.loads((older / "record.json").read_text(encoding="utf-8")) == said


def test_recounting_refuses_files_of_another_run(older: Path) -> None:
    runs = older.parent / "runs"
    before = (older / "record.json").read_bytes()
    (runs / "seed-1.netsuke").replace(runs / "seed-0.netsuke")
    with pytest.raises(DataError, match=r"seed-0\.netsuke is of another run: its (accuracy|loss) is"):
        run(older, "--folder", runs, "--recount", "--save")
    (runs / "seed-0.netsuke").unlink()
    with pytest.raises(DataError, match=r"holds no seed-0\.netsuke, nor a run with the same counts"):
        run(older, "--folder", runs, "--recount", "--save")
    with pytest.raises(OptionError, match="whole record of finished runs"):
        run(older, "--folder", runs, "--recount", "--seeds", "0")
    assert (older / "record.json").read_bytes() == before
