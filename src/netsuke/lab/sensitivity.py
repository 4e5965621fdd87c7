"""What each layer alone can bear: accuracy under every width of its weights and every pruning ratio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from glob import escape
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netsuke.data import Dataset, Split
from netsuke.errors import OptionError
from netsuke.graph import Graph, Op
from netsuke.lab.channels import LAYERS, Channels, depthwise
from netsuke.lab.inference import tensors as as_tensors
from netsuke.lab.lower import lower
from netsuke.lab.mixed import rounded_weight
from netsuke.lab.modules import TORCH, FloatGraph
from netsuke.lab.objective import objective
from netsuke.lab.training import Progress

WIDTHS = (8, 7, 6, 5, 4, 3, 2, 1)
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
IMAGES = 2000
Arrays = dict[str, np.ndarray]
TECHNIQUES = ("bits", "unstructured", "channels")

HELD = 1 << 26  # values of activations that are held at once


@dataclass(frozen=True)
class Row:
    """One layer changed in one way, all others as they are; `baseline` is the accuracy without the change.

    `level` is the width in bits of `technique` "bits", the share removed of "unstructured" (the smallest weights)
    and "channels" (those of the smallest L1 norm, with all that falls with them). `bytes` is what the layer's
    weight then takes.
    """

    layer: str
    kind: str
    parameters: int
    bytes: int
    technique: str
    level: float
    accuracy: float
    loss: float
    baseline: float

    @property
    def fall(self) -> float:
        """Accuracy lost, a share of 1; negative where the change helped."""
        return self.baseline - self.accuracy


@dataclass(frozen=True)
class Sensitivity:
    """All rows, layer by layer in the order of the network; `n` images of `split` were asked, drawn by `seed`."""

    rows: tuple[Row, ...]
    accuracy: float
    loss: float
    split: str
    n: int
    seed: int

    def of(self, technique: str) -> dict[str, dict[float, Row]]:
        """The rows of a technique by layer and level."""
        found: dict[str, dict[float, Row]] = {}
        for row in self.rows:
            if row.technique == technique:
                found.setdefault(row.layer, {})[row.level] = row
        return found

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def sensitivity(
    model: nn.Module,
    data: Dataset,
    *,
    widths: Sequence[int] = WIDTHS,
    ratios: Sequence[float] = RATIOS,
    images: int = IMAGES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sensitivity:
    """Accuracy and loss with each convolution and dense layer changed alone, its activations left in float.

    Judged on up to `images` of the validation split, or of the training split where there is none; never on test
    images. Weights are rounded as `quantize` rounds them. `progress` gets shares of 1. A change of one layer says
    little about changes of all at once: losses add up, or worse (Li et al., Pruning filters, 2017, do the same).
    Raises OptionError for a level out of range, or a model whose weights are integers.
    """
    _check(widths, ratios, images, seed)
    graph, arrays = lower(model, data.image_shape)
    if any(op.kind not in TORCH for op in graph.ops):
        raise OptionError(
            "sensitivity takes float models; this one is quantised; give the model it came from"
        )
    return _Study(graph, arrays, data, images, seed, progress).go(widths, ratios)


def ratios_from(found: Sensitivity, allowed_loss: float, technique: str = "unstructured") -> dict[str, float]:
    """For each layer the largest ratio at which it alone, there and at all smaller ones, loses at most `allowed_loss`.

    `allowed_loss` is a share of 1; layers that bear nothing get 0. `Prune(layers=...)` takes the result.
    """
    return {
        escape(layer): max((row.level for row in _bearable(rows, allowed_loss)), default=0.0)
        for layer, rows in found.of(technique).items()
    }


def widths_from(found: Sensitivity, allowed_loss: float) -> dict[str, int]:
    """For each layer the narrowest width at which it alone, and at all wider ones, loses at most `allowed_loss`.

    Layers that bear none get the widest. `weight_only(layers=...)` and `quantize(layers=...)` take the result.
    """
    return {
        escape(layer): int(min((row.level for row in _bearable(rows, allowed_loss)), default=max(rows)))
        for layer, rows in found.of("bits").items()
    }


def _bearable(rows: dict[float, Row], allowed_loss: float) -> Iterator[Row]:
    """Rows from the mildest change on, until one loses more than is allowed."""
    bits = next(iter(rows.values())).technique == "bits"
    for level in sorted(rows, reverse=bits):
        if rows[level].fall > allowed_loss + 1e-9:
            return
        yield rows[level]


def _check(widths: Sequence[int], ratios: Sequence[float], images: int, seed: int) -> None:
    if not widths and not ratios:
        raise OptionError("sensitivity needs widths or ratios to try")
    for bits in widths:
        if bits not in WIDTHS:
            raise OptionError(f"widths must be 1 to 8 bits; got {bits}")
    for ratio in ratios:
        if not 0 < ratio < 1:
            raise OptionError(f"ratios are shares removed, above 0 and below 1; got {ratio:g}")
    if images < 1:
        raise OptionError(f"images must be at least 1; got {images}")
    if not 0 <= seed < 2**32:
        raise OptionError(f"seed must be 0 to {2**32 - 1}; got {seed}")


def sample(data: Dataset, images: int, seed: int) -> tuple[str, Split]:
    """The split that is judged on, and up to `images` of it."""
    name = "val" if len(data.val) else "train"
    split = getattr(data.require(name), name)
    chosen = np.random.RandomState(seed).permutation(len(split))[:images]  # its stream is frozen for good
    return name, split.take(np.sort(chosen))


@dataclass(frozen=True, eq=False)
class _Change:
    """A change of one layer: other tensors, or channels that are zero, and the bytes of its weight."""

    technique: str
    level: float
    bytes: int
    tensors: dict[str, Tensor]
    keep: dict[str, Tensor]


class _Study:
    def __init__(
        self, graph: Graph, arrays: Arrays, data: Dataset, images: int, seed: int, progress: Progress | None
    ):  # fmt: skip
        self.graph, self.arrays, self.seed = graph, arrays, seed
        self.twin = FloatGraph(graph, arrays).eval()
        self.channels = Channels(graph, arrays)
        self.split, chosen = sample(data, images, seed)
        self.images, self.labels = as_tensors(chosen)
        self.objective = objective(data)
        values = sum(t.elements for t in self.channels.types.values())
        self.batch = min(max(8, HELD // values), 500)
        self.progress = progress or (lambda done, info, resumed: None)

    @torch.no_grad()
    def go(self, widths: Sequence[int], ratios: Sequence[float]) -> Sensitivity:
        layers = [op for op in self.graph.ops if op.kind in LAYERS]
        rows: list[Row] = []
        accuracy = loss = 0.0
        for op in layers:
            changes = [*self._rounded(op, widths), *self._pruned(op, ratios), *self._cut(op, ratios)]
            (accuracy, loss), *scores = self._scores(op, changes, 1 / len(layers))
            rows += [
                Row(op.name, self._kind(op), self._weight(op).numel(), c.bytes, c.technique, c.level, *score, accuracy)
                for c, score in zip(changes, scores, strict=True)
            ]  # fmt: skip
        if not layers:
            raise OptionError("the model has no convolution and no dense layer")
        return Sensitivity(tuple(rows), accuracy, loss, self.split, len(self.labels), self.seed)

    def _scores(self, op: Op, changes: Sequence[_Change], share: float) -> list[tuple[float, float]]:
        """Accuracy and loss as it is, then with each change; what lies before the layer is computed once."""
        totals = np.zeros((1 + len(changes), 2))
        for i in range(0, len(self.images), self.batch):
            labels = self.labels[i : i + self.batch]
            values = self.twin.activations(self.images[i : i + self.batch].float() / 255)
            totals[0] += self._judged(values[self.graph.output], labels)
            for row, change in enumerate(changes, 1):
                totals[row] += self._judged(self.twin.again(values, change.tensors, change.keep), labels)
            self.progress(share * len(labels) / len(self.labels), op.name, False)
        return [(right, loss) for right, loss in (totals / len(self.labels)).tolist()]

    def _judged(self, logits: Tensor, labels: Tensor) -> tuple[int, float]:
        """How many are right, and the sum of the losses."""
        right = int(self.objective.right(logits, labels).sum())
        return right, self.objective.loss(logits, labels, reduction="sum").item()

    def _weight(self, op: Op) -> Tensor:
        return torch.from_numpy(self.arrays[op.tensor("weight")])

    def _kind(self, op: Op) -> str:
        return "depthwise" if depthwise(op, self.channels.types[op.inputs[0]].shape[0]) else op.kind

    def _rounded(self, op: Op, widths: Sequence[int]) -> Iterator[_Change]:
        weight = self._weight(op)
        scales = 1 if op.name == self.graph.output else len(weight)  # logits share one unit
        for bits in widths:
            changed = {op.tensor("weight"): rounded_weight(weight, bits, scales)}
            yield _Change("bits", bits, (weight.numel() * bits + 7) // 8, changed, {})

    def _pruned(self, op: Op, ratios: Sequence[float]) -> Iterator[_Change]:
        weight = self._weight(op)
        order = weight.abs().flatten().argsort(stable=True)
        for ratio in ratios:
            flat = weight.flatten().clone()
            flat[order[: round(ratio * len(flat))]] = 0
            changed = {op.tensor("weight"): flat.view_as(weight)}
            yield _Change("unstructured", ratio, 4 * weight.numel(), changed, {})  # zeros take bytes, too

    def _cut(self, op: Op, ratios: Sequence[float]) -> Iterator[_Change]:
        """Channels read as zero wherever they go, which is what removing them computes."""
        units = self.channels.at[op.name]
        free = np.unique(units[~self.channels.fixed[units]])
        weight = self._weight(op)
        norms = weight.abs().flatten(1).sum(1).numpy()
        order = free[np.argsort([norms[units == unit].sum() for unit in free], kind="stable")]
        for ratio in ratios:
            gone = order[: min(round(ratio * len(order)), len(order) - 1)]
            if not len(gone):
                continue
            keep = {name: ~np.isin(at, gone) for name, at in self.channels.at.items()}
            masks = {name: torch.from_numpy(mask) for name, mask in keep.items() if not mask.all()}
            count = int(keep[op.name].sum())
            yield _Change("channels", ratio, 4 * count * weight[0].numel(), {}, masks)
