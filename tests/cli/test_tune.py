"""`netsuke tune`: its document, its file and plot, and a SIGKILL in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from netsuke.artifact import Artifact
from netsuke.cli.tune import bars, tune
from netsuke.errors import OptionError

pytest.importorskip("optuna", reason="needs optuna: pip install 'netsuke[lab]'")

SEARCH = "lr=1e-3..1e-1:log, width=2..6, depth=0, batch=64|128"
SMALL = ("--data", "digits", "--model", "separable", "--search", SEARCH, "--threads", "1")


@pytest.fixture(autouse=True)
def _needs_digits(digits: Any) -> Iterator[None]:
    """Skips where scikit-learn is missing; puts the number of threads back."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'netsuke[lab]'")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(*args: object) -> str:
    """What the verb prints on stdout; its error, if it raises one, is raised here."""
    app = typer.Typer()
    app.command()(tune)
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_document_file_and_plot(tmp_path: Path, digits: Any) -> None:
    out, plot = tmp_path / "best.netsuke", tmp_path / "importance.svg"
    args = (*SMALL, "--epochs", 1, "--final-epochs", 2, "--images", 200, "--work", tmp_path / "w", "-o", out)
    got = json.loads(run(*args, "--trials", 2, "--plot", plot, "--json"))
    artifact = Artifact.load(out)
    right = artifact.logits(digits.test.images).argmax(1) == digits.test.labels
    assert got["accuracy"] == pytest.approx(right.mean())
    assert (got["split"], got["n"], got["file_bytes"]) == ("test", len(digits.test), out.stat().st_size)
    assert [row["state"] for row in got["trials"]] == ["complete"] * 2
    assert got["best"]["score"] == max(row["score"] for row in got["trials"])
    assert got["validation_images"] == len(digits.val)
    recipe = artifact.manifest["recipe"]
    assert (recipe["verb"], recipe["search"]["trials"]["complete"]) == ("tune", 2)
    assert recipe["training"]["epochs"] == len(artifact.manifest["history"]) == 2
    assert artifact.manifest["report"]["accuracy"] == got["accuracy"]
    assert ET.parse(plot).getroot().tag.endswith("svg")
    text = run(*args, "--trials", 3)  # more trials: the former ones are kept
    assert "Best of 3 trials" in text
    assert "lr=" in text


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--search", "widht=2..6"], "did you mean 'width'"),
        (["--search", "lr=1e-1..1e-3"], "low end"),
        (["--trials", "0"], "--trials"),
        (["--final-epochs", "-1"], "--final-epochs"),
        (["--timeout", "nan"], "--timeout"),
        (["--folds", "1"], "--folds"),
        (["--folds", "500"], "500 folds"),
        (["--model", "separabel"], "did you mean 'separable'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_come_before_training(args: list[str], word: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=word) as caught:
        run(*SMALL, "--work", tmp_path / "w", "-o", tmp_path / "a.netsuke", *args)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_sigkill_and_again_gives_the_same_search(tmp_path: Path) -> None:
    args = [*SMALL, "--epochs", "4", "--trials", "2", "--json"]
    whole = json.loads(run(*args, "--work", tmp_path / "whole", "-o", tmp_path / "whole.netsuke"))
    args += ["--work", str(tmp_path / "w"), "-o", str(tmp_path / "killed.netsuke")]
    process = subprocess.Popen(
        [sys.executable, "-m", "netsuke", "tune", *args],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ,
    )
    end = time.monotonic() + 240
    while not list((tmp_path / "w").glob("trial-*/fold-1/checkpoint.pt")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed.netsuke").exists()
    again = json.loads(run(*args))
    for a, b in zip(again["trials"], whole["trials"], strict=True):
        assert (a["drawn"], a["scores"], a["state"]) == (b["drawn"], b["scores"], b["state"])
    weights = [Artifact.load(tmp_path / f"{name}.netsuke").weight_hash for name in ("killed", "whole")]
    assert weights[0] == weights[1]


def test_help_loads_neither_torch_nor_optuna() -> None:
    program = (
        "import sys; from netsuke.cli import _build; _build(); "
        "print(sorted({'torch', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_bars() -> None:
    root = ET.fromstring(bars({"lr": 0.75, "a<b": 0.25}))
    rects = [r for r in root.iter() if r.tag.endswith("rect") and r.get("height") == "18"]
    assert float(rects[0].get("width") or 0) == pytest.approx(3 * float(rects[1].get("width") or 0))
    texts = [t.text for t in root.iter() if t.tag.endswith("text")]
    assert texts[1:] == ["lr", "75%", "a<b", "25%"]
    assert "Too few" in bars({})
