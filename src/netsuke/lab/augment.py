"""Augmentation of whole batches as tensor arithmetic: every transform off at 0, drawn anew for each image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from math import pi

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from netsuke.errors import OptionError
from netsuke.settings import pairs, unknown, value

FILL = {"zero": "zeros", "edge": "border", "reflect": "reflection"}


@dataclass(frozen=True)
class Augment:
    """How far each transform may go. Ranges are symmetric and drawn uniformly.

    Geometry: `rotate` and `shear` in degrees, `shift` as a share of the side, `scale` as a share (0.1: 0.9 to
    1.1), `flip` as the probability of a left-right flip, `elastic` in pixels of smooth random displacement
    (Simard et al., 2003). `fill` says what comes in from outside: zero, edge or reflect.
    Ink: `thickness` grows or thins strokes (1: by a full 3x3 dilation or erosion), `contrast` and `brightness`
    as shares, `noise` as a standard deviation, `blur` as the probability of a 3x3 binomial blur, `erase` as the
    largest side of a blanked rectangle (Zhong et al., 2017), as a share.
    `clean` is the share of images left as they are.
    """

    rotate: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    flip: float = 0.0
    elastic: float = 0.0
    fill: str = "zero"
    thickness: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    erase: float = 0.0
    clean: float = 0.0

    def __post_init__(self) -> None:
        if self.fill not in FILL:
            raise OptionError(f"no fill {self.fill!r}; there are {', '.join(FILL)}")
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name != "fill" and not 0 <= value < 1e3:
                raise OptionError(f"augmentation {option.name} must not be negative; got {value}")
        for name in ("flip", "blur", "clean", "erase", "shift", "scale"):
            if getattr(self, name) > 1:
                raise OptionError(f"augmentation {name} is a share of 1; got {getattr(self, name)}")

    @classmethod
    def parse(cls, text: str) -> Augment:
        """`none`, `handwriting`, or pairs such as `rotate=10,shift=0.1`, which may follow `handwriting,`."""
        base, rest = cls(), text
        if text.partition(",")[0] in ("none", "handwriting"):
            name, _, rest = text.partition(",")
            base = HANDWRITING if name == "handwriting" else base
        chosen = {key: value(v) for key, v in pairs(rest, "augmentations").items()}
        known = [f.name for f in fields(cls)]
        for key, given in chosen.items():
            if key not in known:
                raise OptionError(unknown(key, known, "augmentation"))
            if isinstance(given, bool) or (key == "fill") != isinstance(given, str):
                raise OptionError(f"augmentation {key} cannot be {given!r}")
        return replace(base, **chosen)

    @property
    def off(self) -> bool:
        """True where no transform does anything."""
        return not any(getattr(self, f.name) for f in fields(self) if f.name not in ("fill", "clean"))

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """A transformed copy of float images [n, C, H, W] in 0..1; the same generator state, the same result."""
        if self.off:
            return x
        y = self._ink(self._warp(x, generator), generator).clamp_(0, 1)
        if self.clean:
            keep = torch.rand(len(x), 1, 1, 1, generator=generator).to(x.device) < self.clean
            y = torch.where(keep, x, y)
        return y

    def _draw(self, n: int, limit: float, generator: Generator) -> Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * limit

    def _warp(self, x: Tensor, generator: Generator) -> Tensor:
        if not any((self.rotate, self.shift, self.scale, self.shear, self.flip, self.elastic)):
            return x
        n, _, height, width = x.shape
        turn = self._draw(n, self.rotate * pi / 180, generator)
        shear = self._draw(n, self.shear * pi / 180, generator).tan()
        zoom = 1 / (1 + self._draw(2 * n, self.scale, generator).view(n, 2))  # the grid maps output to input
        mirror = 1 - 2 * (torch.rand(n, generator=generator) < self.flip).float()
        cos, sin = turn.cos(), turn.sin()
        theta = torch.empty(n, 2, 3)
        theta[:, 0, 0] = cos * zoom[:, 0] * mirror
        theta[:, 0, 1] = (shear * cos - sin * height / width) * zoom[:, 1]
        theta[:, 1, 0] = sin * width / height * zoom[:, 0] * mirror
        theta[:, 1, 1] = (shear * sin * width / height + cos) * zoom[:, 1]
        theta[:, :, 2] = self._draw(2 * n, 2 * self.shift, generator).view(n, 2)  # the grid spans -1..1
        grid = F.affine_grid(theta, [n, 1, height, width], align_corners=False)
        if self.elastic:
            # Displacements on a coarse grid, smoothly enlarged: as Simard's blurred field, at a tenth of its cost.
            coarse = torch.randn(n, 2, max(2, height // 4), max(2, width // 4), generator=generator)
            field = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
            pixels = torch.tensor([2 / width, 2 / height]) * (self.elastic / 2)
            grid = grid + field.permute(0, 2, 3, 1) * pixels
        return F.grid_sample(
            x, grid.to(x), mode="bilinear", padding_mode=FILL[self.fill], align_corners=False
        )

    def _ink(self, x: Tensor, generator: Generator) -> Tensor:
        n, channels, height, width = x.shape
        if self.thickness:
            amount = self._draw(n, self.thickness, generator).view(n, 1, 1, 1).to(x.device)
            thick, thin = _widest(x, torch.maximum), _widest(x, torch.minimum)
            x = x + amount.clamp(min=0) * (thick - x) - amount.clamp(max=0) * (thin - x)
        if self.blur:
            row = torch.tensor([0.25, 0.5, 0.25], device=x.device)
            kernel = (row[:, None] * row).expand(channels, 1, 3, 3)
            chosen = torch.rand(n, 1, 1, 1, generator=generator).to(x.device) < self.blur
            x = torch.where(chosen, F.conv2d(x, kernel, padding=1, groups=channels), x)
        if self.contrast:
            x = x * (1 + self._draw(n, self.contrast, generator).view(n, 1, 1, 1).to(x.device))
        if self.brightness:
            x = x + self._draw(n, self.brightness, generator).view(n, 1, 1, 1).to(x.device)
        if self.noise:
            x = x + torch.randn(x.shape, generator=generator).to(x.device) * self.noise
        if self.erase:
            size = torch.rand(n, 2, generator=generator) * self.erase
            start = torch.rand(n, 2, generator=generator) * (1 - size)
            row, column = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
            rows = (row >= start[:, :1]) & (row < (start + size)[:, :1])
            columns = (column >= start[:, 1:]) & (column < (start + size)[:, 1:])
            x = x.masked_fill((rows[:, None, :, None] & columns[:, None, None, :]).to(x.device), 0.0)
        return x


def _widest(x: Tensor, pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The largest (or smallest) value of each 3x3 neighbourhood: rows, then columns; ten times max_pool2d's speed."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    x = pick(pick(x[:, :, :-2], x[:, :, 1:-1]), x[:, :, 2:])
    return pick(pick(x[..., :-2], x[..., 1:-1]), x[..., 2:])


# What handwriting bears without becoming another digit; a third clean, as facts of our own runs advise.
HANDWRITING = Augment(rotate=12, shift=0.08, scale=0.12, shear=10, elastic=1.2, thickness=0.4, clean=0.3)
# For networks of a kilobyte or two, which cannot bend to all of that: half clean, and less of everything.
MILD = Augment(rotate=8, shift=0.05, scale=0.08, shear=6, elastic=0.8, thickness=0.2, clean=0.5)
