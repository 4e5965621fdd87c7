"""How much each unit of channels matters: higher stays longer.

Scores of weights and activations are relative to their layer's mean, so that they compare across layers; Taylor's are
changes of the loss and compare as they are. A score is the sum over all channels of a unit: what costs more channels
may matter more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn

from netsuke.data import Dataset
from netsuke.errors import OptionError
from netsuke.graph import INPUT, OPS, Op
from netsuke.lab.channels import LAYERS, Channels, depthwise
from netsuke.lab.inference import tensors
from netsuke.lab.lower.walk import Walk
from netsuke.lab.modules import TORCH, FloatGraph, key
from netsuke.lab.objective import objective
from netsuke.settings import unknown

IMAGES, BATCH = 1000, 50  # what gradients and activations are measured on


@dataclass(frozen=True)
class Case:
    """What a score may look at."""

    channels: Channels
    model: FloatGraph
    data: Dataset
    seed: int = 0
    norms: Mapping[str, Tensor] | None = None


def batches(data: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Training images in 0..1 and labels, spread over the split."""
    data.require("train")
    images, labels = tensors(data.train)
    step = max(1, len(images) // IMAGES)
    some = slice(None, step * IMAGES, step)
    for x, y in zip(images[some].split(BATCH), labels[some].split(BATCH), strict=True):
        yield x.float() / 255, y


def readers(channels: Channels) -> list[Op]:
    """The layers whose weights have columns for single input channels: a depthwise one only hands its input on."""
    return [op for op in channels.layers if not depthwise(op, len(channels.at[op.inputs[0]]))]


def read(model: FloatGraph, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and what arrives at each convolution and dense layer: a tensor of its own, so a gradient of its own."""
    values, arriving = {INPUT: x}, dict[str, Tensor]()
    for op in model.graph.ops:
        inputs = [values[name] for name in op.inputs]
        if op.kind in LAYERS:
            inputs = [arriving.setdefault(op.name, inputs[0] * 1)]
        weights = {role: getattr(model.layers[key(op.name)], role) for role in OPS[op.kind].roles}
        values[op.name] = TORCH[op.kind](op, inputs, weights)
    return values[model.graph.output], arriving


# --- scores -----------------------------------------------------------------------------------------


def _averaged(channels: Channels, parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mean of a unit's channels over outputs that are scored, each relative to its output; times its channels.

    What nothing scores is as important as the mean.
    """
    total, count = np.zeros(channels.count), np.zeros(channels.count)
    for name, values in parts.items():
        at = channels.at[name]
        mean = values.mean()
        total += np.bincount(at, values / mean if mean > 0 else values, channels.count)
        count += np.bincount(at, minlength=channels.count)
    return np.where(count > 0, total / np.maximum(count, 1), 1.0) * np.maximum(channels.rows, 1)


def _of_rows(case: Case, score: Callable[[Tensor], Tensor]) -> np.ndarray:
    weights = {
        op.name: torch.from_numpy(case.channels.tensors[op.tensor("weight")]).flatten(1)
        for op in case.channels.layers
    }
    return _averaged(case.channels, {name: score(rows).double().numpy() for name, rows in weights.items()})


def _l1(case: Case) -> np.ndarray:
    """Li et al., Pruning Filters for Efficient ConvNets, 2017."""
    return _of_rows(case, lambda rows: rows.abs().sum(1))


def _l2(case: Case) -> np.ndarray:
    return _of_rows(case, lambda rows: rows.norm(dim=1))


def _median(case: Case) -> np.ndarray:
    """How far a filter is from the others (He et al., Filter Pruning via Geometric Median, 2019)."""
    return _of_rows(case, lambda rows: torch.cdist(rows, rows).sum(1))


def _bn(case: Case) -> np.ndarray:
    """|scale| of the batch norm behind a layer (Liu et al., Network Slimming, 2017)."""
    if not case.norms:
        raise OptionError(
            "importance 'bn' needs the scales of batch norms, and this network has none left; "
            "taylor, l1, l2, activation and median do without"
        )
    known = {name: scale for name, scale in case.norms.items() if name in case.channels.at}
    wrong = [name for name, scale in known.items() if len(scale) != len(case.channels.at[name])]
    if wrong or not known:
        raise OptionError(
            f"the batch norms given are not this network's: {wrong[0] if wrong else next(iter(case.norms))}"
        )
    return _averaged(case.channels, {n: scale.detach().abs().double().numpy() for n, scale in known.items()})


@torch.no_grad()
def _activation(case: Case) -> np.ndarray:
    """The mean |activation| that layers read."""
    means = arriving_means(case.channels, case.model, case.data, Tensor.abs)
    sources = {op.name: op.inputs[0] for op in readers(case.channels)}
    each = {sources[name]: values for name, values in means.items()}
    return _averaged(case.channels, each)


def _taylor(case: Case) -> np.ndarray:
    """The mean over images of (activation x gradient)^2, summed over all that reads the unit.

    The first-order change of an image's loss where the unit is 0, squared (Molchanov et al., Importance Estimation
    for Neural Network Pruning, 2019).
    """
    total, count = torch.zeros(case.channels.count, dtype=torch.float64), 0
    sources = {op.name: op.inputs[0] for op in readers(case.channels)}
    aim = objective(case.data)
    for x, y in batches(case.data):
        logits, arriving = read(case.model, x)
        names = [name for name in sources if arriving[name].requires_grad]
        loss = aim.loss(logits, y, reduction="sum")
        gradients = torch.autograd.grad(loss, [arriving[name] for name in names])
        change = torch.zeros(len(x), case.channels.count)
        for name, gradient in zip(names, gradients, strict=True):
            product = (arriving[name].detach() * gradient).reshape(len(x), gradient.shape[1], -1).sum(2)
            change.index_add_(1, torch.from_numpy(case.channels.at[sources[name]]), product)
        total += change.double().square().sum(0)
        count += len(x)
    return (total / count).numpy()


def _random(case: Case) -> np.ndarray:
    """The baseline that every other has to beat."""
    drawn = np.random.default_rng(case.seed).random(case.channels.count)
    return drawn * np.maximum(case.channels.rows, 1)


IMPORTANCE: dict[str, Callable[[Case], np.ndarray]] = {
    "taylor": _taylor,
    "l1": _l1,
    "l2": _l2,
    "bn": _bn,
    "activation": _activation,
    "median": _median,
    "random": _random,
}


def scores(case: Case, importance: str) -> np.ndarray:
    """The importance of every unit, float64 [units]. Raises OptionError for an unknown one."""
    if importance not in IMPORTANCE:
        raise OptionError(unknown(importance, IMPORTANCE, "importance"))
    was = case.model.training
    price = IMPORTANCE[importance](case)
    case.model.train(was)
    return price


@torch.no_grad()
def arriving_means(
    channels: Channels, model: FloatGraph, data: Dataset, of: Callable[[Tensor], Tensor] = lambda x: x
) -> dict[str, np.ndarray]:
    """The mean input of each reading layer over images and pixels: float64 [inputs], by the layer's name."""
    total: dict[str, Tensor] = {}
    count = 0
    for x, _ in batches(data):
        _, arriving = read(model, x)
        for op in readers(channels):
            value = of(arriving[op.name]).flatten(2) if arriving[op.name].ndim > 2 else of(arriving[op.name])
            part = (value.mean(2) if value.ndim > 2 else value).double().sum(0)
            total[op.name] = total[op.name] + part if op.name in total else part
        count += len(x)
    return {name: (value / count).numpy() for name, value in total.items()}


# --- batch norms ------------------------------------------------------------------------------------


class _Norms(Walk):
    """A walk that keeps the scales of the norms it folds."""

    def __init__(self, model: nn.Module, shape: tuple[int, int, int]):
        super().__init__(model, shape)
        self.scales: dict[str, Tensor] = {}

    def _lowered(self, node: fx.Node) -> str | list[str]:
        name = super()._lowered(node)
        layer = self.modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.affine and isinstance(name, str):
            self.scales[name] = layer.weight.detach().clone()
        return name


def norms(model: nn.Module, shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """The scales of a module's batch norms by the op that each folds into, as `lower` names it."""
    own = getattr(model, "norms", None)
    if own is not None:
        return {name: norm.weight.detach().clone() for name, norm in own().items()}
    if hasattr(model, "to_graph"):
        return {}
    walk = _Norms(model, shape)
    walk.go()
    return walk.scales
