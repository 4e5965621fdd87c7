"""Who teaches: modules, artifacts of floats or integers, and several of them at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netsuke.artifact import Artifact
from netsuke.data import Dataset
from netsuke.engine import Engine
from netsuke.errors import OptionError
from netsuke.lab.inference import bf16_pays
from netsuke.lab.modules import FloatGraph
from netsuke.lab.objective import Objective

COMBINE = ("logits", "probabilities")


class Answers(nn.Module):
    """An artifact as a module that only answers: images in 0..1 [n, C, H, W] to logits, by its engine.

    Images are rounded to the 256 steps that an artifact takes; integer logits come times their real unit.
    """

    exact = True  # an engine knows nothing of bf16

    def __init__(self, artifact: Artifact, backend: str = "packaged"):
        super().__init__()
        self.engine = Engine(artifact, backend=backend)
        last = artifact.graph.ops[-1]
        self.unit = last.attrs.get("scale", 1.0) if artifact.graph.integer else 1.0
        self.classes = len(artifact.classes)
        learnt = torch.tensor(list(bytes.fromhex(artifact.weight_hash)), dtype=torch.uint8)
        self.register_buffer("learnt", learnt)  # so that a hash of the weights tells teachers apart

    def forward(self, x: Tensor) -> Tensor:
        images = (x.detach() * 255).round().clamp(0, 255).to(torch.uint8).cpu().contiguous().numpy()
        return torch.from_numpy(self.engine.run(images)).float().mul(self.unit).to(x.device)


class Ensemble(nn.Module):
    """Several teachers as one: the mean of their logits, or of their probabilities softened by `temperature`.

    The latter come as logits whose softmax at that temperature is the mean (Hinton et al., 2015, section 1);
    with `outliers` it is that over the classes and "none of them", see `lab.objective`.
    """

    exact = True  # each member decides for itself about bf16

    def __init__(
        self,
        members: Sequence[nn.Module],
        combine: str = "logits",
        temperature: float = 1.0,
        outliers: bool = False,
    ) -> None:
        super().__init__()
        if not members:
            raise OptionError("an ensemble needs at least one teacher")
        if combine not in COMBINE:
            raise OptionError(f"no way to combine called {combine!r}; there are {', '.join(COMBINE)}")
        self.members = nn.ModuleList(members)
        self.combine, self.temperature, self.objective = combine, temperature, Objective(outliers)
        how = torch.tensor([COMBINE.index(combine), temperature])
        self.register_buffer("how", how)  # part of what a hash of the weights tells apart

    def forward(self, x: Tensor) -> Tensor:
        found = [ask(member, x) for member in self.members]
        if len({z.shape for z in found}) > 1:
            counts = ", ".join(str(z.shape[1]) for z in found)
            raise OptionError(f"the teachers give {counts} logits; they must agree")
        z = torch.stack(found)
        if self.combine == "logits":
            return z.mean(0)
        t, classes = self.temperature, z.shape[2]
        shown = torch.stack([self.objective.shown(each) for each in z])
        mean = t * (F.log_softmax(shown / t, 2).logsumexp(0) - torch.tensor(float(len(z))).log())
        return mean[:, :classes] - mean[:, classes:] if self.objective.outliers else mean


def together(
    teachers: Sequence[nn.Module], combine: str = "logits", temperature: float = 1.0, outliers: bool = False
) -> nn.Module:
    """One module that answers for all; a single teacher as it is."""
    return teachers[0] if len(teachers) == 1 else Ensemble(teachers, combine, temperature, outliers)


def check_teacher(teacher: Artifact, data: Dataset, what: str = "the teacher") -> None:
    """Raise OptionError where a teacher knows other classes than the data, or not that an image may be of none."""
    if len(teacher.classes) != len(data.classes):
        raise OptionError(f"{what} knows {len(teacher.classes)} classes; the data have {len(data.classes)}")
    if data.outliers and "reject" not in teacher.manifest:
        raise OptionError(
            f"{what} never saw an image of no class, and {data.name} has such: its logits say nothing of them; "
            f"take a teacher that was trained on {data.name}"
        )


@torch.no_grad()
def ask(teacher: nn.Module, x: Tensor) -> Tensor:
    """The teacher's logits of images in 0..1 [n, C, H, W], as float32, in bf16 where that is faster."""
    first = next(teacher.parameters(), None)
    where = x.device if first is None else first.device
    x = x.to(where).contiguous(memory_format=torch.channels_last)
    was = teacher.training
    if was:
        teacher.eval()
    with torch.autocast(where.type, torch.bfloat16, enabled=bf16_pays(teacher)):
        answer: Tensor = teacher(x).float()
    if was:
        teacher.train()
    return answer


def as_module(model: Artifact | nn.Module) -> nn.Module:
    """A module as it is; a float artifact brought back as one, an integer one as a module that only answers."""
    if isinstance(model, Artifact):
        return Answers(model) if model.graph.integer else FloatGraph(model.graph, model.tensors)
    return model
