"""The ONNX file: checked, and its tensors as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from netsuke.errors import ArtifactError, MissingExtra


def read(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """The checked ModelProto and its weights."""
    try:
        import onnx
    except ImportError:
        raise MissingExtra("importing ONNX needs onnx: pip install 'netsuke[onnx]'") from None
    if not path.is_file():
        raise ArtifactError(f"{path}: {'is not a file' if path.exists() else 'does not exist'}")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
        weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    except Exception as error:  # protobuf, the checker and the reader of external data share no base class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ArtifactError(f"{path}: is not a sound ONNX file: {reason}") from None
    return model, weights


def literal(value: Any) -> np.ndarray:
    """The value of a Constant node's one attribute."""
    from onnx import numpy_helper

    tensor = hasattr(value, "raw_data")
    return numpy_helper.to_array(value) if tensor else np.asarray(value)
