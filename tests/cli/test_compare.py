"""`netsuke compare`: files and a tiny zoo on the embedded digits, bad input, and a SIGKILL in the middle."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from netsuke.artifact import Artifact
from netsuke.cli.compare import compare
from netsuke.errors import ArtifactError, DataError, NetsukeError, OptionError
from netsuke.graph import Graph, Op
from netsuke.lab import zoo

ZOO = {
    "small": {
        "slim": ("separable", {"width": 6, "depth": 0}),
        "wide": ("separable", {"width": 8, "depth": 1}),
    }
}
FAST = ("--data", "digits", "--backends", "numpy", "--seconds", 0.01)
ZOO_ARGS = (*FAST, "--zoo", "small", "--epochs", 1, "--batch", 64, "--no-baselines")


def run(*args: object) -> str:
    """What the verb prints on stdout; its error, if it raises one, is raised here."""
    app = typer.Typer()
    app.command()(compare)
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(autouse=True)
def _small_zoo(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tiny models; skips where scikit-learn, which holds the digits, is missing."""
    monkeypatch.setattr(zoo, "ZOO", ZOO)


def linear(data: Any, seed: int = 0, shape: tuple[int, int] | None = None, classes: int = 10) -> Artifact:
    """Noisy means of the classes as the weights of one layer, as if trained with `seed`."""
    height, width = shape or data.image_shape[1:]
    weight = np.random.default_rng(seed).normal(0, 0.05, (classes, height * width))
    if shape is None:
        means = [data.train.images[data.train.labels == i].mean(0).ravel() for i in range(classes)]
        weight += (np.stack(means) - np.mean(means, 0)) / 127
    ops = (
        Op("normalize", "in", ("input",), {"scales": [1 / 255], "offsets": [0.0]}),
        Op("flatten", "flat", ("in",)),
        Op("dense", "out", ("flat",)),
    )
    tensors = {"out.weight": weight.astype(np.float32), "out.bias": np.zeros(classes, np.float32)}
    manifest = {
        "classes": [str(i) for i in range(classes)],
        "recipe": {"verb": "train", "model": "linear", "options": {}, "training": {"seed": seed}},
        "seed": seed,
        "data_hash": data.hash,
    }
    return Artifact(Graph((1, height, width), ops), tensors, manifest)


@pytest.fixture
def files(digits: Any, tmp_path: Path) -> list[Path]:
    """Two seeds of one model and one other."""
    paths = [tmp_path / name for name in ("lin-seed0.netsuke", "lin-seed1.netsuke", "other.netsuke")]
    for seed, path in enumerate(paths):
        artifact = linear(digits, seed)
        if path.stem == "other":
            artifact = artifact.with_manifest(recipe=None, data_hash="elsewhere", data="other-set")
        artifact.save(path)
    return paths


def test_files_that_differ_by_seed_share_a_row(files: list[Path], tmp_path: Path, digits: Any) -> None:
    got = json.loads(run(*files, *FAST, "--csv", tmp_path / "new" / "t.csv", "--json"))
    assert {m["name"]: m["accuracy"]["n"] for m in got["models"]} == {"lin": 2, "other": 1}
    assert (got["data"], got["n"], got["recipe"]) == ("digits", len(digits.test), None)
    by_name = {m["name"]: m for m in got["models"]}
    for path, entry in zip(files[:2], by_name["lin"]["runs"], strict=True):
        logits = Artifact.load(path).logits(digits.test.images)
        assert entry["accuracy"] == pytest.approx((logits.argmax(1) == digits.test.labels).mean())
    means = [m["accuracy"]["mean"] for m in got["models"]]
    assert means == sorted(means, reverse=True)
    assert list(by_name["lin"]["backends"]) == ["numpy"]
    assert any("other" in note and "other-set" in note for note in got["notes"])
    with (tmp_path / "new" / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [m["name"] for m in got["models"]]
    assert [float(row["accuracy_mean"]) for row in rows] == pytest.approx(means)


def test_tables_and_every_backend(files: list[Path]) -> None:
    text = run(files[0], files[2], "--data", "digits", "--seconds", 0.01)
    assert "energy" in text
    assert "numpy" in text
    assert "other" in text


def test_figures_are_kept_in_the_work_folder(files: list[Path], tmp_path: Path) -> None:
    args = (*files, *FAST, "--work", tmp_path / "work", "--json")
    first = json.loads(run(*args))
    kept = sorted((tmp_path / "work" / "measured").glob("figures-*.json"))
    assert len(kept) == 3
    for path in kept:  # what only a second reading can show
        marked = json.loads(path.read_text()) | {"parameters": 12345}
        path.write_text(json.dumps(marked))
    again = json.loads(run(*args))
    assert {m["parameters"] for m in again["models"]} == {12345}
    assert [m["latency_us"] for m in again["models"]] == [m["latency_us"] for m in first["models"]]


@pytest.mark.slow
def test_zoo_trains_every_seed_and_fits_the_baselines(tmp_path: Path, digits: Any) -> None:
    work = tmp_path / "work"
    args = (*ZOO_ARGS[:-1], "--models", "slim", "--seeds", "0,1", "--jobs", 2, "--work", work)
    got = json.loads(run(*args, "--html", tmp_path / "report.html", "--json"))
    rows = {m["name"]: m for m in got["models"]}
    row = rows.pop("slim")
    assert (row["kind"], row["model"], row["options"]) == ("network", *ZOO["small"]["slim"])
    assert row["accuracy"]["n"] == row["train_s"]["n"] == 2
    assert [entry["seed"] for entry in row["runs"]] == got["seeds"] == [0, 1]
    assert [epoch["epoch"] for epoch in row["history"]] == [1]
    assert (got["recipe"]["epochs"], got["recipe"]["batch"]) == (1, 64)
    assert len(rows) >= 3, "the baselines"
    for name, baseline in rows.items():
        assert (baseline["kind"], baseline["macs"], baseline["ram_bytes"]) == ("baseline", None, None)
        assert baseline["accuracy"]["n"] == 2
        assert baseline["accuracy"]["mean"] > 0.85, name
        assert baseline["size_bytes"] > 0
        assert baseline["train_s"]["mean"] > 0
        assert baseline["latency_us"] > 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "slim" in page
    assert "forest" in page
    first = work / "slim-seed0.netsuke"
    before = first.stat().st_mtime_ns
    again = json.loads(run(*args, "--json"))
    assert first.stat().st_mtime_ns == before, "a finished training is not repeated"
    assert again["models"] == got["models"], "nor is any other figure"


def test_a_training_typed_by_hand_counts_and_another_is_set_aside(tmp_path: Path) -> None:
    from netsuke.cli.train import train

    app = typer.Typer()
    app.command()(train)
    out = tmp_path / "slim-seed0.netsuke"
    words = "--data digits --model separable --option width=6,depth=0 --epochs 1 --batch 64 --seed 0 -o"
    assert CliRunner().invoke(app, [*words.split(), str(out)]).exit_code == 0
    by_hand = Artifact.load(out)
    args = (*ZOO_ARGS, "--seeds", "0", "--models", "slim", "--work", tmp_path, "--json")
    (row,) = json.loads(run(*args))["models"]
    assert Artifact.load(out).manifest == by_hand.manifest
    run(*args, "--lr", 0.003)
    assert Artifact.load(out).manifest["recipe"]["training"]["lr"] == 0.003
    assert Artifact.load(tmp_path / "slim-seed0.old.netsuke").weight_hash == by_hand.weight_hash
    assert row["accuracy"]["mean"] == by_hand.manifest["report"]["accuracy"]


KILLED = """
import sys
from netsuke.lab import zoo
zoo.ZOO = {zoo!r}
sys.argv = ["netsuke", "compare", *{args!r}]
from netsuke.cli import main
main()
"""


@pytest.mark.slow
def test_sigkill_and_again_goes_on(tmp_path: Path) -> None:
    import torch

    work = tmp_path / "work"
    args = [*map(str, ZOO_ARGS), "--seeds", "0", "--work", str(work), "--json"]
    args[args.index("--epochs") + 1] = "8"
    checkpoint = work / "wide-seed0.netsuke.work" / "checkpoint.pt"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED.format(zoo=ZOO, args=args)],
        cwd=tmp_path, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 250
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)  # the trainings too
    _, errors = process.communicate()
    assert checkpoint.exists(), errors
    assert not (work / "wide-seed0.netsuke").exists()
    finished = (work / "slim-seed0.netsuke").stat().st_mtime_ns
    # A history that only a resumed run can give back: the marked row is not measured again.
    state = torch.load(checkpoint, weights_only=True)
    assert 1 <= state["epoch"] < 8
    state["history"][0]["seconds"] = 12345.0
    torch.save(state, checkpoint)
    got = json.loads(run(*args))
    assert (work / "slim-seed0.netsuke").stat().st_mtime_ns == finished
    wide = next(m for m in got["models"] if m["name"] == "wide")
    assert wide["history"][0]["seconds"] == 12345.0
    assert wide["train_s"]["mean"] > 12345
    assert not list(work.glob("*.work"))


def test_a_failed_training_says_why_and_ends_the_others(tmp_path: Path) -> None:
    from netsuke.lab.training import Training

    chosen = {"typo": ("lenet6", {}), "slim": ZOO["small"]["slim"]}
    todo = zoo.jobs(chosen, [0], Training(epochs=1, threads=1), tmp_path)
    with pytest.raises(NetsukeError, match="training typo with seed 0 failed: no model 'lenet6'"):
        zoo.run(todo, "digits", "none", 1, lambda done, info: None)
    assert not any(tmp_path.iterdir()), "slim was not begun"


def test_only_the_same_training_counts_as_finished(tmp_path: Path, digits: Any) -> None:
    from netsuke.lab.training import Training
    from netsuke.lab.zoo import jobs

    (job,) = jobs({"lin": ("linear", {"width": 0.5})}, [3], Training(threads=1), tmp_path)
    recipe = {"verb": "train", "model": "linear", "options": {"width": 0.5}}
    training = json.loads(json.dumps(asdict(job.training)))
    assert not job.finished(digits.hash)

    def saved(**changes: Any) -> str | None:
        said = {"recipe": recipe | {"training": training}, "data_hash": digits.hash} | changes
        linear(digits).with_manifest(**said).save(job.out)
        assert job.finished(digits.hash) == (job.mismatch(digits.hash) is None)
        return job.mismatch(digits.hash)

    assert saved() is None
    later = {key: v for key, v in training.items() if key not in ("ema", "threads")}
    assert saved(recipe=recipe | {"training": later}) is None, "an option that came later"
    assert "threads" not in str(saved(recipe=recipe | {"training": training | {"threads": 7}}))
    for change, word in (
        ({"training": training | {"epochs": 3}}, "epochs is 3, not 10"),
        ({"training": training | {"seed": 4}}, "seed"),
        ({"training": training | {"augment": training["augment"] | {"rotate": 5.0}}}, "augment"),
        ({"options": {}}, "options"),
        ({"model": "lenet5"}, "model"),
        ({"verb": "compress"}, "verb"),
        ({"teacher": "0123"}, "teacher"),
        ({"training": None}, "no recipe"),
    ):
        assert word in str(saved(recipe=recipe | {"training": training} | change))
    assert "data_hash" in str(saved(data_hash="x"))
    assert "recipe" in str(saved(recipe=None))
    job.out.write_bytes(b"cut short")
    assert not job.finished(digits.hash)


@pytest.mark.parametrize(
    ("args", "error", "word"),
    [
        ([], OptionError, "files or --zoo small"),
        (["a.netsuke", "--zoo", "small"], OptionError, "not both"),
        (["--zoo", "smal"], OptionError, "did you mean 'small'"),
        (["--zoo", "small", "--models", "slin"], OptionError, "did you mean 'slim'"),
        (["--zoo", "small", "--seeds", "0,x"], OptionError, "whole numbers"),
        (["--zoo", "small", "--seeds", "1,1"], OptionError, "different numbers"),
        (["--zoo", "small", "--seeds", "-1"], OptionError, "different numbers"),
        (["--zoo", "small", "--jobs", "0"], OptionError, "at least 1"),
        (["--zoo", "small", "--epochs", "0"], OptionError, "--epochs"),
        (["--zoo", "small", "--optimizer", "lion"], OptionError, "rmsprop"),
        (["--zoo", "small", "--augment", "swirl=3"], OptionError, "swirl"),
        (["--zoo", "small", "--backends", "tpu"], OptionError, "onnxruntime"),
        (["--zoo", "small", "--html", "{file}/report.html"], OptionError, "cannot write"),
        (["--zoo", "small", "--csv", "{folder}"], OptionError, "is a folder"),
        (["--zoo", "small", "--work", "{file}/work"], OptionError, "cannot write"),
        (["none.netsuke"], ArtifactError, "none.netsuke"),
        (["{file}", "{file}"], OptionError, "give each once"),
        (["{large}"], DataError, "takes 1x9x9 images"),
        (["{few}"], DataError, "knows 4 classes"),
        (["{file}", "--data", "no-such-set"], DataError, "no-such-set"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_say_what_would_work(
    args: list[str], error: type[Exception], word: str, tmp_path: Path, digits: Any
) -> None:
    names = {name: tmp_path / f"{name}.netsuke" for name in ("file", "large", "few")}
    linear(digits).save(names["file"])
    linear(digits, shape=(9, 9)).save(names["large"])
    linear(digits, shape=digits.image_shape[1:], classes=4).save(names["few"])
    before = sorted(tmp_path.rglob("*"))
    words = [arg.format(folder=tmp_path, **names) for arg in args]
    with pytest.raises(error, match=word) as caught:
        run(*(() if "--data" in args else ("--data", "digits")), *words)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_usage_ends_with_2(netsuke_cli: Any, tmp_path: Path) -> None:
    done = netsuke_cli("compare", "--data", "digits", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("netsuke: give compare")
