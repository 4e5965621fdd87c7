"""What can answer for a model on this machine: every engine, and every export that runs here."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from time import perf_counter

import numpy as np

from netsuke.artifact import Artifact
from netsuke.engine import BACKENDS, Engine
from netsuke.errors import MissingExtra
from netsuke.export import c, onnx, tflite, wasm

Run = Callable[[np.ndarray], np.ndarray]
Times = Callable[[np.ndarray, int, float], np.ndarray]

EXPORTS = ("c", "wasm", "wasm-simd")
NAMES = (*BACKENDS, *EXPORTS)
# What must be shipped to run an engine that does not read the artifact itself.
FILES: dict[str, Callable[[Artifact], bytes]] = {
    "onnxruntime": onnx.encode,
    "openvino": onnx.encode,
    "litert": tflite.encode,
}
C_FLAGS = ("-O3", "-march=native")


@dataclass(frozen=True)
class Contender:
    """One way to run a model. `times(images, batch, seconds)` gives microseconds of calls with `batch` images each.

    `run` gives logits; `file_bytes` is what must be shipped; `close` ends what it has started.
    """

    name: str
    times: Times
    run: Run
    file_bytes: int
    close: Callable[[], None] = lambda: None


def contender(name: str, artifact: Artifact, folder: Path, threads: int = 1) -> Contender:
    """Make one ready to run; what it writes goes into `folder`.

    Raises MissingExtra where a package, compiler or Node.js is not installed, UnsupportedOp where it has no faithful
    form of the graph.
    """
    if name == "c":
        return _compiled(artifact, folder)
    if name in EXPORTS:
        return _in_node(name, artifact, folder)
    run = Engine(artifact, backend=name, threads=threads).run
    return Contender(name, clocked(run), run, file_bytes(name, artifact, folder))


def file_bytes(name: str, artifact: Artifact, folder: Path) -> int:
    """The ONNX or TFLite file of a runtime, the artifact's own where an engine reads that."""
    if name in FILES:
        return len(FILES[name](artifact))
    path = folder / "model.netsuke"
    artifact.save(path)
    return path.stat().st_size


def clocked(run: Run) -> Times:
    """Time a function by this process's clock; inputs take turns, so that no one image sits in the cache."""

    def times(images: np.ndarray, batch: int, seconds: float) -> np.ndarray:
        whole = len(images) // batch * batch
        inputs = [np.ascontiguousarray(images[i : i + batch]) for i in range(0, whole, batch)]
        taken: list[float] = []
        start = perf_counter()
        while not taken or perf_counter() - start < seconds:
            given = inputs[len(taken) % len(inputs)]
            begin = perf_counter()
            run(given)
            taken.append(perf_counter() - begin)
        return np.array(taken) * 1e6

    return times


def _compiled(artifact: Artifact, folder: Path) -> Contender:
    """The portable C, compiled for this machine, called by ctypes image by image."""
    path = c.write(artifact, folder, "model")
    library = folder / "model.so"
    c.compiled(path, library, "cc", ("-shared", "-fPIC", *C_FLAGS))
    call = ctypes.CDLL(str(library)).model_run
    call.argtypes, call.restype = (ctypes.c_void_p, ctypes.c_void_p), None
    shape = c.result_shape(c.figures(path))

    def run(images: np.ndarray) -> np.ndarray:
        logits = np.empty((len(images), *shape), np.int32)
        pixels, answers = images.ctypes.data, logits.ctypes.data
        for i in range(len(images)):
            call(pixels + i * images[0].nbytes, answers + i * 4 * prod(shape))
        return logits

    return Contender("c", clocked(run), run, library.stat().st_size)


def _in_node(name: str, artifact: Artifact, folder: Path) -> Contender:
    """A WebAssembly module in Node.js, which has a clock of its own: the pipe to it is not in the times."""
    script = wasm.write(artifact, folder, "model")
    module = wasm.module(script, name == "wasm-simd")
    node = wasm.Node(script, module)

    def times(images: np.ndarray, batch: int, seconds: float) -> np.ndarray:
        return node.times(images, batch=batch, seconds=seconds)

    return Contender(name, times, node.run, module.stat().st_size, node.close)


def resident_bytes() -> int:
    """Memory that this process holds. Raises MissingExtra where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        raise MissingExtra(f"{sys.platform} does not tell the resident memory") from None
    import resource

    return pages * resource.getpagesize()
