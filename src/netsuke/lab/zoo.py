"""A zoo trained under one recipe: every architecture with every seed, side by side, resumable.

Each training is a `netsuke train` in a process of its own on one thread, which writes `WORK/LABEL-seedN.netsuke`:
the same file that the command gives when it is typed by hand, and such a file counts as a finished run.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from netsuke.artifact import Artifact
from netsuke.errors import ArtifactError, NetsukeError, OptionError
from netsuke.lab.models import ZOO
from netsuke.lab.models.presets import Preset
from netsuke.lab.training import Training

Advance = Callable[[float, str], None]  # trainings done since the last call, and what to show

# Options of a training that `netsuke train` takes under the same name, beside --augment.
FLAGS = (
    "epochs", "batch", "optimizer", "lr", "momentum", "schedule", "label_smoothing", "l1", "l2", "ema", "clip",
    "patience", "seed", "precision",
)  # fmt: skip
LINE = re.compile(r"training: +(\d+)%")  # how a `train` whose stderr is no terminal tells where it is


def members(zoo: str, chosen: Iterable[str] = ()) -> dict[str, Preset]:
    """The models of a zoo by label, all or the `chosen` ones in their order.

    Raises OptionError for another zoo, or a label that is not in it, naming the nearest.
    """
    if zoo not in ZOO:
        raise OptionError(f"no zoo {zoo!r}; there are {', '.join(ZOO)}{_near(zoo, ZOO)}")
    known = ZOO[zoo]
    wanted = list(dict.fromkeys(chosen)) or list(known)
    for label in wanted:
        if label not in known:
            raise OptionError(
                f"the zoo {zoo} has no model {label!r}; it has {', '.join(known)}{_near(label, known)}"
            )
    return {label: known[label] for label in wanted}


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


@dataclass(frozen=True)
class Job:
    """One training: which model, with which options and seed, and the file it makes."""

    label: str
    model: str
    options: Mapping[str, Any]
    training: Training
    out: Path

    def command(self, data: str, augment: str) -> list[str]:
        """The words of `netsuke train` that make the file; `augment` is written as the user wrote it."""
        words = ["train", "--model", self.model, "--data", data, "--augment", augment]
        if self.options:
            words += ["--option", ",".join(f"{key}={_text(v)}" for key, v in self.options.items())]
        for name in FLAGS:
            words += [f"--{name.replace('_', '-')}", str(getattr(self.training, name))]
        return [*words, "--threads", "1", "--out", str(self.out), "--json"]

    def finished(self, data_hash: str) -> bool:
        """Whether the file is there and is what this training makes, by its manifest."""
        return self.out.exists() and self.mismatch(data_hash) is None

    def set_aside(self) -> Path:
        """Rename the file at `out`, which is another training's and may have taken hours; its new path."""
        kept = self.out.with_suffix(".old.netsuke")
        os.replace(self.out, kept)
        return kept

    def mismatch(self, data_hash: str) -> str | None:
        """How the file at `out` differs from what this training makes; None where it does not."""
        try:
            manifest = Artifact.load(self.out).manifest
        except ArtifactError as error:
            return str(error)
        recipe = manifest.get("recipe")
        if not isinstance(recipe, dict) or not isinstance(recipe.get("training"), dict):
            return "it has no recipe of a training"
        # An option that came later than the file had its default then.
        was = _plain({**asdict(Training()), **recipe["training"]})
        pairs = {
            "data_hash": (manifest.get("data_hash"), data_hash),
            "verb": (recipe.get("verb"), "train"),
            "model": (recipe.get("model"), self.model),
            "options": (recipe.get("options") or {}, _plain(dict(self.options))),
            **{
                key: (was.get(key), v) for key, v in _plain(asdict(self.training)).items() if key != "threads"
            },
        }
        for key in set(recipe) - {"verb", "model", "options", "training"}:  # a teacher, weights to start from
            pairs[key] = (recipe[key] or None, None)
        wrong = [f"{key} is {a}, not {b}" for key, (a, b) in pairs.items() if a != b]
        return wrong[0] if wrong else None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


def jobs(chosen: Mapping[str, Preset], seeds: Sequence[int], training: Training, work: Path) -> list[Job]:
    """A job for every label and seed; all first seeds come first, so that an early look shows every model."""
    return [
        Job(label, model, options, replace(training, seed=seed), work / f"{label}-seed{seed}.netsuke")
        for seed in seeds
        for label, (model, options) in chosen.items()
    ]


def run(todo: Sequence[Job], data: str, augment: str, side: int, advance: Advance) -> None:
    """Train `todo`, `side` at a time, each as a process of one thread.

    Raises NetsukeError where a training fails; what runs then is stopped and goes on with the next call.
    """
    trainings = _Trainings(data, augment, advance)
    pool = ThreadPoolExecutor(side)
    try:
        for future in as_completed([pool.submit(trainings.one, job) for job in todo]):
            future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        trainings.stop()
        raise
    finally:
        pool.shutdown()


class _Trainings:
    """The processes that train now."""

    def __init__(self, data: str, augment: str, advance: Advance):
        self.data, self.augment, self.advance = data, augment, advance
        self.lock, self.stopped = Lock(), False
        self.running: set[subprocess.Popen[str]] = set()

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            for process in self.running:
                process.send_signal(signal.SIGINT)  # as Ctrl-C: its checkpoint stays, no temporary file does

    def one(self, job: Job) -> None:
        command = [sys.executable, "-m", "netsuke", *job.command(self.data, self.augment)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with self.lock:
            if self.stopped:
                return
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, text=True, errors="replace",
            )  # fmt: skip
            self.running.add(process)
        done, last = 0.0, ""
        assert process.stderr is not None
        for last in process.stderr:  # and should this process die, the pipe breaks and the training stops
            share = LINE.match(last)
            if share:
                now = int(share[1]) / 100
                self.advance(now - done, f"{job.label} seed {job.training.seed}")
                done = now
        status = process.wait()
        with self.lock:
            self.running.discard(process)
            if self.stopped:
                return
        if status:
            self.stop()  # before the pool can begin another
            reason = last.strip().removeprefix("netsuke: ")
            raise NetsukeError(f"training {job.label} with seed {job.training.seed} failed: {reason}")
        self.advance(1 - done, f"{job.label} seed {job.training.seed}")
