"""`netsuke export`: options of targets, exports that are broken on purpose, and whatever else goes wrong."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from graphs import small_artifact
from refusal import heeds_ctrl_c, refused, tree

WEB = [tool for tool in ("clang", "wasm-ld", "node") if not shutil.which(tool)]
needs_cc = pytest.mark.skipif(not shutil.which("cc"), reason="install gcc")
needs_web = pytest.mark.skipif(bool(WEB), reason=f"install {' and '.join(WEB)}")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An integer and a float artifact, and images that fit them, in a folder that is empty else."""
    small_artifact().save(tmp_path / "a.netsuke")
    small_artifact(integer=False).save(tmp_path / "float.netsuke")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "abc":
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(4):
                file = tmp_path / "images" / split / name / f"{i}.png"
                cv2.imwrite(str(file), rng.integers(0, 256, (12, 10), np.uint8))
    return tmp_path


def tool(folder: Path, name: str, script: str) -> Path:
    """A program that stands in for another."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return folder / name


def first(folder: Path) -> dict[str, str]:
    """The environment with the programs of a folder before all others."""
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


# --- --set -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "setting", "words"),
    [
        ("c", "c.x=1", ("c has no option 'x'", "workspace")),
        ("c", "c.workspace=heap", ("'heap'", "static, caller")),
        ("c", "c.workspace=", ("''", "static, caller")),
        ("c", "onnx.opset=17", ("onnx.opset=17", "target of c")),
        ("c,onnx", "workspace=caller", ("workspace=caller", "TARGET.NAME=VALUE")),
        ("c", "nonsense", ("nonsense", "TARGET.NAME=VALUE")),
        ("onnx", "onnx.opset=abc", ("onnx.opset", "whole number", "abc")),
        ("onnx", "onnx.opset=17.5", ("onnx.opset", "whole number")),
        ("onnx", "onnx.opset=true", ("onnx.opset", "whole number")),
        ("onnx", "onnx.opset=99", ("13 to 21", "99")),
        ("tflite", "tflite.exact=maybe", ("tflite.exact", "true or false", "maybe")),
        ("wasm", "wasm.simd=1", ("wasm.simd", "true or false")),
        ("c", "c.confidence=maybe", ("c.confidence", "yes or no", "maybe")),
        ("wasm", "wasm.normaliser=2", ("wasm.normaliser", "yes or no", "2")),
        ("wasm", "wasm.clang=7", ("no '7'", "install clang")),
    ],
)
def test_bad_settings(to: str, setting: str, words: tuple[str, ...], place: Path, netsuke_cli: Any) -> None:
    before = tree(place)
    refused(netsuke_cli("export", "a.netsuke", "--to", to, "--set", setting, "-o", "out", cwd=place), *words)
    assert tree(place) == before
    assert not (place / "out").exists()


def test_settings_reach_their_target(place: Path, netsuke_cli: Any) -> None:
    onnx = pytest.importorskip("onnx", reason="needs ONNX: pip install 'netsuke[onnx]'")
    settings = ("--set", "c.workspace=caller", "--set", "onnx.opset=15")
    done = netsuke_cli("export", "a.netsuke", "--to", "c,onnx", *settings, "-o", "out", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "a_run(a_workspace *" in (place / "out" / "a.h").read_text()
    assert onnx.load(place / "out" / "a.onnx").opset_import[0].version == 15


@pytest.mark.parametrize(("text", "there"), [("yes", True), ("true", True), ("no", False), ("false", False)])
def test_a_function_of_c_is_asked_for(text: str, there: bool, place: Path, netsuke_cli: Any) -> None:
    done = netsuke_cli("export", "a.netsuke", "--set", f"c.confidence={text}", "-o", "out", cwd=place)
    assert done.returncode == 0, done.stderr
    assert ("int a_confidence(" in (place / "out" / "a.h").read_text()) == there


@needs_cc
def test_memory_that_the_caller_supplies_is_counted(place: Path, netsuke_cli: Any) -> None:
    args = ("--set", "c.workspace=caller", "-o", "out", "--json")
    done = netsuke_cli("export", "a.netsuke", *args, cwd=place)
    (row,) = json.loads(done.stdout)["exports"]
    assert row["built"]["ram_bytes"] == row["ram_bytes"] > 0


@needs_web
def test_a_setting_leaves_a_module_out(place: Path, netsuke_cli: Any) -> None:
    args = ("--to", "wasm", "--set", "wasm.simd=false", "-o", "out", "--json")
    done = netsuke_cli("export", "a.netsuke", *args, cwd=place)
    assert done.returncode == 0, done.stderr
    files = {Path(row["file"]).name for row in json.loads(done.stdout)["exports"][0]["files"]}
    assert files == {"a.wasm", "a.js", "a.d.ts"} == {path.name for path in (place / "out").iterdir()}


# --- --verify ----------------------------------------------------------------------------------------


@needs_cc
def test_one_wrong_byte_in_c_is_noticed(place: Path, netsuke_cli: Any) -> None:
    """A compiler that first adds one to the first bias of the logits, then does as it is told."""
    real = shutil.which("cc")
    edit = r"/_bias\[3\]/{n;/1 +/!s/^ */ 1 + /}"  # once: a machine without a cross compiler compiles twice
    script = f"for f; do case $f in *.c) sed -i '{edit}' $f;; esac; done; exec {real} \"$@\""
    tool(place / "bin", "cc", script)
    args = ("export", "a.netsuke", "--verify", "images", "-o", "out", "--json")
    good = netsuke_cli(*args, cwd=place)
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["exports"][0]["verified"] is True
    text = (place / "out" / "a.c").read_text()
    done = netsuke_cli(*args, cwd=place, env=first(place / "bin"))
    assert (place / "out" / "a.c").read_text() != text  # else nothing was broken
    assert done.returncode == 1, done.stderr
    row = json.loads(done.stdout)["exports"][0]
    assert (row["verified"], row["n"]) == (False, 12)
    assert row["max_difference"] == 1
    assert "the logits of c differ from the reference" in done.stderr


@pytest.mark.slow
@needs_web
def test_one_wrong_byte_in_wasm_is_noticed(place: Path, netsuke_cli: Any) -> None:
    """A linker that changes a byte of the module: of its data, then of its head."""
    linker = shutil.which("wasm-ld")
    for at, code, word in (("size - 3", 1, "the logits of wasm differ"), ("0", 2, "node cannot run a.")):
        edit = f"p = 'module.wasm'; d = bytearray(open(p, 'rb').read()); size = len(d); d[{at}] ^= 16"
        script = f'{linker} "$@" && exec {sys.executable} -c "{edit}; open(p, \'wb\').write(d)"'
        bad = tool(place / "bin", "bad-ld", script)
        args = ("--to", "wasm", "--set", f"wasm.linker={bad}", "--verify", "images", "-o", "out")
        done = netsuke_cli("export", "a.netsuke", *args, cwd=place)
        assert done.returncode == code, done.stderr
        assert word in done.stderr
        assert "Traceback" not in done.stderr


@needs_cc
def test_images_of_another_size_are_refused_before_anything_is_written(
    place: Path, netsuke_cli: Any, mnist: object
) -> None:
    done = netsuke_cli("export", "a.netsuke", "--verify", "mnist", "-o", "out", cwd=place)
    refused(done, "a.netsuke", "1x12x10", "mnist has 1x28x28")
    assert not (place / "out").exists()


@pytest.mark.slow
@needs_cc
def test_verifying_adapts_images_as_training_did(place: Path, netsuke_cli: Any, mnist: object) -> None:
    from netsuke.artifact import Artifact

    how = {"size": [12, 10], "from": [1, 28, 28], "resize": "area"}
    plain = small_artifact()
    made = Artifact(plain.graph, plain.tensors, {**plain.manifest, "adapted": how})
    made.save(place / "adapted.netsuke")
    done = netsuke_cli("export", "adapted.netsuke", "--verify", "mnist", "-o", "out", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["exports"][0]["n"] == 10_000


@pytest.mark.slow
@needs_cc
@pytest.mark.skipif(os.name != "posix", reason="signals of a terminal")
def test_ctrl_c_while_verifying(place: Path) -> None:
    """What was written stays whole; no process and no temporary file is left."""
    script = f'case "$*" in *-shared*) echo > {place}/began; sleep 60;; esac; exec {shutil.which("cc")} "$@"'
    tool(place / "bin", "cc", script)
    (place / "tmp").mkdir()
    environment = {**os.environ, **first(place / "bin"), "TMPDIR": str(place / "tmp")}
    command = [sys.executable, "-m", "netsuke", "export", "a.netsuke", "--verify", "images", "-o", "out"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pipes["preexec_fn"] = heeds_ctrl_c
    with subprocess.Popen(command, cwd=place, env=environment, start_new_session=True, **pipes) as process:
        end = time.monotonic() + 60
        while not (place / "began").exists() and time.monotonic() < end:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("netsuke: stopped")
    assert sorted(path.name for path in (place / "out").iterdir()) == ["a.c", "a.h"]
    assert not any((place / "tmp").iterdir())


# --- bad artifacts, targets, places ------------------------------------------------------------------

BAD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "a truncated artifact": (("cut.netsuke",), ("cut.netsuke", "tensors")),
    "a folder as artifact": (("images",), ("images", "not a file")),
    "no artifact": (("none.netsuke",), ("none.netsuke", "does not exist")),
    "a text as artifact": (("notes.txt",), ("notes.txt", "safetensors")),
    "NaN weights": (("nan.netsuke", "--to", "onnx"), ("nan.netsuke", "NaN")),
    "an unknown target": (("a.netsuke", "--to", "nonsense"), ("'nonsense'", "c, onnx, tflite, wasm")),
    "an empty target": (("a.netsuke", "--to", "c,"), ("''", "c, onnx, tflite, wasm")),
    "a float network as C": (("float.netsuke",), ("c takes integer graphs", "--bits 8")),
    "a float network as WebAssembly": (
        ("float.netsuke", "--to", "onnx,wasm"),
        ("wasm takes integer graphs", "--bits 8"),
    ),
    "a file as folder": (("a.netsuke", "-o", "notes.txt"), ("notes.txt is a file", "-o")),
    "a folder below a file": (("a.netsuke", "-o", "notes.txt/out"), ("notes.txt/out",)),
    "a folder in the place of a file": (("a.netsuke", "-o", "taken"), ("taken/a.h is a folder",)),
    "no such data": (("a.netsuke", "--verify", "no-such-set"), ("no-such-set", "known sets")),
    "data that is a file": (("a.netsuke", "--verify", "./notes.txt"), ("notes.txt",)),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_exports(what: str, place: Path, netsuke_cli: Any) -> None:
    data = (place / "a.netsuke").read_bytes()
    (place / "cut.netsuke").write_bytes(data[:-50])
    (place / "notes.txt").write_text("not a model")
    (place / "taken" / "a.h").mkdir(parents=True)
    (place / "taken" / "a.c").write_text("an older one")
    floats = bytearray((place / "float.netsuke").read_bytes())
    floats[-4:] = np.float32(np.nan).tobytes()
    (place / "nan.netsuke").write_bytes(floats)
    args, words = BAD[what]
    before = tree(place)
    where = () if "-o" in args else ("-o", "out")
    refused(netsuke_cli("export", *args, *where, cwd=place), *words)
    assert tree(place) == before
    assert not (place / "out").exists()


def limited(command: list[str], cwd: Path, size: int) -> subprocess.CompletedProcess[str]:
    """Run where no file may grow beyond `size` bytes: to a program, a full disk."""
    return subprocess.run(
        [sys.executable, "-m", "netsuke", *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        timeout=120,
    )


@pytest.mark.parametrize("to", ["c", "onnx", "tflite", "c,onnx,tflite", "wasm"])
def test_a_full_disk(to: str, place: Path) -> None:
    if to == "wasm" and WEB:
        pytest.skip(f"install {' and '.join(WEB)}")
    for package in {"onnx": ["onnx"], "tflite": ["ai_edge_litert"]}.get(to, []):
        pytest.importorskip(package)
    before = tree(place)
    done = limited(["export", "a.netsuke", "--to", to, "-o", "out"], place, 1024)
    refused(done, "cannot be written" if to != "wasm" else "", "File too large")
    assert ".netsuke-" not in done.stderr  # the folder that the user named, not ours
    assert tree(place) == before
    assert not (place / "out").exists()


@needs_cc
def test_a_full_disk_keeps_the_older_files(place: Path, netsuke_cli: Any) -> None:
    assert netsuke_cli("export", "a.netsuke", "-o", "out", cwd=place).returncode == 0
    before = tree(place)
    done = limited(["export", "a.netsuke", "-o", "out"], place, 4096)
    refused(done, str(Path("out") / "a.c"), "cannot be written")
    assert tree(place) == before
