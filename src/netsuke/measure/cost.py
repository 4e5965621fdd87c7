"""What a model costs a device: parameters, multiplications, stored bytes, working memory."""

from __future__ import annotations

from math import prod
from typing import Any

from netsuke import packing
from netsuke.artifact import Artifact
from netsuke.graph import Graph, Tensors
from netsuke.measure.report import Report
from netsuke.memory import ram_bytes

LEARNT = ("weight", "bias", "slope")


def parameters(graph: Graph, tensors: Tensors) -> int:
    """Weights and biases; the multipliers and shifts of requantisation are bytes, not parameters."""
    return sum(tensors[name].size for name, (_, role) in graph.roles().items() if role in LEARNT)


def macs(graph: Graph, tensors: Tensors) -> dict[str, int]:
    """Multiply-accumulates for one image by op name: convolutions and dense layers, padding included.

    The usual count: pooling, activations and requantisation are not in it.
    """
    types = graph.types(tensors)
    counts = {}
    for op in graph.ops:
        weight = tensors.get(op.tensor("weight"))
        if weight is not None:  # each weight is used once for every row and column of the output
            counts[op.name] = weight.size * prod(types[op.name].shape[1:])
    return counts


def cost(artifact: Artifact) -> dict[str, Any]:
    """Every cost that needs no clock, as plain JSON; `storage` itemises `size_bytes` tensor by tensor.

    `encoding` itemises `encoded_bytes` where there is entropy coding; without it, they are `size_bytes`.
    """
    graph, tensors = artifact.graph, artifact.tensors
    by_op = macs(graph, tensors)
    rows = packing.stored(graph, tensors)
    return {
        "parameters": parameters(graph, tensors),
        "macs": sum(by_op.values()),
        "macs_by_op": by_op,
        "size_bytes": sum(row.size_bytes for row in rows),
        "storage": [
            {
                "tensor": row.tensor,
                "count": row.count,
                "bits": row.bits,
                "table_bytes": row.table_bytes,
                "size_bytes": row.size_bytes,
            }
            for row in rows
        ],
        **_encoding(artifact),
        "ram_bytes": ram_bytes(graph, tensors),
    }


def _encoding(artifact: Artifact) -> dict[str, Any]:
    encoded = artifact.encoded
    if not artifact.coding:
        return {"encoded_bytes": encoded.size_bytes}
    return {
        "encoded_bytes": encoded.size_bytes,
        "encoding": {
            "coding": artifact.coding,
            "streams": [
                {"method": unit.method, "tensors": list(unit.tensors), "size_bytes": len(unit.stream)}
                for unit in encoded.units
            ],
            "stream_bytes": encoded.stream_bytes,
            "plain_bytes": encoded.plain_bytes,
            "decoder_bytes": encoded.decoder_bytes,
        },
    }


def _counted(metric: str, value: int, unit: str) -> Report:
    return Report(metric, value, unit, n=1, spread=0.0)


def parameter_report(artifact: Artifact, split: Any = None) -> Report:
    return _counted("parameters", parameters(artifact.graph, artifact.tensors), "parameters")


def macs_report(artifact: Artifact, split: Any = None) -> Report:
    return _counted("macs", sum(macs(artifact.graph, artifact.tensors).values()), "macs/image")


def size_report(artifact: Artifact, split: Any = None) -> Report:
    return _counted("size_bytes", artifact.size_bytes, "bytes")


def encoded_report(artifact: Artifact, split: Any = None) -> Report:
    return _counted("encoded_bytes", artifact.encoded_bytes, "bytes")


def ram_report(artifact: Artifact, split: Any = None) -> Report:
    return _counted("ram_bytes", ram_bytes(artifact.graph, artifact.tensors), "bytes")
