"""A search space: which options of training and model to try, and between what bounds."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

import torch

from netsuke.errors import OptionError
from netsuke.lab.augment import HANDWRITING, Augment
from netsuke.lab.models import KINDS, MODELS, build
from netsuke.lab.steps.train import Training

AUGMENTATIONS = {"none": Augment(), "handwriting": HANDWRITING}
# Not searched: what makes trials comparable, and what belongs to transfer.
_FIXED = ("epochs", "seed", "threads", "patience", "best", "freeze", "rates", "unfreeze", "views")
TRAINING: dict[str, Any] = {f.name: f.default for f in fields(Training) if f.name not in _FIXED} | {
    "augment": "none"
}


@dataclass(frozen=True)
class Range:
    """`low..high`, both included; drawn evenly over the logarithm with `log`."""

    low: float
    high: float
    log: bool
    whole: bool

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}{':log' if self.log else ''}"

    def __contains__(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high)

    @property
    def ends(self) -> tuple[Any, ...]:
        return self.low, self.high

    def draw(self, trial: Any, name: str) -> float:
        """A value for an Optuna trial."""
        suggest = trial.suggest_int if self.whole else trial.suggest_float
        value: float = suggest(name, self.low, self.high, log=self.log)
        return value


@dataclass(frozen=True)
class Choice:
    """`a|b|c`; a single value is not searched but set."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return "|".join(str(v).lower() if isinstance(v, bool) else str(v) for v in self.values)

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    @property
    def ends(self) -> tuple[Any, ...]:
        return self.values

    def draw(self, trial: Any, name: str) -> Any:
        """A value for an Optuna trial."""
        return trial.suggest_categorical(name, self.values)


Space = Mapping[str, Range | Choice]


def model_options(model: str) -> dict[str, Any]:
    """The options of an architecture and their defaults; OptionError names the nearest for an unknown one."""
    if model not in MODELS:
        raise OptionError(f"no model {model!r}; there are {', '.join(MODELS)}{_nearest(model, MODELS)}")
    parameters = inspect.signature(MODELS[model]).parameters
    return {key: p.default for key, p in parameters.items() if key not in ("shape", "classes")}


def models_of(space: Space, model: str) -> tuple[str, ...]:
    """The architectures a search may draw: those of `model=a|b` in the space, else `model`."""
    return tuple(space["model"].ends) if "model" in space else (model,)


def parse(text: str, model: str = "convnet") -> dict[str, Range | Choice]:
    """`lr=1e-4..1e-2:log, batch=64|128, norm=true` as a space; a name is an option of training or of a model.

    With `model=lenet5|convnet`, an option is drawn for those models that know it.
    Raises OptionError for a name that nothing knows, naming the nearest, and for an impossible range.
    """
    written = _pairs(text)
    models: tuple[str, ...] = (model,)
    if "model" in written:
        models = tuple(dict.fromkeys(v.strip() for v in written["model"].split("|")))
    kinds = {name: type(value) for name, value in TRAINING.items()}
    for each in models:
        for name, value in model_options(each).items():
            if name in written and kinds.get(name, type(value)) is not type(value):
                raise OptionError(
                    f"{name} is {KINDS[kinds[name]]} for one of {', '.join(models)} and "
                    f"{KINDS[type(value)]} for another: search these models one at a time"
                )
            kinds[name] = type(value)
    space: dict[str, Range | Choice] = {}
    for name, value in written.items():
        if name == "model":
            space[name] = Choice(models)
        elif name in kinds:
            space[name] = _domain(name, value, kinds[name])
        elif name in _FIXED:
            raise OptionError(f"{name} is not searched; it is the same for all trials")
        else:
            known = ["model", *kinds]
            raise OptionError(
                f"nothing to search called {name!r}; there are {', '.join(known)}{_nearest(name, known)}"
            )
    return space


def _pairs(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, value = (p.strip() for p in part.partition("="))
        if not name or not value:
            raise OptionError(
                f"a search is written name=low..high, name=low..high:log or name=a|b|c; got {part!r}"
            )
        if name in found:
            raise OptionError(f"{name} stands twice in the search; give it one range")
        found[name] = value
    if not found:
        raise OptionError("the search is empty; write for instance lr=1e-4..1e-2:log")
    return found


def _domain(name: str, text: str, kind: type) -> Range | Choice:
    if ".." not in text:
        return Choice(tuple(dict.fromkeys(_value(name, word.strip(), kind) for word in text.split("|"))))
    if kind not in (int, float):
        raise OptionError(f"{name} has no range; write the values to try, such as {name}=a|b; got {text!r}")
    span, colon, scale = text.partition(":")
    if colon and scale.strip() != "log":
        raise OptionError(f"{name}: a range may end in :log and nothing else; got {text!r}")
    low, high = (_value(name, word.strip(), kind) for word in span.split("..", 1))
    if not low < high:
        raise OptionError(f"{name}: {text!r} is no range; its low end must be below its high end")
    if colon and low <= 0:
        raise OptionError(f"{name}: a range on a log scale starts above 0; got {text!r}")
    return Range(low, high, bool(colon), kind is int)


def _value(name: str, word: str, kind: type) -> Any:
    with suppress(ValueError, KeyError):
        if kind is bool:
            return {"true": True, "false": False}[word.lower()]
        if kind is str and word:
            return word
        if kind in (int, float) and math.isfinite(number := kind(word)):
            return number
    raise OptionError(f"{name} is {KINDS[kind]}; got {word!r}")


def check(space: Space, model: str, shape: tuple[int, int, int], classes: int) -> None:
    """Raise OptionError where a model does not take such images, or refuses an end of a range or a choice."""
    for each in models_of(space, model):
        known = TRAINING | model_options(each)
        with torch.device("meta"):  # shapes without memory: the widest costs nothing
            build(each, shape, classes)
            for name, domain in space.items():
                for value in domain.ends if name in known else ():
                    try:
                        if options := settings({"model": each, name: value})[0]:
                            build(each, shape, classes, **options)
                    except OptionError as error:
                        raise OptionError(f"cannot search {name}={domain}: {error}") from error


def default(model: str) -> str:
    """The space that is searched where none is given: training, and what the model has of width, dropout, norm."""
    known = model_options(model)
    lines = {
        "lr": "3e-4..3e-2:log",
        "optimizer": "adam|adamw|sgd",
        "batch": "32|64|128|256",
        "label_smoothing": "0..0.1",
    }
    if isinstance(known.get("width"), float):
        lines["width"] = "0.25..1"
    if "dropout" in known:
        lines["dropout"] = "0..0.5"
    if isinstance(known.get("norm"), bool):
        lines["norm"] = "true|false"
    return ", ".join(f"{name}={text}" for name, text in lines.items())


def draw(trial: Any, space: Space, model: str) -> dict[str, Any]:
    """A value for every option that the drawn model, or training, knows; `model` among them."""
    drawn = str(space["model"].draw(trial, "model")) if "model" in space else model
    known = TRAINING | model_options(drawn)
    return {"model": drawn} | {name: d.draw(trial, name) for name, d in space.items() if name in known}


def defaults(space: Space, model: str) -> dict[str, Any]:
    """The default of every option that lies within the space: where a search begins."""
    first = models_of(space, model)[0]
    known = TRAINING | model_options(first) | {"model": first}
    return {name: known[name] for name, d in space.items() if name in known and known[name] in d}


def settings(values: Mapping[str, Any], **fixed: Any) -> tuple[dict[str, Any], Training]:
    """What `draw` gave, as options of the model and as a Training with `fixed` set."""
    own = model_options(values["model"])
    options = {name: value for name, value in values.items() if name in own}
    chosen = {name: value for name, value in values.items() if name in TRAINING}
    if "augment" in chosen:
        if chosen["augment"] not in AUGMENTATIONS:
            known = ", ".join(AUGMENTATIONS)
            raise OptionError(f"no augmentation {chosen['augment']!r}; a search knows {known}")
        chosen["augment"] = AUGMENTATIONS[chosen["augment"]]
    return options, Training(**chosen, **fixed)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
