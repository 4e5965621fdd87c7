"""Training on examples that are drawn as long as it lasts, without epochs: for what reads places and rows of pages."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from netsuke.lab import checkpoint

EMA = 0.998  # share of the mean weights that a step leaves
SAVED = 200  # steps between checkpoints
WARM = 200  # steps in which the learning rate rises


class Source(Protocol):
    """`draw(n)` gives n examples: tiles uint8 [n, 1, H, W], then what is to be said of them."""

    rng: np.random.Generator

    def draw(self, count: int, /) -> tuple[np.ndarray, ...]: ...


def train(
    net: nn.Module,
    source: Source,
    *,
    loss: Callable[..., Tensor],
    steps: int,
    batch: int,
    lr: float,
    ema: float = EMA,
    steady: bool = False,
    work: Path | None = None,
    told: Callable[[int, float], None] = lambda step, value: None,
) -> nn.Module:
    """The net after so many steps of Adam under one cosine, its weights averaged over the last (`ema`).

    `loss` takes what the net makes of the tiles, then the parts of a draw. A `steady` net's batch norms keep the means
    and variances they have: of a net in integers, so that what trains is what will run. With `work`, a checkpoint every
    SAVED steps, from which a run of the same arguments goes on. `told` hears of each step and its loss.
    """
    averaging = torch.optim.swa_utils.get_ema_multi_avg_fn(ema)
    net = net.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for norm in net.modules():
        if steady and isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.eval()
    mean = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=averaging, use_buffers=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr, betas=(0.9, 0.99), weight_decay=1e-2)
    size = sum(parameter.numel() for parameter in net.parameters())
    identity, start = f"net of {size}: {steps} {batch} {lr}", 0
    state = checkpoint.read(work, identity) if work else None
    if state:
        net.load_state_dict(state["net"])
        mean.load_state_dict(state["mean"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
        source.rng = np.random.default_rng(start)
    for step in range(start, steps):
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / WARM)
            group["lr"] = lr * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
        x, *wanted = (torch.from_numpy(part) for part in source.draw(batch))
        out = net(x.float().div(255).contiguous(memory_format=torch.channels_last))
        value = loss(out, x, *wanted)
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
