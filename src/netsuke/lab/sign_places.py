"""The numbers in netsuke.reader.places: how far each side of a digit's box goes towards the finder's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from netsuke import image as images
from netsuke.measure.reading import iou
from netsuke.reader import Reader, pages, places
from netsuke.reader.field import Field

Box = tuple[float, float, float, float]  # x, y, w, h
SAME = 0.1  # share of two boxes that is common to both: of one digit, if they say the same
RIGHT = 0.55  # share from which a box is right, just above what is asked of it,
SHARP = 14.0  # and how sharply that is told
MEAN = 0.15  # weight of the mean share, beside the count of boxes that are right
DECAY = 1e-4  # of the weights' squares
BATCH, STEPS, RATE = 256, 8000, 3e-3


@dataclass(frozen=True, eq=False)
class Examples:
    """Of n digits: places.NAMES [n, NAMES], and the sides [n, 4] of their own boxes, the finder's and the true ones, in
    heights of their rows."""

    table: np.ndarray
    near: np.ndarray
    far: np.ndarray
    true: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Examples]) -> Examples:
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("table", "near", "far", "true")
            )
        )


def examples(reader: Reader, image: np.ndarray, digits: Sequence[tuple[int, Box]]) -> Iterator[Examples]:
    """Of each number that a seeing reader reads in an image uint8 [H, W], the digits that are led: those the finder
    sees elsewhere, where one of `digits`, with its class, stands."""
    page = images.page_ink(image)
    truth = np.array([box for _, box in digits], float).reshape(-1, 4) / page.scale
    labels = np.array([str(label) for label, _ in digits])
    for number in pages.numbers(
        page.pixels, reader.artifact, reader.classified, Field(), reader.sight, walls=page.walls
    ):
        row, seen = number.row, number.seen
        assert seen is not None
        edges = [edge for edge in number.paths[0].edges if edge.symbol and places.is_led(edge, seen)]
        if not edges or not len(truth):
            continue
        own = [places.own(row, edge, number.crops)[0] for edge in edges]
        near, far, table = places.features(row, edges, own, seen)
        common = iou(own, truth.tolist()) * (np.array([edge.symbol for edge in edges])[:, None] == labels)
        known = common.max(1) > SAME
        if known.any():
            true = places.sides(truth[common.argmax(1)])
            yield Examples(table[known], *(part[known] / row.height for part in (near, far, true)))


def fit(every: Examples) -> np.ndarray:
    """Weights float64 [4, NAMES] of most boxes right, by Adam (Kingma and Ba, 2015) on a smooth count of those whose
    common share with the true one is RIGHT."""
    random = torch.Generator().manual_seed(0)
    spread = every.table.std(0)
    spread[spread < 1e-6] = 1.0
    table, near, far, true = (
        torch.as_tensor(part, dtype=torch.float32)
        for part in (every.table / spread, every.near, every.far, every.true)
    )
    weights = torch.zeros(len(places.SIDES), table.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([weights], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        at = torch.randint(len(table), (BATCH,), generator=random)
        led = near[at] + torch.sigmoid(table[at] @ weights.T) * (far[at] - near[at])
        share = _common(led, true[at])
        loss = (torch.sigmoid(SHARP * (RIGHT - share)) + MEAN * (1 - share)).mean()
        loss = loss + DECAY * weights.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return weights.detach().double().numpy() / spread


def _common(a: Tensor, b: Tensor) -> Tensor:
    """The intersection over the union of boxes by their sides, each [n, 4]."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    sizes = [(part[:, 2:] - part[:, :2]).clamp(min=0).prod(1) for part in (a, b)]
    return common / (sizes[0] + sizes[1] - common).clamp(min=1e-6)
