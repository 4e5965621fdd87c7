"""Knowledge distillation: train a network on what others answer, and on what goes on inside them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from netsuke.artifact import Artifact
from netsuke.data import Dataset
from netsuke.errors import OptionError
from netsuke.lab.freeze import matching, names
from netsuke.lab.fresh import fresh
from netsuke.lab.hints import Hinted
from netsuke.lab.lower import lower
from netsuke.lab.modules import FloatGraph
from netsuke.lab.quantgraph import QuantGraph
from netsuke.lab.steps.train import Progress, Teacher, Training, train
from netsuke.lab.teachers import COMBINE, Answers, as_module, check_teacher, together

Source = Artifact | nn.Module
Teachers = Teacher | Source | Sequence[Source]

__all__ = ["Distil", "as_module", "distil", "generations"]


@dataclass(frozen=True)
class Distil:
    """Options: loss = (1 - hard) T^2 KL(teacher, student at T) + hard cross entropy + what follows.

    `features` and `attention` weigh the match of intermediates (see `lab.hints`) between the pairs `layers`
    (the student's op, the teacher's, by the names that `lower` gives); left out, each end of a stage is paired by
    map size and depth. `combine` says of what several teachers give the mean: logits or probabilities.
    With `self` the model as it is teaches too, and with `fresh` the student starts from new weights.
    `generations` over 1 are born-again networks: each teaches the next, which starts from new weights.
    """

    temperature: float = 2.0
    hard: float = 0.5
    features: float = 0.0
    attention: float = 0.0
    layers: tuple[tuple[str, str], ...] = ()
    combine: str = "logits"
    self: bool = False
    fresh: bool = False
    generations: int = 1
    training: Training = field(default_factory=Training)

    def __post_init__(options) -> None:  # noqa: N805, "self" is one of the options
        Teacher(nn.Identity(), options.temperature, options.hard)  # which checks the two
        for name in ("features", "attention"):
            if not 0 <= getattr(options, name) < 1e9:
                raise OptionError(f"{name} must be at least 0; got {getattr(options, name)}")
        if options.combine not in COMBINE:
            raise OptionError(f"no way to combine called {options.combine!r}; there are {', '.join(COMBINE)}")
        if not 1 <= options.generations <= 1000:
            raise OptionError(f"generations must be 1 to 1000; got {options.generations}")
        if any(len(p) != 2 for p in options.layers):
            raise OptionError("layers are pairs: the student's op and the teacher's")
        if options.layers and not options.hints:
            raise OptionError("layers are for features or attention; give one of them a weight above 0")
        if options.hints and options.training.unfreeze:
            raise OptionError("unfreeze does not go with features or attention; take freeze")

    @property
    def hints(options) -> bool:  # noqa: N805
        return bool(options.features or options.attention)


def distil(
    model: nn.Module,
    data: Dataset,
    options: Distil | Training | None = None,
    *,
    teacher: Teachers | None = None,
    work: Path | None = None,
    history: list[dict[str, float]] | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> nn.Module:
    """A copy of `model` trained on the teacher's logits, mixed with the true labels (Hinton et al., 2015).

    The teacher sees the same augmented images. It is a module, an artifact of floats or integers, several of
    them, or a Teacher, of which the model counts and the options say the rest. `model` may be quantised: then
    this is quantisation-aware training with distillation. `changes` override single options.
    Raises OptionError where there is no teacher, or it knows other classes.
    """
    chosen = Distil(training=options) if isinstance(options, Training) else options or Distil()
    chosen = replace(chosen, **changes)
    return generations(model, data, chosen, teacher=teacher, work=work, history=history, progress=progress)[
        -1
    ]


def generations(
    model: nn.Module,
    data: Dataset,
    options: Distil,
    *,
    teacher: Teachers | None = None,
    work: Path | None = None,
    history: list[dict[str, float]] | None = None,
    progress: Progress | None = None,
) -> list[nn.Module]:
    """Every generation of `distil`, the last one last: `together(...)` makes an ensemble of them.

    Furlanello et al., Born-Again Neural Networks, 2018. With `generations` over 1, the rows of `history` tell theirs.
    """
    teachers = _listed(teacher)
    if options.self:
        teachers.append(copy.deepcopy(model).eval())
    if not teachers:
        raise OptionError("distillation needs a teacher: give one, or let the model itself teach (self)")
    for source in teachers:
        if isinstance(source, Artifact):
            check_teacher(source, data)
    done: list[nn.Module] = []
    several = options.generations > 1
    for turn in range(options.generations):
        seed = options.training.seed + turn
        start = fresh(model, seed) if options.fresh or turn else model
        rows: list[dict[str, float]] = []
        folder = work / f"generation-{turn + 1}" if work and several else work
        result = _taught(start, data, options, done[-1:] or teachers, folder, rows, progress)
        done.append(result)
        if history is not None:
            history += [{"generation": turn + 1, **row} for row in rows] if several else rows
    return done


def _listed(teacher: Teachers | None) -> list[Source]:
    if teacher is None:
        return []
    if isinstance(teacher, Teacher):
        return [teacher.model]
    return list(teacher) if isinstance(teacher, Sequence) else [teacher]


def _taught(
    model: nn.Module,
    data: Dataset,
    o: Distil,
    teachers: Sequence[Source],
    work: Path | None,
    history: list[dict[str, float]],
    progress: Progress | None,
) -> nn.Module:
    guides, training = [as_module(t) for t in teachers], o.training
    if o.hints:
        first, twin = _hinting(guides, data.image_shape)
        model = Hinted(
            copy.deepcopy(model), twin, data.image_shape, o.layers, o.features, o.attention, training.seed
        )
        guides[first] = model.teacher
        training = _renamed(training, model)
    guide = Teacher(together(guides, o.combine, o.temperature, data.outliers), o.temperature, o.hard)
    result = train(model, data, training, teacher=guide, work=work, history=history, progress=progress)
    return result.student if isinstance(result, Hinted) else result


def _hinting(guides: Sequence[nn.Module], shape: tuple[int, int, int]) -> tuple[int, nn.Module]:
    """The first teacher with intermediates, as a twin that shows them, and its place."""
    for i, guide in enumerate(guides):
        if isinstance(guide, FloatGraph | QuantGraph):
            return i, guide
        if not isinstance(guide, Answers):
            return i, FloatGraph(*lower(guide, shape))
    raise OptionError(
        "features and attention need a float teacher; an integer artifact gives only its logits"
    )


def _renamed(training: Training, model: Hinted) -> Training:
    """Patterns on the student's parameters as the names that these have within `model`."""
    within = {id(parameter): name for name, parameter in names(model).items()}
    mine = names(model.student)

    def full(pattern: str) -> list[str]:
        return sorted(within[id(mine[name])] for name in matching(pattern, mine))

    return replace(
        training,
        freeze=tuple(name for pattern in training.freeze for name in full(pattern)),
        rates=tuple((name, factor) for pattern, factor in training.rates for name in full(pattern)),
    )
