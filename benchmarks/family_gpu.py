"""Trains what reads on a GPU while all other cores make scenes for it: base, finder and scanner, side by side.

    python benchmarks/family_gpu.py --work runs/gpu --out runs/family --seconds 577 --makers 14
    python benchmarks/family_gpu.py --work runs/gpu --out runs/family --on   # from what ships, not from nothing
    python benchmarks/family_gpu.py --work runs/gpu --out runs/family --on --nets scanner --device cpu --makers 1 \
        --seconds 5400

Makers draw scenes of training writers and cut from them what each network eats; the networks train on all that was made
so far, under one cosine over the given time. OUT/NAME.pt are their mean weights, in floats, every 20 seconds;
benchmarks/family.py takes them from there to integers. Needs torch and the data of docs/scenes.md.
"""

from __future__ import annotations

import argparse
import copy
import io
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netsuke import zoo
from netsuke.artifact import Artifact
from netsuke.files import write_whole
from netsuke.lab import finder, pens, scanner, scenes
from netsuke.lab.augment import Augment, _widest
from netsuke.lab.candidates import candidates
from netsuke.lab.models import build

NETS: dict[str, tuple[Callable[[], nn.Module], int, float]] = {  # a net, its batch and its learning rate
    "base": (
        lambda: build("separable", (1, 28, 28), 10, width=136, depth=8, layout="residual"),
        2048,
        1e-2,
    ),
    "finder": (lambda: finder.network(width=80, depth=6), 256, 6e-3),
    "scanner": (lambda: scanner.network(width=112, depth=5, along=4), 512, 6e-3),
}
SHIPPED = {"base": "digit-base", "finder": "finder", "scanner": "scanner"}
EATS = {"base": ("signs", "cut"), "finder": ("sheets",), "scanner": ("rows",)}
TIME = {"base": 0.2, "finder": 0.1, "scanner": 0.7}  # shares of the GPU
WORN = {"base": 0.5, "finder": 0.5, "scanner": 0.6}  # how often: factors of the chances in `worn`
SIGNS = 0.75  # of the classifier's images; the rest are candidates cut from scenes
AUGMENT = "rotate=6,shift=0.05,scale=0.07,shear=5,thickness=0.2,clean=0.4"  # of the classifier's images
SCENES, LONE = 30, 2000  # scenes and lone signs of one file
DRAWN = 4  # tiles drawn of each row, and of each page
PAGES, WORDY, TOUCHING = 0.27, 0.33, 0.4  # of the scenes; of the pages; of the strings
MOST = 3_000_000  # images of a kind that are kept on the GPU
EMA, WARM = 0.998, 500  # of the weights, a step; steps in which the learning rate rises
ON = 0.5  # of the learning rate, where training goes on
UNIT, START = 32.0, 0.1  # there: integers that become 1, and the size of weights
SHOWN = 128  # images that set its norms
NORMED, BATCHES = 400, 6  # tiles of a batch, and batches, that set the norms of blended weights
LEAST = 2000  # images of each kind before it begins


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="where what is made is kept")
    parser.add_argument("--out", type=Path, required=True, help="where the weights go")
    parser.add_argument("--seconds", type=float, default=577)
    parser.add_argument("--makers", type=int, default=14, help="processes that make images")
    parser.add_argument("--seed", type=int, default=500)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--on", action="store_true", help="from OUT, else from what ships, at half the rate")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS), help="those to train")
    parser.add_argument(
        "--blend", type=float, default=1.0, help="in the end, with --on: share of the way from there"
    )
    parser.add_argument("--rate", type=float, default=1.0, help="factor of the learning rate")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    given.out.mkdir(parents=True, exist_ok=True)
    end = time.time() + given.seconds
    context = multiprocessing.get_context("spawn")
    running = [
        context.Process(target=make, args=(given.work, given.seed, k, end, given.nets))
        for k in range(given.makers)
    ]
    running.append(context.Process(target=train, args=(given, end)))
    for one in running:
        one.start()
    for one in running:
        one.join()
    sys.exit(any(one.exitcode for one in running))


def make(work: Path, seed: int, maker: int, end: float, nets: list[str]) -> None:
    """Files of images until the time is over. Every fourth maker makes lone signs where any of `nets` eats them; the
    first makes both in turns."""
    import cv2

    os.nice(5)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    k, eaten = 0, {kind for name in nets for kind in EATS[name]}
    while time.time() < end:
        name = f"{seed}-{maker}-{k}"
        if "signs" in eaten and (maker or k) % 4 == 0:  # the first maker must do where it is the only one
            save(
                work / f"signs-{name}.npz",
                *pens.samples(LONE, seed * 10**6 + maker * 10**4 + k, outliers=0.45),
            )
        else:
            for kind, parts in tiles([seed, maker, k], eaten).items():
                save(work / f"{kind}-{name}.npz", *parts)
        k += 1


def tiles(seed: list[int], eaten: set[str]) -> dict[str, tuple[np.ndarray, ...]]:
    """What the networks eat, of SCENES scenes, by kind: parts of rows, of sheets, and candidates that are cut."""
    rng = np.random.default_rng(seed)
    every = [drawn(rng) for _ in range(SCENES)]
    once = int(rng.integers(2**31))
    out: dict[str, tuple[np.ndarray, ...]] = {}
    if "rows" in eaten:
        rows = [row for scene in every for row in scanner.rows(scene)]
        out["rows"] = scanner.Strips(_sheets(rows), once).draw(DRAWN * len(rows))
    if "sheets" in eaten:
        sheets = [finder.sheet(scene) for scene in every]
        out["sheets"] = finder.Tiles(_sheets(sheets), once).draw(DRAWN * SCENES)
    if "cut" in eaten:
        cut = [pieces(scene, rng) for scene in every[::2]]
        out["cut"] = tuple(np.concatenate(part) for part in zip(*cut, strict=True))
    small = {np.dtype(np.int64): np.int8, np.dtype(np.float32): np.float16}
    return {kind: tuple(x.astype(small.get(x.dtype, x.dtype)) for x in parts) for kind, parts in out.items()}


def _sheets(parts: list[tuple[bytes, np.ndarray]]) -> finder.Sheets:
    return finder.Sheets(*map(list, zip(*parts, strict=True)))


def pieces(scene: scenes.Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Candidates of a scene, images and labels: all digits, and as many of no digit."""
    x, y = candidates(scene.image, scene.mask, {mark.number: mark.label for mark in scene.digits})
    digits, others = np.flatnonzero(y < 10), rng.permutation(np.flatnonzero(y == 10))
    kept = np.concatenate([digits, others[: max(len(digits), 6)]])
    return x[kept], y[kept]


def drawn(rng: np.random.Generator) -> scenes.Scene:
    if rng.random() >= PAGES:
        return scenes.string(rng, spacing="touching" if rng.random() < TOUCHING else None)
    if rng.random() >= WORDY:
        return scenes.page(rng)
    kind = str(rng.choice(list(finder.WORDY), p=list(finder.WORDY.values())))
    return scenes.page(rng, kind=kind, digits=int(rng.choice([0, 8, 20, 40], p=finder.FEW)))


def thawed(net: nn.Module, model: Artifact, shown: Tensor) -> None:
    """Gives a net the weights of its own artifact, so that training goes on from what ships.

    An artifact has no norms: each is set so that it changes nothing on `shown`, float32 [n, 1, H, W] in 0..1. Channels
    between a depthwise convolution and the pointwise one behind it come to one scale, as quantisation evened out their
    weights instead. Activations that saturate in integers do not here; some hundred steps make up for it.
    """
    parts, tensors = dict(net.named_modules()), {k: torch.as_tensor(v) for k, v in model.tensors.items()}
    convs = [op for op in model.graph.ops if op.kind == "qconv2d"]
    # Of what a layer reads, by channel: the first an image in 0..1, the others integers.
    scale = torch.full((1,), 127 / UNIT)
    with torch.no_grad():
        for op in convs:
            path, _, at = op.name.removeprefix("layer").replace("_", ".").rpartition(".")
            conv, norm = (parts[f"{path}.{i}".strip(".")] for i in (int(at), int(at) + 1))
            gain = tensors[f"{op.name}.multiplier"].float() / 2.0 ** tensors[f"{op.name}.shift"]
            weight = tensors[f"{op.name}.weight"] * gain.view(-1, 1, 1, 1)
            if conv.groups == 1:
                weight = weight * scale.view(1, -1, 1, 1)
            size = weight.flatten(1).square().mean(1).sqrt().clamp(min=1e-8) / START
            conv.weight.copy_(weight / size.view(-1, 1, 1, 1))
            seen: list[Tensor] = []
            hook = conv.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out))
            net.eval()(shown)
            hook.remove()
            norm.running_mean.copy_(seen[0].mean((0, 2, 3)))
            norm.running_var.copy_(seen[0].var((0, 2, 3)))
            norm.weight.copy_(size * (norm.running_var + norm.eps).sqrt())
            norm.bias.copy_(size * norm.running_mean + tensors[f"{op.name}.bias"] * gain / UNIT)
            scale = torch.ones(1)
            if conv.groups > 1:
                scale = norm.weight.clamp(min=1e-3).clone()
                norm.weight.div_(scale)
                norm.bias.div_(scale)
        last = model.graph.ops[-1]
        head = parts[last.name.removeprefix("layer")]
        pools = [op.attrs for op in model.graph.ops if op.kind == "qavgpool"]
        # Integer pools do not give the mean, but more of it.
        grown = math.prod(math.prod(a["kernel"]) * a["multiplier"] / 2 ** a["shift"] for a in pools)
        weight = tensors[f"{last.name}.weight"] * (last.attrs["scale"] * UNIT * grown)
        head.weight.copy_(weight.view_as(head.weight))
        head.bias.copy_(tensors[f"{last.name}.bias"] * last.attrs["scale"])


def blended(net: nn.Module, start: nn.Module, tiles: Tensor, share: float) -> None:
    """Leaves a net `share` of its way from where it was trained on from, and sets its norms anew on `tiles`, float32
    [n, 1, H, W] in 0..1.

    What it has learnt it keeps, and it forgets less of what it knew (Wortsman et al., Robust fine-tuning of zero-shot
    models, CVPR 2022).
    """
    with torch.no_grad():
        for own, old in zip(net.parameters(), start.parameters(), strict=True):
            own.lerp_(old, 1 - share)
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.reset_running_stats()
                norm.momentum = None  # the mean of all batches
        net.train()
        for batch in tiles.split(NORMED):
            net(batch)


def save(file: Path, *parts: np.ndarray, **named: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, *parts, **named)
    write_whole(file, buffer.getbuffer())


class Pool:
    """All of a kind that was made so far, on the device."""

    def __init__(self, work: Path, kind: str, most: int):
        self.work, self.kind, self.most, self.size = work, kind, most, 0
        self.known: set[Path] = set()
        self.parts: list[Tensor] = []
        self.filled = torch.zeros(())  # read within a CUDA graph

    def fill(self, seconds: float) -> None:
        """Take up new files, for so long."""
        end = time.time() + seconds
        for file in sorted(self.work.glob(f"{self.kind}-*.npz")):
            if file in self.known or time.time() > end:
                continue
            self.known.add(file)
            with np.load(file) as loaded:
                parts = [torch.from_numpy(loaded[name]) for name in loaded.files]
            if not self.parts:
                self.parts = [torch.zeros(self.most, *part.shape[1:], dtype=part.dtype) for part in parts]
            n = min(len(parts[0]), self.most - self.size)
            for own, new in zip(self.parts, parts, strict=True):
                own[self.size : self.size + n].copy_(new[:n])
            self.size += n
        self.filled.fill_(self.size)

    def draw(self, count: int) -> list[Tensor]:
        at = (torch.rand(count) * self.filled).long()
        return [part[at] for part in self.parts]


class Training:
    """One net; on a GPU its steps are one CUDA graph on a stream of its own, since most kernels are short."""

    def __init__(self, name: str, work: Path, out: Path, cuda: bool, end: float, on: bool, rate: float):
        build_net, batch, self.rate = NETS[name]
        self.name, self.file, self.cuda, self.batch = name, out / f"{name}.pt", cuda, batch if cuda else 64
        most = MOST if cuda else MOST // 8
        self.pools = [Pool(work, kind, most // 4 if kind == "sheets" else most) for kind in EATS[name]]
        while any(pool.size < LEAST for pool in self.pools):
            if time.time() > end:
                sys.exit(f"{name}: there were not {LEAST} images of each kind when the time was over")
            time.sleep(0.5)
            for pool in self.pools:
                pool.fill(5.0)
        self.augment = Augment.parse(AUGMENT)
        self.net, self.mean = build_net(), build_net()
        if on:
            self.rate *= ON * rate
            if self.file.exists():
                self.net.load_state_dict(torch.load(self.file))
            else:
                shown = self.pools[0].parts[0][:SHOWN].float() / 255
                thawed(self.net, Artifact.load(zoo.path(SHIPPED[name])), shown)
        self.start = copy.deepcopy(self.net)
        self.net.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean.load_state_dict(self.net.state_dict())
        self.own, self.averaged = (
            [*net.parameters(), *(part for part in net.buffers() if part.is_floating_point())]
            for net in (self.net, self.mean)
        )
        self.lr, self.values = torch.full((), self.rate / 10), torch.zeros(())
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), self.lr if cuda else 0.0, betas=(0.9, 0.99), weight_decay=1e-2, capturable=cuda
        )  # fmt: skip
        self.done, self.last, self.told, self.cost, self.replay = 0, 0, time.time(), 1.0, self.step
        if cuda:
            self.stream, self.event = torch.cuda.Stream(), torch.cuda.Event()
            with torch.cuda.stream(self.stream):
                self._capture()
                self.event.record()
        self.values.zero_()

    def loss(self) -> Tensor:
        with torch.no_grad():
            if self.name == "base":
                signs, cut = self.pools
                count = round(SIGNS * self.batch)
                parts = zip(signs.draw(count), cut.draw(self.batch - count), strict=True)
                images, wanted = (torch.cat(pair) for pair in parts)
                every = [wanted]
            else:
                images, *every = self.pools[0].draw(self.batch)
            x = images.float().div(255)
            if self.name == "base":
                generator = torch.cuda.default_generators[0] if self.cuda else torch.default_generator
                x = self.augment(x, generator)
            x = worn(x, WORN[self.name])
        with torch.autocast("cuda", torch.bfloat16, self.cuda, cache_enabled=False):  # slower on a CPU
            out = self.net(x.contiguous(memory_format=torch.channels_last)).float()
        if self.name == "base":
            return F.cross_entropy(F.pad(out, (0, 1)), wanted)  # "none" is a constant logit of 0
        whole = [part.long() if part.dtype == torch.int8 else part for part in every]
        if self.name == "finder":
            return finder.loss(out, images, whole[0], whole[1].float())
        return scanner.loss(out, images, *whole)

    def step(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        value = self.loss()
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 5.0, foreach=True)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.averaged, self.own, 1 - EMA)
        self.values.add_(value.detach())

    def _capture(self) -> None:
        for _ in range(5):
            self.step()
        torch.cuda.synchronize()
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            self.step()
        self.replay = graph.replay
        begun = time.time()
        for _ in range(5):
            self.replay()
        torch.cuda.synchronize()
        self.cost = (time.time() - begun) / 5
        print(f"{self.name}: {self.cost * 1e3:.1f} ms a step of {self.batch}", flush=True)

    def used(self) -> float:
        """Time on the device so far, by its share."""
        return self.done * self.cost / TIME[self.name]

    def turn(self, share: float, least: float) -> bool:
        """Some steps, unless the last ones still run or others have had less time; whether there were any.

        `share` of all the time is over; `least` is the smallest time of the nets.
        """
        if (self.cuda and not self.event.query()) or self.used() > least + 0.2:
            return False
        rate = self.rate * min(1.0, (self.done + 1) / WARM) * 0.5 * (1 + math.cos(math.pi * share)) + 1e-6
        if self.cuda:
            with torch.cuda.stream(self.stream):
                self.lr.fill_(rate)
                for _ in range(10):
                    self.replay()
                self.event.record()
            self.done += 10
        else:
            self.lr.fill_(rate)
            self.step()
            self.done += 1
        if time.time() - self.told > 20:
            if self.cuda:
                torch.cuda.synchronize()
            mean = float(self.values) / (self.done - self.last)
            sizes = [pool.size for pool in self.pools]
            print(f"{100 * share:3.0f} % {self.name} step {self.done} loss {mean:.4f} of {sizes}", flush=True)
            self.values.zero_()
            self.last, self.told = self.done, time.time()
            self.keep()
        return True

    def blend(self, share: float) -> None:
        """The mean weights, blended with those it was trained on from."""
        tiles = self.pools[0].draw(NORMED * BATCHES)[0].float() / 255
        blended(self.mean, self.start, tiles, share)

    def keep(self) -> None:
        buffer = io.BytesIO()
        torch.save({key: value.cpu().contiguous() for key, value in self.mean.state_dict().items()}, buffer)
        write_whole(self.file, buffer.getbuffer())


def train(given: argparse.Namespace, end: float) -> None:
    device = given.device
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    torch.set_default_device(device)
    every = [
        Training(name, given.work, given.out, device != "cpu", end, given.on, given.rate)
        for name in given.nets
    ]
    start = filled = time.time()
    while time.time() < end:
        share, least = min(1.0, (time.time() - start) / (end - start)), min(one.used() for one in every)
        if not sum(one.turn(share, least) for one in every):
            time.sleep(0.001)
        if time.time() - filled > 3:
            for one in every:
                for pool in one.pools:
                    pool.fill(0.3)
            filled = time.time()
    if device != "cpu":
        torch.cuda.synchronize()
    for one in every:
        if given.on and given.blend < 1:
            one.blend(given.blend)
        one.keep()
        print(one.name, "did", one.done, "steps", flush=True)


def worn(x: Tensor, share: float) -> Tensor:
    """Ink [n, 1, H, W] in 0..1 as other pens, papers, scanners and removers of lines leave it.

    `share` is a factor of the probability of each change.
    """
    n, _, height, width = x.shape

    def some(p: float) -> Tensor:
        return torch.rand(n, 1, 1, 1) < p * share

    def level(low: float, high: float) -> Tensor:
        return torch.rand(n, 1, 1, 1) * (high - low) + low

    coarse = torch.randn(n, 2, max(2, height // 8), max(2, width // 8)) * level(0, 0.8)
    field = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    field[:, 0] *= 2 / width
    field[:, 1] *= 2 / height
    grid = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), [n, 1, height, width], align_corners=False)
    warped = F.grid_sample(x, grid + field.permute(0, 2, 3, 1), align_corners=False)
    x = torch.where(some(0.5), warped, x)
    amount = torch.where(some(0.6), level(-0.5, 0.6), 0.0)
    thick, thin = _widest(x, torch.maximum), _widest(x, torch.minimum)
    x = x + amount.clamp(min=0) * (thick - x) - amount.clamp(max=0) * (thin - x)
    rows, columns = torch.arange(height).view(1, 1, -1, 1), torch.arange(width).view(1, 1, 1, -1)
    for p, gone in ((0.15, True), (0.12, False)):  # a line that took ink with it, and one that was left
        at = level(0, height) + (columns - width / 2) * level(-0.06, 0.06)
        begin, end = level(-0.5, 0.8) * width, level(0.2, 1.5) * width
        band = ((rows - at).abs() < level(0.4, 1.3)) & (columns > begin) & (columns < end) & some(p)
        line = x * level(0, 0.6) if gone else torch.maximum(x, level(0.15, 0.8).expand_as(x))
        x = torch.where(band, line, x)
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1)
    x = torch.where(some(0.3), x + level(0, 1) * (blurred - x), x)
    x = torch.where(some(0.4), ((x - level(0, 0.2)) * level(1, 2.5)).clamp(0, 1), x)
    x = torch.where(some(0.3), x * level(0.3, 1.0), x)
    return torch.where(some(0.3), x + torch.randn_like(x) * 0.06 * (x > 0), x).clamp(0, 1)


if __name__ == "__main__":
    main()
