"""Learning to read along a row: every sign once, within its own place, and nothing between them."""

from __future__ import annotations

import copy
from collections.abc import Callable
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

KEPT = 0.3  # of the weights before they trained on in integers
NEVER = -1e4  # a log-probability; finite, so that its gradient is 0 and no NaN


def loss(out: Tensor, tiles: Tensor, signs: Tensor, frames: Tensor, free: Tensor) -> Tensor:
    """Minus the log-probability of the signs of each tile, a frame, by connectionist temporal classification.

    out [n, 13, 1, F], signs [n, L] (-1: no more), frames [n, L, 2] the first and last frame in which each may be told,
    free bool [n, F] the frames nobody is asked about. With the places known the alignment is no secret: a sign is told
    where it stands, so that candidates can be judged by what is told within their bounds.
    """
    most = signs.shape[1]
    count = out.shape[-1]
    logs = functional.log_softmax(functional.pad(out[:, :, 0], (0, 0, 0, 1)), 1)  # [n, 14, F]
    logs = logs.masked_fill(free[:, None], 0.0)
    at = torch.arange(count, device=out.device)
    told = logs.gather(1, signs.clamp(min=0)[..., None].expand(-1, -1, count))  # [n, L, F]
    inside = (at >= frames[..., :1]) & (at <= frames[..., 1:]) & (signs >= 0)[..., None]
    told = told.masked_fill(~inside, NEVER)
    emit = logs[:, -1:].expand(-1, 2 * most + 1, -1).clone()  # of the states none, sign, none, sign, ... none
    emit[:, 1::2] = told
    chance, share = _alignments(emit.detach(), signs)
    # the derivative of the log-probability by what a state emits is the state's share of all alignments
    return -(chance + (share * (emit - emit.detach())).sum((1, 2))).mean() / count


def _alignments(emit: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """The log-probability [n] of all alignments together, and each state's share of them in each frame [n, S, F].

    Both ways through the frames at once: forwards, and backwards with the states in reverse.
    """
    n, states, count = emit.shape
    skips = torch.full_like(emit[..., 0], NEVER)
    same = functional.pad(signs[:, 1:] == signs[:, :-1], (1, 0), value=True)
    skips[:, 1::2] = torch.where(same, NEVER, 0.0)
    last = 2 * (signs >= 0).sum(1, keepdim=True)
    at = torch.arange(states, device=emit.device)
    begins = torch.where(at < 2, 0.0, NEVER).expand(n, -1)  # with none or with the first sign
    ends = torch.where((at == last) | (at == last - 1), 0.0, NEVER)
    over = torch.stack([skips, functional.pad(skips.flip(1), (2, 0), value=NEVER)[:, :-2]])
    both = torch.stack([emit, emit.flip(1, 2)])
    ahead = torch.stack([begins, ends.flip(1)]) + both[..., 0]
    every = [ahead]
    for t in range(1, count):
        near = functional.pad(ahead, (2, 0), value=NEVER)
        ahead = (
            torch.logsumexp(torch.stack([ahead, near[..., 1:-1], near[..., :-2] + over]), 0) + both[..., t]
        )
        every.append(ahead)
    forwards, backwards = torch.stack(every, -1)
    through = forwards + backwards.flip(1, 2) - emit
    chance = torch.logsumexp(through[..., 0], 1)
    return chance, (through - chance[:, None, None]).exp()


train = partial(sampled.train, loss=loss, batch=64, lr=4e-3)  # of a net and what it draws from, `steps` of it


def finished(
    net: nn.Module,
    strips: Strips,
    *,
    images: int = 512,
    bits: int = 8,
    source: sampled.Source | None = None,
    steps: int = 0,
    told: Callable[[int, float], None] = lambda step, value: None,
) -> Artifact:
    """The trained net in integers, calibrated on `images` tiles, with the manifest of a scanner.

    With `steps` the integers train on, on what `source` draws, else `strips`. Their norms hold still, as some channels
    answer so seldom that two samples of tiles give them quite different variances; and KEPT of the weights they began
    with stay, as it forgets less so (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022).
    """
    shown = torch.from_numpy(strips.draw(images)[0])
    quantized: nn.Module = calibrated(net.eval(), shown, bits=bits, equalise=True, clip=not steps)
    if steps:
        start = copy.deepcopy(quantized)
        quantized = train(quantized, source or strips, steps=steps, lr=2e-4, steady=True, told=told)
        with torch.no_grad():
            for own, old in zip(quantized.parameters(), start.parameters(), strict=True):
                own.lerp_(old, KEPT)
    graph, tensors = lower(quantized, (1, TALL, WIDE))
    kind = {"channels": 1, "height": TALL, "width": WIDE, "polarity": "bright-ink"}
    return Artifact(graph, tensors, {"task": "scan", "stride": STRIDE, "scans": list(SIGNS), "input": kind})
