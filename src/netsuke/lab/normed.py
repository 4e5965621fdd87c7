"""A float graph whose convolutions have batch norms again, for training: folding takes them away.

Each norm starts from the statistics of its convolution's outputs, with the scale and offset that undo it, so the
network computes what it did. `to_graph` folds them back.

Where channels have gone, norms that start so would keep the damage: maps that are weaker than those the network was
trained with, and a little so in every layer. `restored` gives them their means and deviations back first, as a network
that had kept its norms would with the next batch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from netsuke.data import Dataset
from netsuke.errors import OptionError
from netsuke.graph import INPUT, OPS, Graph
from netsuke.lab.inference import recalibrate, tensors
from netsuke.lab.modules import TORCH, FloatGraph, key
from netsuke.lab.removal import masked_like

IMAGES, BATCH = 1000, 250  # what the statistics start from
MOST = (
    10.0  # by which `restored` makes a channel stronger: what has lost nearly all its inputs would be noise
)


class NormedGraph(FloatGraph):
    """A FloatGraph with a batch norm behind each convolution of more than one channel.

    Images in 0..1 [n, C, H, W] to logits. The bias of such a convolution is the norm's. A batch in training needs
    two images at least where a map is one pixel.
    """

    def __init__(self, graph: Graph, weights: dict[str, np.ndarray]):
        super().__init__(graph, weights)
        self.batch_norms = nn.ModuleDict()
        for op in graph.ops:
            bias = weights.get(op.tensor("bias"))
            # A map of one channel is a gate of pixels, whose level a norm would take away.
            if op.kind == "conv2d" and bias is not None and len(bias) > 1:
                norm = nn.BatchNorm2d(len(bias))
                norm.bias.data.copy_(torch.from_numpy(bias))
                self.batch_norms[key(op.name)] = norm
                self.layers[key(op.name)].register_parameter("bias", None)
        if not self.batch_norms:
            raise OptionError("no norm to add: the network has no convolution")

    def norms(self) -> dict[str, nn.BatchNorm2d]:
        """The norms by the names of their convolutions."""
        named = {key(op.name): op.name for op in self.graph.ops}
        return {named[part]: norm for part, norm in self.batch_norms.items()}  # type: ignore[misc]

    def activations(self, x: Tensor) -> dict[str, Tensor]:
        values = {INPUT: x}
        for op in self.graph.ops:
            part = key(op.name)
            weights = {role: getattr(self.layers[part], role) for role in OPS[op.kind].roles}
            value = TORCH[op.kind](op, [values[i] for i in op.inputs], weights)
            values[op.name] = self.batch_norms[part](value) if part in self.batch_norms else value
        return values

    @torch.no_grad()
    def start(self, images: Tensor) -> None:
        """Set every norm, in place, so that it changes nothing: its statistics are those of `images` in 0..1."""
        norms = self.norms()
        offsets = {name: norm.bias.clone() for name, norm in norms.items()}
        sums = {
            name: [torch.zeros_like(o, dtype=torch.float64) for _ in range(2)] for name, o in offsets.items()
        }
        counts = dict.fromkeys(norms, 0)
        self.eval()
        for norm in norms.values():  # the identity, but for the offset: without eps the gain is 1
            nn.init.constant_(norm.weight, (1 + norm.eps) ** 0.5)
        for part in images.split(BATCH):
            values = self.activations(part)
            for name, (first, second) in sums.items():
                value = (values[name] - offsets[name][:, None, None]).double().transpose(0, 1).flatten(1)
                first += value.sum(1)
                second += value.square().sum(1)
                counts[name] += value.shape[1]
        for name, norm in norms.items():
            mean = sums[name][0] / counts[name]
            variance = (sums[name][1] / counts[name] - mean.square()).clamp(min=0)
            assert isinstance(norm.running_mean, Tensor)
            assert isinstance(norm.running_var, Tensor)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_((norm.running_var + norm.eps).sqrt())
            norm.bias.copy_(offsets[name] + mean)

    @torch.no_grad()
    def even(self) -> None:
        """Give every filter unit length, in place, and leave the rest to its norm, so the network computes the same.

        Folding has put the scales of former norms into the filters, as far apart as those were; behind a norm an
        optimiser's step counts relative to the length of a filter, so long ones would hardly learn.
        """
        for name, norm in self.norms().items():
            assert isinstance(norm.running_mean, Tensor)
            assert isinstance(norm.running_var, Tensor)
            weight: Tensor = self.layers[key(name)].weight  # type: ignore[assignment]
            length = weight.flatten(1).norm(dim=1)
            length[length == 0] = 1.0
            gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
            weight.div_(length[:, None, None, None])
            norm.running_mean.div_(length)
            norm.running_var.div_(length.square())
            norm.weight.copy_(gain * length * (norm.running_var + norm.eps).sqrt())

    def to_graph(self) -> tuple[Graph, dict[str, np.ndarray]]:
        norms, found = self.norms(), {}
        for name, (op, role) in self.graph.roles().items():
            value = getattr(self.layers[key(op)], role)
            if op in norms:
                norm = norms[op]
                assert isinstance(norm.running_mean, Tensor)
                assert isinstance(norm.running_var, Tensor)
                gain = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
                if role == "weight":
                    value = value.double() * gain[:, None, None, None]
                else:
                    value = norm.bias.double() - norm.running_mean.double() * gain
            found[name] = value.detach().float().cpu().numpy().copy()
        return self.graph, found


def renormed(model: FloatGraph, data: Dataset, *, even: bool = False) -> NormedGraph:
    """A copy of a float graph with a batch norm behind each convolution, which computes the same.

    Fine-tuning with norms recovers more after channels have gone, and more so where filters are made `even` in
    length; `FloatGraph(*network.to_graph())` folds norms again. Raises OptionError where there is no convolution.
    """
    network = NormedGraph(*model.to_graph())
    network.start(_images(data).float() / 255)
    if even:
        network.even()
    return masked_like(network, model)


Statistics = dict[str, tuple[Tensor, Tensor]]


def statistics(model: FloatGraph, data: Dataset) -> Statistics:
    """(mean, deviation) of what each convolution gives, a value a channel, by the names of their ops."""
    if len(_images(data)) < 2:  # of one image there is no deviation
        return {}
    try:
        norms = renormed(model, data).norms()
    except OptionError:
        return {}
    return {name: (norm.bias.detach(), norm.weight.detach()) for name, norm in norms.items()}


@torch.no_grad()
def restored(model: FloatGraph, wanted: Statistics, data: Dataset) -> FloatGraph:
    """A copy whose convolutions give maps of these means and deviations, by the scale of their rows and their biases.

    From the first to the last: each is measured on what those before it give when they are restored.
    """
    if not wanted:
        return model
    network, images = NormedGraph(*model.to_graph()), _images(data)
    norms = network.norms()
    for name, norm in norms.items():
        mean, deviation = wanted[name]
        norm.bias.copy_(mean)
        norm.weight.copy_(deviation)
    parts = -(-len(images) // BATCH)
    recalibrate(network, images, -(-len(images) // parts))  # even parts: one image alone has no deviation
    for norm in norms.values():
        assert isinstance(norm.running_var, Tensor)
        norm.weight.clamp_(max=MOST * (norm.running_var + norm.eps).sqrt())
    return masked_like(FloatGraph(*network.to_graph()), model)


def _images(data: Dataset) -> Tensor:
    data.require("train")
    images, _ = tensors(data.train)
    return images[:: max(1, len(images) // IMAGES)][:IMAGES]
