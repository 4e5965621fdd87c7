"""Pruning: zeros among the weights, or channels and layers that really go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from netsuke.data import Dataset
from netsuke.lab.modules import FloatGraph
from netsuke.lab.quantgraph import QuantGraph
from netsuke.lab.steps.prune.options import Prune
from netsuke.lab.steps.prune.removing import removing
from netsuke.lab.steps.prune.rounds import Trainer
from netsuke.lab.steps.prune.unstructured import unstructured
from netsuke.lab.training import Progress, Teacher

__all__ = ["Prune", "prune"]


def prune(
    model: nn.Module,
    data: Dataset,
    options: Prune | None = None,
    *,
    teacher: Teacher | None = None,
    work: Path | None = None,
    history: list[dict[str, float]] | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> FloatGraph | QuantGraph:
    """A pruned copy of `model`, as a graph whose weights train on; `changes` replace single options.

    `model` maps float images [n, C, H, W] in 0..1 to logits. Single weights of it stay in place as zeros, under
    masks that later training keeps; they save encoded bytes and nothing else. Channels and layers go: what is
    returned has smaller weights, fewer MACs and no masks. A QuantGraph loses single weights only.

    With `work`, each round keeps its checkpoint in a folder of its own there, and a killed pruning ends with the
    weights of an uninterrupted one. `history` receives a row an epoch, with the "amount" its round goes to.
    Raises OptionError where options contradict the network, UnsupportedLayer where its weights cannot be 0.
    """
    options = replace(options or Prune(), **changes)
    data.require("train")
    trainer = Trainer(data, options, teacher, work, history, progress)
    if options.kind in ("channels", "layers"):
        return removing(model, data, options, trainer)
    return unstructured(model, data, options, trainer)
