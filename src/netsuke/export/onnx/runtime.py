"""ONNX files on ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke.errors import ArtifactError, GraphError, MissingExtra

BATCH = 256


def session(source: str | bytes, *, threads: int = 1) -> Any:
    """An ONNX Runtime session of a path or of a file's bytes; raises MissingExtra or ArtifactError."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("this needs ONNX Runtime: pip install 'netsuke[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Constant weights are dequantised once, as the session loads, not anew for every batch.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base but Exception
        what = source if isinstance(source, str) else "the model"
        raise ArtifactError(f"ONNX Runtime cannot load {what}: {str(error).splitlines()[0][:200]}") from None


def predict(session: Any, images: np.ndarray) -> np.ndarray:
    """Logits of raw uint8 images [n, C, H, W]; raises GraphError where they are of another shape or type."""
    shape = session.get_inputs()[0].shape[1:]
    if images.dtype != np.uint8 or list(images.shape[1:]) != shape:
        raise GraphError(
            f"needs uint8 images [n, {', '.join(map(str, shape))}]; got {images.dtype} {list(images.shape)}"
        )
    images = np.ascontiguousarray(images)
    parts = [
        session.run(None, {"image": images[i : i + BATCH]})[0] for i in range(0, max(len(images), 1), BATCH)
    ]
    return np.concatenate(parts)
