"""`netsuke shrink` on a folder of sixty tiny pictures: document, file, SIGKILL."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from netsuke import data
from netsuke.artifact import Artifact
from netsuke.cli.shrink import shrink
from netsuke.errors import DataError, OptionError

QUICK = ("--effort", "quick", "--threads", "1")


def run(*args: object) -> str:
    """What the verb prints on stdout; its error, if it raises one, is raised here."""
    app = typer.Typer()
    app.command()(shrink)
    threads = torch.get_num_threads()
    try:
        result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    finally:
        torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    return result.stdout


def write_folder(root: Path, each: int = 20) -> Path:
    """Three classes of 8x8 pictures: a bright third of the columns, in noise."""
    import cv2

    rng = np.random.default_rng(0)
    for label in range(3):
        (root / f"third{label}").mkdir(parents=True)
        for i in range(each):
            image = rng.integers(0, 100, (8, 8), np.uint8)
            image[:, 3 * label : 3 * label + 2] += 150
            cv2.imwrite(str(root / f"third{label}" / f"{i}.png"), image)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("pictures") / "thirds")


def strict(text: str) -> dict:
    """JSON without the NaN that Python would let through."""

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """The document and the file of one uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "best.netsuke"
    text = run("--data", folder, "--max-bytes", 1500, *QUICK, "-o", out, "--json")
    return strict(text), out


def test_document_is_complete(whole: tuple[dict, Path], folder: Path) -> None:
    document, out = whole
    assert (document["max_bytes"], document["effort"], document["seed"]) == (1500, "quick", 0)
    assert set(document["plan"]) == {"model", "width", "depth", "layout", "bits"}
    assert set(document["validation"]) == {"teacher", "student", "quantised"}
    for part in ("teacher", "result"):
        figures = document[part]
        assert {"accuracy", "loss", "n", "errors", "macs", "ram_bytes", "latency_us", "backend"} <= set(
            figures
        )
        assert figures["size_bytes"] == sum(row["size_bytes"] for row in figures["storage"])
        assert figures["latency_us"] > 0
        assert all(math.isfinite(figures[key]) for key in ("accuracy", "loss", "latency_us"))
    assert document["result"]["size_bytes"] <= 1500 < document["teacher"]["size_bytes"]
    assert document["artifact"] == str(out)


def test_the_file_is_what_was_reported(whole: tuple[dict, Path], folder: Path) -> None:
    document, out = whole
    artifact, test = Artifact.load(out), data.load(folder).test
    right = artifact.logits(test.images).argmax(1) == test.labels
    assert document["result"]["accuracy"] == pytest.approx(right.mean())
    assert document["result"]["accuracy"] > 0.8
    assert artifact.size_bytes == document["result"]["size_bytes"]
    assert artifact.manifest["report"]["accuracy"] == document["result"]["accuracy"]
    assert artifact.classes == ("third0", "third1", "third2")
    assert [path.name for path in out.parent.iterdir()] == ["best.netsuke"], "the work folder is gone"


def test_sigkill_and_again_gives_the_same_weights(
    whole: tuple[dict, Path], folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "best.netsuke"
    args = ["--data", folder, "--max-bytes", 1500, *QUICK, "-o", out, "--json"]
    command = [sys.executable, "-m", "netsuke", "shrink", *map(str, args)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    end = time.monotonic() + 200

    def midway() -> bool:
        return any(tmp_path.glob("best.netsuke.work/student*/checkpoint.pt"))

    while not midway() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert midway()
    assert not out.exists()
    again = strict(run(*args))
    assert Artifact.load(out).weight_hash == Artifact.load(whole[1]).weight_hash
    assert again["result"]["accuracy"] == whole[0]["result"]["accuracy"]
    assert [path.name for path in tmp_path.iterdir()] == ["best.netsuke"]


def test_table_teacher_and_work(whole: tuple[dict, Path], folder: Path, tmp_path: Path) -> None:
    run("--data", folder, "--max-bytes", 1500, *QUICK, "--work", tmp_path / "work",
        "--teacher", _teacher(folder, tmp_path), "-o", tmp_path / "a.netsuke", "--seed", 1)  # fmt: skip
    assert (tmp_path / "work").is_dir(), "a folder that was asked for stays"
    assert not (tmp_path / "work" / "teacher").exists()


def _teacher(folder: Path, tmp_path: Path) -> Path:
    from netsuke.lab.carve import carve
    from netsuke.lab.models import build

    pictures = data.load(folder)
    torch.manual_seed(0)
    model = build("convnet", pictures.image_shape, 3, width=0.2)
    carve(model, pictures, recipe={}, seed=0).save(tmp_path / "teacher.netsuke")
    return tmp_path / "teacher.netsuke"


def test_no_validation_images_is_still_json(tmp_path: Path) -> None:
    """One picture a class leaves nothing to validate on."""
    write_folder(tmp_path / "few" / "train", each=1)
    write_folder(tmp_path / "few" / "test", each=2)
    assert not len(data.load(tmp_path / "few").val)
    text = run(
        "--data", tmp_path / "few", "--max-bytes", 1500, *QUICK, "-o", tmp_path / "a.netsuke", "--json"
    )
    assert strict(text)["result"]["n"] == 6


@pytest.mark.parametrize(
    ("args", "error", "word"),
    [
        (["--max-bytes", "90"], OptionError, r"90 bytes are too few.*the least is \d+"),
        (["--effort", "heroic"], OptionError, "quick, normal, long"),
        (["--data", "no-such-set"], DataError, "no-such-set"),
        (["--seed", "-1"], OptionError, "seed"),
    ],
    ids=str,
)
def test_errors(args: list[str], error: type[Exception], word: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(error, match=word):
        run("--data", folder, "--max-bytes", 1500, *QUICK, "-o", tmp_path / "a.netsuke", *args)
    assert not any(tmp_path.iterdir())
