"""A recipe as it is written: TOML, checked in full before anything runs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from netsuke.errors import NetsukeError, OptionError
from netsuke.lab.augment import HANDWRITING
from netsuke.lab.models import MODELS, options_of
from netsuke.lab.steps import STEPS, Step
from netsuke.lab.training import Training
from netsuke.settings import filled, unknown

SELF = "self"  # as a teacher: the model as it was before the first step
TOP = ("title", "allowed_loss", "model", "step")
COMMON = ("step", "teacher", "temperature", "hard", "allowed_loss")  # keys of every step, beside its options
STAGES = {
    "float": "a float model",
    "integer": "an integer model",
    "finished": "a model that no longer trains",
}

Teachers = tuple[str | int, ...]  # "self", the number of an earlier step, or the path of an artifact


@dataclass(frozen=True)
class Start:
    """The network that a recipe begins with, where it is given none: a name of the zoo, trained first."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    training: Training = field(default_factory=Training)


@dataclass(frozen=True)
class Planned:
    """One step of a recipe; `allowed_loss` is the accuracy on validation (a share of 1) that it may cost."""

    number: int
    name: str
    options: Any
    allowed_loss: float | None = None
    teacher: Teachers = ()
    temperature: float = 2.0
    hard: float = 0.5

    @property
    def kind(self) -> Step:
        return STEPS[self.name]

    @property
    def told(self) -> str:
        """The options that differ from the defaults, as one line."""
        usual = _flat(asdict(STEPS[self.name].options()))
        changed = {k: v for k, v in _flat(asdict(self.options)).items() if usual.get(k) != v}
        if self.teacher:
            changed["teacher"] = "+".join(map(str, self.teacher))
        if self.allowed_loss is not None:
            changed["allowed_loss"] = self.allowed_loss
        return " ".join(f"{key}={value}" for key, value in changed.items())

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"step": self.name, **asdict(self.options)}
        if self.teacher:
            told |= {"teacher": list(self.teacher), "temperature": self.temperature, "hard": self.hard}
        return told if self.allowed_loss is None else {**told, "allowed_loss": self.allowed_loss}


@dataclass(frozen=True)
class Recipe:
    """Steps in their order; `name` is what messages call it, `model` the network to begin with, if it says one."""

    steps: tuple[Planned, ...]
    title: str = ""
    model: Start | None = None
    name: str = "the recipe"

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"title": self.title} if self.title else {}
        if self.model is not None:
            told["model"] = asdict(self.model)
        return {**told, "steps": [step.to_json() for step in self.steps]}


def read(path: str | Path, **settings: Any) -> Recipe:
    """The recipe of a TOML file; `settings` as `parsed` takes them.

    Raises OptionError, one line that names file, step and key.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise OptionError(f"{path}: cannot be read as a recipe: it is nested too deeply") from None
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, no TOML
        reason = getattr(error, "strerror", None) or error
        raise _refused(f"{path}: cannot be read as a recipe", reason) from None
    return parsed(table, str(path), **settings)


def parsed(
    table: Mapping[str, Any],
    name: str = "the recipe",
    *,
    seed: int = 0,
    threads: int = 0,
    allowed_loss: float | None = None,
) -> Recipe:
    """A recipe from the tables that TOML gives.

    `seed` and `threads` go to every step that names none itself, `allowed_loss` stands for the recipe's own.
    Raises OptionError, one line that names recipe, step and key.
    """
    shared = {"seed": seed, "threads": threads}
    try:
        for key in table:
            if key not in TOP:
                raise OptionError(unknown(key, TOP, "key"))
        title = _text(table.get("title", ""), "title")
        loss = _share(table.get("allowed_loss") if allowed_loss is None else allowed_loss, "allowed_loss")
        model = _start(table["model"], shared) if "model" in table else None
        rows = table.get("step")
        if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
            raise OptionError("needs one [[step]] table at least")
    except OptionError as error:
        raise _refused(name, error) from None
    steps = []
    for number, row in enumerate(rows, 1):
        given = row.get("step")
        try:
            steps.append(_planned(row, number, loss, shared))
        except NetsukeError as error:
            what = f"step {number} ({given})" if isinstance(given, str) else f"step {number}"
            raise _refused(f"{name}, {what}", error) from None
    recipe = Recipe(tuple(steps), title, model, name)
    check_order(recipe)
    return recipe


def _refused(what: str, why: object) -> OptionError:
    """One printable line, whatever the file has put into its names."""
    line = " ".join(f"{what}: {why}".split())
    return OptionError("".join(c if c.isprintable() else "?" for c in line)[:500])


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested options under dotted keys."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if value == asdict(HANDWRITING):
            value = "handwriting"
        found |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
    return found


def check_order(recipe: Recipe, stage: str = "float") -> None:
    """Raise OptionError where a step cannot take what the one before it, or a model of `stage`, gives."""
    before = "the model"
    for step in recipe.steps:
        what = f"step {step.number} ({step.name})"
        if before == "encode":
            raise OptionError(f"{recipe.name}, {what}: encode must be the last step")
        if stage not in step.kind.takes:
            wanted = " or ".join(STAGES[s] for s in step.kind.takes)
            raise OptionError(f"{recipe.name}, {what}: takes {wanted}; {before} gives {STAGES[stage]}")
        stage, before = step.kind.gives or stage, step.name


def _start(table: Any, shared: dict[str, int]) -> Start:
    if not isinstance(table, Mapping):
        raise OptionError("model must be a table: [model] with a name")
    known = ("name", "options", "train")
    for key in table:
        if key not in known:
            raise OptionError(unknown(key, known, "key", "model."))
    name = table.get("name")
    if not isinstance(name, str):
        raise OptionError("[model] needs the name of a network of the zoo")
    if name not in MODELS:
        raise OptionError(unknown(name, MODELS, "model"))
    options, trained = table.get("options", {}), table.get("train", {})
    for key, given in (("options", options), ("train", trained)):
        if not isinstance(given, Mapping):
            raise OptionError(f"model.{key} must be a table; got {given!r}")
    for key in options:
        if key not in options_of(name):
            raise OptionError(unknown(key, options_of(name), "option", "model.options."))
    training = filled(Training(), trained, shared, "model.train.")
    return Start(name, dict(options), training)


def _planned(row: Mapping[str, Any], number: int, loss: float | None, shared: dict[str, int]) -> Planned:
    name = row.get("step")
    if not isinstance(name, str):
        raise OptionError(f"needs step, one of {', '.join(STEPS)}")
    if name not in STEPS:
        raise OptionError(unknown(name, STEPS, "step"))
    start = STEPS[name].options()
    own = {key: value for key, value in row.items() if key not in COMMON or hasattr(start, key)}
    options = _filled(start, own, shared)
    given = {key: row[key] for key in COMMON[1:] if key in row and not hasattr(start, key)}
    teachers = _teachers(given.pop("teacher", ()), number)
    loss = _share(given.pop("allowed_loss"), "allowed_loss") if "allowed_loss" in given else loss
    if given and not teachers:
        raise OptionError(f"{next(iter(given))} belongs to a teacher, and the step names none")
    if teachers and not STEPS[name].learns:
        raise OptionError(
            f"has nothing to learn, so no teacher; {', '.join(k for k, s in STEPS.items() if s.learns)} do"
        )
    return Planned(number, name, options, loss, teachers, **_softness(given))


def _filled(start: Any, table: Mapping[str, Any], shared: dict[str, int]) -> Any:
    """The options, a misspelt one compared with the keys of every step too."""
    known = [*(key for key in start.__dataclass_fields__), *COMMON]
    for key in table:
        if key not in known:
            raise OptionError(unknown(key, known, "option"))
    return filled(start, table, shared)


def _teachers(given: Any, number: int) -> Teachers:
    many = tuple(given) if isinstance(given, list | tuple) else (given,)
    for one in many:
        if type(one) is int and not 1 <= one < number:
            raise OptionError(f"teacher {one}: must be the number of an earlier step, 1 to {number - 1}")
        if type(one) not in (str, int) or one == "":
            raise OptionError(f'teacher must be "self", a path, the number of a step, or a list; got {one!r}')
        if isinstance(one, str) and one != SELF and not Path(one).is_file():
            raise OptionError(f"teacher {one}: there is no such file")
    return many


def _softness(given: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for key, low, high in (("temperature", 0.01, 1000.0), ("hard", 0.0, 1.0)):
        if key in given:
            if type(given[key]) not in (int, float) or not low <= given[key] <= high:
                raise OptionError(f"{key} must be {low:g} to {high:g}; got {given[key]!r}")
            found[key] = float(given[key])
    return found


def _text(given: Any, key: str) -> str:
    if not isinstance(given, str):
        raise OptionError(f"{key} must be a text; got {given!r}")
    return given


def _share(given: Any, key: str) -> float | None:
    if given is None:
        return None
    if type(given) not in (int, float) or not 0 <= given <= 1:
        raise OptionError(f"{key} must be a share of 1, such as 0.005 for half a point; got {given!r}")
    return float(given)
