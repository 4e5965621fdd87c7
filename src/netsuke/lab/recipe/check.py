"""Whether a recipe can run on a model and data: what the tables cannot tell is found by a rehearsal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from netsuke.artifact import Artifact
from netsuke.data import Dataset, Split
from netsuke.errors import DataError, NetsukeError, OptionError
from netsuke.lab.finished import started, trains
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.modules import TORCH, FloatGraph
from netsuke.lab.recipe.document import SELF, Planned, Recipe, check_order
from netsuke.lab.teachers import as_module, check_teacher, together
from netsuke.lab.training import Teacher, Training

FEW = 64  # images of a rehearsal


def check(recipe: Recipe, start: nn.Module | Artifact | None, data: Dataset) -> None:
    """Raise OptionError, UnsupportedOp or DataError where the recipe cannot run on this model and these data.

    At the end the whole recipe is rehearsed with a few images and an epoch a training.
    """
    data.require("train")
    if start is None:
        if recipe.model is None:
            raise OptionError(f"{recipe.name} names no [model]: give a model to start from")
        start = build(recipe.model.name, data.image_shape, len(data.classes), **recipe.model.options)
    finished = isinstance(start, Artifact) and not trains(start)
    if finished and any("finished" not in step.kind.takes for step in recipe.steps):
        raise OptionError(
            "the model is quantised already, and only encode takes that; compress the float model it came from"
        )
    check_order(recipe, "finished" if finished else "float")
    for step in recipe.steps:
        if not len(data.val) and any(part.patience for part in trainings(step.options)):
            raise DataError(
                f"{step_of(recipe, step)}: patience needs validation images, and {data.name} has none"
            )
        for one in step.teacher:
            if isinstance(one, str) and one != SELF:
                _fits(Artifact.load(one), data, f"{step_of(recipe, step)}: the teacher {one}")
    rehearse(recipe, started(start), data)


def _fits(teacher: Artifact, data: Dataset, what: str) -> None:
    if (teacher.graph.input_shape, len(teacher.classes)) != (data.image_shape, len(data.classes)):
        raise OptionError(f"{what} takes other images or knows other classes than {data.name}")
    check_teacher(teacher, data, what)


def step_of(recipe: Recipe, step: Planned) -> str:
    """How messages call a step."""
    return f"{recipe.name}, step {step.number} ({step.name})"


def trainings(options: Any) -> list[Training]:
    """Every training among the options of a step."""
    if isinstance(options, Training):
        return [options]
    parts = [getattr(options, f.name) for f in fields(options)]
    return [training for part in parts if is_dataclass(part) for training in trainings(part)]


def epochs(recipe: Recipe, number: int) -> float:
    """How many epochs a step will take, as far as its options tell; step 0 is the training of [model]."""
    if number == 0:
        return recipe.model.training.epochs if recipe.model else 0
    options = recipe.steps[number - 1].options
    rounds = max(1, getattr(options, "rounds", 1))
    return float(rounds * sum(part.epochs for part in trainings(options)))


def rehearse(recipe: Recipe, start: nn.Module, data: Dataset) -> None:
    """Do every step in a hurry, so that what a step refuses is refused before anything long begins.

    Raises the step's own error with its number; what only comes of so few images is passed over.
    """
    small = replace(data, train=_few(data.train), val=_few(data.val))
    model, stages = start, {0: start}
    for step in recipe.steps:
        try:
            guided = guidance(step, teachers_of(step, stages, data))
            model = step.kind.run(model, small, hurried(step.options), **guided).eval()
        except DataError:
            return
        except NetsukeError as error:
            raise type(error)(f"{step_of(recipe, step)}: {error}") from None
        stages[step.number] = model


def _few(split: Split) -> Split:
    count = min(FEW, len(split))
    return split.take(np.linspace(0, len(split) - 1, count).astype(int)) if count else split


def hurried(options: Any) -> Any:
    """Options whose trainings take an epoch at most; as they are where they do not go with that."""
    short = {f.name: hurried(part) for f in fields(options) if is_dataclass(part := getattr(options, f.name))}
    if isinstance(options, Training):
        short |= {"epochs": min(1, options.epochs), "unfreeze": 0, "patience": 0}
    try:
        return replace(options, **short)
    except OptionError:
        return options


def guidance(step: Planned, teachers: Sequence[nn.Module]) -> dict[str, Any]:
    """What a step takes of teachers, as keywords."""
    if not teachers:
        return {}
    if step.kind.many:
        return {"teacher": list(teachers)}
    return {"teacher": Teacher(together(teachers), step.temperature, step.hard)}


def teachers_of(step: Planned, stages: Mapping[int, nn.Module], data: Dataset) -> list[nn.Module]:
    """Whom a step learns from: `stages` are the models after earlier steps, 0 the one before the first."""
    found = []
    for one in step.teacher:
        if isinstance(one, str) and one != SELF:
            found.append(as_module(Artifact.load(one)))
            continue
        stage = stages[0 if one == SELF else int(one)]
        graph, tensors = lower(stage, data.image_shape)
        plain = {op.kind for op in graph.ops} <= set(TORCH)
        found.append(
            FloatGraph(graph, tensors) if plain else stage
        )  # with its norms folded away it is faster
    return found
