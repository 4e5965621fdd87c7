"""Hyper-parameter and architecture search: TPE with median pruning, over one validation split or k folds.

Tree-structured Parzen estimator: Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011. Median
pruning: Golovin et al., Google Vizier: A Service for Black-Box Optimization, 2017.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from netsuke import packing
from netsuke.artifact import Artifact
from netsuke.data import Dataset
from netsuke.data.dataset import empty_like
from netsuke.errors import NetsukeError, OptionError
from netsuke.lab import space as spaces
from netsuke.lab import study as studies
from netsuke.lab.carve import carve
from netsuke.lab.folds import joined, parts
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.steps.train import Progress, train

if TYPE_CHECKING:
    import optuna

METRICS: dict[str, tuple[str, studies.Direction]] = {
    "accuracy": ("val_accuracy", "maximize"),
    "loss": ("val_loss", "minimize"),
}
REFUSED = 20  # draws over the limit for each trial asked for; more, and the space does not fit the limit

# What may go wrong in one trial: our own errors, and what torch raises over shapes, batches and memory.
FAILURES = (NetsukeError, RuntimeError, ValueError, MemoryError)


@dataclass(frozen=True)
class Search:
    """What is searched and how a trial is scored; searches that are equal here are one search.

    `space` is text for `space.parse`, "" for the default one. `folds` 0 scores on the validation split, else by
    stratified cross-validation over the training half. `images` uses only so many training images, 0 all.
    `max_parameters` and `max_bytes` (of the float model) refuse a model before it is trained; 0 is off.
    """

    space: str = ""
    model: str = "convnet"
    epochs: int = 3
    folds: int = 0
    images: int = 0
    metric: str = "accuracy"
    max_parameters: int = 0
    max_bytes: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise OptionError(f"no metric {self.metric!r}; there are {', '.join(METRICS)}")
        if self.epochs < 1:
            raise OptionError(f"--epochs must be at least 1; got {self.epochs}")
        if self.folds < 0 or self.folds == 1:
            raise OptionError(f"--folds must be at least 2, or 0 for the validation split; got {self.folds}")
        for name in ("images", "max_parameters", "max_bytes", "seed"):
            if getattr(self, name) < 0:
                raise OptionError(
                    f"--{name.replace('_', '-')} must not be negative; got {getattr(self, name)}"
                )


class Tune:
    """One search over `data`, kept in the folder `work`: what is there already is taken up.

    Raises OptionError for a space that cannot be, and where `work` holds another search; nothing is trained yet.
    """

    def __init__(self, data: Dataset, search: Search, *, work: Path, threads: int = 0):
        studies.require_optuna()
        self.space = spaces.parse(search.space or spaces.default(search.model), search.model)
        spaces.check(self.space, search.model, data.image_shape, len(data.classes))
        # In one spelling, so that a blank more does not make another search.
        self.search = replace(search, space=", ".join(f"{name}={d}" for name, d in self.space.items()))
        self.data, self.work, self.threads = data, work, threads
        self.parts = parts(data, k=search.folds, images=search.images, seed=search.seed)
        self.epochs = len(self.parts) * search.epochs  # of one trial
        self.key, direction = METRICS[search.metric]
        self.study = studies.open_study(work, direction, search.epochs)
        self._tie()

    def _tie(self) -> None:
        """A study belongs to one search; a new one begins with the default options."""
        identity = asdict(self.search) | {"data": self.data.name, "data_hash": self.data.hash}
        there = self.study.user_attrs.get("search")
        if there is None:
            self.study.set_user_attr("search", identity)
        elif there != identity:
            key = next(k for k in identity if there.get(k) != identity[k])
            raise OptionError(
                f"{self.work} holds another search: its {key} is {there.get(key)!r}, this one's {identity[key]!r}; "
                "give another --work, or the same options to go on"
            )
        if not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial(spaces.defaults(self.space, self.search.model))

    def run(self, trials: int, *, timeout: float = 0, progress: Progress | None = None) -> None:
        """Go on until `trials` have ended; after `timeout` seconds no more begin, if one has a score.

        Models over the limits are drawn again and not counted. Raises NetsukeError where no trial has a score.
        """
        say = progress or (lambda done, info, resumed: None)
        start = time.monotonic()
        say(self.epochs * min(trials, self._counted()), "", True)
        while (done := self._counted()) < trials and self.counts()["refused"] < REFUSED * trials:
            if timeout and self.rows("complete") and time.monotonic() - start > timeout:
                break
            self._trial(say, f"trial {done + 1}/{trials}")
        if not self.rows("complete"):
            rows = self.rows("failed") or self.rows()
            raise NetsukeError(
                f"none of {len(self.rows())} trials has a score; the last one says: {rows[-1]['reason']}"
            )

    def _counted(self) -> int:
        return len(self.rows("complete", "pruned", "failed"))

    def _trial(self, say: Progress, label: str) -> None:
        """Draw, train and score once; a trial that a kill has left running goes first."""
        import optuna
        from optuna.trial import TrialState

        # A stream of its own for each trial: a search that was killed draws what an uninterrupted one would.
        stream = np.random.SeedSequence([self.search.seed, len(self.rows())]).generate_state(1)
        self.study.sampler = optuna.samplers.TPESampler(seed=int(stream[0]))
        trial = studies.resumed(self.study) or self.study.ask()
        spent, score, state = 0.0, None, TrialState.COMPLETE

        def progress(done: float, info: str, resumed: bool) -> None:
            nonlocal spent
            spent += done
            say(done, f"{label}: {info}", resumed)

        folder = self.work / f"trial-{trial.number + 1}"
        try:
            score = self._score(trial, folder, progress)
        except optuna.TrialPruned as error:
            state = TrialState.PRUNED
            trial.set_user_attr("reason", str(error))
        except FAILURES as error:
            state = TrialState.FAIL
            trial.set_user_attr("reason", (str(error).splitlines() or [type(error).__name__])[0])
        self.study.tell(trial, score, state)
        _clear(folder)
        if "refused" not in trial.user_attrs:
            say(self.epochs - spent, f"{label}: {state.name.lower()}", True)  # epochs that were saved

    def _score(self, trial: optuna.trial.Trial, folder: Path, progress: Progress) -> float:
        """The metric after the last epoch, mean over folds; not of the best epoch, which noise would pick."""
        started = time.monotonic()
        values = spaces.draw(trial, self.space, self.search.model)
        options, training = self._settings(values, self.search.epochs)
        module = self._build(values["model"], options)
        self._weigh(trial, module)
        last: list[dict[str, float]] = []
        for i, part in enumerate(self.parts):
            history: list[dict[str, float]] = []
            report = self._reporter(trial, history, i * self.search.epochs)

            def watch(done: float, info: str, resumed: bool, report: Callable[..., None] = report) -> None:
                progress(done, info, resumed)
                report()

            train(module, part, training, work=folder / f"fold-{i + 1}", history=history, progress=watch)
            report(prune=i < len(self.parts) - 1)
            last.append(history[-1])
        scores = [row[self.key] for row in last]
        figures = {key: mean(row[key] for row in last) for key in ("val_accuracy", "val_loss")}
        for key, value in {**figures, "scores": scores, "seconds": time.monotonic() - started}.items():
            trial.set_user_attr(key, value)
        return mean(scores)

    def _settings(self, values: dict[str, Any], epochs: int) -> tuple[dict[str, Any], Any]:
        return spaces.settings(values, epochs=epochs, seed=self.search.seed, threads=self.threads)

    def _build(self, model: str, options: dict[str, Any]) -> nn.Module:
        shape, classes = self.data.image_shape, len(self.data.classes)
        return build(model, shape, classes, seed=self.search.seed, **options)

    def _weigh(self, trial: optuna.trial.Trial, module: nn.Module) -> None:
        """Lower before training: a network that cannot be saved, or is over the limits, costs no epoch."""
        import optuna

        graph, tensors = lower(module, self.data.image_shape)
        parameters = sum(p.numel() for p in module.parameters())
        size = packing.size_bytes(graph, tensors)
        trial.set_user_attr("parameters", parameters)
        trial.set_user_attr("size_bytes", size)
        for what, value, limit in (
            ("parameters", parameters, self.search.max_parameters),
            ("bytes", size, self.search.max_bytes),
        ):
            if limit and value > limit:
                trial.set_user_attr("refused", True)
                # Pruned rather than failed, so that TPE learns to stay away.
                raise optuna.TrialPruned(f"{value:,} {what} are over the limit of {limit:,}")

    def _reporter(
        self, trial: optuna.trial.Trial, history: list[dict[str, float]], before: int
    ) -> Callable[..., None]:
        """Tells the study of new rows of `history`; raises TrialPruned where the trial is below the median."""
        import optuna

        trials = self.study.get_trials(deepcopy=False)
        known = set(trials[trial.number].intermediate_values)  # what a killed run has told of
        seen = 0

        def report(prune: bool = True) -> None:
            nonlocal seen
            new, seen = history[seen:], len(history)
            for row in new:
                step = before + int(row["epoch"])
                if step not in known:
                    trial.report(row[self.key], step)
            if new and prune and trial.should_prune():
                value = f"{self.search.metric} {new[-1][self.key]:.4g}"
                raise optuna.TrialPruned(f"{value} after epoch {step} of {self.epochs} is behind the median")

        return report

    def rows(self, *states: str) -> list[dict[str, Any]]:
        """Every ended trial, in the order they were drawn; those in `states` if some are named: see `study.rows`."""
        found = studies.rows(self.study, self.search.model)
        return [row for row in found if not states or row["state"] in states]

    @property
    def ranking(self) -> list[dict[str, Any]]:
        """The complete trials, best first; of equals the earlier one."""
        sign = -1 if METRICS[self.search.metric][1] == "maximize" else 1
        return sorted(self.rows("complete"), key=lambda row: sign * row["score"])

    def counts(self) -> dict[str, int]:
        """How many trials ended in which state."""
        return {state: len(self.rows(state)) for state in studies.STATES}

    def importance(self) -> dict[str, float]:
        """Each option's share in the variance of the score: see `study.importance`."""
        return studies.importance(self.study)

    def finish(self, epochs: int = 0, progress: Progress | None = None) -> Artifact:
        """Train the best options once more, on the whole training half; `epochs` 0: as in the search."""
        best = self.ranking[0]
        options, training = self._settings(
            {"model": best["model"], **best["drawn"]}, epochs or self.search.epochs
        )
        whole = replace(self.data, train=joined(self.data), val=empty_like(self.data.train.images))
        history: list[dict[str, float]] = []
        folder = self.work / "final"
        module = self._build(best["model"], options)
        module = train(module, whole, training, work=folder, history=history, progress=progress)
        _clear(folder)
        found = {key: best[key] for key in ("trial", "score", "sd")}
        recipe = {
            "verb": "tune",
            "model": best["model"],
            "options": options,
            "training": asdict(training),
            "search": {**asdict(self.search), "trials": self.counts(), "best": found},
        }
        return carve(module, whole, recipe=recipe, seed=self.search.seed).with_manifest(history=history)


def _clear(folder: Path) -> None:
    """Remove the checkpoints of a trial that has ended."""
    for checkpoint in [*folder.glob("checkpoint.*"), *folder.glob("*/checkpoint.*")]:
        checkpoint.unlink(missing_ok=True)
    for left in (*folder.glob("*"), folder):
        with suppress(OSError):
            left.rmdir()
