"""Knowledge distillation: train a small network on the logits of a large one."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from netsuke.artifact import Artifact
from netsuke.data import Dataset
from netsuke.errors import OptionError
from netsuke.lab.modules import FloatGraph
from netsuke.lab.steps.train import Progress, Teacher, Training, train


def as_module(model: Artifact | nn.Module) -> nn.Module:
    """A module as it is, or a float artifact brought back as one."""
    return FloatGraph(model.graph, model.tensors) if isinstance(model, Artifact) else model


def distil(
    model: nn.Module,
    data: Dataset,
    options: Training | None = None,
    *,
    teacher: Artifact | nn.Module,
    temperature: float = 2.0,
    hard: float = 0.5,
    work: Path | None = None,
    history: list[dict[str, float]] | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy of `model` trained on the teacher's logits at `temperature`, mixed with `hard` of the true labels.

    The teacher sees the same augmented images (Hinton et al., 2015). `model` may be quantised: then this is
    quantisation-aware training with distillation. Raises OptionError where the class counts differ.
    """
    if isinstance(teacher, Artifact) and len(teacher.classes) != len(data.classes):
        raise OptionError(
            f"the teacher knows {len(teacher.classes)} classes; the data have {len(data.classes)}"
        )
    guide = Teacher(as_module(teacher), temperature, hard)
    return train(model, data, options, teacher=guide, work=work, history=history, progress=progress)
