"""TFLite files of float graphs, for LiteRT and TensorFlow Lite; `docs/tflite.md` describes them.

Input `image`, uint8 [batch, H, W, C], preprocessing inside; output `logits`, float32 [batch, classes]. Channels come
last, as everywhere in TFLite; `run` takes images [n, C, H, W] as everything in netsuke does, and turns them.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import numpy as np

from netsuke.artifact import Artifact
from netsuke.errors import ArtifactError, UnsupportedOp
from netsuke.export.tflite.floats import FLOATS, FUSES
from netsuke.export.tflite.net import At, Net, dims
from netsuke.export.tflite.runtime import runner
from netsuke.graph import INPUT, Op

__all__ = ["encode", "run", "runner", "write"]


def write(artifact: Artifact, folder: str | Path, name: str | None = None) -> Path:
    """Write `folder/NAME.tflite` in one step and return its path; NAME is by default the manifest's, or "model".

    Its logits agree with `Artifact.logits` to 1e-4.
    Raises UnsupportedOp (an integer graph too), GraphError, MissingExtra, or ArtifactError where it cannot write.
    """
    path = Path(folder) / f"{name or artifact.manifest.get('name') or 'model'}.tflite"
    data = encode(artifact)
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def run(path: str | Path, images: np.ndarray) -> np.ndarray:
    """Logits [n, classes] of raw uint8 images [n, C, H, W], by LiteRT on one thread."""
    return runner(str(path))(images)


def encode(artifact: Artifact) -> bytes:
    """The TFLite file as bytes; raises as `write` does."""
    graph = artifact.graph
    if graph.integer:
        raise UnsupportedOp(
            "tflite takes float graphs for now; export an integer graph to c or onnx, or the float model it came from"
        )
    for op in graph.ops:
        if op.kind not in FLOATS:
            raise UnsupportedOp(f"tflite cannot emit {op.kind!r}; it knows {', '.join(sorted(FLOATS))}")
    net = Net(graph, artifact.tensors)
    source = net.activation("image", dims(net.types[INPUT]), "uint8")
    values = {INPUT: source}
    for op in graph.ops:
        if op.name in values:  # a ReLU that the layer before has taken along
            continue
        relu = _fused(net, op)
        values[op.name] = FLOATS[op.kind](
            At(net, op, [values[i] for i in op.inputs], relu.kind if relu else "")
        )
        if relu:
            values[relu.name] = values[op.name]
    result = values[graph.output]
    if net.types[graph.output].dtype == "u8":
        result = _as_float(net, result)
    net.tensors[result].name = "logits"
    return net.encode(source, result)


def _fused(net: Net, op: Op) -> Op | None:
    """The ReLU that alone reads this op, where TFLite can compute both at once."""
    users = net.users[op.name]
    fits = op.kind in FUSES and len(users) == 1 and users[0].kind in ("relu", "relu6")
    return users[0] if fits else None


def _as_float(net: Net, x: int) -> int:
    """Raw pixels as logits, from a graph that only reorders them."""
    types, shape = net.schema.TensorType, tuple(net.tensors[x].shape)
    result = net.activation("logits", shape)
    net.operator("CAST", [x], result, "CastOptions", inDataType=types.UINT8, outDataType=types.FLOAT32)
    return result
