"""Quantisation to the integer contract: a calibrated twin of a float graph, ready to run, to train, to lower."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from netsuke.data import Dataset
from netsuke.errors import OptionError
from netsuke.graph import Graph
from netsuke.lab.inference import tensors
from netsuke.lab.integers import Widths
from netsuke.lab.lower import lower
from netsuke.lab.quantgraph import QuantGraph
from netsuke.lab.quantizer import Quantizer


def quantize(
    model: nn.Module,
    data: Dataset,
    *,
    bits: int = 8,
    bias_bits: int = 32,
    clip: bool = True,
    calibration: int = 2000,
    percentile: float = 99.99,
) -> QuantGraph:
    """Post-training quantisation: `bits`-bit weights per channel, 7-bit activations; `model` is untouched.

    Activation ranges are the given percentile of |values| over `calibration` training images; weight steps
    minimise each channel's squared error, or without `clip` cover its largest weight, which is the better
    start where training follows. The result simulates the integer arithmetic bit for bit in
    evaluation mode, and trains: `train(quantize(model, data), data)` is quantisation-aware training
    (Jacob et al., 2018), with straight-through gradients and batch norms on the integer sums. `bias_bits`
    16 keeps every bias in two bytes.
    Raises UnsupportedOp where the model has an op outside the contract.
    """
    widths = Widths(bits, bias_bits, clip)
    if not 50 <= percentile <= 100:
        raise OptionError(f"percentile must be in 50..100; got {percentile}")
    data.require("train")
    graph, weights = lower(model, data.image_shape)
    images, _ = tensors(data.train)
    step = max(1, len(images) // calibration)
    sample = images[::step][:calibration].float() / 255
    return quantized(graph, weights, sample, widths, percentile)


def quantized(
    graph: Graph, weights: dict[str, np.ndarray], images: Tensor, widths: Widths, percentile: float = 99.99
) -> QuantGraph:
    """The integer twin of a float graph, calibrated on `images` [n, C, H, W] in 0..1."""
    twin = QuantGraph(graph.input_shape)
    Quantizer(twin, graph, weights, widths).build(images, percentile)
    return twin
