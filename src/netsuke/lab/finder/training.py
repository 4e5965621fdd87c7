"""Learning to find: every cell of a tile is one example, and digits also learn how far they reach."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from netsuke.artifact import Artifact
from netsuke.lab import checkpoint
from netsuke.lab.finder.tiles import ANY, NONE, Tiles
from netsuke.lab.lower import lower
from netsuke.lab.steps.quantize import calibrated
from netsuke.reader.finder import STRIDE, TILE

BLANK = 0.1  # weight of a cell that sees no ink
REACH = 0.1  # weight of the boxes
EMA = 0.998  # of the weights, a step
SAVED = 200  # steps between checkpoints


def loss(out: Tensor, tiles: Tensor, cells: Tensor, reach: Tensor) -> Tensor:
    """Cross entropy of all cells with "none" as a constant logit, and the absolute error of a digit's four sides.

    out [n, 14, S, S], tiles uint8 [n, 1, T, T], cells int64 [n, S, S], reach [n, 4, S, S] with NaN where no digit is.
    """
    logits = functional.pad(out[:, :NONE], (0, 0, 0, 0, 0, 1))
    each = functional.cross_entropy(logits, cells, ignore_index=ANY, reduction="none")
    inked = functional.max_pool2d((tiles > 0).to(out.dtype), 9, 4, 4)[:, 0]
    weight = BLANK + (1 - BLANK) * inked
    known = ~reach.isnan()
    boxes = (out[:, NONE:] - reach.nan_to_num()).abs()[known].sum() / known.sum().clamp(min=1)
    return (each * weight).sum() / weight.sum() + REACH * boxes


def train(
    net: nn.Module,
    tiles: Tiles,
    *,
    steps: int,
    batch: int = 32,
    lr: float = 4e-3,
    work: Path | None = None,
    told: Callable[[int, float], None] = lambda step, value: None,
) -> nn.Module:
    """The net after so many steps of Adam under one cosine, its weights averaged over the last (EMA).

    With `work`, a checkpoint every SAVED steps, from which a run of the same arguments goes on. `told` hears of each
    step and its loss.
    """
    averaging = torch.optim.swa_utils.get_ema_multi_avg_fn(EMA)
    net = net.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=averaging, use_buffers=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr, betas=(0.9, 0.99), weight_decay=1e-2)
    size = sum(parameter.numel() for parameter in net.parameters())
    identity, start = f"finder of {size}: {steps} {batch} {lr}", 0
    state = checkpoint.read(work, identity) if work else None
    if state:
        net.load_state_dict(state["net"])
        mean.load_state_dict(state["mean"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
        tiles.rng = np.random.default_rng(start)
    for step in range(start, steps):
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 200)
            group["lr"] = lr * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
        x, cells, reach = (torch.from_numpy(part) for part in tiles.draw(batch))
        value = loss(net(x.float().div(255).contiguous(memory_format=torch.channels_last)), x, cells, reach)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        mean.update_parameters(net)
        told(step, float(value.detach()))
        if work and (step + 1) % SAVED == 0:
            state = {"net": net.state_dict(), "mean": mean.state_dict(), "optimizer": optimizer.state_dict()}
            checkpoint.write(work, {"identity": identity, "step": step + 1, **state})
    return mean.module.eval()


def finished(net: nn.Module, tiles: Tiles, *, images: int = 256, bits: int = 8) -> Artifact:
    """The trained net in integers, calibrated on `images` tiles, with the manifest of a finder."""
    shown = torch.from_numpy(tiles.draw(images)[0])
    quantized = calibrated(net.eval(), shown, bits=bits, bias_correction=True)
    graph, tensors = lower(quantized, (1, TILE, TILE))
    kind = {"channels": 1, "height": TILE, "width": TILE, "polarity": "bright-ink"}
    return Artifact(
        graph, tensors, {"task": "find", "stride": STRIDE, "finds": list("0123456789"), "input": kind}
    )
