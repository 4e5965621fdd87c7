"""Augmented copies of a training set, made once and seen often, with what a teacher says of each image.

Augmenting and asking the teacher cost more than a step of a small student. A few copies, seen in turn, do as
well as fresh ones for tens of epochs, at a fraction of the time.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from netsuke.data import Dataset
from netsuke.lab.augment import Augment
from netsuke.lab.inference import weights_hash


class Views:
    """`count` augmented copies of the training images of `data`, drawn by `seed`, as uint8 [n, C, H, W].

    With a `teacher`, its logits [n, classes] for every image of every copy. A copy is made when it is first
    asked for, and stays in memory (43 MB for MNIST).
    """

    def __init__(
        self, data: Dataset, augment: Augment, count: int, seed: int, teacher: nn.Module | None = None
    ):
        self.images = torch.from_numpy(data.train.images.copy())
        self.augment, self.count, self.seed, self.teacher = augment, count, seed, teacher
        learnt = weights_hash(teacher) if teacher else ""
        self.key = f"{data.hash} {augment} {count} {seed} {learnt}"  # equal keys, equal copies and answers
        self.made: dict[int, tuple[Tensor, Tensor | None]] = {}

    def get(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        """The copy for an epoch, and the teacher's logits for it."""
        turn = epoch % self.count
        if turn not in self.made:
            self.made[turn] = self._make(turn)
        return self.made[turn]

    @torch.no_grad()
    def _make(self, turn: int) -> tuple[Tensor, Tensor | None]:
        generator = Generator().manual_seed(self.seed * 1_000_003 + 500_000 + turn)
        copies, answers = [], []
        for part in self.images.split(1000):
            x = self.augment(part.float() / 255, generator)
            copy = (x * 255).round().to(torch.uint8)
            copies.append(copy)
            if self.teacher is not None:
                where = next(self.teacher.parameters()).device
                x = (copy.float() / 255).to(where).contiguous(memory_format=torch.channels_last)
                with torch.autocast(where.type, torch.bfloat16, enabled=bf16_pays(self.teacher)):
                    answers.append(self.teacher(x).float().cpu())
        return torch.cat(copies), torch.cat(answers) if answers else None


def bf16_pays(model: nn.Module) -> bool:
    """Dense convolutions gain from bf16 where the processor multiplies it; depthwise ones do not.

    Never for integer arithmetic held in floats, which needs all 24 bits.
    """
    if getattr(model, "exact", False):
        return False
    if next(model.parameters()).device.type != "cpu":
        return True
    if any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in model.modules()):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
