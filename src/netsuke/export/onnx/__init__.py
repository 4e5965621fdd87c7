"""ONNX files: a float graph in float, an integer graph in exact integers; `docs/onnx.md` describes them.

Input `image`, uint8 [batch, C, H, W], preprocessing inside; output `logits`, float32 or int32 [batch, classes], or
[batch, O, H, W] of a graph that gives a map.
Integer activations travel as uint8: 0..127 with zero point 0, or -127..127 with zero point 128, since ONNX
Runtime is slow on int8 activations.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from netsuke.artifact import Artifact
from netsuke.errors import MissingExtra, OptionError, UnsupportedOp
from netsuke.export.onnx.floats import FLOATS
from netsuke.export.onnx.integers import INTEGERS, as_int32, rounding_scales
from netsuke.export.onnx.net import FLOAT, At, Net
from netsuke.export.onnx.rounded import INT4_OPSET, ROUNDED
from netsuke.export.onnx.runtime import predict, session
from netsuke.export.placing import place
from netsuke.graph import INPUT, Graph
from netsuke.graph.floats import WEIGHT_ONLY
from netsuke.packing import pack

__all__ = ["encode", "predict", "rounding_scales", "run", "session", "write"]

OPSET = 17
OPSETS = range(13, 22)  # 13 made the axes of ReduceSum an input; later than 21 is untried
EMIT = {**FLOATS, **ROUNDED, **INTEGERS}


def write(
    artifact: Artifact, folder: str | Path, name: str | None = None, *, opset: int | None = None
) -> Path:
    """Write `folder/NAME.onnx` in one step and return its path; NAME is by default the manifest's, or "model".

    The opset is 17 by default, or 21 where weight-only layers of 2 to 4 bits can then be stored as INT4.
    A float graph agrees with `Artifact.logits` to 1e-4, an integer graph is bit-identical with it.
    Raises UnsupportedOp, GraphError, OptionError, MissingExtra, or ArtifactError where it cannot write.
    """
    path = Path(folder) / f"{name or artifact.manifest.get('name') or 'model'}.onnx"
    data = encode(artifact, opset=opset)
    place(path, data)
    return path


def run(path: str | Path, images: np.ndarray) -> np.ndarray:
    """Logits [n, classes], or maps [n, O, H, W], of raw uint8 images [n, C, H, W], by ONNX Runtime on one thread."""
    return predict(session(str(path)), images)


def encode(artifact: Artifact, *, opset: int | None = None) -> bytes:
    """The ONNX file as bytes; raises as `write` does."""
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise MissingExtra("ONNX export needs onnx: pip install 'netsuke[onnx]'") from None
    opset = _opset(artifact.graph) if opset is None else opset
    if opset not in OPSETS:
        raise OptionError(f"opset must be {OPSETS[0]} to {OPSETS[-1]}; got {opset}")
    net = _net(artifact, opset)
    net.compact(("image", "logits"))
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], **attrs) for kind, inputs, output, attrs in net.nodes],
        "netsuke",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *artifact.graph.input_shape])],
        [
            helper.make_tensor_value_info(
                "logits",
                TensorProto.INT32 if artifact.graph.integer else TensorProto.FLOAT,
                ["batch", *net.types[artifact.graph.output].shape],
            )
        ],
        [
            helper.make_tensor(name, TensorProto.INT4, array.shape, pack(array, 4).tobytes(), raw=True)
            if name in net.int4
            else numpy_helper.from_array(array, name)
            for name, array in net.constants.items()
        ],
    )
    imports = [helper.make_opsetid("", opset)]
    ir = helper.find_min_ir_version_for(imports)  # the oldest: older runtimes load the file too
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _opset(graph: Graph) -> int:
    """The default: the oldest that stores the weights without waste."""
    narrow = any(op.kind in WEIGHT_ONLY and op.attrs["bits"] <= 4 for op in graph.ops)
    return INT4_OPSET if narrow else OPSET


def _net(artifact: Artifact, opset: int) -> Net:
    """Every op as nodes; the last of them gives "logits"."""
    net = Net(artifact.graph, artifact.tensors, opset)
    values = {INPUT: "image"}
    for op in net.graph.ops:
        emit = EMIT.get(op.kind)
        if emit is None:
            raise UnsupportedOp(f"onnx cannot emit {op.kind!r}; it knows {', '.join(sorted(EMIT))}")
        at = At(net, op, [values[name] for name in op.inputs], [net.types[name] for name in op.inputs])
        values[op.name] = emit(at)
    last, type_ = net.graph.ops[-1], net.types[net.graph.output]
    if net.graph.integer and type_.dtype != "i32":
        as_int32(At(net, last, [values[last.name]], [type_]))
    elif type_.dtype == "u8":
        At(net, last, [], []).add("Cast", [values[last.name]], "logits", to=FLOAT)
    kind, inputs, _, attrs = net.nodes[-1]
    net.nodes[-1] = (kind, inputs, "logits", attrs)
    return net
