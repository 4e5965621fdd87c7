"""Learning to find: every cell of a tile is one example, and digits also learn how far they reach."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from netsuke.artifact import Artifact
from netsuke.lab import sampled
from netsuke.lab.finder.tiles import ANY, NONE, Tiles
from netsuke.lab.lower import lower
from netsuke.lab.steps.quantize import calibrated
from netsuke.reader.finder import STRIDE, TILE

BLANK = 0.1  # weight of a cell that sees no ink
REACH = 0.1  # weight of the boxes


def loss(out: Tensor, tiles: Tensor, cells: Tensor, reach: Tensor) -> Tensor:
    """Cross entropy of all cells with "none" as a constant logit, and the absolute error of a digit's four sides.

    out [n, 14, S, S], tiles uint8 [n, 1, T, T], cells int64 [n, S, S], reach [n, 4, S, S] with NaN where no digit is.
    """
    logits = functional.pad(out[:, :NONE], (0, 0, 0, 0, 0, 1))
    each = functional.cross_entropy(logits, cells, ignore_index=ANY, reduction="none")
    inked = functional.max_pool2d((tiles > 0).to(out.dtype), 9, 4, 4)[:, 0]
    weight = BLANK + (1 - BLANK) * inked
    known = ~reach.isnan()
    # all are computed, since a CUDA graph must know how many
    boxes = torch.where(known, (out[:, NONE:] - reach.nan_to_num()).abs(), 0.0).sum() / known.sum().clamp(
        min=1
    )
    return (each * weight).sum() / weight.sum() + REACH * boxes


train = partial(sampled.train, loss=loss, batch=32, lr=4e-3)  # of a net and what it draws from, `steps` of it


def finished(
    net: nn.Module,
    tiles: Tiles,
    *,
    images: int = 256,
    bits: int = 8,
    steps: int = 0,
    told: Callable[[int, float], None] = lambda step, value: None,
) -> Artifact:
    """The trained net in integers, calibrated on `images` tiles, with the manifest of a finder.

    With `steps` the integers train on: of a finder they lose more than of a classifier, as it tells places, too.
    """
    shown = torch.from_numpy(tiles.draw(images)[0])
    quantized: nn.Module = calibrated(net.eval(), shown, bits=bits, equalise=True)
    if steps:
        quantized = train(quantized, tiles, steps=steps, lr=6e-4, ema=0.99, told=told)
    graph, tensors = lower(quantized, (1, TILE, TILE))
    kind = {"channels": 1, "height": TILE, "width": TILE, "polarity": "bright-ink"}
    return Artifact(
        graph, tensors, {"task": "find", "stride": STRIDE, "finds": list("0123456789"), "input": kind}
    )
