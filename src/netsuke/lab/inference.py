"""Running a torch module on raw images: tensors, logits, accuracy, statistics."""

from __future__ import annotations

from hashlib import sha256
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from netsuke.data import Split
from netsuke.lab.objective import of_split


def tensors(split: Split) -> tuple[Tensor, Tensor]:
    """uint8 images [n, C, H, W] and int64 labels [n] as torch tensors that share the arrays' memory."""
    images = np.ascontiguousarray(split.images)
    if not images.flags.writeable:
        images = images.copy()
    return torch.from_numpy(images), torch.from_numpy(np.asarray(split.labels, np.int64))


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def weights_hash(model: nn.Module) -> str:
    """sha256 hex of everything the model has learnt."""
    learnt = (v.detach().cpu().numpy().tobytes() for v in model.state_dict().values())
    return sha256(b"".join(learnt)).hexdigest()


@torch.no_grad()
def logits(model: nn.Module, images: Tensor, batch: int = 1024) -> Tensor:
    """Logits of uint8 images, in evaluation mode; the model's mode is put back."""
    held = chain(model.parameters(), model.buffers())  # a finished network has no parameters
    was, where = model.training, next(held).device
    model.eval()
    parts = [
        model(prepared(images[i : i + batch], where)).float().cpu() for i in range(0, len(images), batch)
    ]
    model.train(was)
    return torch.cat(parts)


def accuracy(model: nn.Module, split: Split) -> tuple[float, float]:
    """Accuracy and mean cross entropy of a split, whose outliers, if any, must be told from its classes."""
    images, labels = tensors(split)
    out = logits(model, images)
    aim = of_split(split, out.shape[1])
    return aim.right(out, labels).float().mean().item(), aim.loss(out, labels).item()


@torch.no_grad()
def recalibrate(model: nn.Module, images: Tensor, batch: int = 512) -> None:
    """Measure batch-norm statistics afresh, in place: an average of weights has statistics of its own.

    Izmailov et al., Averaging Weights Leads to Wider Optima, 2018, section 3.2.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    before = [(norm, norm.momentum, norm.training) for norm in norms]
    was, where = model.training, next(model.parameters()).device
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    for i in range(0, len(images), batch):
        for norm in norms:
            norm.momentum = batch / (i + batch)  # a plain average over all batches
        model(prepared(images[i : i + batch], where))
    for norm, momentum, _ in before:
        norm.momentum = momentum
    model.train(was)
    for norm, _, training in before:
        norm.train(training)


def prepared(images: Tensor, where: torch.device) -> Tensor:
    return images.to(where).float().div_(255).contiguous(memory_format=torch.channels_last)


def bf16_pays(model: nn.Module) -> bool:
    """Dense convolutions gain from bf16 where the processor multiplies it; depthwise ones do not.

    Never for integer arithmetic held in floats, which needs all 24 bits.
    """
    if getattr(model, "exact", False):
        return False
    if next(model.parameters()).device.type != "cpu":
        return True
    if any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in model.modules()):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
