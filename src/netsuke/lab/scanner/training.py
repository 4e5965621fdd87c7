"""Learning to read along a row: every sign once, within its own place, and nothing between them."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from netsuke.artifact import Artifact
from netsuke.lab import sampled
from netsuke.lab.lower import lower
from netsuke.lab.scanner.rows import Strips
from netsuke.lab.steps.quantize import calibrated
from netsuke.reader.scanner import SIGNS, STRIDE, TALL, WIDE

NEVER = -1e4  # a log-probability; finite, so that its gradient is 0 and no NaN


def loss(out: Tensor, tiles: Tensor, signs: Tensor, frames: Tensor, free: Tensor) -> Tensor:
    """Minus the log-probability of the signs of each tile, a frame, by connectionist temporal classification.

    out [n, 13, 1, F], signs [n, L] (-1: no more), frames [n, L, 2] the first and last frame in which each may be told,
    free bool [n, F] the frames nobody is asked about. With the places known the alignment is no secret: a sign is told
    where it stands, so that candidates can be judged by what is told within their bounds.
    """
    n, most = signs.shape
    count = out.shape[-1]
    logs = functional.log_softmax(functional.pad(out[:, :, 0], (0, 0, 0, 1)), 1)  # [n, 14, F]
    logs = logs.masked_fill(free[:, None], 0.0)
    at = torch.arange(count)
    told = logs.gather(1, signs.clamp(min=0)[..., None].expand(-1, -1, count))  # [n, L, F]
    inside = (at >= frames[..., :1]) & (at <= frames[..., 1:]) & (signs >= 0)[..., None]
    told = told.masked_fill(~inside, NEVER)
    # states: none, sign, none, sign, ... none
    emit = logs[:, -1:].expand(-1, 2 * most + 1, -1).clone()
    emit[:, 1::2] = told
    same = functional.pad(signs[:, 1:] == signs[:, :-1], (1, 0), value=True)
    skips = torch.full((n, 2 * most + 1), NEVER)
    skips[:, 1::2] = torch.where(same, NEVER, 0.0)
    ahead = torch.full((n, 2 * most + 1), NEVER)
    ahead[:, :2] = 0.0  # it begins with none or with the first sign
    ahead = ahead + emit[..., 0]
    for t in range(1, count):
        before = functional.pad(ahead, (1, 0), value=NEVER)[:, :-1]
        beyond = functional.pad(ahead, (2, 0), value=NEVER)[:, :-2] + skips
        ahead = torch.logsumexp(torch.stack([ahead, before, beyond]), 0) + emit[..., t]
    last = 2 * (signs >= 0).sum(1)
    behind, within = ahead.gather(1, torch.stack([last, (last - 1).clamp(min=0)], 1)).T
    return -torch.logaddexp(behind, within.masked_fill(last == 0, NEVER)).mean() / count


train = partial(sampled.train, loss=loss, batch=64, lr=4e-3)  # of a net and what it draws from, `steps` of it


def finished(net: nn.Module, strips: Strips, *, images: int = 512, bits: int = 8) -> Artifact:
    """The trained net in integers, calibrated on `images` tiles, with the manifest of a scanner."""
    shown = torch.from_numpy(strips.draw(images)[0])
    quantized = calibrated(net.eval(), shown, bits=bits, bias_correction=True)
    graph, tensors = lower(quantized, (1, TALL, WIDE))
    kind = {"channels": 1, "height": TALL, "width": WIDE, "polarity": "bright-ink"}
    return Artifact(graph, tensors, {"task": "scan", "stride": STRIDE, "scans": list(SIGNS), "input": kind})
