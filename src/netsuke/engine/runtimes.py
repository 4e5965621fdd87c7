"""The general runtimes, and NumPy: each a function from images to logits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np

from netsuke.artifact import Artifact
from netsuke.errors import GraphError, MissingExtra, UnsupportedOp
from netsuke.export import onnx, tflite

Run = Callable[[np.ndarray], np.ndarray]
BATCH = 256


def onnxruntime(artifact: Artifact, threads: int) -> Run:
    session = onnx.session(onnx.encode(artifact), threads=threads)
    return lambda images: onnx.predict(session, images)


def numpy(artifact: Artifact, threads: int) -> Run:
    return artifact.logits  # NumPy's BLAS has threads of its own, set before it loads


def litert(artifact: Artifact, threads: int) -> Run:
    if artifact.graph.integer and (ops := tflite.unproved(artifact)):
        raise UnsupportedOp(
            f"litert is not proved to round {', '.join(ops[:5])} as the graph says; choose native, onnxruntime or numpy"
        )
    return tflite.runner(tflite.encode(artifact), threads=threads)


def openvino(artifact: Artifact, threads: int) -> Run:
    # Seen in 2026.4: other logits, and a crash of the process at a Clip with one limit.
    if artifact.graph.integer:
        raise UnsupportedOp(
            "openvino takes no integer graphs: it does not compute the exact integer ONNX file bit for bit; "
            "choose native, onnxruntime or numpy"
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
            self.result = [side.get_length() for side in list(model.output(0).partial_shape)[1:]]
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
            return np.zeros((0, *self.result), np.float32)
        return np.concatenate([self._logits(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])

    def _logits(self, images: np.ndarray) -> np.ndarray:
        logits: np.ndarray = self.many.infer([np.ascontiguousarray(images)])[0]
        return logits
