"""`netsuke sensitivity`: a real process, its JSON, its tables, its page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from netsuke.artifact import Artifact
from netsuke.cli.sensitivity import sensitivity
from netsuke.errors import NetsukeError
from netsuke.lab.carve import carve
from netsuke.lab.models import build
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Training, train
from netsuke.lab.steps.weightonly import weight_only


@pytest.fixture(scope="module")
def folder(digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = build("convnet", digits.image_shape, 10, width=0.2, norm=True, dropout=0.0)
    model = train(model, digits, Training(epochs=3, batch=32, lr=4e-3))
    path = tmp_path_factory.mktemp("sensitivity")
    carve(model, digits, recipe={}, seed=0).save(path / "float.netsuke")
    carve(weight_only(model, digits), digits, recipe={}, seed=0).save(path / "weights.netsuke")
    carve(quantize(model, digits), digits, recipe={}, seed=0).save(path / "int8.netsuke")
    return path


def test_json_and_page(netsuke_cli: Any, folder: Path, digits: Any) -> None:
    args = ("sensitivity", "float.netsuke", "--data", "digits", "--images", "100")
    done = netsuke_cli(
        *args, "--widths", "8,2", "--ratios", "0.5", "--html", "map.html", "--json", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    graph = Artifact.load(folder / "float.netsuke").graph
    layers = [op.name for op in graph.ops if op.kind in ("conv2d", "dense")]
    assert list(dict.fromkeys(row["layer"] for row in document["rows"])) == layers
    assert {(row["technique"], row["level"]) for row in document["rows"]} == {
        ("bits", 8), ("bits", 2), ("unstructured", 0.5), ("channels", 0.5),
    }  # fmt: skip
    assert set(document["rows"][0]) == {
        "layer", "kind", "parameters", "bytes", "technique", "level", "accuracy", "loss", "baseline",
    }  # fmt: skip
    assert document["baseline"]["accuracy"] == document["rows"][0]["baseline"]
    assert (document["n"], document["split"], document["schema"]) == (100, "val", 1)
    page = (folder / "map.html").read_text()
    assert page.count('title="') == len(document["rows"])
    assert "map.html" in done.stderr


def run(*args: object) -> str:
    """What the verb prints on stdout, in this process; its error, if it raises one, is raised here."""
    app = typer.Typer()
    app.command()(sensitivity)
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())  # titles wrap at the width of their table


def test_tables(folder: Path) -> None:
    file = folder / "float.netsuke"
    shown = run(file, "--data", "digits", "--images", 60, "--widths", 4, "--ratios", "none")
    assert "Width of the weights" in shown
    assert "4 bit" in shown
    assert "of 60" in shown
    assert "pruned" not in shown


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("int8.netsuke",), "int8.netsuke is quantised already; give the float model it came from"),
        (("weights.netsuke",), "weights.netsuke is quantised already; give the float model it came from"),
        (("none.netsuke",), "none.netsuke: does not exist"),
        (("float.netsuke", "--widths", "8;4"), "--widths takes numbers, as in 8,4,2; got '8;4'"),
        (("float.netsuke", "--ratios", "1.5"), "ratios are shares removed, above 0 and below 1; got 1.5"),
        (("float.netsuke", "--widths", "none", "--ratios", "none"), "needs widths or ratios to try"),
        (("float.netsuke", "--html", "."), ". is a folder"),
    ],
)
def test_errors(folder: Path, args: tuple[str, ...], said: str) -> None:
    with pytest.raises(NetsukeError, match=re.escape(said)):
        run(folder / args[0], *args[1:], "--data", "digits")
