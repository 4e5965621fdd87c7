"""Run an artifact by the fastest runtime that there is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netsuke.artifact import Artifact
from netsuke.engine import runtimes
from netsuke.engine.native import native
from netsuke.errors import ArtifactError, MissingExtra, OptionError, UnsupportedOp

Run = Callable[[np.ndarray], np.ndarray]

# A choice takes the first of its backends that works; the others run when named. Each raises MissingExtra where it is
# not installed, UnsupportedOp where it cannot keep to what the graph says.
BACKENDS: dict[str, Callable[[Artifact, int], Run]] = {
    "native": native,
    "onnxruntime": runtimes.onnxruntime,
    "numpy": runtimes.numpy,
    "openvino": runtimes.openvino,
    "litert": runtimes.litert,
}
CHOICES = {
    "auto": ("native", "onnxruntime", "numpy"),
    "packaged": ("onnxruntime", "numpy"),  # nothing is compiled, which takes seconds
}


class Engine:
    """An artifact ready to run; integer logits are the same on every backend, float ones agree to 1e-4.

    `backend` is a name in BACKENDS, "auto", or "packaged" where too few images come for a compiler to pay; afterwards
    it tells which one runs, and `notes` why faster ones do not. "native" is C for this very processor, compiled at the
    first use and kept in the user's cache (docs/engine.md); it takes integer graphs. `threads` goes to all but NumPy.
    Several threads may call one engine.
    Raises OptionError for another name, MissingExtra where the named backend is not installed, UnsupportedOp
    where it has no faithful form of the graph (OpenVINO takes float graphs only, native none).
    """

    def __init__(self, artifact: Artifact, *, backend: str = "auto", threads: int = 1):
        if backend not in (*CHOICES, *BACKENDS):
            raise OptionError(f"unknown backend {backend!r}; choose from {', '.join((*CHOICES, *BACKENDS))}")
        if threads < 1:
            raise OptionError(f"threads must be at least 1; got {threads}")
        self.backend, self._run, self.notes = _first(artifact, backend, threads)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits [n, classes] or maps of them [n, O, H, W], float32 or int32, of raw uint8 images [n, C, H, W].

        Raises GraphError where the images are of another shape or type.
        """
        return self._run(images)


def _first(artifact: Artifact, backend: str, threads: int) -> tuple[str, Run, tuple[str, ...]]:
    if backend in BACKENDS:
        return backend, BACKENDS[backend](artifact, threads), ()
    notes: list[str] = []
    for name in CHOICES[backend]:
        try:
            return name, BACKENDS[name](artifact, threads), tuple(notes)
        except (MissingExtra, UnsupportedOp, ArtifactError) as error:
            notes.append(f"{name}: {error}")
    raise AssertionError("numpy is always there")
