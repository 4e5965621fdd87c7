"""An estimate of the energy of one answer, from published costs of single operations. It is not a measurement.

Costs: M. Horowitz, "1.1 Computing's energy problem (and what we can do about it)", ISSCC 2014: 45 nm, 0.9 V,
picojoules of an operation and of a 64-bit read. A chip adds instructions, idle time and leakage, so the figure
compares models and predicts no battery.
"""

from __future__ import annotations

from typing import Any

from netsuke.artifact import Artifact
from netsuke.graph import INTEGER
from netsuke.graph.floats import DYNAMIC
from netsuke.measure.cost import macs
from netsuke.measure.report import Report
from netsuke.memory import IN_PLACE, VIEWS, ram_bytes

SOURCE = (
    'M. Horowitz, "1.1 Computing\'s energy problem (and what we can do about it)", ISSCC 2014: 45 nm, 0.9 V'
)
FORMULA = (
    "MACs x (multiply + accumulate: int8 x int8 into int32 0.2 + 0.1 pJ, float32 3.7 + 0.9 pJ)"
    " + bytes of weights, each read once, x the cost of a memory that holds them all"
    " + bytes of activations, each written once and read by every op that takes it (ReLU and its like are"
    " fused), x the cost of a memory as large as the peak RAM."
    " A byte costs an eighth of a 64-bit access: 10 pJ up to 8 KB, 20 up to 32 KB, 100 up to 1 MB, and 1950"
    " (the middle of 1300 to 2600) from DRAM."
    " An estimate for a 45 nm chip with nothing but this arithmetic: good for comparing."
)

# Picojoules of a multiplication and of the addition into its accumulator.
MAC_PJ = {"int8": 0.2 + 0.1, "float32": 3.7 + 0.9}
# Bytes a memory holds at most -> picojoules of a 64-bit access; a write is taken to cost what a read costs.
MEMORY_PJ = {8 << 10: 10.0, 32 << 10: 20.0, 1 << 20: 100.0}
DRAM_PJ = 1950.0
WORD = 8  # bytes of that access


def byte_pj(capacity: int) -> float:
    """Picojoules to move one byte from or to the smallest memory that holds `capacity` bytes."""
    return next((pj for size, pj in MEMORY_PJ.items() if capacity <= size), DRAM_PJ) / WORD


def moved_bytes(artifact: Artifact) -> int:
    """Bytes of activations that one image writes and reads.

    Views move nothing, and a function of one value runs where that value is made, as every runtime has it.
    """
    graph = artifact.graph
    types = graph.types(artifact.tensors)
    total = 0
    for op in graph.ops:
        if op.kind not in VIEWS and (op.kind not in IN_PLACE or len(op.inputs) > 1):
            total += sum(types[name].elements * types[name].itemsize for name in (op.name, *op.inputs))
    return total


def energy(artifact: Artifact) -> dict[str, Any]:
    """Microjoules of one image by `FORMULA`: the sum, its three parts, and what each was counted from."""
    graph, tensors = artifact.graph, artifact.tensors
    # A weight-only op stores integers and multiplies floats.
    kinds = {op.name: "int8" if op.kind in INTEGER | DYNAMIC else "float32" for op in graph.ops}
    arithmetic = sum(count * MAC_PJ[kinds[name]] for name, count in macs(graph, tensors).items())
    size, ram, moved = artifact.size_bytes, ram_bytes(graph, tensors), moved_bytes(artifact)
    parts = {
        "arithmetic_uj": arithmetic * 1e-6,
        "weights_uj": size * byte_pj(size) * 1e-6,
        "activations_uj": moved * byte_pj(ram) * 1e-6,
    }
    return {"energy_uj": sum(parts.values()), **parts, "moved_bytes": moved}


def energy_report(artifact: Artifact, split: Any = None) -> Report:
    return Report("energy_uj", energy(artifact)["energy_uj"], "uJ/image, estimated", n=1, spread=0.0)
