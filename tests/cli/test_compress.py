"""`netsuke compress`: a float file in, an integer file out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from graphs import small_artifact
from netsuke.artifact import Artifact
from netsuke.cli.compress import compress
from netsuke.errors import ArtifactError, DataError, NetsukeError, OptionError
from netsuke.export import TARGETS
from netsuke.lab.carve import carve
from netsuke.lab.models import build
from netsuke.lab.steps.train import Training, train


def run(*args: object) -> str:
    """What the verb prints on stdout; its error, if it raises one, is raised here."""
    app = typer.Typer()
    app.command()(compress)
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def file(digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = build("convnet", digits.image_shape, 10, width=0.2, norm=True, dropout=0.0)
    model = train(model, digits, Training(epochs=6, batch=32, lr=4e-3))
    path = tmp_path_factory.mktemp("compress") / "float.netsuke"
    carve(model, digits, recipe={"verb": "train"}, seed=0).save(path)
    return path


@pytest.mark.parametrize(("bits", "epochs"), [(8, 0), (4, 2)])
def test_document_and_file(bits: int, epochs: int, file: Path, digits: Any, tmp_path: Path) -> None:
    out = tmp_path / "small.netsuke"
    args = ("--data", "digits", "--bits", bits, "--epochs", epochs, "-o", out, "--json")
    got = json.loads(run(file, *args, *(("--teacher", file) if epochs else ())))
    floating, small = Artifact.load(file), Artifact.load(out)
    assert small.graph.integer
    assert {op.attrs["bits"] for op in small.graph.ops if "bits" in op.attrs} == {bits}
    right = small.logits(digits.test.images).argmax(1) == digits.test.labels
    assert got["accuracy"] == pytest.approx(right.mean())
    before = (floating.logits(digits.test.images).argmax(1) == digits.test.labels).mean()
    assert got["accuracy"] > before - 0.02
    assert got["size_bytes"] == small.size_bytes < floating.size_bytes * bits / 32 * 1.3
    assert got["file_bytes"] == out.stat().st_size < file.stat().st_size, "the file is smaller too"
    assert len(got["history"]) == epochs
    recipe = small.manifest["recipe"]
    assert (recipe["verb"], recipe["bits"], recipe["from"]) == ("compress", bits, floating.weight_hash)
    images = digits.test.images[:50]
    for key in ("c", "onnx"):  # the targets of integer graphs
        path = TARGETS[key].write(small, tmp_path / key)
        np.testing.assert_array_equal(TARGETS[key].run(path, images), small.logits(images))
    assert {path.name for path in tmp_path.iterdir()} == {"small.netsuke", "c", "onnx"}


def test_errors(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.netsuke"
    with pytest.raises(OptionError, match="1 to 8 bits; got 9"):
        run(file, "--data", "digits", "--bits", 9, "-o", out)
    with pytest.raises(ArtifactError, match="does not exist"):
        run(tmp_path / "none.netsuke", "--data", "digits", "-o", out)
    small_artifact(integer=False).save(tmp_path / "other.netsuke")
    with pytest.raises(DataError, match=r"1x12x10.*1x8x8"):
        run(tmp_path / "other.netsuke", "--data", "digits", "-o", out)
    assert not out.exists()


def test_quantised_twice_is_refused(file: Path, tmp_path: Path) -> None:
    run(file, "--data", "digits", "-o", tmp_path / "once.netsuke")
    with pytest.raises(OptionError, match="quantised already"):
        run(tmp_path / "once.netsuke", "--data", "digits", "-o", tmp_path / "twice.netsuke")


# --- several steps ----------------------------------------------------------------------------------

RECIPE = """
title = "for the tests"
allowed_loss = 0.9

[model]
name = "convnet"
options = { width = 0.2, norm = true }
[model.train]
epochs = 4
batch = 32
lr = 4e-3

[[step]]
step = "prune"
amount = 0.3
structure = "channels"
teacher = "self"
[step.training]
epochs = 2
batch = 32
augment = "rotate=5"

[[step]]
step = "quantize"
bits = 4
[step.training]
epochs = 2
batch = 32
ema = 0.9
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "mine.toml").write_text(RECIPE, encoding="utf-8")
    return tmp_path / "mine.toml"


@pytest.mark.parametrize("fresh", [False, True])
def test_a_recipe_on_a_file_and_on_its_own_network(
    fresh: bool, recipe: Path, file: Path, digits: Any, tmp_path: Path
) -> None:
    out, work = tmp_path / "small.netsuke", tmp_path / "kept"
    source = () if fresh else (file,)
    words = (*source, "--data", "digits", "--recipe", recipe, "-o", out, "--work", work, "--json")
    got = json.loads(run(*words))
    first, pruned, whole = got["steps"]
    assert [first["name"], pruned["name"], whole["name"]] == [
        "train convnet" if fresh else "start", "prune", "quantize"
    ]  # fmt: skip
    assert pruned["macs"] < first["macs"]
    assert pruned["parameters"] < first["parameters"]
    assert whole["size_bytes"] == got["size_bytes"] < first["size_bytes"] / 5
    small = Artifact.load(out)
    assert small.manifest["steps"] == got["steps"]
    assert small.manifest["report"]["accuracy"] == got["accuracy"] > 0.5
    right = small.logits(digits.test.images).argmax(1) == digits.test.labels
    assert got["accuracy"] == pytest.approx(right.mean())
    assert small.manifest["recipe"]["title"] == "for the tests"
    assert small.manifest["recipe"]["steps"][0]["training"]["augment"]["rotate"] == 5
    assert len(got["history"]) == (8 if fresh else 4)
    assert work.is_dir()
    again = json.loads(run(*words))
    assert again["steps"] == got["steps"], "the work folder has it all, seconds included"


def test_the_table_and_the_lines(recipe: Path, file: Path, tmp_path: Path, netsuke_cli: Any) -> None:
    out = tmp_path / "small.netsuke"
    done = netsuke_cli("compress", file, "--data", "digits", "--recipe", recipe, "-o", out)
    assert done.returncode == 0, done.stderr
    for line in ("0 start: ", "1 prune: ", "2 quantize: "):
        assert any(text.startswith(line) for text in done.stderr.splitlines()), done.stderr
    shown = " ".join(done.stdout.split())  # a long path wraps its line
    for word in ("step by step", "1 prune", "2 quantize", "MACs", "encoded", "accuracy"):
        assert word in shown
    assert {path.name for path in tmp_path.iterdir()} == {"small.netsuke", "mine.toml"}, "no work is left"


def test_a_model_of_the_zoo_is_trained_first(tmp_path: Path) -> None:
    out = tmp_path / "small.netsuke"
    got = json.loads(run("mlp", "--data", "digits", "--bits", 8, "-o", out, "--json"))
    assert [row["name"] for row in got["steps"]] == ["train mlp", "quantize"]
    assert got["accuracy"] > 0.8
    assert Artifact.load(out).manifest["recipe"]["model"]["name"] == "mlp"


def test_an_onnx_file(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs onnx: pip install 'netsuke[onnx]'")
    foreign = TARGETS["onnx"].write(Artifact.load(file), tmp_path / "foreign")
    out = tmp_path / "small.netsuke"
    got = json.loads(run(foreign, "--data", "digits", "-o", out, "--json"))
    assert got["accuracy"] > 0.5
    assert Artifact.load(out).graph.integer


FLAGS: dict[str, tuple[tuple[object, ...], list[str]]] = {
    "prune": (("--prune", 0.6, "--epochs", 1), ["prune"]),
    "prune by another importance": (("--prune", 0.6, "--importance", "taylor", "--rounds", 2), ["prune"]),
    "prune channels": (("--prune", 0.3, "--structured"), ["prune"]),
    "pattern": (("--pattern", "2:4"), ["prune"]),
    "both": (("--prune", 0.5, "--bits", 4, "--epochs", 1, "--teacher", "self"), ["prune", "quantize"]),
    "share and encode": (("--prune", 0.7, "--share", 4, "--encode", "huffman"), ["prune", "share", "encode"]),
    "factorise": (("--factorise", 0.7), ["factorise"]),
    "weights": (("--weight-only", 4), ["weight_only"]),
    "dynamic": (("--dynamic", 8), ["dynamic"]),
}


@pytest.mark.parametrize("case", FLAGS)
def test_flags(case: str, file: Path, tmp_path: Path) -> None:
    words, names = FLAGS[case]
    out = tmp_path / "small.netsuke"
    got = json.loads(run(file, "--data", "digits", *words, "-o", out, "--json"))
    assert [row["name"] for row in got["steps"]] == ["start", *names]
    small, floating = Artifact.load(out), Artifact.load(file)
    assert small.graph.integer == ("--bits" in words)
    last, first = got["steps"][-1], got["steps"][0]
    if case == "prune channels":
        assert last["macs"] < first["macs"]
    elif "prune" in names:
        assert last["sparsity"] >= 0.45
        assert last["macs"] == first["macs"]
    elif case == "factorise":
        assert last["parameters"] < first["parameters"]
    else:
        assert small.size_bytes < floating.size_bytes / 3


def test_an_integer_file_can_only_be_encoded(file: Path, digits: Any, tmp_path: Path) -> None:
    whole, coded = tmp_path / "whole.netsuke", tmp_path / "coded.netsuke"
    run(file, "--data", "digits", "--prune", 0.8, "--bits", 4, "-o", whole)
    got = json.loads(run(whole, "--data", "digits", "--encode", "auto", "-o", coded, "--json"))
    assert [row["name"] for row in got["steps"]] == ["start", "encode"]
    assert Artifact.load(coded).weight_hash == Artifact.load(whole).weight_hash
    assert got["steps"][1]["encoded_bytes"] == Artifact.load(coded).encoded_bytes <= got["size_bytes"]
    with pytest.raises(OptionError, match="quantised already"):
        run(whole, "--data", "digits", "--prune", 0.5, "-o", tmp_path / "no.netsuke")


def test_an_allowed_loss(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.netsuke"
    words = ("--prune", 0.95, "--allowed-loss", 0.02)
    got = json.loads(run(file, "--data", "digits", *words, "-o", out, "--json"))
    assert got["steps"][1]["rolled_back"]
    assert Artifact.load(out).weight_hash == Artifact.load(file).weight_hash


def test_list_and_check(file: Path, recipe: Path, tmp_path: Path) -> None:
    names = {row["recipe"] for row in json.loads(run("--list", "--json"))}
    assert {
        "tiny-int8",
        "deep-compression",
        "ternary",
        "mixed-precision",
        "structured-half",
        "prune-distil-quantise",
    } <= names
    assert "tiny-int8" in run("--list")
    got = json.loads(run(file, "--data", "digits", "--recipe", recipe, "--check", "--json"))
    assert got["ok"]
    assert [step["step"] for step in got["recipe"]["steps"]] == ["prune", "quantize"]
    text = run(file, "--data", "digits", "--recipe", recipe, "--dry-run", "-o", tmp_path / "no.netsuke")
    assert "structure=channels" in text
    assert {path.name for path in tmp_path.iterdir()} == {"mine.toml"}


WRONG: dict[str, tuple[tuple[object, ...], str]] = {
    "no data": (("FILE",), "--data is needed"),
    "no out": (("FILE", "--data", "digits"), "--out is needed"),
    "no source": (("--data", "digits"), "give a model"),
    "no such model": (("convnt", "--data", "digits"), "no file convnt, and no model 'convnt'; did you mean 'convnet'"),
    "no such recipe": (("FILE", "--data", "digits", "--recipe", "tiny-int9"), "did you mean 'tiny-int8'"),
    "no such recipe file": (("FILE", "--data", "digits", "--recipe", "a/b.toml"), "no such recipe file"),
    "flag and recipe": (("FILE", "--data", "digits", "--recipe", "ternary", "--bits", 4), "--bits and --recipe"),
    "flag and recipe too": (("FILE", "--data", "digits", "--recipe", "ternary", "--epochs", 4), "--epochs and"),
    "multiple alone": (("FILE", "--data", "digits", "--prune", 0.5, "--multiple", 8), "--structured too"),
    "structured alone": (("FILE", "--data", "digits", "--structured"), "give --prune AMOUNT too"),
    "two structures": (
        ("FILE", "--data", "digits", "--prune", 0.5, "--structured", "--pattern", "2:4"), "exclude each other",
    ),
    "two widths": (("FILE", "--data", "digits", "--bits", 4, "--weight-only", 4), "exclude each other"),
    "share and bits": (("FILE", "--data", "digits", "--bits", 4, "--share", 4), "exclude each other"),
    "coding": (("FILE", "--data", "digits", "--encode", "zip"), r"step 1 \(encode\): no coding 'zip'"),
    "amount": (("FILE", "--data", "digits", "--prune", 1.5), r"step 1 \(prune\): amount"),
    "importance": (("FILE", "--data", "digits", "--prune", 0.5, "--importance", "magnitud"), "did you mean .magnitude"),
    "pattern": (("FILE", "--data", "digits", "--pattern", "4:2"), r"step 1 \(prune\): "),
    "loss": (("FILE", "--data", "digits", "--allowed-loss", 5), "share of 1"),
    "idle teacher": (("FILE", "--data", "digits", "--teacher", "self"), "--teacher is of training: give --epochs"),
    "idle rate": (("FILE", "--data", "digits", "--lr", 0.1), "--lr is of training"),
    "empty data": (("FILE", "--data", ""), "neither a known data set nor a folder"),
    "teacher": (("FILE", "--data", "digits", "--epochs", 1, "--teacher", "no.netsuke"), "no such file"),
    "augment": (("FILE", "--data", "digits", "--epochs", 1, "--augment", "rotat=3"), "did you mean 'rotate'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_bad_usage_is_one_line_before_anything_runs(case: str, file: Path, tmp_path: Path) -> None:
    words, message = WRONG[case]
    out = () if case == "no out" else ("-o", tmp_path / "small.netsuke")
    with pytest.raises(NetsukeError, match=message) as error:
        run(*(file if word == "FILE" else word for word in words), *out)
    assert "\n" not in str(error.value)
    assert not any(tmp_path.iterdir())


def test_the_source_is_not_overwritten(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(OptionError, match="write the new model beside"):
        run(file, "--data", "digits", "-o", file)
    assert file.read_bytes() == before


def test_a_folder_without_validation_images(tmp_path: Path) -> None:
    """One image a class for training: it runs, and says that nothing is checked."""
    import cv2

    for half, n in (("train", 1), ("test", 2)):
        for shade, name in ((60, "dark"), (200, "bright")):
            (tmp_path / "set" / half / name).mkdir(parents=True)
            for i in range(n):
                image = np.full((12, 12), shade + i, np.uint8)
                cv2.imwrite(str(tmp_path / "set" / half / name / f"{i}.png"), image)
    out = tmp_path / "small.netsuke"
    words = ("mlp", "--data", tmp_path / "set", "--prune", 0.5, "--bits", 8, "--allowed-loss", 0.0)
    got = json.loads(run(*words, "-o", out, "--json"))
    assert [row["accuracy"] for row in got["steps"]] == [None, None, None]
    assert not any(row["rolled_back"] for row in got["steps"])
