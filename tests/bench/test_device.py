"""`netsuke bench --device`: figures by the emulators, and one clear line where a device cannot run a model."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from graphs import small_artifact
from netsuke.artifact import Artifact
from netsuke.bench import device
from netsuke.bench.device import DEVICES, emulated, firmware
from netsuke.errors import ArtifactError, MissingExtra, OptionError, UnsupportedOp
from netsuke.export import c
from netsuke.graph import Graph, Op
from refusal import refused


def need(name: str) -> None:
    compiler, emulator, packages = DEVICES[name].tools
    for tool in ("make", compiler, emulator):
        if not shutil.which(tool):
            pytest.skip(f"needs {tool}: apt install make {packages}")


def dense(side: int) -> Artifact:
    """One dense layer on an image of any size: 10 * side * side bytes."""
    layers = (
        Op("halve", "half", ("input",)),
        Op("flatten", "flat", ("half",)),
        Op("qlogits", "out", ("flat",), {"bits": 8, "scale": 0.01}),
    )
    weights = {
        "out.weight": np.random.default_rng(0).integers(-7, 8, (10, side * side), np.int8),
        "out.bias": np.zeros(10, np.int32),
    }
    return Artifact(Graph((1, side, side), layers), weights, {"classes": list("0123456789")})


@pytest.mark.parametrize("name", ["cortex-m4", "atmega328p"])
def test_figures(name: str, tmp_path: Path) -> None:
    need(name)
    artifact = small_artifact()
    row = emulated(artifact, DEVICES[name].board)  # a board's name will do
    assert row["device"] == name
    unit, other = ("cycles", "instructions") if name == "atmega328p" else ("instructions", "cycles")
    assert 10_000 < row[f"{unit}_an_image"] < 10_000_000
    assert row[f"{unit}_a_mac"] == row[f"{unit}_an_image"] / row["macs"]
    assert row[f"{other}_an_image"] is None
    assert row["ram_bytes"] == c.figures(c.write(artifact, tmp_path, "m"))["RAM_BYTES"]
    assert artifact.size_bytes < row["flash_bytes"] < row["firmware_flash_bytes"] < row["device_flash_bytes"]
    assert 50 < row["stack_bytes"] < 1000
    real = row["latency_ms"]
    assert real is None if unit == "instructions" else real == row["cycles_an_image"] / 16_000


@pytest.mark.parametrize(
    ("name", "side", "says"),
    [
        ("atmega328p", 50, r"needs [\d,]+ bytes of RAM, of 2,048$"),
        ("atmega328p", 80, r"64,010 bytes of constants alone, of 32,768 bytes of flash"),
        ("cortex-m0", 150, r"needs [\d,]+ bytes of flash, of 262,144 and [\d,]+ bytes of RAM, of 16,384$"),
    ],
)
def test_too_large(name: str, side: int, says: str) -> None:
    need(name)
    with pytest.raises(ArtifactError, match=rf"^it does not fit {name}: .*{says}"):
        emulated(dense(side), name)


def test_missing_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="cortex-m4 needs make: apt install make"):
        emulated(small_artifact(), "cortex-m4")
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "simavr" else tool)
    with pytest.raises(MissingExtra, match="needs simavr: apt install gcc-avr avr-libc simavr"):
        emulated(small_artifact(), "atmega328p")


def test_unknown_device_and_float_graph() -> None:
    with pytest.raises(
        OptionError, match=r"unknown device 'z80'; choose from .*cortex-m4 \(mps2-an386\).*atmega"
    ):
        device.device("z80")
    with pytest.raises(UnsupportedOp, match="quantise the model first"):
        emulated(small_artifact(integer=False), "cortex-m4")


def test_memory_is_that_of_the_linker_scripts() -> None:
    for found in DEVICES.values():
        script = firmware() / "boards" / f"{'rv32' if found.board.startswith('rv32') else found.board}.ld"
        if found.board != "atmega328p":
            sizes = re.findall(r"LENGTH = (\d+)([KM])", script.read_text())
            flash, ram = (int(size) << {"K": 10, "M": 20}[unit] for size, unit in sizes)
            assert (found.flash, found.ram) == (flash, ram)


def test_verb(netsuke_cli, tmp_path: Path) -> None:
    need("cortex-m4")
    need("atmega328p")
    dense(28).save(tmp_path / "a.netsuke")
    done = netsuke_cli("bench", "a.netsuke", "--device", "cortex-m4, atmega328p", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert [row["device"] for row in got["results"]] == ["cortex-m4", "atmega328p"]
    assert got["absent"] == []
    shown = netsuke_cli("bench", "a.netsuke", "--device", "atmega328p", cwd=tmp_path)
    assert "ms at 16 MHz" in shown.stdout
    dense(80).save(tmp_path / "large.netsuke")
    some = netsuke_cli("bench", "large.netsuke", "--device", "cortex-m4,atmega328p", "--json", cwd=tmp_path)
    assert some.returncode == 0
    assert "does not fit atmega328p" in json.loads(some.stdout)["absent"][0]["reason"]
    none = netsuke_cli("bench", "large.netsuke", "--device", "atmega328p", cwd=tmp_path)
    assert none.returncode == 2
    assert none.stderr.count("\n") == 1


def test_no_end_in_the_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """simavr was stopped: what it printed is half of the figures."""
    need("atmega328p")
    (tmp_path / "simavr").write_text("#!/bin/sh\necho image 0: class 0\n")
    (tmp_path / "simavr").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ArtifactError, match=r"^atmega328p cannot run it: no end within 120 seconds"):
        emulated(small_artifact(), "atmega328p")


def test_the_makefile_stops_after_as_many_seconds() -> None:
    assert f"timeout {device.LIMIT} $(RUN)" in (firmware() / "Makefile").read_text()


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (("--device", ""), "unknown device ''"),
        (("--device", "cortex-m4", "--only", "numpy"), "--only"),
        (("--device", "cortex-m4", "--beside", "b.netsuke"), "--beside"),
    ],
)
def test_bad_options(given: tuple[str, ...], word: str, netsuke_cli, tmp_path: Path) -> None:
    small_artifact().save(tmp_path / "a.netsuke")
    refused(netsuke_cli("bench", "a.netsuke", *given, cwd=tmp_path), word)
