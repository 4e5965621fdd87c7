"""The main job: the best classifier of the `separable` family that fits a budget of bytes.

Choose the widest network that fits, train a teacher, distil it into the student, train on through the integer
arithmetic, lower, and measure on the test half once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from netsuke import packing
from netsuke.artifact import Artifact
from netsuke.data import Dataset, Split
from netsuke.errors import OptionError
from netsuke.lab.augment import HANDWRITING, MILD, Augment
from netsuke.lab.carve import carve
from netsuke.lab.integers import Widths
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.modules import FloatGraph
from netsuke.lab.steps.distil import as_module
from netsuke.lab.steps.quantize import quantize, quantized
from netsuke.lab.steps.train import Teacher, Training, train
from netsuke.lab.teachers import check_teacher, together
from netsuke.lab.views import Views

MAX_WIDTH = 160  # wider ones win nothing on 28x28 images and train for hours
MIN_WIDTH = 4
DEPTHS = {"residual": 2, "unpadded": 4}  # blocks of each layout of the student
RATES = {"residual": 6e-3, "unpadded": 3e-2}  # of the quantised phase; docs/trials.md
TINY = 3000  # bytes, under which a student takes the mild augmentation
BIAS_BITS = 8  # with a shift that a layer shares: as accurate as 16 bits, and 6 to 9 % of the budget cheaper
MIN_VIEWS, MAX_VIEWS = 8, 64  # augmented copies: over 8 epochs 8 kept ones did as well as 8 fresh ones
VIEWS_BYTES = 1 << 30  # of memory, at most
FULL_EPOCH = 55_000  # images: MNIST's training split, in which the efforts are counted


@dataclass(frozen=True)
class Effort:
    """Epochs of MNIST's size for each phase."""

    teacher: float
    student: float
    quantised: float


EFFORTS = {"quick": Effort(3, 1, 8), "normal": Effort(12, 2, 40), "long": Effort(30, 2, 160)}

# Drawn pictures bear what handwriting bears; of photographs nothing is known, so only the mildest.
_AUGMENT = {
    "fashion-mnist": Augment(shift=0.06, scale=0.08, flip=0.5, clean=0.3),
    # bent and photographed already when it was made: only a little more
    "handwriting": Augment(rotate=6, shift=0.05, scale=0.07, shear=5, elastic=0.7, thickness=0.2, clean=0.4),
}
_FOLDER = Augment(rotate=6, shift=0.06, scale=0.1, clean=0.3)


@dataclass(frozen=True)
class Plan:
    """What fits the budget: the student's options and the bits of its weights, and what they will take."""

    width: int
    depth: int
    layout: str
    bits: int
    size_bytes: int

    def build(self, data: Dataset, seed: int = 0) -> nn.Module:
        """The untrained student."""
        options: dict[str, Any] = {"width": self.width, "depth": self.depth, "layout": self.layout}
        return build("separable", data.image_shape, len(data.classes), seed=seed, **options)


@dataclass(frozen=True)
class Phase:
    """One training of the road: its name and its options."""

    name: str
    options: Training


def plan(data: Dataset, max_bytes: int) -> Plan:
    """The widest student within `max_bytes` at 4 bits, or at more once 4 bits would leave the budget unused.

    Raises OptionError where even the narrowest does not fit.
    """
    best = _widest(data, max_bytes, 4)
    if best is None:
        least = _sized(data, MIN_WIDTH, 4).size_bytes
        raise OptionError(
            f"{max_bytes} bytes are too few for {len(data.classes)} classes of "
            f"{'x'.join(map(str, data.image_shape))} images; the least is {least}"
        )
    # At equal bytes the wider net at 4 bits wins; more bits only where width is at its end.
    for bits in (8, 7, 6, 5) if best.width == MAX_WIDTH else ():
        if (roomy := _sized(data, MAX_WIDTH, bits)).size_bytes <= max_bytes:
            return roomy
    return best


def _widest(data: Dataset, max_bytes: int, bits: int) -> Plan | None:
    low, high, best = MIN_WIDTH, MAX_WIDTH, None
    while low <= high:
        middle = (low + high) // 2
        tried = _sized(data, middle, bits)
        if tried.size_bytes <= max_bytes:
            best, low = tried, middle + 1
        else:
            high = middle - 1
    return best


def _sized(data: Dataset, width: int, bits: int) -> Plan:
    """Count the bytes of an untrained student, its biases at the full width they may reach."""
    layout = (
        "unpadded" if min(data.image_shape[1:]) >= 20 else "residual"
    )  # small maps have no border to spare
    plan = Plan(width, DEPTHS[layout], layout, bits, 0)
    graph, weights = lower(plan.build(data), data.image_shape)
    sample = torch.rand(2, *data.image_shape, generator=torch.Generator().manual_seed(0))
    twin = quantized(graph, weights, sample, Widths(bits, BIAS_BITS)).eval()
    graph, tensors = lower(twin, data.image_shape)
    size = 0
    for row in packing.stored(graph, tensors):
        # A byte each, and one for the shift that a layer's biases share.
        size += row.count * BIAS_BITS // 8 + 1 if row.tensor.endswith(".bias") else row.size_bytes
    return replace(plan, size_bytes=size)


def phases(data: Dataset, plan: Plan, effort: str, seed: int, threads: int = 0) -> list[Phase]:
    """The three trainings of an effort; small sets get more epochs, so that about as many images are seen."""
    if effort not in EFFORTS:
        raise OptionError(f"no effort {effort!r}; there are {', '.join(EFFORTS)}")
    chosen = EFFORTS[effort]
    # A small set is seen more often, but not so often that it is learnt by heart.
    factor = min(30.0, FULL_EPOCH / max(1, len(data.train))) ** 0.8
    batch = 128 if len(data.train) > 5000 else 64
    shared = Training(batch=batch, seed=seed, threads=threads, augment=augmentation(data))
    learner = replace(shared, augment=augmentation(data, plan.size_bytes < TINY))

    def epochs(n: float) -> int:
        return max(2, round(n * factor))

    ema = 0.998 if len(data.train) > 5000 else 0.99
    return [
        Phase("teacher", replace(shared, epochs=epochs(chosen.teacher), optimizer="adamw", l2=0.02, ema=ema)),
        Phase("student", replace(learner, epochs=epochs(chosen.student), lr=8e-3, ema=ema)),
        Phase(
            "quantised",
            replace(
                learner,
                epochs=epochs(chosen.quantised),
                lr=RATES[plan.layout],
                schedule="cosine",
                ema=ema,
                freeze_norm=0.9,
            ),
        ),
    ]


def augmentation(data: Dataset, tiny: bool = False) -> Augment:
    """What the images bear: by the catalogue's name, mild for folders, unknown sets and tiny students."""
    if data.family in _AUGMENT:
        return _AUGMENT[data.family]
    if min(data.image_shape[1:]) < 14:  # at 8x8 a pixel is a stroke
        return Augment(rotate=8, shift=0.06, scale=0.08, shear=6, clean=0.3)
    written = data.role != "any" or data.name in _HANDWRITTEN
    return (MILD if tiny else HANDWRITING) if written else _FOLDER


_HANDWRITTEN = {"mnist", "emnist-digits", "usps", "optdigits", "semeion", "kmnist", "digits"}


@dataclass(frozen=True)
class Result:
    """The artifact, the teacher it learnt from, and the accuracy on validation after each phase."""

    artifact: Artifact
    teacher: Artifact
    validation: dict[str, float]


Report = Callable[[str, float, str, bool], None]  # the phase, then as train's Progress


class Shrink:
    """One run of the main job; with the same `work` folder a killed run goes on where it stopped."""

    def __init__(
        self,
        data: Dataset,
        max_bytes: int,
        *,
        effort: str = "normal",
        seed: int = 0,
        threads: int = 0,
        work: Path | None = None,
        teachers: Sequence[Artifact] = (),
        views: Path | None = None,
    ):
        data.require("train")
        self.data, self.effort, self.seed, self.work, self.given = data, effort, seed, work, list(teachers)
        for teacher in teachers:
            if (len(teacher.classes), teacher.graph.input_shape) != (len(data.classes), data.image_shape):
                raise OptionError("the teacher takes other images or knows other classes than the data")
            check_teacher(teacher, data)
        self.max_bytes, self.views = max_bytes, views
        self.plan = plan(data, max_bytes)
        self.phases = phases(data, self.plan, effort, seed, threads)[1 if teachers else 0 :]

    def student(self) -> nn.Module:
        return self.plan.build(self.data, self.seed)

    def teacher(self) -> nn.Module:
        return build("convnet", self.data.image_shape, len(self.data.classes), seed=self.seed, norm=True)

    def estimate(self) -> float:
        """Seconds that the run will take here, from timing a few steps of each phase."""
        count = 6 * self.phases[0].options.batch
        whole = self.data.train
        piece = Split(whole.images[:count], whole.labels[:count])
        tiny = replace(self.data, train=piece, val=Split(whole.images[:0], whole.labels[:0]))
        teacher = as_module(self.given[0]) if self.given else self.teacher()
        student = self.student()
        models = {
            "teacher": teacher,
            "student": student,
            "quantised": quantize(student, tiny, bits=self.plan.bits),
        }
        total = 0.0
        for phase in self.phases:
            # Views take the teacher's part but for the first copies; augmentation is left to the teacher's phase.
            mild = phase.options if phase.name == "teacher" else replace(phase.options, augment=Augment())
            # A moving average costs little, but recalibrating it, once in so short a run, much.
            options = replace(mild, epochs=1, ema=0.0)
            train(models[phase.name], tiny, options)  # warm caches and code paths
            start = time.monotonic()
            train(models[phase.name], tiny, options)
            passes = phase.options.epochs * len(whole) / max(1, len(piece))
            total += (time.monotonic() - start) * passes
        return total

    def run(self, report: Report | None = None) -> Result:
        """Train, distil, quantise, lower. The test half is not touched here."""
        say = report or (lambda phase, done, info, resumed: None)
        histories: dict[str, list[dict[str, float]]] = {phase.name: [] for phase in self.phases}
        models: dict[str, nn.Module] = {}
        guide, views = None, None
        for phase in self.phases:
            if phase.name == "teacher":
                start = self.teacher()
            else:
                start = self._start(phase.name, models)
                if guide is None:
                    guide, views = self._guide(models.get("teacher"))
            models[phase.name] = train(
                start,
                self.data,
                phase.options,
                teacher=guide,
                views=views,
                work=self._folder(phase.name),
                history=histories[phase.name],
                progress=partial(say, phase.name),
            )
        recipe = self.recipe()
        artifact = carve(models["quantised"], self.data, recipe=recipe, seed=self.seed)
        if artifact.size_bytes > self.max_bytes:
            raise AssertionError(f"planned {self.plan.size_bytes} bytes, got {artifact.size_bytes}")
        teacher = (
            self.given[0]
            if self.given
            else carve(models["teacher"], self.data, recipe=recipe, seed=self.seed)
        )
        validation = {
            name: rows[-1]["val_accuracy"]
            for name, rows in histories.items()
            if rows and "val_accuracy" in rows[-1]
        }
        return Result(artifact.with_manifest(history=histories), teacher, validation)

    def _guide(self, trained: nn.Module | None) -> tuple[Teacher, Views]:
        """The teachers with their norms folded away, and the copies of the data they have answered.

        The copies are the same for every seed, so that runs that share a folder make them once.
        """
        if self.given:
            module = together([as_module(teacher) for teacher in self.given])
        else:
            assert trained is not None
            module = FloatGraph(*lower(trained.cpu(), self.data.image_shape))
        epochs = sum(phase.options.epochs for phase in self.phases if phase.name != "teacher")
        room = VIEWS_BYTES // max(1, self.data.train.images.nbytes)
        count = max(1, min(max(MIN_VIEWS, epochs // 6), MAX_VIEWS, room))
        return Teacher(module), Views(
            self.data, self.phases[-1].options.augment, count, 0, module, self.views
        )

    def _start(self, name: str, models: dict[str, nn.Module]) -> nn.Module:
        if name == "student":
            return self.student()
        bits = self.plan.bits
        return quantize(models["student"], self.data, bits=bits, bias_bits=BIAS_BITS, clip=False)

    def _folder(self, phase: str) -> Path | None:
        """A folder a phase and seed; the teacher's serves every budget."""
        if self.work is None:
            return None
        p = self.plan
        network = "" if phase == "teacher" else f"-width{p.width}-bits{p.bits}"
        return self.work / f"{phase}{network}-seed{self.seed}"

    def recipe(self) -> dict[str, Any]:
        steps = [{"step": p.name, **asdict(p.options)} for p in self.phases]
        return {
            "verb": "shrink",
            "effort": self.effort,
            "max_bytes": self.max_bytes,
            **asdict(self.plan),
            "steps": steps,
        }
