"""`netsuke train`: its document, its file, and a SIGKILL in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from netsuke.artifact import Artifact
from netsuke.cli.train import train
from netsuke.errors import ArtifactError, DataError, NetsukeError, OptionError


def run(*args: object) -> str:
    """What the verb prints on stdout; its error, if it raises one, is raised here."""
    app = typer.Typer()
    app.command()(train)
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


SMALL = (
    "--data",
    "digits",
    "--model",
    "separable",
    "--option",
    "width=8,depth=1",
    "--batch",
    "64",
    "--threads",
    "1",
)


@pytest.fixture(autouse=True)
def _needs_digits(digits: Any) -> None:
    """Skips where scikit-learn is missing."""


def test_json_document_and_file(tmp_path: Path, digits: Any) -> None:
    out = tmp_path / "new" / "a.netsuke"
    got = json.loads(run(*SMALL, "--epochs", 3, "--seed", 4, "-o", out, "--json"))
    artifact = Artifact.load(out)
    right = artifact.logits(digits.test.images).argmax(1) == digits.test.labels
    assert got["accuracy"] == pytest.approx(right.mean())
    assert (got["n"], got["split"], got["data"]) == (len(digits.test), "test", "digits")
    assert got["size_bytes"] == artifact.size_bytes
    assert got["file_bytes"] == out.stat().st_size
    assert [row["epoch"] for row in got["history"]] == [1, 2, 3]
    assert {"loss", "accuracy", "val_accuracy"} <= set(got["history"][0])
    manifest = artifact.manifest
    assert manifest["recipe"]["model"] == "separable"
    assert manifest["recipe"]["options"] == {"width": 8, "depth": 1}
    assert manifest["recipe"]["training"]["epochs"] == 3
    assert (manifest["seed"], manifest["data_hash"]) == (4, digits.hash)
    assert manifest["report"]["accuracy"] == got["accuracy"]
    assert manifest["history"] == got["history"]
    assert [path.name for path in out.parent.iterdir()] == ["a.netsuke"], "the work folder is gone"


def test_tables(tmp_path: Path, digits: Any) -> None:
    text = run(*SMALL, "--epochs", 1, "-o", tmp_path / "a.netsuke", "--augment", "handwriting,noise=0.05")
    assert f"of {len(digits.test)} wrong" in text
    assert "parameters" in text


def test_distils_from_a_file(tmp_path: Path) -> None:
    run(*SMALL, "--epochs", 1, "-o", tmp_path / "t.netsuke")
    run(
        *SMALL,
        "--epochs",
        1,
        "-o",
        tmp_path / "s.netsuke",
        "--teacher",
        tmp_path / "t.netsuke",
        "--hard",
        0.2,
    )
    recipe = Artifact.load(tmp_path / "s.netsuke").manifest["recipe"]
    assert recipe["teacher"] == Artifact.load(tmp_path / "t.netsuke").weight_hash
    assert (recipe["temperature"], recipe["hard"]) == (2.0, 0.2)


def test_distils_from_several_files_and_what_goes_on_in_them(tmp_path: Path) -> None:
    for name, seed in (("t", 0), ("u", 1)):
        run(*SMALL, "--epochs", 1, "--seed", seed, "-o", tmp_path / f"{name}.netsuke")
    teachers = ["--teacher", tmp_path / "t.netsuke", "--teacher", tmp_path / "u.netsuke"]
    run(*SMALL, "--epochs", 1, *teachers, "--features", 0.5, "--attention", 1, "-o", tmp_path / "s.netsuke")
    recipe = Artifact.load(tmp_path / "s.netsuke").manifest["recipe"]
    assert recipe["teacher"] == [Artifact.load(tmp_path / f"{n}.netsuke").weight_hash for n in "tu"]
    assert (recipe["features"], recipe["attention"]) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("args", "error", "word"),
    [
        (["--features", "1"], OptionError, "need a --teacher"),
        (["--model", "resnet"], OptionError, "separable"),
        (["--option", "width"], OptionError, "name=value"),
        (["--option", "depht=2"], OptionError, "depht"),
        (["--option", "width=many"], NetsukeError, "width"),
        (["--option", "shape=3"], NetsukeError, "shape"),
        (["--option", "seed=3"], NetsukeError, "seed"),
        (["--augment", "rotate"], OptionError, "name=value"),
        (["--augment", "swirl=3"], OptionError, "swirl"),
        (["--augment", "rotate=far"], OptionError, "rotate"),
        (["--augment", "fill=3"], OptionError, "fill"),
        (["--optimizer", "lion"], OptionError, "rmsprop"),
        (["--schedule", "steps"], OptionError, "one-cycle"),
        (["--epochs", "-1"], OptionError, "epochs"),
        (["--lr", "1e8", "--optimizer", "sgd", "--precision", "float32"], DataError, "lower --lr"),
        (["--data", "no-such-set"], DataError, "no-such-set"),
        (["--data", "screen-digits"], DataError, "validation only"),
        (["--teacher", "none.netsuke"], ArtifactError, "none.netsuke"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_say_what_would_work(
    args: list[str], error: type[Exception], word: str, tmp_path: Path
) -> None:
    if "screen-digits" in args:
        from netsuke import data

        if not data.on_disk("screen-digits"):
            pytest.skip("needs screen-digits: set NETSUKE_DATA to a folder that holds screen-digits/")
    with pytest.raises(error, match=word) as caught:
        run(*SMALL, "--epochs", "2", "-o", tmp_path / "a.netsuke", *args)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a.netsuke").exists()


# --- transfer ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has seen the digits at 10x10 pixels."""
    path = tmp_path_factory.mktemp("source") / "source.netsuke"
    run(*SMALL, "--size", 10, "--epochs", 2, "--seed", 1, "-o", path)
    return path


def test_resized_data_are_recorded_and_evaluated_likewise(source: Path, digits: Any) -> None:
    from netsuke.cli.evaluate import evaluate

    artifact = Artifact.load(source)
    assert artifact.graph.input_shape == (1, 10, 10)
    assert artifact.manifest["adapted"] == {
        "from": [1, 8, 8],
        "to": [1, 10, 10],
        "channels": "same",
        "resize": "linear",
    }
    assert artifact.manifest["data_hash"] == digits.hash
    assert artifact.manifest["input"]["box"] == 10, "the ink of a photo fills the field, as in training"
    app = typer.Typer()
    app.command()(evaluate)
    said = CliRunner().invoke(app, [str(source), "--data", "digits", "--json"], catch_exceptions=False)
    assert json.loads(said.stdout)["accuracy"] == artifact.manifest["report"]["accuracy"]


def test_a_new_head_on_frozen_features(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "moved.netsuke"
    before = Artifact.load(source)
    *body, _, _ = before.graph.roles()
    frozen = [word for name in body for word in ("--freeze", name)]
    run("--data", "digits", "--from", source, "--new-head", *frozen, "--per-class", 5, "--batch", 10,
        "--epochs", 2, "--threads", 1, "--seed", 3, "-o", out)  # fmt: skip
    after = Artifact.load(out)
    for name, array in after.tensors.items():
        assert np.array_equal(array, before.tensors[name]) == (name in body)
    recipe = after.manifest["recipe"]
    assert recipe["from"] == before.weight_hash
    assert (recipe["new_head"], recipe["per_class"]) == (True, 5)
    assert recipe["training"]["freeze"] == body
    assert after.manifest["adapted"]["to"] == [1, 10, 10]


def test_weights_of_an_rgb_network(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from netsuke.lab.models import build

    path = tmp_path / "w.safetensors"
    save_file(build("mobilenet_v2", (3, 16, 16), 6, width=0.1, depth=0.1).state_dict(), path)
    out = tmp_path / "a.netsuke"
    args = ("--data", "digits", "--model", "mobilenet_v2", "--option", "width=0.1,depth=0.1", "--size", 16)
    run(*args, "--from", path, "--new-head", "--freeze", "features", "--rate", "classifier=2", "--per-class", 3,
        "--epochs", 1, "--threads", 1, "-o", out)  # fmt: skip
    manifest = Artifact.load(out).manifest
    assert manifest["adapted"] == {
        "from": [1, 8, 8],
        "to": [3, 16, 16],
        "channels": "repeat",
        "resize": "linear",
    }
    assert (manifest["recipe"]["weights"], manifest["recipe"]["normalize"]) == ("w.safetensors", "imagenet")
    assert len(manifest["recipe"]["from"]) == 64


def test_parameters_are_listed(source: Path) -> None:
    said = json.loads(run("--from", source, "--list-parameters", "--json"))
    artifact = Artifact.load(source)
    assert {row["name"]: tuple(row["shape"]) for row in said["parameters"]} == {
        name: artifact.tensors[name].shape for name in artifact.graph.roles()
    }
    assert "layer0.weight" in run("--from", source, "--list-parameters")


@pytest.mark.parametrize(
    ("args", "error", "word"),
    [
        (["--from", "none.netsuke"], ArtifactError, "none.netsuke"),
        (["--from", "none.pth", "--model", "resnet18"], DataError, "none.pth"),
        (["--from", "w.safetensors"], OptionError, "--model"),
        (["--from", "imagenet", "--model", "lenet5"], OptionError, "no published weights"),
        (["--from", "SOURCE", "--model", "lenet5"], OptionError, "leave out --model"),
        (["--from", "SOURCE", "--size", "9"], OptionError, "leave out"),
        (["--from", "SOURCE", "--freeze", "layer77"], OptionError, "--list-parameters"),
        (["--from", "SOURCE", "--freeze", "*"], OptionError, "leave the head"),
        (["--from", "SOURCE", "--rate", "layer0"], OptionError, "PATTERN=FACTOR"),
        (["--from", "SOURCE", "--rate", "layer0=fast"], OptionError, "PATTERN=FACTOR"),
        (["--from", "SOURCE", "--rate", "layer0=-1"], OptionError, "above 0"),
        (["--unfreeze", "-1"], OptionError, "unfreeze"),
        (["--new-head"], OptionError, "--from"),
        (["--size", "-1"], OptionError, "--size"),
        (["--per-class", "-1"], OptionError, "--per-class"),
        (["--per-class", "5000"], DataError, "--per-class takes at most"),
        (["--list-parameters"], OptionError, "--from FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_transfer_errors_say_what_would_work(
    args: list[str], error: type[Exception], word: str, source: Path, tmp_path: Path
) -> None:
    given = [str(source) if arg == "SOURCE" else arg for arg in args]
    with pytest.raises(error, match=word) as caught:
        run("--data", "digits", "--threads", "1", "--epochs", "1", "-o", tmp_path / "a.netsuke", *given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a.netsuke").exists()


def test_data_and_out_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--data is needed"):
        run("-o", tmp_path / "a.netsuke")
    with pytest.raises(OptionError, match="--out is needed"):
        run("--data", "digits")


# --- after a kill -----------------------------------------------------------------------------------


def kill_after(checkpoint: Path, *args: object, cwd: Path) -> None:
    """Run netsuke in a process of its own and kill it as soon as `checkpoint` is there."""
    command = [sys.executable, "-m", "netsuke", *map(str, args)]
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ
    )
    end = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, process.stderr.read() if process.stderr else ""
    if process.stderr:
        process.stderr.close()
    assert checkpoint.exists()


def test_sigkill_and_again_gives_the_same_weights(tmp_path: Path) -> None:
    import torch

    threads = torch.get_num_threads()
    try:
        args = (*SMALL, "--epochs", 10, "--augment", "rotate=9,shift=0.1", "--ema", 0.9)
        whole = json.loads(run(*args, "-o", tmp_path / "whole.netsuke", "--json"))
        out = tmp_path / "killed.netsuke"
        checkpoint = tmp_path / "killed.netsuke.work" / "checkpoint.pt"
        kill_after(checkpoint, "train", *args, "-o", out, cwd=tmp_path)
        assert not out.exists()
        done = torch.load(checkpoint, weights_only=True)["epoch"]
        assert 1 <= done < 10
        # A history that only a resumed run can give back: the marked row is not measured again.
        state = torch.load(checkpoint, weights_only=True)
        state["history"][0]["seconds"] = 12345.0
        torch.save(state, checkpoint)
        again = json.loads(run(*args, "-o", out, "--json"))
    finally:
        torch.set_num_threads(threads)
    assert again["history"][0]["seconds"] == 12345.0
    assert Artifact.load(out).weight_hash == Artifact.load(tmp_path / "whole.netsuke").weight_hash
    assert [row["loss"] for row in again["history"]] == [row["loss"] for row in whole["history"]]
    assert again["accuracy"] == whole["accuracy"]
    np.testing.assert_equal(again["confusion"], whole["confusion"])
    assert not checkpoint.parent.exists()
