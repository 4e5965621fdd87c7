"""Which parameters learn, and how fast: patterns on their names, frozen layers, gradual unfreezing.

A pattern is a parameter's name with `*`, `?` and `[...]`, or the name of what it lies in: `features.0` means
`features.0.*`. The names are those of `names`, which `netsuke train --from FILE --list-parameters` prints.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from netsuke.errors import OptionError
from netsuke.lab.training import Training

# Frames around a network: FloatGraph keeps its weights in `layers`, a standardised network is the part `net`.
FRAMES = ("layers.", "net.")
DOT = "\u00b7"  # what FloatGraph writes for a dot within the name of an op


def names(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter by the name that patterns match, in the order of the network."""
    found = dict(model.named_parameters())
    for frame in FRAMES:
        if all(name.startswith(frame) for name in found):
            found = {name.removeprefix(frame): parameter for name, parameter in found.items()}
    return {name.replace(DOT, "."): parameter for name, parameter in found.items()}


def matching(pattern: str, known: Iterable[str]) -> set[str]:
    """The names that a pattern matches. Raises OptionError, with near names, where there is none."""
    known = list(known)
    found = {name for name in known if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
    if not found:
        near = difflib.get_close_matches(pattern, known, 3, 0.3) or known[:3]
        raise OptionError(
            f"{pattern!r} matches no parameter; near: {', '.join(near)}; --list-parameters lists all {len(known)}"
        )
    return found


def layers(known: dict[str, nn.Parameter]) -> list[list[str]]:
    """The names in layers, first to last: a convolution or dense layer with its bias and the norm behind it."""
    found: list[list[str]] = []
    last = ""
    for name, parameter in known.items():
        owner = name.rpartition(".")[0]
        if not found or (parameter.ndim > 1 and owner != last):
            found.append([])
        found[-1].append(name)
        last = owner
    return found


class Freezing:
    """What `freeze`, `rates` and `unfreeze` of a training mean for one module, which it changes in place.

    Raises OptionError for a pattern that matches nothing, or where nothing is left to learn.
    """

    def __init__(self, model: nn.Module, options: Training):
        self.model, self.options = model, options
        self.active = bool(options.freeze or options.unfreeze)
        self.named = names(model)
        self.frozen = {name for pattern in options.freeze for name in matching(pattern, self.named)}
        if len(self.frozen) == len(self.named):
            raise OptionError(f"{', '.join(options.freeze)} freezes every parameter; leave the head to learn")
        learning = {name: p for name, p in self.named.items() if name not in self.frozen}
        self.layers = layers(learning)

    def groups(self) -> list[Any]:
        """What the optimiser takes: parameters, or groups of them, each with its factor on the learning rate."""
        if not self.options.rates:
            return list(self.named.values())
        factors = dict.fromkeys(self.named, 1.0)
        for pattern, factor in self.options.rates:
            factors |= dict.fromkeys(matching(pattern, self.named), factor)
        return [
            {"params": [p for name, p in self.named.items() if factors[name] == factor], "factor": factor}
            for factor in sorted(set(factors.values()))
        ]

    def hold(self, epoch: int) -> None:
        """Freeze what does not learn in this epoch; norms among it use their running statistics."""
        if not self.active:
            return
        every = self.options.unfreeze
        count = 1 + epoch // every if every else len(self.layers)
        learning = {name for layer in self.layers[-count:] for name in layer}
        for name, parameter in self.named.items():
            parameter.requires_grad_(name in learning)
        for module in self.model.modules():
            if _is_norm(module) and not module.weight.requires_grad:
                module.eval()

    def statistics(self, model: nn.Module) -> dict[str, Tensor]:
        """A copy of the running statistics that stay: of the norms in `model`, a twin, that `freeze` names."""
        names_of = {id(parameter): name for name, parameter in self.named.items()}
        kept = {
            name
            for name, module in self.model.named_modules()
            if _is_norm(module) and names_of[id(module.weight)] in self.frozen
        }
        return {key: v.clone() for key, v in model.state_dict().items() if key.rpartition(".")[0] in kept}

    def release(self) -> None:
        """Let everything learn again."""
        if self.active:
            self.model.requires_grad_(True)


def _is_norm(module: nn.Module) -> bool:
    """A batch norm with weights; one without has no name to be frozen by."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.weight is not None
