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
from netsuke.errors import ArtifactError, DataError, OptionError
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
