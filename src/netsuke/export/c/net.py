"""What the parts of one NAME.c share: how activations lie, where their memory is, how a stage is called."""

from __future__ import annotations

from collections.abc import Mapping

from netsuke.artifact import Artifact
from netsuke.export.c.coded import Coded, plan
from netsuke.export.c.decoder import sources
from netsuke.export.c.header import Style, identifier
from netsuke.export.c.ops import ROWS, Layer, View
from netsuke.graph import INPUT, Op, Type
from netsuke.memory import WORD, layout
from netsuke.memory.streams import direct


class Net:
    """A graph laid out for C."""

    def __init__(self, artifact: Artifact, name: str, style: Style):
        self.artifact, self.name, self.style = artifact, name, style
        self.graph, self.tensors = artifact.graph, artifact.tensors
        self.types = self.graph.types(self.tensors)
        self.direct = direct(self.graph, self.types)
        self.symbols = {op.name: f"op{i}_{identifier(op.name)}" for i, op in enumerate(self.graph.ops)}
        self.views = self._views()
        self.coded: Coded | None = None
        self._lay_out()
        if style.weights != "packed":
            self.coded = plan(sources(self.layers, style.weights == "coded-dense"))
            self._lay_out(self.coded.scratch)
        self.number = {stage.output: i for i, stage in enumerate(self.layout.stages)}

    def _lay_out(self, scratch: Mapping[str, int] = {}) -> None:
        self.layout = layout(self.graph, self.tensors, scratch)
        self.layers = [self._layer(i) for i in range(len(self.layout.stages))]

    def _views(self) -> dict[str, View]:
        views = {INPUT: View("uint8_t", self.types[INPUT].elements)}
        for op in self.graph.ops:
            x = self.types[op.name]
            if op.kind == "flatten":
                views[op.name] = views[op.inputs[0]]
            else:
                ctype = "int32_t" if x.dtype == "i32" else "int8_t"
                views[op.name] = View(ctype, x.elements, _side_by_side(op, x, [views[i] for i in op.inputs]))
        return views

    def _layer(self, i: int) -> Layer:
        stage, rings = self.layout.stages[i], self.layout.rings
        names = stage.first.inputs
        sources = [self.layout.owners.get(name) for name in stage.inputs]
        return Layer(
            stage,
            self.symbols,
            tuple(self.views[name] for name in names),
            tuple(self.types[name].shape for name in names),
            tuple(rings[owner] for owner in sources if owner),
            self.types,
            self.views[stage.output],
            rings[self.layout.owners[stage.output]],
            self.tensors,
            self.style,
            i in self.layout.reversed,
            self.coded,
        )

    def place(self) -> str:
        """The quickest integer that counts everything: on 8 and 16 bit machines a wide one costs."""
        largest = max(self.layout.size, *(x.elements for x in self.types.values()))
        weights = [  # those of 8 and 4 bits are found without counting bits
            self.tensors[op.tensor("weight")].size * (1 if op.attrs["bits"] in (8, 4) else op.attrs["bits"])
            for op in self.graph.ops
            if op.tensor("weight") in self.tensors
        ]
        largest = max([largest, *weights])
        return "int_fast16_t" if largest < 1 << 15 else "int_fast32_t"

    def stepped(self, layer: Layer) -> bool:
        """Whether a stage is told its step: dense layers and the like have only one."""
        return layer.op.kind in ("qconv2d", *ROWS) or len(layer.y.shape) == 3

    def call(self, i: int, step: str) -> str:
        layer, offsets = self.layers[i], self.layout.offsets
        arguments = []
        for name, view in zip(layer.stage.inputs, layer.inputs, strict=True):
            arguments.append(
                "row" if name == INPUT else self.memory(offsets[self.layout.owners[name]], view.ctype)
            )
        final = self.direct and layer.stage.output == self.graph.output
        owner = self.layout.owners[layer.stage.output]
        arguments.append("logits" if final else self.memory(offsets[owner], layer.out.ctype))
        arguments += [step] * self.stepped(layer)
        if layer.stage.scratch:
            arguments.append(self.memory(self.layout.scratch(i), "int8_t"))
        return f"{layer.symbol}({', '.join(arguments)});"

    @staticmethod
    def memory(offset: int, ctype: str) -> str:
        if ctype == "int32_t":
            return f"w->words + {offset // WORD}"
        return f"(int8_t *)w->words + {offset}"


def _side_by_side(op: Op, x: Type, inputs: list[View]) -> int:
    """The order in which an op writes: pixel by pixel, and a sum of vectors as its inputs lie."""
    if len(x.shape) == 3:
        return x.shape[0]
    if op.kind == "lookup":
        return inputs[0].channels
    orders = (
        {view.channels for view in inputs if view.channels > 1 and view.planes > 1}
        if op.kind == "qadd"
        else set()
    )
    return orders.pop() if len(orders) == 1 else 1
