"""What exactness.py asks of each export: how many images have a logit that is not the reference's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import programs
from builds import FLAGS, SANITIZE, runs_here
from netsuke.engine import Engine, build
from netsuke.engine.native import variant
from netsuke.export import onnx, tflite, wasm
from programs import Broken, Case

COMPILERS = ("gcc", "clang")
LEVELS = (("-O0",), ("-O2",), ("-Os",), ("-O3",), ("-O3", "-march=native"))
OBJECT = "C, object for Cortex-M0"
CORTEX_M0 = ("arm-none-eabi-gcc", ("-mcpu=cortex-m0", "-mthumb", "-Os"))
DIVISIONS = ("__aeabi_idiv", "__aeabi_idivmod", "__aeabi_uidiv", "__aeabi_uidivmod")
# What stops a compiler, which the engine aims at this very processor, short of it: the last -march counts.
STOPS = {"avx512": "", "avx2": "-march=x86-64-v3", "portable": "-march=x86-64"}
# NEON on another processor, where both tools are installed.
NEON = ("aarch64-linux-gnu-gcc", ("-O3", "-march=armv8.2-a+dotprod", "-static"), "qemu-aarch64")
VARIANTS = tuple(name for name in FLAGS if runs_here(name))
REPEATED = 30  # images for the fast kernels, whose dense layers take 24 at a time

Row = dict[str, Any]
Check = Callable[[], Row]


def of_artifact(case: Case) -> dict[str, Check]:
    """Every check of one artifact; a row holds `images` and `differ`."""
    checks: dict[str, Check] = {}
    for compiler in COMPILERS:
        for level in LEVELS:
            checks[f"C, {compiler} {' '.join(level)}"] = lambda c=compiler, o=level: _c(case, c, o)
    checks["C row by row, gcc -O2"] = lambda: _c(case, "gcc", ("-O2",), entry="rows")
    checks["C, the caller's workspace, gcc -O2"] = lambda: _c(case, "gcc", ("-O2",), workspace="caller")
    checks[OBJECT] = lambda: _cortex_m0(case)
    for compiler in COMPILERS:
        for name in VARIANTS:
            checks[f"engine {name}, {compiler}"] = lambda c=compiler, n=name: _engine(case, c, n)
    checks["WASM scalar"] = lambda: _wasm(case, simd=False)
    checks["WASM SIMD"] = lambda: _wasm(case, simd=True)
    checks["ONNX Runtime"] = lambda: _counted(_onnx(case), case)
    checks["LiteRT, XNNPACK"] = lambda: _litert(case, delegates=True)
    checks["LiteRT, built-in"] = lambda: _litert(case, delegates=False)
    return checks


def of_graphs(cases: Sequence[Case], folder: Path) -> dict[str, Callable[[], list[int]]]:
    """Every check of a batch of graphs; each gives the number of images that differ, a case."""
    checks: dict[str, Callable[[], list[int]]] = {}
    programs.written(cases, folder)
    for compiler in COMPILERS:
        for level in LEVELS:
            name = f"C, {compiler} {' '.join(level)}"
            checks[name] = lambda c=compiler, o=level: _both(cases, folder, c, o)
    for compiler in COMPILERS:
        for name in VARIANTS:
            checks[f"engine {name}, {compiler}"] = lambda c=compiler, n=name: _fast(cases, folder, c, n)
    if shutil.which(NEON[0]) and shutil.which(NEON[2]):
        checks[f"engine neon, {NEON[0]}, {NEON[2]}"] = lambda: _neon(cases, folder)
    checks["WASM scalar"] = lambda: [_wasm(case, simd=False)["differ"] for case in cases]
    checks["WASM SIMD"] = lambda: [_wasm(case, simd=True)["differ"] for case in cases]
    checks["ONNX Runtime"] = lambda: [_counted(_onnx(case), case)["differ"] for case in cases]
    checks[OBJECT] = lambda: [0 * len(_helpers(cases, folder))] * len(cases)
    return checks


def sanitized(cases: Sequence[Case], folder: Path) -> dict[str, Callable[[], list[int]]]:
    """The same under the address and undefined-behaviour sanitizers; whatever they say ends a program."""
    checks: dict[str, Callable[[], list[int]]] = {}
    for space in ("static", "caller"):
        programs.written(cases, folder / space, space)
        for compiler in COMPILERS:
            checks[f"C, {space} workspace, sanitized, {compiler}"] = lambda c=compiler, s=space: _both(
                cases, folder / s, c, SANITIZE, s
            )
    for name in VARIANTS:
        checks[f"engine {name}, sanitized, clang"] = lambda n=name: _fast(cases, folder, "clang", n, SANITIZE)
    return checks


def _counted(got: np.ndarray, case: Case) -> Row:
    return {"images": len(case.images), "differ": int((got != case.want).any(1).sum())}


def _c(
    case: Case, compiler: str, level: Sequence[str], *, entry: str = "run", workspace: str = "static"
) -> Row:
    with tempfile.TemporaryDirectory() as name:
        sources = programs.written([case], Path(name), workspace)
        found = programs.portable(
            [case], sources, sources, compiler, level, entries=(entry,), workspace=workspace
        )
    return {"images": len(case.images), "differ": found[entry][0]}


def _both(
    cases: Sequence[Case], folder: Path, compiler: str, flags: Sequence[str], workspace: str = "static"
) -> list[int]:
    """By whole images and row by row: the worse of the two, a case."""
    entries = ("run", "rows")
    found = programs.portable(cases, folder, folder, compiler, flags, entries=entries, workspace=workspace)
    return [max(pair) for pair in zip(*found.values(), strict=True)]


def _fast(
    cases: Sequence[Case], folder: Path, compiler: str, name: str, flags: Sequence[str] = ("-O3",)
) -> list[int]:
    found = programs.fast(_repeated(cases), folder, compiler, name, (*flags, *FLAGS[name]))
    return [min(wrong, len(case.images)) for wrong, case in zip(found, cases, strict=True)]


def _neon(cases: Sequence[Case], folder: Path) -> list[int]:
    compiler, flags, emulator = NEON
    found = programs.fast(_repeated(cases), folder, compiler, "neon", flags, (emulator,))
    return [min(wrong, len(case.images)) for wrong, case in zip(found, cases, strict=True)]


def _repeated(cases: Sequence[Case]) -> list[Case]:
    many = []
    for case in cases:
        turns = np.resize(np.arange(len(case.images)), REPEATED)
        many.append(Case(case.name, case.artifact, case.images[turns], case.want[turns]))
    return many


def _cortex_m0(case: Case) -> Row:
    with tempfile.TemporaryDirectory() as name:
        return {"helpers": _helpers([case], programs.written([case], Path(name)))}


def _helpers(cases: Sequence[Case], folder: Path) -> list[str]:
    """The helpers of the compiler that the object files need; Broken where one is no quotient of 32 bits."""
    compiler, flags = CORTEX_M0
    return programs.objects([folder / f"{case.name}.c" for case in cases], folder, compiler, flags, DIVISIONS)


def _engine(case: Case, compiler: str, name: str) -> Row:
    """The engine as Python calls it, in batches and one image at a time."""
    with tempfile.TemporaryDirectory() as folder, _environment(XDG_CACHE_HOME=folder, CC=f"{folder}/cc"):
        script = Path(folder) / "cc"
        script.write_text(f'#!/bin/sh\nexec {compiler} "$@" {STOPS[name]}\n')
        script.chmod(0o755)
        run, used = Engine(case.artifact, backend="native").run, variant(build.compiler())
        if used != name:
            raise Broken(f"{compiler} {STOPS[name]} makes the variant {used}")
        single = np.concatenate([run(case.images[i : i + 1]) for i in range(len(case.images))])
        differ = (run(case.images) != case.want).any(1) | (single != case.want).any(1)
    return {"images": len(case.images), "differ": int(differ.sum())}


@contextmanager
def _environment(**names: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _wasm(case: Case, *, simd: bool) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        return _counted(wasm.run(wasm.write(case.artifact, folder, case.name), case.images, simd=simd), case)


def _onnx(case: Case) -> np.ndarray:
    return onnx.predict(onnx.session(onnx.encode(case.artifact)), case.images)


def _litert(case: Case, *, delegates: bool) -> Row:
    """Beside the counts: the largest difference in steps of an int8 output, and how often the class is the same."""
    got = tflite.runner(tflite.encode(case.artifact), delegates=delegates)(case.images)
    gap = np.abs(got.astype(np.int64) - case.want).max()
    return {
        **_counted(got, case),
        "quanta": round(float(gap / (np.abs(case.want).max() / 127)), 3),
        "same_top1": float((got.argmax(1) == case.want.argmax(1)).mean()),
        "unproved": tflite.unproved(case.artifact),
    }
