"""From the image, node by node of the traced module, to its logits."""

from __future__ import annotations

import operator

import numpy as np
from torch import fx, nn

from netsuke.errors import UnsupportedLayer
from netsuke.graph import Graph
from netsuke.lab.lower.builder import PIXELS, Builder
from netsuke.lab.lower.functions import FUNCTIONS, HANDING, JOINTS, overwrites
from netsuke.lab.lower.layers import LAYERS, PASSING


class _Tracer(fx.Tracer):
    """Looks into no module that has a rule of its own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in LAYERS or super().is_leaf_module(m, module_qualified_name)


class Walk(Builder):
    """One walk over the traced module; `go` gives the graph and its tensors."""

    def __init__(self, model: nn.Module, shape: tuple[int, int, int]):
        super().__init__(shape)
        self.modules = dict(model.named_modules())
        self.model, self.shape = model, shape

    def go(self) -> tuple[Graph, dict[str, np.ndarray]]:
        for node in self._traced().nodes:
            self.node = node
            if node.op == "placeholder":
                if PIXELS in self.values.values():
                    raise UnsupportedLayer(
                        f"forward must take the images and nothing else; it also takes {node.target!r}"
                    )
                self.values[node] = PIXELS
            elif node.op == "output":
                result = node.args[0]
                if not isinstance(result, fx.Node):
                    raise UnsupportedLayer("the model must return one tensor, its logits")
                if self.ops[-1].name != self.one(result):
                    raise UnsupportedLayer("the model's output must be its last layer's")
            else:
                self.values[node] = self._lowered(node)
        return Graph(self.shape, tuple(self.ops)), self.tensors

    def _traced(self) -> fx.Graph:
        modes = {module: module.training for module in self.model.modules()}
        try:
            return _Tracer().trace(self.model.eval())
        except Exception as error:
            raise UnsupportedLayer(
                f"cannot trace {type(self.model).__name__}: {str(error).splitlines()[0]}; "
                "its forward must not branch on values"
            ) from error
        finally:
            for module, mode in modes.items():  # a frozen norm stays as it was
                module.training = mode

    def _lowered(self, node: fx.Node) -> str | list[str]:
        if node.op == "call_module":
            layer = self.modules[str(node.target)]
            rule = LAYERS.get(type(layer))
            if rule is None:
                raise UnsupportedLayer(
                    f"cannot lower {node.target!r} ({type(layer).__name__}); "
                    f"netsuke knows {', '.join(sorted(t.__name__ for t in LAYERS))}"
                )
            if getattr(layer, "inplace", False) and not isinstance(layer, PASSING):
                self._overwritable(node)
            return rule(self, self.value(0), layer)
        if node.target in JOINTS:
            return JOINTS[node.target](self, node)
        rule = FUNCTIONS.get(node.target)
        if rule is None:
            name = getattr(node.target, "__name__", node.target)
            known = sorted({getattr(t, "__name__", str(t)) for t in [*FUNCTIONS, *JOINTS]})
            raise UnsupportedLayer(
                f"cannot lower {name!r} at {node.name!r}; netsuke knows {', '.join(known)}"
            )
        if overwrites(node):
            self._overwritable(node)
        return rule(self, self.value(0), node)

    # --- layers in place --------------------------------------------------------------------------------

    def _overwritable(self, node: fx.Node) -> None:
        """Refuse a layer that overwrites what others read: a graph has no such order."""
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node):
            return
        origin = self._origin(source)
        if self._readers(origin) > 1 or origin.target is operator.getitem:
            raise UnsupportedLayer(
                f"cannot lower {node.name!r}: it works in place on {source.name!r}, which others read too"
            )

    def _origin(self, node: fx.Node) -> fx.Node:
        """Where a value comes from, seen through layers that only hand it on."""
        while self._hands_on(node) and isinstance(node.args[0], fx.Node):
            node = node.args[0]
        return node

    def _readers(self, origin: fx.Node) -> int:
        """How many nodes read a value, seen through layers that only hand it on."""
        seen, waiting = 0, list(origin.users)
        while waiting:
            user = waiting.pop()
            if self._hands_on(user):
                waiting += user.users
            else:
                seen += 1
        return seen

    def _hands_on(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self.modules[str(node.target)], PASSING)
        return node.target in HANDING
