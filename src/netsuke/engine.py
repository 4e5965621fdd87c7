"""Run an artifact by the fastest runtime that is installed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netsuke.artifact import Artifact
from netsuke.errors import MissingExtra, OptionError
from netsuke.export import onnx

Run = Callable[[np.ndarray], np.ndarray]


def _onnxruntime(artifact: Artifact, threads: int) -> Run:
    session = onnx.session(onnx.encode(artifact), threads=threads)
    return lambda images: onnx.predict(session, images)


def _numpy(artifact: Artifact, threads: int) -> Run:
    return artifact.logits  # NumPy's BLAS has threads of its own, set before it loads


# Fastest first: "auto" takes the first that is installed. Each raises MissingExtra where it is not.
BACKENDS: dict[str, Callable[[Artifact, int], Run]] = {"onnxruntime": _onnxruntime, "numpy": _numpy}


class Engine:
    """An artifact ready to run; integer logits are the same on every backend, float ones agree to 1e-4.

    `backend` is "auto" or a name in BACKENDS; afterwards it tells which one runs. `threads` goes to ONNX Runtime.
    Raises OptionError for another name, MissingExtra where the named backend is not installed.
    """

    def __init__(self, artifact: Artifact, *, backend: str = "auto", threads: int = 1):
        if backend not in ("auto", *BACKENDS):
            raise OptionError(f"unknown backend {backend!r}; choose from auto, {', '.join(BACKENDS)}")
        if threads < 1:
            raise OptionError(f"threads must be at least 1; got {threads}")
        self.backend, self._run = _first(artifact, backend, threads)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits [n, classes], float32 or int32, of raw uint8 images [n, C, H, W].

        Raises GraphError where the images are of another shape or type.
        """
        return self._run(images)


def _first(artifact: Artifact, backend: str, threads: int) -> tuple[str, Run]:
    if backend != "auto":
        return backend, BACKENDS[backend](artifact, threads)
    for name, build in BACKENDS.items():
        try:
            return name, build(artifact, threads)
        except MissingExtra:
            continue
    raise AssertionError("numpy is always there")
