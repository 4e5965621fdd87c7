"""What strings and pages stand on: tones, textures, security patterns, and the print of forms, cheques and tables."""

from __future__ import annotations

import numpy as np

from netsuke.lab.pens.textures import guilloche, patch
from netsuke.lab.scenes.sheet import Sheet


def ground(sheet: Sheet, rng: np.random.Generator, *, pattern: float = 0.0, unit: float = 40.0) -> np.ndarray:
    """Reflectance float32 of the sheet's board; `pattern` is the chance of a security pattern.

    `unit` is the height of the writing in pixels: a pattern's lines stand a tenth to a third of it apart.
    """
    import cv2

    shape = sheet.ink.shape[0], sheet.ink.shape[1]
    out = np.full(shape, 1 - 0.35 * rng.random() ** 2, np.float32)
    if rng.random() < 0.6:
        kind = ("fibre", "mottle", "grain", "cloud")[int(rng.integers(4))]
        out += np.float32(0.04 * rng.random()) * patch(kind, shape, rng)
    if rng.random() < pattern:
        scale = max(0.5, unit * sheet.fine / float(rng.uniform(25, 110)))
        size = max(2, round(shape[0] / scale)), max(2, round(shape[1] / scale))
        lines = cv2.resize(guilloche(size, rng), shape[::-1], interpolation=cv2.INTER_LINEAR)
        out -= np.float32(rng.uniform(0.04, 0.24)) * lines
    return out


def ruled(sheet: Sheet, rng: np.random.Generator, gap: float, first: float) -> None:
    """Writing lines `gap` apart, from y = `first` on, and sometimes a margin."""
    h, w = sheet.size
    dark, width = float(rng.uniform(0.15, 0.6)), max(0.7, gap * float(rng.uniform(0.01, 0.03)))
    reach = 0.2 * w
    lines = [((-reach, y), (w + reach, y)) for y in np.arange(first - gap * (first // gap + 1), 1.2 * h, gap)]
    if rng.random() < 0.3:
        x = w * float(rng.uniform(0.03, 0.15))
        lines.append(((x, -reach), (x, h + reach)))
    sheet.rule(lines, width, dark)


def squared(sheet: Sheet, rng: np.random.Generator, gap: float) -> None:
    """Squared paper."""
    h, w = sheet.size
    dark, width = float(rng.uniform(0.12, 0.5)), max(0.6, gap * float(rng.uniform(0.01, 0.03)))
    reach = 0.2 * max(h, w)
    lines = [
        ((-reach, y), (w + reach, y)) for y in np.arange(float(rng.uniform(0, gap)) - reach, h + reach, gap)
    ]
    lines += [
        ((x, -reach), (x, h + reach)) for x in np.arange(float(rng.uniform(0, gap)) - reach, w + reach, gap)
    ]
    sheet.rule(lines, width, dark)


def grid(
    sheet: Sheet, rng: np.random.Generator, corner: tuple[float, float], rows: list[float], columns: list[float],
    *, thick_every: int = 0,
) -> None:  # fmt: skip
    """A table's borders: its corner, then where its rows and columns end, in pixels; every nth line may be bold."""
    x, y = corner
    dark = float(rng.uniform(0.35, 0.95))
    width = max(0.8, (rows[-1] / max(len(rows) - 1, 1)) * float(rng.uniform(0.01, 0.035)))
    lines = [((x, y + r), (x + columns[-1], y + r)) for r in rows]
    lines += [((x + c, y), (x + c, y + rows[-1])) for c in columns]
    sheet.rule(lines, width, dark)
    if thick_every:
        bold = [((x, y + r), (x + columns[-1], y + r)) for r in rows[::thick_every]]
        bold += [((x + c, y), (x + c, y + rows[-1])) for c in columns[::thick_every]]
        sheet.rule(bold, 2.5 * width, min(1.0, dark * 1.2))


def stamp(sheet: Sheet, rng: np.random.Generator, centre: tuple[float, float], radius: float) -> None:
    """A round or square stamp: rings, or a frame, with strokes inside."""
    t = np.linspace(0, 2 * np.pi, 40)
    middle, dark = np.array(centre), float(rng.uniform(0.15, 0.45))
    rings = [radius, radius * 0.72] if rng.random() < 0.6 else [radius]
    square = rng.random() < 0.3
    for r in rings:
        if square:
            r = r / max(np.abs(np.cos(t)).max(), 1) / np.maximum(np.abs(np.cos(t)), np.abs(np.sin(t)))
        circle = np.stack([np.cos(t), np.sin(t)], 1) * np.reshape(r, (-1, 1))
        sheet.print_path([middle + circle], max(1.0, radius * 0.05), dark)
    spokes = int(rng.integers(3, 12))
    for a in rng.uniform(0, 6.28, spokes):
        step = np.array([np.cos(a), np.sin(a)])
        sheet.print_path(
            [np.stack([middle + 0.78 * radius * step, middle + 0.94 * radius * step])], 1.5, dark
        )


def view(size: tuple[int, int], rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """A camera's slightly oblique view of a sheet, homography [3, 3]: corners off by some per cent, a small turn."""
    import cv2

    h, w = size
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    moved = corners + rng.uniform(-0.03, 0.03, (4, 2)) * strength * (w, h)
    angle = rng.normal(0, 0.035) * strength
    c, s = np.cos(angle), np.sin(angle)
    middle = np.array([w / 2, h / 2])
    moved = (moved - middle) @ np.array([[c, s], [-s, c]]) + middle
    return cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
