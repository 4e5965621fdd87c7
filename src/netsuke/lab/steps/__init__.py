"""What can be done to a model: each step takes a module and data and gives a new module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from netsuke.lab.steps.distil import distil
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import train
from netsuke.lab.training import Training


class Step(NamedTuple):
    """A step as a recipe knows it.

    `options` is the dataclass of its options, `run(model, data, options, teacher=, work=, history=, progress=)`
    does it. `takes` are the stages of a model that it accepts and `gives` the stage it leaves, "" for the same:
    "float" and "integer" models train on, "stored" ones only run. `learns`: a teacher can guide it; `taught`: it
    needs one.
    """

    options: Callable[[], Any]
    run: Callable[..., Any]
    takes: tuple[str, ...] = ("float",)
    gives: str = ""
    learns: bool = False
    taught: bool = False


@dataclass(frozen=True)
class Distil:
    training: Training = field(default_factory=Training)


@dataclass(frozen=True)
class Quantize:
    bits: int = 8
    clip: bool = True


def _distil(
    model: Any,
    data: Any,
    options: Distil,
    *,
    teacher: Any,
    work: Any = None,
    history: Any = None,
    progress: Any = None,
) -> Any:
    return distil(
        model,
        data,
        options.training,
        teacher=teacher.model,
        temperature=teacher.temperature,
        hard=teacher.hard,
        work=work,
        history=history,
        progress=progress,
    )


def _quantize(model: Any, data: Any, options: Quantize, **_: Any) -> Any:
    return quantize(model, data, bits=options.bits, clip=options.clip)


STEPS: dict[str, Step] = {
    "train": Step(Training, train, ("float", "integer"), learns=True),
    "distil": Step(Distil, _distil, ("float", "integer"), learns=True, taught=True),
    "quantize": Step(Quantize, _quantize, gives="integer"),
}
