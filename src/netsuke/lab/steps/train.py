"""One training loop over in-memory tensors, resumable after a kill, the same for every model and step."""

from __future__ import annotations

import copy
import ctypes
import json
import math
import time
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from netsuke.data import Dataset
from netsuke.errors import DataError, OptionError
from netsuke.lab import checkpoint
from netsuke.lab.forms import follow
from netsuke.lab.freeze import Freezing
from netsuke.lab.inference import accuracy, bf16_pays, device, prepared, recalibrate, tensors, weights_hash
from netsuke.lab.objective import objective
from netsuke.lab.teachers import ask
from netsuke.lab.training import OPTIMIZERS, SCHEDULES, Masks, Progress, Teacher, Training
from netsuke.lab.views import Views

SMALL = 14 * 14  # values of an image; below, handing work to a second thread takes longer than doing it
# In a checkpoint's identity only where used: older ones stay valid.
LATER = ("freeze", "rates", "unfreeze", "views")

__all__ = ["Progress", "Teacher", "Training", "train"]


def train(
    model: nn.Module,
    data: Dataset,
    options: Training | None = None,
    *,
    teacher: Teacher | None = None,
    views: Views | None = None,
    masks: Masks | None = None,
    work: Path | None = None,
    history: list[dict[str, float]] | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """A trained copy of `model`, which maps float images [n, C, H, W] in 0..1 to logits [n, classes].

    With `work`, a checkpoint is written there after every epoch and a killed run goes on from it; it ends with
    the same weights as an uninterrupted one, since each epoch draws from its own random streams. `history`
    receives a row an epoch. `views` stand for fresh augmentation and for asking the teacher; without them,
    `options.views` says how many to make, in memory. `masks` are those of a pruned model that move while it trains.
    Raises DataError where there is nothing to train on, or the loss is not finite, OptionError where there is
    nothing to train.
    """
    if not list(model.parameters()):
        raise OptionError(
            "the model has nothing left to train: its weights are finished integers; train the float model before "
            "weight_only or dynamic, or use quantize, whose network trains"
        )
    options = options or Training()
    if options.views and views is None:
        learnt = teacher.model if teacher else None
        views = Views(data, options.augment, options.views, options.seed, learnt)
    run = _Run(copy.deepcopy(model).to(device()), data, options, teacher, views, masks, work)
    return run.go(history if history is not None else [], progress or (lambda done, info, resumed: None))


@cache
def _keep_memory() -> None:
    """Ask glibc to keep freed memory: giving it back after every step costs a tenth to a third of the time."""
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD: activations come from the heap
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD: the heap does not shrink
    except (OSError, AttributeError):
        return  # another libc has its own ways


def _channels_last(model: nn.Module) -> nn.Module:
    """In place; typed, which nn.Module.to's overloads are not for a memory format alone."""
    return nn.Module.to(model, memory_format=torch.channels_last)  # type: ignore[call-overload]


class _Run:
    """The state of one training, so that the loop reads as a loop."""

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        options: Training,
        teacher: Teacher | None,
        views: Views | None,
        masks: Masks | None,
        work: Path | None,
    ):
        data.require("train", *(["val"] if options.patience else []))
        _keep_memory()
        self.options, self.data = options, data
        small = data.train.images[0].size <= SMALL
        if options.threads or small:
            torch.set_num_threads(options.threads or 1)
        self.model = _channels_last(model)
        self.images, self.labels = tensors(data.train)
        self.objective = objective(data)
        self.where = next(model.parameters()).device
        self.teacher, self.views, self.masks = teacher, views, masks
        if teacher:
            _channels_last(teacher.model.to(self.where)).eval()
        self.parameters = list(self.model.parameters())
        self.freezing = Freezing(self.model, options)
        self.optimizer = OPTIMIZERS[options.optimizer](self.freezing.groups(), options)
        self.average = copy.deepcopy(self.model) if options.ema else None
        self.steps = max(1, len(self.images) // options.batch)
        self.epoch, self.best, self.best_epoch = 0, -1.0, 0
        self.best_state: dict[str, Tensor] | None = None
        self.bf16 = options.precision == "bfloat16" or (options.precision == "auto" and bf16_pays(self.model))
        self.checkpoint = work / "checkpoint.pt" if work else None
        # What must be equal for a checkpoint to belong to this run.
        chosen = {key: value for key, value in asdict(options).items() if key not in ("threads", *LATER)}
        chosen |= {key: getattr(options, key) for key in LATER if getattr(options, key)}
        guided = [teacher.temperature, teacher.hard, weights_hash(teacher.model)] if teacher else []
        parts = [chosen, data.hash, weights_hash(self.model), guided, views and views.key]
        parts += [masks.key] if masks else []
        self.identity = sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def go(self, history: list[dict[str, float]], progress: Progress) -> nn.Module:
        self._resume(history)
        if self.epoch:
            progress(self.epoch, f"resumed after epoch {self.epoch}", True)
        while self.epoch < self.options.epochs and not self._patience_over():
            start = time.monotonic()
            loss, correct = self._one_epoch(progress)
            self.epoch += 1
            row = {"epoch": self.epoch, "loss": loss, "accuracy": correct, **self._validate()}
            history.append(row | {"seconds": round(time.monotonic() - start, 2)})
            self._save(history)
        return self._result()

    def _patience_over(self) -> bool:
        return bool(self.options.patience) and self.epoch - self.best_epoch >= self.options.patience

    def _validate(self) -> dict[str, float]:
        if not len(self.data.val):
            return {}
        shown = self._averaged() if self.average is not None else self.model
        right, loss = accuracy(shown, self.data.val)
        if not math.isfinite(loss):
            raise DataError(
                f"the loss on validation is not finite; try a lower --lr than {self.options.lr:g}"
            )
        if self.masks and not self.masks.settled(self.epoch - 1):
            self.best_epoch = self.epoch  # a network that is not yet pruned in full competes with nobody
        elif right > self.best:
            self.best, self.best_epoch = right, self.epoch
            if self.options.best or self.options.patience:
                self.best_state = copy.deepcopy(shown.state_dict())
        return {"val_accuracy": right, "val_loss": loss}

    def _averaged(self) -> nn.Module:
        assert self.average is not None
        frozen = self.freezing.statistics(self.average)
        recalibrate(self.average, self.images[:: max(1, len(self.images) // 5000)])
        if frozen:
            self.average.load_state_dict(frozen, strict=False)
        return self.average

    def _result(self) -> nn.Module:
        result = self.model if self.average is None else self._averaged()
        if self.best_state is not None:
            result.load_state_dict(self.best_state)
        self.freezing.release()
        return result.eval()

    def _one_epoch(self, progress: Progress) -> tuple[float, float]:
        o = self.options
        # Streams of their own for each epoch: a resumed run draws what an uninterrupted one would.
        torch.manual_seed(o.seed * 1_000_003 + self.epoch)
        generator = Generator().manual_seed(o.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.images), generator=generator)
        self.model.train()
        self.freezing.hold(self.epoch)
        if self.epoch >= o.freeze_norm * o.epochs:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        total, right = torch.zeros(()), torch.zeros((), dtype=torch.long)
        view = self.views.get(self.epoch) if self.views else None
        for step in range(self.steps):
            moved = self.masks and self.masks.update(self.model, self.epoch, step, self.steps)
            if moved and self.average is not None:
                follow(self.average, self.model)
            index = order[step * o.batch : (step + 1) * o.batch]
            x, target = self._batch(index, generator, view)
            loss, correct = self._step(
                x, self.labels[index], target, (self.epoch + step / self.steps) / o.epochs
            )
            total += loss
            right += correct
            if step % 20 == 19 or step == self.steps - 1:
                if not torch.isfinite(total):
                    raise DataError(
                        f"the loss of epoch {self.epoch + 1} is not finite; try a lower --lr than {o.lr:g}"
                    )
                seen = (step + 1) * len(index)
                info = f"epoch {self.epoch + 1}/{o.epochs} loss {total / (step + 1):.3f} accuracy {right / seen:.2%}"
                progress((20 if step % 20 == 19 else step % 20 + 1) / self.steps, info, False)
        return (total / self.steps).item(), right.item() / (self.steps * min(o.batch, len(self.images)))

    def _batch(
        self, index: Tensor, generator: Generator, view: tuple[Tensor, Tensor | None] | None
    ) -> tuple[Tensor, Tensor | None]:
        """Augmented images in 0..1, and the teacher's logits for them if there is one."""
        if view is not None:
            images, answers = view
            x = prepared(images[index], self.where)
            if answers is not None and self.teacher:
                return x, answers[index].to(self.where).float()
        else:
            x = self.options.augment(prepared(self.images[index], self.where), generator)
        if self.teacher is None:
            return x, None
        return x, ask(self.teacher.model, x)

    def _step(self, x: Tensor, labels: Tensor, target: Tensor | None, t: float) -> tuple[Tensor, Tensor]:
        o = self.options
        labels = labels.to(self.where)
        for group in self.optimizer.param_groups:
            group["lr"] = o.lr * SCHEDULES[o.schedule](t) * group.get("factor", 1.0)
        with torch.autocast(self.where.type, torch.bfloat16, enabled=self.bf16):
            out = self.model(x)
        out = out.float()
        loss = self.objective.loss(out, labels, label_smoothing=o.label_smoothing)
        if target is not None:
            loss = self._distilled(target, out, loss)
        aside = getattr(self.model, "aside", None)  # a loss that the model itself adds: `lab.hints`
        if aside is not None:
            loss = loss + aside
        decayed = self._decayed(self.parameters)
        if o.l1 and decayed:
            loss = loss + o.l1 * torch.stack([p.abs().sum() for p in decayed]).sum()
        if o.l2 and decayed and o.optimizer != "adamw":
            loss = loss + 0.5 * o.l2 * torch.stack([p.square().sum() for p in decayed]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if o.clip:
            nn.utils.clip_grad_norm_(self.parameters, o.clip)
        if o.l2 and o.optimizer == "adamw":
            for group in self.optimizer.param_groups:
                if weights := [p.data for p in self._decayed(group["params"])]:
                    torch._foreach_mul_(weights, 1 - o.l2 * group["lr"])
        self.optimizer.step()
        if self.average is not None:
            # A short average at first, so that the start is forgotten.
            done = t * o.epochs * self.steps
            decay = min(o.ema, (1 + done) / (10 + done))
            average = [p.data for p in self.average.parameters()]
            torch._foreach_lerp_(average, [p.data for p in self.parameters], 1 - decay)
        return loss.detach().cpu(), self.objective.right(out, labels).sum().cpu()

    @staticmethod
    def _decayed(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        """The weights among them that learn at present; biases and norms are no weights."""
        return [p for p in parameters if p.ndim > 1 and p.requires_grad]

    def _distilled(self, target: Tensor, out: Tensor, hard_loss: Tensor) -> Tensor:
        """Hinton et al., Distilling the Knowledge in a Neural Network, 2015."""
        assert self.teacher is not None
        if target.shape != out.shape:
            raise OptionError(f"the teacher gives {target.shape[1]} logits; the model gives {out.shape[1]}")
        t, hard = self.teacher.temperature, self.teacher.hard
        target, out = (F.log_softmax(self.objective.shown(z) / t, 1) for z in (target, out))
        soft = F.kl_div(out, target, reduction="batchmean", log_target=True)
        return (1 - hard) * t * t * soft + hard * hard_loss

    def _save(self, history: list[dict[str, float]]) -> None:
        if self.checkpoint is None:
            return
        state = {
            "identity": self.identity,
            "epoch": self.epoch,
            "best": (self.best, self.best_epoch),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "best_state": self.best_state,
            "history": history,
        }
        checkpoint.write(self.checkpoint, state)

    def _resume(self, history: list[dict[str, float]]) -> None:
        state = checkpoint.read(self.checkpoint, self.identity) if self.checkpoint else None
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.epoch, (self.best, self.best_epoch) = state["epoch"], state["best"]
        self.best_state = state["best_state"]
        history[:] = state["history"]
