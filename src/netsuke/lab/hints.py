"""Matching what goes on inside student and teacher, besides their logits."""

from __future__ import annotations

from hashlib import sha256

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netsuke.errors import OptionError
from netsuke.lab.taps import Tapped, known, pair, places, sized_alike, square


def attention(x: Tensor) -> Tensor:
    """Where a map [n, C, H, W] is active: squares summed over the channels [n, 1, H, W]."""
    return x.square().sum(1, keepdim=True)


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared distance of two attention maps, each of unit length; a mean over the images.

    Zagoruyko & Komodakis, Paying More Attention to Attention, 2017. Maps of other sizes are pooled.
    """
    found = sized_alike(attention(student), attention(teacher))
    a, b = (F.normalize(m.flatten(1), dim=1) for m in found)
    return (a - b).square().sum(1).mean()


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared error of features, as a share of the teacher's mean square, so that layers compare.

    Romero et al., FitNets, 2015; `student` has been through its regressor.
    """
    a, b = sized_alike(student, teacher)
    return F.mse_loss(a, b) / b.square().mean().clamp(min=1e-8)


class Source:
    """Whose intermediates to follow: copies of a student share the one teacher, and its parameters are not theirs."""

    def __init__(self, teacher: Tapped):
        self.teacher = teacher

    def __deepcopy__(self, memo: object) -> Source:
        return self


class Hinted(nn.Module):
    """A student that in training also compares its intermediates with those that the teacher has just seen.

    `forward` gives the student's logits; after a forward in training, `aside` is the loss to add: `features`
    times the feature loss plus `attention` times the attention loss, each a mean over the `pairs` (student's
    op, teacher's op). The teacher, a Tapped, must have answered for the same images just before; it is no part
    of this module. Where channels differ, or integers of unknown unit are compared, a 1x1 convolution stands
    between; it trains along and is left behind with this module.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        shape: tuple[int, int, int],
        pairs: tuple[tuple[str, str], ...] = (),
        features: float = 0.0,
        attention: float = 0.0,
        seed: int = 0,
    ):
        super().__init__()
        mine, theirs = places(student, shape), places(teacher, shape)
        self.pairs = pairs or tuple(pair(mine, theirs))
        if not self.pairs:
            raise OptionError("student and teacher have no layers to compare; name them, or leave hints out")
        known([name for name, _ in self.pairs], mine, "student")
        known([name for _, name in self.pairs], theirs, "teacher")
        self.features, self.attention = features, attention
        self.tapped = Tapped(student, shape, list(dict.fromkeys(name for name, _ in self.pairs)))
        self.source = Source(Tapped(teacher, shape, list(dict.fromkeys(name for _, name in self.pairs))))
        self.exact = self.tapped.exact
        self.aside: Tensor | None = None
        exact_unknown = self.exact and set(self.tapped.names) - set(self.tapped.units)
        self.regressors = nn.ModuleList()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for a, b in self.pairs if features else ():
                channels = mine[a].channels, theirs[b].channels
                same = channels[0] == channels[1] and not (exact_unknown and a in exact_unknown)
                self.regressors.append(nn.Identity() if same else nn.Conv2d(*channels, 1))
        # What a checkpoint must agree on, among the weights that identify a run.
        told = sha256(repr((self.pairs, features, attention)).encode()).digest()
        self.register_buffer("told", torch.tensor(list(told), dtype=torch.uint8))

    @property
    def student(self) -> nn.Module:
        return self.tapped.model

    @property
    def teacher(self) -> Tapped:
        """To be asked in the teacher's place, so that it notes what it sees."""
        return self.source.teacher

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            self.aside = None
            return self.student(x)
        logits: Tensor = self.tapped(x)
        self.aside = self.losses() @ torch.tensor([self.features, self.attention], device=logits.device)
        return logits

    def losses(self) -> Tensor:
        """The feature loss and the attention loss of the images last seen, unweighted [2]."""
        teacher = self.teacher.seen
        seen = [(square(self.tapped.seen[a]), square(teacher[b]).detach()) for a, b in self.pairs]
        zero = seen[0][0].new_zeros(())
        with torch.autocast(zero.device.type, enabled=False):
            pairs = zip(self.regressors, seen, strict=True) if self.features else ()
            features = [feature_loss(regressor(a), b) for regressor, (a, b) in pairs]
            watched = [(a, b) for a, b in seen if min(a[0, 0].numel(), b[0, 0].numel()) > 1]
            attended = [attention_loss(a, b) for a, b in watched] if self.attention else []
        return torch.stack([sum(found, zero) / max(1, len(found)) for found in (features, attended)])
