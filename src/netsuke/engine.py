"""Run an artifact by the fastest runtime that is installed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np

from netsuke.artifact import Artifact
from netsuke.errors import GraphError, MissingExtra, OptionError, UnsupportedOp
from netsuke.export import onnx, tflite

Run = Callable[[np.ndarray], np.ndarray]
BATCH = 256


def _onnxruntime(artifact: Artifact, threads: int) -> Run:
    session = onnx.session(onnx.encode(artifact), threads=threads)
    return lambda images: onnx.predict(session, images)


def _numpy(artifact: Artifact, threads: int) -> Run:
    return artifact.logits  # NumPy's BLAS has threads of its own, set before it loads


def _litert(artifact: Artifact, threads: int) -> Run:
    if artifact.graph.integer and (ops := tflite.unproved(artifact)):
        raise UnsupportedOp(
            f"litert is not proved to round {', '.join(ops[:5])} as the graph says; choose onnxruntime or numpy"
        )
    return tflite.runner(tflite.encode(artifact), threads=threads)


def _openvino(artifact: Artifact, threads: int) -> Run:
    # Seen in 2026.4: other logits, and a crash of the process at a Clip with one limit.
    if artifact.graph.integer:
        raise UnsupportedOp(
            "openvino takes no integer graphs: it does not compute the exact integer ONNX file bit for bit; "
            "choose onnxruntime or numpy"
        )
    return _OpenVino(onnx.encode(artifact), artifact.graph.input_shape, threads)


class _OpenVino:
    """A model compiled twice: for one image, which a fixed shape answers sooner, and for any number."""

    def __init__(self, file: bytes, shape: tuple[int, int, int], threads: int):
        try:
            from openvino import Core
        except ImportError:
            raise MissingExtra("this needs OpenVINO: pip install 'netsuke[openvino]'") from None
        self.shape = shape
        self.one: Any = None
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # it would take bfloat16 where the processor has it
        }
        core = Core()
        try:
            model = core.read_model(BytesIO(file))
            self.many = core.compile_model(model, "CPU", options).create_infer_request()
            self.classes = model.output(0).partial_shape[1].get_length()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UnsupportedOp(f"OpenVINO cannot compile the model: {reason}") from None
        with suppress(RuntimeError):  # 2026.4 fuses some graphs of fixed shape into what it cannot run
            model.reshape([1, *shape])
            one = core.compile_model(model, "CPU", options).create_infer_request()
            self.one, self.pixels = one, one.get_input_tensor().data

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            want = ", ".join(map(str, self.shape))
            raise GraphError(f"needs uint8 images [n, {want}]; got {images.dtype} {list(images.shape)}")
        if len(images) == 1 and self.one is not None:
            self.pixels[...] = images
            self.one.infer()
            logits: np.ndarray = self.one.get_output_tensor().data.copy()
            return logits
        if not len(images):  # which some versions refuse
            return np.zeros((0, self.classes), np.float32)
        return np.concatenate([self._logits(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])

    def _logits(self, images: np.ndarray) -> np.ndarray:
        logits: np.ndarray = self.many.infer([np.ascontiguousarray(images)])[0]
        return logits


# "auto" takes the first of AUTO that is installed; the others run when named. Each raises MissingExtra where it is
# not installed, UnsupportedOp where it cannot keep to what the graph says.
BACKENDS: dict[str, Callable[[Artifact, int], Run]] = {
    "onnxruntime": _onnxruntime,
    "numpy": _numpy,
    "openvino": _openvino,
    "litert": _litert,
}
AUTO = ("onnxruntime", "numpy")


class Engine:
    """An artifact ready to run; integer logits are the same on every backend, float ones agree to 1e-4.

    `backend` is "auto" or a name in BACKENDS; afterwards it tells which one runs. `threads` goes to all
    but NumPy. Raises OptionError for another name, MissingExtra where the named backend is not installed,
    UnsupportedOp where it has no faithful form of the graph (OpenVINO takes float graphs only).
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
    for name in AUTO:
        try:
            return name, BACKENDS[name](artifact, threads)
        except MissingExtra:
            continue
    raise AssertionError("numpy is always there")
