"""What `netsuke compare` is to compare: files, or a zoo that is trained first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netsuke.data import Dataset
    from netsuke.lab.models.presets import Preset
    from netsuke.lab.training import Training
    from netsuke.measure.runs import Run


def seeds(text: str) -> list[int]:
    from netsuke.errors import OptionError

    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(f"--seeds takes whole numbers with commas between; got {text!r}") from None
    if len(set(numbers)) < len(numbers) or not all(0 <= n < 2**32 for n in numbers):
        raise OptionError(f"--seeds takes different numbers of 0 to {2**32 - 1}; got {text!r}")
    return numbers


def backends(text: str) -> list[str]:
    from netsuke.engine import BACKENDS
    from netsuke.errors import OptionError

    names = [part for part in text.split(",") if part] or list(BACKENDS)
    for name in names:
        if name not in BACKENDS:
            raise OptionError(f"no backend {name!r}; there are {', '.join(BACKENDS)}")
    return [name for name in BACKENDS if name in names]


def given(files: Sequence[Path]) -> dict[str, list[Run]]:
    from netsuke.artifact import Artifact
    from netsuke.measure.runs import Run, grouped

    return grouped([Run(path, Artifact.load(path)) for path in files])


def chosen(zoo: str, models: str) -> dict[str, Preset]:
    from netsuke.lab.zoo import members

    return members(zoo, [part for part in models.split(",") if part])


def fitting(chosen: dict[str, Preset], dataset: Dataset, *, strict: bool) -> dict[str, Preset]:
    """Those of a zoo that can be built for the images: an impossible one fails now rather than after hours.

    With `strict` it is an error, for it was asked for by name; else it is left out and said so.
    """
    from netsuke.cli import console
    from netsuke.errors import OptionError
    from netsuke.lab.models import build

    fitting = {}
    for label, (model, settings) in chosen.items():
        try:
            build(model, dataset.image_shape, len(dataset.classes), **settings)
        except OptionError as error:
            if strict:
                raise
            console.note(f"left out: {error}")
        else:
            fitting[label] = (model, settings)
    return fitting


def trained(
    chosen: dict[str, Preset], data: str, dataset: Dataset, seeds: Sequence[int], training: Training,
    augment: str, work: Path, side: int,
) -> dict[str, list[Run]]:  # fmt: skip
    """The zoo's artifacts, after training those that are not there yet."""
    from netsuke.artifact import Artifact
    from netsuke.cli import console, options
    from netsuke.lab import zoo as keeper
    from netsuke.measure.runs import Run

    options.check_out(work / "x")
    jobs = keeper.jobs(chosen, seeds, training, work)
    todo = [job for job in jobs if not job.finished(dataset.hash)]
    for job in (j for j in todo if j.out.exists()):
        reason = job.mismatch(dataset.hash)
        console.note(f"{job.out} is another training ({reason}): kept as {job.set_aside()}")
    if len(todo) < len(jobs):
        console.note(f"{len(jobs) - len(todo)} of {len(jobs)} trainings are finished already, in {work}")
    if todo:
        with console.progress("training", len(todo)) as bar:
            keeper.run(todo, data, augment, side, bar.advance)
    return {
        label: [Run(job.out, Artifact.load(job.out)) for job in jobs if job.label == label]
        for label in chosen
    }


def recipe(training: Training) -> dict[str, Any]:
    """What all trainings had in common."""
    from dataclasses import asdict

    return {key: v for key, v in asdict(training).items() if key not in ("seed", "threads")}
