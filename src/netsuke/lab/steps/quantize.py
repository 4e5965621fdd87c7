"""Quantisation to the integer contract: a calibrated twin of a float graph, ready to run, to train, to lower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netsuke.data import Dataset
from netsuke.errors import OptionError
from netsuke.lab.calibrate import Calibration
from netsuke.lab.equalise import equalised
from netsuke.lab.inference import tensors
from netsuke.lab.integers import Widths
from netsuke.lab.lower import lower
from netsuke.lab.mixed import within
from netsuke.lab.quantgraph import QuantGraph
from netsuke.lab.quantizer import quantized
from netsuke.lab.steps.train import Progress, Teacher, Training, train

__all__ = ["Quantize", "calibrated", "quantize", "quantized"]

SIZING = 256  # calibration images from which the bytes of every width are counted


@dataclass(frozen=True)
class Quantize:
    """Options of `quantize`; the defaults are post-training quantisation to 8 bits.

    `bits` is the width of the weights, 1 to 8: 2 is ternary, 1 is binary. `layers` gives layers whose name
    matches a pattern (as in a shell) a width of their own; the last that matches counts. With `max_bytes` above
    0, each layer takes the width up to `bits` that loses least within that `size_bytes` (see `lab.mixed`).
    `bias_bits` is 8 (a byte, times a power of two that the layer shares), 16 or 32.

    `calibration` training images show how far activations reach, by `calibrator`: "percentile" (of
    |value|), "minmax", "mse" or "kl". `clip` lets large weights be cut where that lowers the squared error and
    nothing trains afterwards. `equalise` evens out the channels between layers first, `bias_correction` takes
    back each layer's mean shift.

    With `training.epochs`, the integer network trains on. Its steps "follow" the largest weight or are "learned".
    `keep_zeros` holds weights at zero that were pruned.
    """

    bits: int = 8
    layers: Mapping[str, int] = field(default_factory=dict)
    max_bytes: int = 0
    bias_bits: int = 32
    clip: bool = True
    calibration: int = 2000
    calibrator: str = "percentile"
    percentile: float = 99.99
    bias_correction: bool = False
    equalise: bool = False
    steps: str = "follow"
    keep_zeros: bool = True
    training: Training = field(default_factory=lambda: Training(epochs=0))

    def __post_init__(self) -> None:
        self.widths()
        self.ranges()
        if self.calibration < 1:
            raise OptionError(f"calibration takes at least 1 image; got {self.calibration}")
        if self.max_bytes < 0:
            raise OptionError(f"max_bytes must be above 0, or 0 for no budget; got {self.max_bytes}")

    def widths(self) -> Widths:
        # A weight that is cut gets no gradient, unless its step learns.
        clip = self.clip and (not self.training.epochs or self.steps == "learned")
        return Widths(self.bits, self.bias_bits, clip, self.layers, self.steps, self.keep_zeros)

    def ranges(self) -> Calibration:
        return Calibration(self.calibrator, self.percentile, self.bias_correction)


def quantize(
    model: nn.Module,
    data: Dataset,
    options: Quantize | None = None,
    *,
    teacher: Teacher | None = None,
    work: Path | None = None,
    history: list[dict[str, float]] | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> QuantGraph:
    """Integer weights per channel and 7-bit activations; `model` is untouched.

    `changes` override single options: `quantize(model, data, bits=4)`. The result simulates the integer
    arithmetic bit for bit in evaluation mode, and trains, here or later: `train(quantize(model, data), data)`
    is quantisation-aware training (Jacob et al., 2018), with straight-through gradients and batch norms on the
    integer sums. `teacher`, `work`, `history` and `progress` are those of `train`.
    Raises UnsupportedOp where the model has an op outside the contract, OptionError for a budget that no widths
    meet.
    """
    options = replace(options or Quantize(), **changes)
    data.require("train")
    graph, weights = lower(model, data.image_shape)
    if options.equalise:
        weights = equalised(graph, weights)
    sample, ranges = images(data, options.calibration), options.ranges()

    def build(widths: Widths) -> QuantGraph:
        return quantized(graph, weights, sample, widths, ranges)

    if options.max_bytes:
        trains = options.training.epochs > 0
        twin = within(
            graph, weights, data, options.max_bytes, options.widths(), build, sample[:SIZING], trains=trains
        )
    else:
        twin = build(options.widths())
    if not options.training.epochs:
        return twin
    trained = train(
        twin, data, options.training, teacher=teacher, work=work, history=history, progress=progress
    )
    assert isinstance(trained, QuantGraph)
    return trained


def calibrated(
    model: nn.Module, images: Tensor, options: Quantize | None = None, **changes: Any
) -> QuantGraph:
    """As `quantize`, from uint8 images [n, C, H, W] alone, for a network of any task: no labels are needed.

    All `images` calibrate, as far as memory allows. The result is a module from images in 0..1 to real logits, which
    trains with whatever loss you have; `lower` gives its integer graph.
    Raises UnsupportedOp as `quantize` does, OptionError for options that need labels: a budget, training.
    """
    options = replace(options or Quantize(), **changes)
    if options.max_bytes or options.training.epochs:
        raise OptionError("max_bytes and training need labels: use quantize, or train the result yourself")
    if images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
        raise OptionError(f"needs uint8 images [n, C, H, W]; got {images.dtype} {list(images.shape)}")
    channels, high, wide = images.shape[1:]
    graph, weights = lower(model, (channels, high, wide))
    if options.equalise:
        weights = equalised(graph, weights)
    return quantized(graph, weights, images.float() / 255, options.widths(), options.ranges())


def images(data: Dataset, count: int) -> Tensor:
    """About `count` training images, evenly drawn, in 0..1."""
    every, _ = tensors(data.train)
    return every[:: max(1, len(every) // count)][:count].float() / 255
