"""Augmented copies of a training set, made once and seen often, with what a teacher says of each image.

Augmenting and asking the teacher cost more than a step of a small student. A few copies, seen in turn, do as
well as fresh ones for tens of epochs, at a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor, nn

from netsuke.data import Dataset
from netsuke.errors import OptionError
from netsuke.lab.augment import Augment
from netsuke.lab.inference import weights_hash
from netsuke.lab.kept import kept, room
from netsuke.lab.teachers import ask, together


class Views:
    """`count` augmented copies of the training images of `data`, drawn by `seed`, as uint8 [n, C, H, W].

    With a `teacher`, its logits [n, classes] for every image of every copy; several teachers answer with the
    mean of theirs. A copy is made when it is first asked for, and stays in memory (43 MB for MNIST).

    With a `folder` it is kept there instead, answers as float16, and mapped into memory: runs that share the
    folder, one after the other or side by side, share the copies, whatever their `count`. A damaged file is made
    anew. Raises DataError where the folder cannot hold the copies.
    """

    def __init__(
        self,
        data: Dataset,
        augment: Augment,
        count: int,
        seed: int,
        teacher: nn.Module | Sequence[nn.Module] | None = None,
        folder: Path | None = None,
    ):
        self.images = torch.from_numpy(data.train.images.copy())
        self.augment, self.count, self.seed = augment, count, seed
        self.teacher = together(teacher) if isinstance(teacher, Sequence) else teacher
        self.classes = len(data.classes)
        learnt = weights_hash(self.teacher) if self.teacher else ""
        self.key = f"{data.hash} {augment} {count} {seed} {learnt}"  # equal keys, equal copies and answers
        self.made: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.folder = folder
        if folder is not None:
            self.key += " float16" if self.teacher else ""
            drawn = f"{data.hash} {augment} {seed}"
            self.names = (f"images-{_short(drawn)}", f"answers-{_short(f'{drawn} {learnt}')}")
            self._make_room(folder)

    def get(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        """The copy for an epoch, and the teacher's logits for it, which are float16 where a folder keeps them."""
        turn = epoch % self.count
        if turn not in self.made:
            self.made[turn] = self._make(turn) if self.folder is None else self._kept(turn, self.folder)
        return self.made[turn]

    def _make(self, turn: int) -> tuple[Tensor, Tensor | None]:
        copies = self._copies(turn)
        return copies, self._answers(copies) if self.teacher is not None else None

    @torch.no_grad()
    def _copies(self, turn: int) -> Tensor:
        generator = Generator().manual_seed(self.seed * 1_000_003 + 500_000 + turn)
        parts = [self.augment(part.float() / 255, generator) for part in self.images.split(1000)]
        return torch.cat([(x * 255).round().to(torch.uint8) for x in parts])

    @torch.no_grad()
    def _answers(self, copies: Tensor) -> Tensor:
        assert self.teacher is not None
        return torch.cat([ask(self.teacher, part.float() / 255).cpu() for part in copies.split(1000)])

    def _kept(self, turn: int, folder: Path) -> tuple[Tensor, Tensor | None]:
        images, answers = (folder / name / f"{turn:04d}.npy" for name in self.names)
        shape = tuple(self.images.shape)
        copies = _mapped(images, np.uint8, shape, lambda: self._copies(turn).numpy())
        if self.teacher is None:
            return copies, None
        limit = float(np.finfo(np.float16).max)

        def halves() -> np.ndarray:
            found = self._answers(copies)
            if found.shape[1] != self.classes:
                raise OptionError(
                    f"the teacher gives {found.shape[1]} logits; the data have {self.classes} classes"
                )
            return found.clamp(-limit, limit).numpy().astype(np.float16)

        return copies, _mapped(answers, np.float16, (shape[0], self.classes), halves)

    def _make_room(self, folder: Path) -> None:
        """Ask for the room of all copies at once: a disk that is full after hours helps nobody."""
        sizes = (self.images.numel(), 2 * self.classes * len(self.images) if self.teacher else 0)
        missing = 0
        for name, size in zip(self.names, sizes, strict=True):
            missing += size * sum(
                not (folder / name / f"{turn:04d}.npy").exists() for turn in range(self.count)
            )
        room(folder, missing, f"{self.count} views")


def _mapped(path: Path, dtype: type, shape: tuple[int, ...], make: Callable[[], np.ndarray]) -> Tensor:
    return torch.from_numpy(kept(path, dtype, shape, make))


def _short(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]
