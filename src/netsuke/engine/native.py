"""Integer graphs as machine code: the fast C kernels, compiled at first use and called with little in between."""

from __future__ import annotations

import ctypes
import shutil
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np

from netsuke.artifact import Artifact
from netsuke.cache import cache_folder
from netsuke.engine import build
from netsuke.errors import GraphError
from netsuke.export.c import fast

Run = Callable[[np.ndarray], np.ndarray]
BINDING = Path(__file__).with_name("binding.c")
ALIGN = 64
SHORT = 2_000_000  # multiplications that are over sooner than giving up Python's lock pays
LEAST = 8  # images that are worth a thread,
WORTH = 20_000_000  # or fewer, with so many multiplications


def native(artifact: Artifact, threads: int) -> Run:
    """A function from images to logits. Raises UnsupportedOp for float graphs, MissingExtra without a compiler."""
    using = build.compiler()
    source = fast.build(artifact.graph, artifact.tensors, fast.VARIANTS[variant(using)])
    python = build.python_flags()
    path = build.library(source.text + (BINDING.read_text() if python else ""), using, python)
    network = _Network(artifact, source, path)
    if threads > 1:
        return _Threads(network, threads)
    return network.bound() if python else network


def variant(using: build.Compiler) -> str:
    """The widest vectors that the compiler has for this processor."""
    if using.has("__AVX512VNNI__", "__AVX512BW__", "__AVX512VL__"):
        return "avx512"
    if using.has("__AVX2__"):
        return "avx2"
    return "neon" if using.has("__ARM_FEATURE_DOTPROD", "__aarch64__") else "portable"


def _aligned(size: int) -> np.ndarray:
    """Zeros whose address is a multiple of 64."""
    block = np.zeros(size + ALIGN, np.uint8)
    start = -block.ctypes.data % ALIGN
    return block[start : start + size]


class _Network:
    """The library with its weights; a call takes a workspace of its own, and gives Python's lock away."""

    def __init__(self, artifact: Artifact, source: fast.Source, path: Path):
        self.shape, self.result, self.work_bytes = (
            artifact.graph.input_shape,
            source.shape,
            source.work_bytes,
        )
        self.macs = source.macs
        self.weights = _aligned(len(source.weights))
        self.weights[:] = np.frombuffer(source.weights, np.uint8)
        self.spare: deque[np.ndarray] = deque()
        self.library = ctypes.PyDLL(str(path))
        if path.parent.parent != cache_folder():  # in memory now, and of no use to others
            shutil.rmtree(path.parent, ignore_errors=True)
        self._run = ctypes.CDLL(str(path), handle=self.library._handle).run
        self._run.argtypes = [
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_long,
            ctypes.c_void_p,
        ]
        self._run.restype = None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        images = self.checked(images)
        logits = np.empty((len(images), *self.result), np.int32)
        self.into(images, logits)
        return logits

    def checked(self, images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            want = ", ".join(map(str, self.shape))
            raise GraphError(f"needs uint8 images [n, {want}]; got {images.dtype} {list(images.shape)}")
        return np.ascontiguousarray(images)

    def into(self, images: np.ndarray, logits: np.ndarray) -> None:
        """Write the logits of checked images to an array; several threads may do so at once."""
        try:
            work = self.spare.pop()
        except IndexError:
            work = _aligned(self.work_bytes)
        pointers = (self.weights.ctypes.data, images.ctypes.data, logits.ctypes.data)
        self._run(*pointers, len(images), work.ctypes.data)
        self.spare.append(work)

    def bound(self) -> Run:
        """The same as one C function, which spends a fraction of a microsecond on its caller."""
        release = max(2, SHORT // max(self.macs, 1)) if self.macs < SHORT else 1
        figures = (ctypes.c_long * 9)(
            self.work_bytes, release, *self.shape, 1 + len(self.result), *self.result
        )
        bind = self.library.bind
        bind.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.py_object, ctypes.py_object]
        bind.restype = ctypes.py_object
        function: Run = bind(self.weights.ctypes.data, figures, self.weights, self)
        return function


class _Threads:
    """Batches in as many parts as there are threads."""

    def __init__(self, network: _Network, threads: int):
        self.network, self.threads = network, threads
        self.pool = ThreadPoolExecutor(threads - 1, "netsuke")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        images = self.network.checked(images)
        logits = np.empty((len(images), *self.network.result), np.int32)
        least = min(LEAST, -(-WORTH // max(self.network.macs, 1)))
        parts = min(self.threads, max(1, len(images) // least))
        cuts = [len(images) * i // parts for i in range(parts + 1)]
        jobs = [self.pool.submit(self.network.into, images[a:b], logits[a:b]) for a, b in pairwise(cuts[1:])]
        self.network.into(images[: cuts[1]], logits[: cuts[1]])
        for job in jobs:
            job.result()
        return logits
