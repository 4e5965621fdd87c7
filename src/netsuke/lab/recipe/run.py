"""Running a recipe: step after step, each kept on disk when it is done, rolled back when it costs too much."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import nn

from netsuke import __version__
from netsuke.artifact import Artifact
from netsuke.data import Dataset
from netsuke.errors import DataError, OptionError
from netsuke.lab.carve import carve
from netsuke.lab.inference import weights_hash
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.modules import FloatGraph
from netsuke.lab.recipe import rows, snapshot
from netsuke.lab.recipe.document import SELF, Planned, Recipe, check_order
from netsuke.lab.steps.train import train
from netsuke.lab.teachers import as_module, together
from netsuke.lab.training import Progress, Teacher, Training

AFTER = "after.pt"  # in the folder of a step: the model as it left it

Row = dict[str, Any]
Say = Callable[[Row], None]  # called with every row as soon as it is known
Report = Callable[[int, str, float, str, bool], None]  # number and name of the step, then as train's Progress


def run(
    recipe: Recipe,
    start: nn.Module | Artifact | None,
    data: Dataset,
    *,
    work: Path | None = None,
    seed: int = 0,
    progress: Report | None = None,
    say: Say | None = None,
) -> Artifact:
    """The model that the recipe makes of `start`, with a row of figures a step in the manifest's `steps`.

    Without `start` the recipe's own [model] is trained first. With `work` every finished step is kept there, and
    a killed run goes on to the same result; what another recipe, model, seed or other data left there is not
    taken. All accuracies are of the validation half; the test half is not touched.
    Raises OptionError where recipe, model and data do not fit, before the first step.
    """
    check(recipe, start, data)
    return _Run(recipe, start, data, work, seed, progress, say).go()


def check(recipe: Recipe, start: nn.Module | Artifact | None, data: Dataset) -> None:
    """Raise OptionError, UnsupportedOp or DataError where the recipe cannot run on this model and these data."""
    data.require("train")
    if start is None:
        if recipe.model is None:
            raise OptionError(f"{recipe.name} names no [model]: give a model to start from")
        start = build(recipe.model.name, data.image_shape, len(data.classes), **recipe.model.options)
    integer = isinstance(start, Artifact) and start.graph.integer
    check_order(recipe, "integer" if integer else "float")
    if integer and any(step.name != "encode" for step in recipe.steps):
        raise OptionError(
            "the model is quantised already, and only encode takes that; go back to its float model"
        )
    for step in recipe.steps:
        if not len(data.val) and _uses_validation(step.options):
            raise DataError(
                f"{recipe.name}, step {step.number} ({step.name}): patience needs validation images"
            )
        for one in step.teacher:
            if isinstance(one, str) and one != SELF:
                _fits(Artifact.load(one), data, f"{recipe.name}, step {step.number}: teacher {one}")


def epochs(recipe: Recipe, number: int) -> float:
    """How many epochs a step will take, as far as its options tell; step 0 is the training of [model]."""
    if number == 0:
        return recipe.model.training.epochs if recipe.model else 0
    options = recipe.steps[number - 1].options
    total = getattr(options, "epochs", None)  # a training, or a step that counts its rounds
    return float(total if total is not None else getattr(getattr(options, "training", None), "epochs", 0))


def _uses_validation(options: Any) -> bool:
    return any(isinstance(part, Training) and part.patience for part in (options, *vars(options).values()))


def _fits(teacher: Artifact, data: Dataset, what: str) -> None:
    if (teacher.graph.input_shape, len(teacher.classes)) != (data.image_shape, len(data.classes)):
        raise OptionError(f"{what} takes other images or knows other classes than {data.name}")


class _Run:
    """One run: the model as it stands, the rows so far, and the identity of what was done to get there."""

    def __init__(
        self,
        recipe: Recipe,
        start: nn.Module | Artifact | None,
        data: Dataset,
        work: Path | None,
        seed: int,
        progress: Report | None,
        say: Say | None,
    ):
        self.recipe, self.data, self.work, self.seed = recipe, data, work, seed
        self.progress, self.say = progress or (lambda *_: None), say or (lambda row: None)
        self.rows: list[Row] = []
        self.history: dict[str, list[dict[str, float]]] = {}
        self.stages: dict[int, nn.Module] = {}  # the model after each step that a later one learns from
        self.given = start
        self.told = recipe.to_json()
        if start is None:
            assert recipe.model is not None
            model = recipe.model
            self.start = build(model.name, data.image_shape, len(data.classes), seed=seed, **model.options)
        else:
            self.told["model"] = {"from": start.weight_hash} if isinstance(start, Artifact) else {}
            self.start = as_module(start) if isinstance(start, Artifact) else start
        self.identity = self._hash(
            __version__,
            structure(self.start, data),
            weights_hash(self.start),
            data.hash,
            len(data.train),
            len(data.val),
            seed,
        )

    def go(self) -> Artifact:
        model = self._begun()
        self.stages[0] = model
        for step in self.recipe.steps:
            model = self._stepped(step, model)
            if any(step.number in later.teacher for later in self.recipe.steps):
                self.stages[step.number] = model
        artifact = carve(model, self.data, recipe={"verb": "compress", **self.told}, seed=self.seed)
        return artifact.with_manifest(steps=self.rows, history=self.history)

    def _begun(self) -> nn.Module:
        """The model before the first step, trained if it is fresh."""
        if self.given is not None:
            return self._done(0, "start", self.start, lambda history: self.start, None)
        assert self.recipe.model is not None
        options = self.recipe.model.training
        self.identity = self._hash(self.identity, _plain(options))
        name = f"train {self.recipe.model.name}"
        return self._done(
            0, name, self.start,
            lambda history: train(
                self.start, self.data, options, work=self._folder(0), history=history, progress=self._progress(0, name)
            ),
            None,
        )  # fmt: skip

    def _stepped(self, step: Planned, model: nn.Module) -> nn.Module:
        teacher = self._teacher(step)
        self.identity = self._hash(
            self.identity, step.name, _plain(step.options), step.allowed_loss,
            [teacher.temperature, teacher.hard, weights_hash(teacher.model)] if teacher else [],
        )  # fmt: skip

        def work(history: list[dict[str, float]]) -> nn.Module:
            more = {"teacher": teacher} if step.kind.learns else {}
            result: nn.Module = step.kind.run(
                model, self.data, step.options, work=self._folder(step.number), history=history,
                progress=self._progress(step.number, step.name), **more,
            )  # fmt: skip
            return result

        return self._done(step.number, step.name, model, work, step.allowed_loss)

    def _done(
        self,
        number: int,
        name: str,
        before: nn.Module,
        work: Callable[[list[dict[str, float]]], nn.Module],
        allowed: float | None,
    ) -> nn.Module:
        """The model after a step: as a former run left it, or by doing the work and keeping the result."""
        path = self.work / f"step-{number}" / AFTER if self.work else None
        kept = snapshot.peek(path) if path else {}
        if kept.get("identity") == self.identity:
            row, history, after = kept["row"], kept["history"], snapshot.module(kept, before)
        else:
            history = []
            begun = time.monotonic()
            after = work(history).cpu().eval()
            seconds = round(time.monotonic() - begun, 2)
            row = {"step": number, "name": name, **self._figures(after), "seconds": seconds}
            row |= self._verdict(row, allowed)
            if row["rolled_back"]:
                after = before
            if path:
                snapshot.save(path, after, identity=self.identity, row=row, history=history)
        self.rows.append(row)
        if history:
            self.history[f"{number} {name}"] = history
        self.say(row)
        return after

    def _figures(self, model: nn.Module) -> Row:
        return rows.figures(carve(model, self.data, recipe={}, seed=self.seed), self.data)

    def _verdict(self, row: Row, allowed: float | None) -> Row:
        """Whether the step cost more accuracy than it may, compared with the last row that stands."""
        standing = [r for r in self.rows if not r["rolled_back"]]
        if not standing or row["accuracy"] is None:
            return {"rolled_back": False}
        loss = standing[-1]["accuracy"] - row["accuracy"]
        if allowed is None:
            return {"rolled_back": False}
        return {"rolled_back": loss > allowed + 1e-9, "allowed_loss": allowed}

    def _teacher(self, step: Planned) -> Teacher | None:
        if not step.teacher:
            return None
        found = []
        for one in step.teacher:
            number = 0 if one == SELF else one
            found.append(self.stages[number] if isinstance(number, int) else as_module(Artifact.load(number)))
        return Teacher(together([_frozen(m, self.data) for m in found]), step.temperature, step.hard)

    def _progress(self, number: int, name: str) -> Progress:
        return partial(self.progress, number, name)

    def _folder(self, number: int) -> Path | None:
        return self.work / f"step-{number}" if self.work else None

    @staticmethod
    def _hash(*parts: Any) -> str:
        return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def structure(model: nn.Module, data: Dataset) -> Any:
    """The graph of a module, as plain JSON."""
    return lower(model, data.image_shape)[0].to_json()


def _frozen(model: nn.Module, data: Dataset) -> nn.Module:
    """A teacher with its norms folded away; one that is no float graph as it is."""
    graph, tensors = lower(model, data.image_shape)
    return model if graph.integer else FloatGraph(graph, tensors)


def _plain(options: Any) -> Any:
    """Options as JSON, without what does not change the result."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items() if k != "threads"}
        return [clean(v) for v in value] if isinstance(value, list | tuple) else value

    return clean(asdict(options))
