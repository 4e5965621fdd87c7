"""TFLite files: a float graph in float, an integer graph in int8; `docs/tflite.md` describes them.

Input `image`, uint8 [batch, H, W, C], preprocessing inside; output `logits`, float32 or int32 [batch, classes],
or [batch, H, W, O] of a graph that gives a map. Channels come last, as everywhere in TFLite; `run` takes images
[n, C, H, W] and gives maps [n, O, H, W], as everything in netsuke does, and turns them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from netsuke.artifact import Artifact
from netsuke.errors import UnsupportedOp
from netsuke.export.placing import place
from netsuke.export.tflite.floats import FLOATS, FUSES
from netsuke.export.tflite.integers import INTEGERS, concat
from netsuke.export.tflite.net import At, Net, dims
from netsuke.export.tflite.rounded import ROUNDED
from netsuke.export.tflite.runtime import runner
from netsuke.graph import INPUT, Op

__all__ = ["encode", "run", "runner", "unproved", "write"]

EMIT = {**FLOATS, "concat": concat, **ROUNDED, **INTEGERS}


def write(artifact: Artifact, folder: str | Path, name: str | None = None, *, exact: bool = True) -> Path:
    """Write `folder/NAME.tflite` in one step and return its path; NAME is by default the manifest's, or "model".

    Float logits agree with `Artifact.logits` to 1e-4; integer ones are equal where `unproved` lists no op. With
    `exact`, layers of an integer graph for which int8 operators are not proved to round alike compute in whole float32
    numbers; without, all are int8, as some accelerators want them.
    Raises UnsupportedOp, GraphError, MissingExtra, or ArtifactError where it cannot write.
    """
    path = Path(folder) / f"{name or artifact.manifest.get('name') or 'model'}.tflite"
    data = encode(artifact, exact=exact)
    place(path, data)
    return path


def run(path: str | Path, images: np.ndarray) -> np.ndarray:
    """Logits [n, classes], or maps [n, O, H, W], of raw uint8 images [n, C, H, W], by LiteRT on one thread."""
    return runner(str(path))(images)


def encode(artifact: Artifact, *, exact: bool = True) -> bytes:
    """The TFLite file as bytes; raises as `write` does."""
    return _emitted(artifact, exact)[0]


def unproved(artifact: Artifact, *, exact: bool = True) -> list[str]:
    """The ops of an integer graph whose rounding in LiteRT is not proved equal, in the order of the graph.

    Where there is none, the logits are those of `Artifact.logits`. An op listed may be one step off at some inputs.
    """
    return _emitted(artifact, exact)[1]


def _emitted(artifact: Artifact, exact: bool) -> tuple[bytes, list[str]]:
    graph = artifact.graph
    for op in graph.ops:
        if op.kind not in EMIT:
            raise UnsupportedOp(f"tflite cannot emit {op.kind!r}; it knows {', '.join(sorted(EMIT))}")
    net = Net(graph, artifact.tensors, exact)
    source = net.activation("image", dims(net.types[INPUT]), "uint8")
    values = {INPUT: source}
    for op in graph.ops:
        if op.name in values:  # a ReLU that the layer before has taken along
            continue
        relu = _fused(net, op)
        at = At(net, op, [values[i] for i in op.inputs], relu.kind if relu else "")
        values[op.name] = EMIT[op.kind](at)
        if relu:
            values[relu.name] = values[op.name]
    result = _logits(net, values[graph.output])
    net.tensors[result].name = "logits"
    return net.encode(source, result), net.unproved


def _fused(net: Net, op: Op) -> Op | None:
    """The ReLU that alone reads this op, where TFLite can compute both at once."""
    users = net.users[op.name]
    fits = op.kind in FUSES and len(users) == 1 and users[0].kind in ("relu", "relu6")
    return users[0] if fits else None


def _logits(net: Net, x: int) -> int:
    """Logits as float32 or, of an integer graph, int32; pixels where a graph only reorders them."""
    last = net.graph.ops[-1]
    dtype = "int32" if net.graph.integer else "float32"
    if net.dtype(x) == dtype:
        return x
    result = At(net, last, [x], "").cast(x, dtype, "logits")
    if "scale" in last.attrs:
        net.quantize(result, np.array([last.attrs["scale"]]))
    return result
