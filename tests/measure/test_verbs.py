"""`evaluate` as a verb, on the embedded digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from netsuke.artifact import Artifact
from netsuke.cli.evaluate import evaluate
from netsuke.errors import DataError
from netsuke.graph import Graph, Op


def run(verb: Any, *args: object) -> str:
    """What the verb prints; its error, if it raises one, is raised here."""
    app = typer.Typer()
    app.command()(verb)
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def linear(data: Any, classes: int = 10) -> Artifact:
    """Means of the classes as the weights of one layer: no good classifier, but a real one."""
    _, height, width = data.image_shape
    means = np.stack([data.train.images[data.train.labels == i].mean(0).ravel() for i in range(classes)])
    centred = (means - means.mean(0)) / 127
    graph = Graph(
        (1, height, width),
        (
            Op("normalize", "in", ("input",), {"scales": [1 / 255], "offsets": [0.0]}),
            Op("flatten", "flat", ("in",)),
            Op("dense", "out", ("flat",)),
        ),
    )
    tensors = {"out.weight": centred.astype(np.float32), "out.bias": np.zeros(classes, np.float32)}
    return Artifact(graph, tensors, {"classes": [str(i) for i in range(classes)]})


@pytest.fixture
def file(digits: Any, tmp_path: Path) -> Path:
    linear(digits).save(tmp_path / "linear.netsuke")
    return tmp_path / "linear.netsuke"


def test_evaluate_json(file: Path, digits: Any) -> None:
    got = json.loads(run(evaluate, file, "--data", "digits", "--json"))
    right = Artifact.load(file).logits(digits.test.images).argmax(1) == digits.test.labels
    assert got["accuracy"] == pytest.approx(right.mean())
    assert got["accuracy"] > 0.5
    assert got["n"] == len(digits.test) == np.sum(got["confusion"])
    assert (got["data"], got["split"], got["classes"]) == ("digits", "test", list(digits.classes))
    assert got["size_bytes"] == 4 * got["parameters"] == 4 * (digits.test.images[0].size * 10 + 10)
    assert got["file_bytes"] == file.stat().st_size
    assert got["macs"] == digits.test.images[0].size * 10
    assert {"loss", "per_class", "macro", "weighted", "ram_bytes"} <= set(got)


def test_evaluate_tables(file: Path, digits: Any) -> None:
    text = run(evaluate, file, "--data", "digits", "--split", "val")
    assert f"of {len(digits.val)} wrong" in text
    for word in ("precision", "macro average", "weighted average", "Confusion", "MACs"):
        assert word in text


def test_evaluate_names_what_does_not_fit(digits: Any, tmp_path: Path) -> None:
    linear(digits, classes=7).save(tmp_path / "seven")
    with pytest.raises(DataError, match="knows 7 classes; digits has 10"):
        run(evaluate, tmp_path / "seven", "--data", "digits")
    whole = linear(digits)
    other = Graph((1, 4, digits.image_shape[1] * digits.image_shape[2] // 4), whole.graph.ops)
    Artifact(other, whole.tensors, whole.manifest).save(tmp_path / "flat")
    with pytest.raises(DataError, match=r"takes 1x4x\d+ images"):
        run(evaluate, tmp_path / "flat", "--data", "digits")
