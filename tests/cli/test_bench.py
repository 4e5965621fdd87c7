"""`netsuke bench` on bad input, and where a runtime is absent: told in one line, before any clock runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphs import small_artifact
from refusal import refused, tree


@pytest.fixture
def place(tmp_path: Path) -> Path:
    small_artifact().save(tmp_path / "a.netsuke")
    small_artifact(integer=False).save(tmp_path / "float.netsuke")
    (tmp_path / "cut.netsuke").write_bytes((tmp_path / "a.netsuke").read_bytes()[:-50])
    (tmp_path / "notes.txt").write_text("not a model")
    floats = bytearray((tmp_path / "float.netsuke").read_bytes())
    floats[-4:] = np.float32(np.nan).tobytes()
    (tmp_path / "nan.netsuke").write_bytes(floats)
    (tmp_path / "folder").mkdir()
    return tmp_path


BAD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "no file": (("none.netsuke",), ("none.netsuke", "does not exist")),
    "a truncated file": (("cut.netsuke",), ("cut.netsuke",)),
    "a folder": (("folder",), ("folder", "not a file")),
    "a text": (("notes.txt",), ("notes.txt", "safetensors")),
    "NaN weights": (("nan.netsuke",), ("nan.netsuke", "NaN")),
    "no file beside": (("a.netsuke", "--only", "numpy", "--beside", "none.netsuke"), ("none.netsuke",)),
    "an unknown contender": (("a.netsuke", "--only", "tvm"), ("'tvm'", "numpy")),
    "no contender": (("a.netsuke", "--only", ""), ("''", "numpy")),
    "a float network in C": (
        ("float.netsuke", "--only", "c,native"),
        ("nothing can run this", "c takes integer graphs", "--bits 8", "native: "),
    ),
    "an unknown baseline": (
        ("a.netsuke", "--only", "numpy", "--baseline", "tvm", "--seconds", "60"),
        ("--baseline 'tvm'", "numpy"),
    ),
}


@pytest.mark.parametrize("json", [(), ("--json",)], ids=["table", "json"])
@pytest.mark.parametrize("what", BAD)
def test_bad_benches(what: str, json: tuple[str, ...], place: Path, netsuke_cli: Any) -> None:
    args, words = BAD[what]
    before, start = tree(place), time.monotonic()
    refused(netsuke_cli("bench", *args, *json, cwd=place), *words)
    assert time.monotonic() - start < 40  # nothing was timed for a minute first
    assert tree(place) == before


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_bad_seconds(seconds: str, place: Path, netsuke_cli: Any) -> None:
    done = netsuke_cli("bench", "a.netsuke", "--seconds", seconds, cwd=place)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "--seconds" in done.stderr
    assert "Traceback" not in done.stderr


def without(place: Path, *packages: str) -> dict[str, str]:
    """An environment in which packages cannot be imported."""
    import os

    for name in packages:
        (place / "absent" / name).mkdir(parents=True)
        (place / "absent" / name / "__init__.py").write_text("raise ImportError('not installed')")
    path = [str(place / "absent"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {"PYTHONPATH": os.pathsep.join(filter(None, path))}


def test_an_absent_runtime_is_named_and_the_others_run(place: Path, netsuke_cli: Any) -> None:
    args = ("bench", "a.netsuke", "--only", "numpy,onnxruntime", "--seconds", "0.02", "--json")
    done = netsuke_cli(*args, cwd=place, env=without(place, "onnxruntime"))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [row["backend"] for row in document["results"]] == ["numpy"]
    reason = "this needs ONNX Runtime: pip install 'netsuke[onnx]'"
    assert document["absent"] == [{"backend": "onnxruntime", "reason": reason}]
    assert f"onnxruntime: {reason}" in done.stderr


def test_no_runtime_at_all(place: Path, netsuke_cli: Any) -> None:
    args = ("bench", "a.netsuke", "--only", "onnxruntime,c,wasm", "--json")
    done = netsuke_cli(*args, cwd=place, env={**without(place, "onnxruntime"), "PATH": "/nowhere"})
    refused(done, "nothing can run this", "netsuke[onnx]", "install gcc", "install clang")
