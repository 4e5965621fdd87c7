"""What can be done to a model: each step takes a module and data and gives a new module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from netsuke.lab.steps.distil import Distil, distil
from netsuke.lab.steps.dynamic import Dynamic, dynamic
from netsuke.lab.steps.encode import Encode, encode
from netsuke.lab.steps.factorise import Factorise, factorise
from netsuke.lab.steps.prune import Prune, prune
from netsuke.lab.steps.quantize import Quantize, quantize
from netsuke.lab.steps.share import Share, share
from netsuke.lab.steps.train import train
from netsuke.lab.steps.weightonly import WeightOnly, weight_only
from netsuke.lab.training import Training


class Step(NamedTuple):
    """A step as a recipe knows it.

    `options` is the dataclass of its options, `run(model, data, options, teacher=, work=, history=, progress=)`
    does it. `takes` are the stages of a model that it accepts and `gives` the stage it leaves, "" for the same:
    "float" and "integer" models train on, "finished" ones only run. `learns` tells whether a teacher can guide it,
    `many` whether it takes a list of them.
    """

    options: Callable[[], Any]
    run: Callable[..., Any]
    takes: tuple[str, ...] = ("float",)
    gives: str = ""
    learns: bool = False
    many: bool = False


TRAINS = ("float", "integer")

STEPS: dict[str, Step] = {
    "train": Step(Training, train, TRAINS, learns=True),
    "distil": Step(Distil, distil, TRAINS, learns=True, many=True),
    "factorise": Step(Factorise, factorise, learns=True),
    "prune": Step(Prune, prune, TRAINS, learns=True),
    "share": Step(Share, share, learns=True),
    "quantize": Step(Quantize, quantize, gives="integer", learns=True),
    "weight_only": Step(WeightOnly, weight_only, gives="finished"),
    "dynamic": Step(Dynamic, dynamic, gives="finished"),
    "encode": Step(Encode, encode, (*TRAINS, "finished"), gives="finished"),
}
