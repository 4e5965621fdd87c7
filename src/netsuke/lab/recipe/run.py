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
from netsuke.errors import NetsukeError
from netsuke.lab import checkpoint
from netsuke.lab.carve import carve
from netsuke.lab.finished import started
from netsuke.lab.inference import weights_hash
from netsuke.lab.lower import lower
from netsuke.lab.mixed import blame
from netsuke.lab.models import build
from netsuke.lab.quantgraph import QuantGraph
from netsuke.lab.recipe import rows, snapshot
from netsuke.lab.recipe.check import check, guidance, step_of, teachers_of
from netsuke.lab.recipe.document import Planned, Recipe
from netsuke.lab.steps.train import train
from netsuke.lab.training import Progress

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
        self.history: dict[
            str, list[dict[str, float]]
        ] = {}  # the trainings of a step, under its number and name
        self.stages: dict[int, nn.Module] = {}  # the model after each step that a later one learns from
        self.given = start
        self.told = recipe.to_json()
        if start is None:
            assert recipe.model is not None
            model = recipe.model
            self.start = build(model.name, data.image_shape, len(data.classes), seed=seed, **model.options)
        else:
            self.told.pop("model", None)
            self.told |= {"from": start.weight_hash} if isinstance(start, Artifact) else {}
            self.start = started(start)
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
        teachers = teachers_of(step, self.stages, self.data)
        self.identity = self._hash(
            self.identity, step.name, _plain(step.options), step.allowed_loss, step.temperature, step.hard,
            [weights_hash(teacher) for teacher in teachers],
        )  # fmt: skip

        def work(history: list[dict[str, float]]) -> nn.Module:
            folder, progress = self._folder(step.number), self._progress(step.number, step.name)
            try:
                result: nn.Module = step.kind.run(
                    model, self.data, step.options, work=folder, history=history, progress=progress,
                    **guidance(step, teachers),
                )  # fmt: skip
            except NetsukeError as error:
                raise type(error)(f"{step_of(self.recipe, step)}: {error}") from None
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
        kept = checkpoint.read(path, self.identity) if path else None
        if kept is not None:
            row, history, after = kept["row"], kept["history"], snapshot.module(kept, before)
        else:
            history = []
            begun = time.monotonic()
            after = work(history).cpu().eval()
            seconds = round(time.monotonic() - begun, 2)
            row = {"step": number, "name": name, **self._figures(after), "seconds": seconds}
            row |= self._verdict(row, allowed)
            if note := self._blame(before, after):
                row["note"] = note
            if row["rolled_back"]:
                after = before
            if path:
                told = {"identity": self.identity, "row": row, "history": history}
                checkpoint.write(path, {**told, **snapshot.state(after)})
        self.rows.append(row)
        if history:
            self.history[f"{number} {name}"] = history
        self.say(row)
        return after

    def _figures(self, model: nn.Module) -> Row:
        return rows.figures(carve(model, self.data, recipe={}, seed=self.seed, calibrated=False), self.data)

    def _blame(self, before: nn.Module, after: nn.Module) -> str:
        """Which layers a quantisation broke, where it did; "" for every other step."""
        broke = isinstance(after, QuantGraph) and not isinstance(before, QuantGraph)
        return blame(before, after, self.data) if broke else ""

    def _verdict(self, row: Row, allowed: float | None) -> Row:
        """Whether the step cost more accuracy than it may, compared with the last row that stands."""
        standing = [r for r in self.rows if not r["rolled_back"]]
        if not standing or row["accuracy"] is None:
            return {"rolled_back": False}
        loss = standing[-1]["accuracy"] - row["accuracy"]
        if allowed is None:
            return {"rolled_back": False}
        return {"rolled_back": loss > allowed + 1e-9, "allowed_loss": allowed}

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


def _plain(options: Any) -> Any:
    """Options as JSON, without what does not change the result."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items() if k != "threads"}
        return [clean(v) for v in value] if isinstance(value, list | tuple) else value

    return clean(asdict(options))
