"""TFLite files on LiteRT, by its interpreter, with XNNPACK or without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netsuke.errors import ArtifactError, GraphError, MissingExtra

BATCH = 256


def runner(
    source: str | bytes, *, threads: int = 1, delegates: bool = True
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from raw uint8 images [n, C, H, W] to logits [n, classes] or maps [n, O, H, W].

    `source` is a path or a file's bytes.
    Without `delegates` the built-in kernels run, which round otherwise than XNNPACK, the default.
    Raises MissingExtra, or ArtifactError where LiteRT refuses the file; the function itself raises GraphError
    where images are of another shape or type.
    """
    return _Runner(source, threads, delegates)


class _Runner:
    def __init__(self, source: str | bytes, threads: int, delegates: bool):
        try:
            from ai_edge_litert.interpreter import Interpreter, OpResolverType
        except ImportError:
            raise MissingExtra("this needs LiteRT: pip install 'netsuke[tflite]'") from None
        given: dict[str, Any] = {"model_content" if isinstance(source, bytes) else "model_path": source}
        if not delegates:
            given["experimental_op_resolver_type"] = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            self.interpreter: Any = Interpreter(**given, num_threads=threads)
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            what = "the model" if isinstance(source, bytes) else source
            raise ArtifactError(f"LiteRT cannot load {what}: {str(error).splitlines()[0][:200]}") from None
        (taken,), (given_back,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self.input, self.output = taken["index"], given_back["index"]
        self.batch, *shape = (int(side) for side in taken["shape"])
        self.shape = (shape[2], *shape[:2])
        *sides, planes = (int(side) for side in given_back["shape"][1:])
        self.result = (planes, *sides)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            want = ", ".join(map(str, self.shape))
            raise GraphError(f"needs uint8 images [n, {want}]; got {images.dtype} {list(images.shape)}")
        if len(images) <= BATCH:
            return self._logits(images)
        return np.concatenate([self._logits(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])

    def _logits(self, images: np.ndarray) -> np.ndarray:
        if not len(images):
            return np.zeros((0, *self.result), np.float32)
        if len(images) != self.batch:  # takes milliseconds, so only when it changes
            self.interpreter.resize_tensor_input(self.input, [len(images), *self.shape[1:], self.shape[0]])
            self.interpreter.allocate_tensors()
            self.batch = len(images)
        self.interpreter.set_tensor(self.input, np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
        self.interpreter.invoke()
        logits: np.ndarray = self.interpreter.get_tensor(self.output)
        return logits if logits.ndim == 2 else np.ascontiguousarray(logits.transpose(0, 3, 1, 2))
