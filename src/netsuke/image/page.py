"""The ink of a whole page or strip: on shaded and patterned paper, of pens of several strengths, without ruled lines.

Paper is a running median (what covers less than half of a window is not paper); ink is a share of the paper's
brightness, as a shadow darkens both alike. Every connected piece of what may be ink is then cut at a level of its own
(Otsu, 1979, on its histogram): pencil beside print keeps its strokes, and a printed ground that ties digits
together lets go of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netsuke.image import rules
from netsuke.image.ink import Ink, grey
from netsuke.image.pieces import boxes, pieces, usual_height
from netsuke.image.polarity import even_border, is_dark
from netsuke.image.rings import without_rings

WORK = 1600  # pixels of the longer side at which ink is looked for: a digit of a sixtieth still has 27
SMALL = 256  # pixels of the longer side at which paper is looked for
WINDOW = 0.7  # of the shorter side, at most: where the paper's median is taken
NARROW = 61  # pixels of that window at SMALL, at most: shadows are wider
MIN_CONTRAST = 0.06  # of the paper's brightness; fainter is paper
NOISE = 2.5  # sigmas of the paper's own texture that are no ink
EVENEST = 30  # percent of the image, whose texture is the most that paper has: desks, edges and much ink seem rougher
CORE = 0.42  # of a piece's solid ink: where a stroke is
EDGE = 0.2  # and how faint the pixels at its edge may be
PALE = 0.28  # of the darkest ink: fainter pieces are print of the ground,
PENCIL = 0.11  # but for those of a sign's size, pencil beside print,
LARGE = 0.25  # of an image's side: what is longer is no sign
THICK = 0.3  # of a large piece that is thick both ways: a desk, which says nothing of how dark ink is
CROWDED = 0.4  # unless their boxes cover so much of the image: a pattern
TWO, STRING = 2.0, 8.0  # of the usual height: lower ones may be touching digits, and so wide, of their height
COMMON = 4.0  # times their ink that of others as pale: then all are a pattern's
FREE = 0.3  # of a piece that lies beside broad lines: what is darker along them says nothing of it
WALL = 0.22  # of how dark ink is: lines as dark as that may part cells
BESIDE = 7  # pixels of a wall's row, of which one is ink
LEVELS = 64  # of the histograms
SPECK = 4  # pixels of ink, at least
SEEN = 84  # pixels of a crop's shorter side, at least: what is smaller is made larger
ASIDE, OVER = 0.15, 0.3  # of a digit's height: how far beside and above it parts of it lie
DIRT = 0.02  # of a digit's ink: smaller pieces are none of it
STROKE = 15  # pixels of a stroke at SMALL, at most, beside a desk
DRAWN = 0.28  # of the paper's brightness: by as much a desk drew its median away
DUST = 7.0  # pixels of height: less is no sign
STRONG = int(255 * MIN_CONTRAST)
DARKEST = np.uint8(32)  # paper's brightness, at least
FINE = 8  # parts of a grey level in which the paper's texture is measured


@dataclass(frozen=True, eq=False)
class PageInk:
    """`pixels` uint8 [h, w], 255 = solid ink, 0 = paper; `scale` is the input's pixels a pixel of it, at least 1;
    `walls` bool [h, w], where dark upright lines were, that may part cells."""

    pixels: np.ndarray
    scale: float
    walls: np.ndarray


def page_ink(image: np.ndarray) -> PageInk:
    """The ink of a uint8 image [H, W] or [H, W, 1, 3 (RGB) or 4 (RGBA)] of either polarity.

    Raises DataError where it is no such image.
    """
    full = grey(image)
    scale = max(1.0, max(full.shape) / WORK)
    full = _shrunk(full, WORK)
    contrast, floor = _contrast(full)
    unruled = rules.without_lines(contrast, floor)
    return PageInk(without_rings(_solid(unruled, floor)), scale, _walls(contrast, unruled, floor))


def _walls(contrast: np.ndarray, unruled: rules.Unruled, floor: np.ndarray) -> np.ndarray:
    """Where upright lines were, bool [H, W]; nowhere if they are pale beside the ink, as those of squared paper are."""
    import cv2

    upright = unruled.upright
    ink = unruled.contrast[unruled.contrast > floor]
    if not upright.any() or not len(ink):
        return upright
    if np.median(contrast[upright]) < WALL * _dark(ink):
        return np.zeros_like(upright)
    # a line goes on between fields below each other, where no ink is
    beside = np.ones((1, BESIDE), np.uint8)
    inked: np.ndarray = cv2.dilate((contrast > floor).view(np.uint8), beside) > 0
    return upright & inked


def page_digit(image: np.ndarray) -> Ink | None:
    """The digit of a crop by its `page_ink`: the largest piece and what is near it; None where there is no ink.

    It sees faint ink, and ink on patterned paper, where `find_ink` sees paper; and sees more where nothing is.
    """
    import cv2

    full = grey(image)
    larger = max(1.0, SEEN / min(full.shape))
    if larger > 1 and max(full.shape) * larger <= WORK:
        full = cv2.resize(full, None, fx=larger, fy=larger, interpolation=cv2.INTER_CUBIC)
    else:
        larger = 1.0
    page = page_ink(full)
    ink, scale = page.pixels, page.scale / larger
    label, stats = pieces(ink)
    if not len(stats):
        return None
    x, y, w, h, area = stats[stats[:, 4].argmax()]
    left, top, wide, high, areas = stats.T
    beside = (left + wide > x - ASIDE * h) & (left < x + w + ASIDE * h)
    level = (top + high > y - OVER * h) & (top < y + h + OVER * h)
    own = beside & level & (areas > DIRT * area)
    mask = np.concatenate([[False], own])[label]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y, x, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    box = tuple(int(v * scale) for v in (x, y, right - x, bottom - y))
    return Ink((ink * mask)[y:bottom, x:right], (box[0], box[1], max(1, box[2]), max(1, box[3])))


def _shrunk(full: np.ndarray, longer: int) -> np.ndarray:
    """The image with a longer side of `longer` pixels at most, and no side below one."""
    import cv2

    scale = longer / max(full.shape)
    if scale >= 1:
        return full
    size = (max(1, round(full.shape[1] * scale)), max(1, round(full.shape[0] * scale)))
    return cv2.resize(full, size, interpolation=cv2.INTER_AREA)


def _contrast(full: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far pixels are from the paper on the side of ink, uint8 [H, W], 255 = all its brightness; and the contrast
    up to which they are paper, uint8 [H, W]: by the paper's own texture there, seen on the other side."""
    import cv2

    size = full.shape[::-1]
    longer = max(full.shape) // -(-max(full.shape) // SMALL)  # a whole share of the image's side is fast
    small = _shrunk(full, longer)
    window = min(NARROW, round(WINDOW * min(small.shape))) | 1
    paper = cv2.medianBlur(small, window) if window >= 3 else small
    paper = cv2.blur(paper, (window // 4 | 1, window // 4 | 1))
    dark = is_dark(small, paper, window, STRONG)
    paper = _up_to_the_rim(small, paper, min(full.shape) < SMALL) if dark else paper
    paper = cv2.resize(paper, size, interpolation=cv2.INTER_LINEAR)
    sides = cv2.subtract(paper, full), cv2.subtract(full, paper)
    ink, other = sides if dark else sides[::-1]
    if dark:  # a shadow darkens ink and paper by the same factor
        paper = np.maximum(paper, DARKEST)
        ink = cv2.divide(ink, paper, scale=255)
        other = cv2.divide(other, paper, scale=255 * FINE)
    else:
        other = cv2.convertScaleAbs(other, alpha=FINE)
    texture = np.minimum(_shrunk(other, longer), int(2 * 255 * MIN_CONTRAST * FINE)).astype(np.float32)
    sigma = cv2.blur(texture, (window, window)) * 2.5 / FINE  # E[max(x, 0)] is 0.4 sigma
    sigma = np.minimum(sigma, np.percentile(sigma, EVENEST))
    floor = np.maximum(255 * MIN_CONTRAST / 2, NOISE * sigma)
    return ink, cv2.resize(floor.clip(0, 255).astype(np.uint8), size, interpolation=cv2.INTER_LINEAR)


def _up_to_the_rim(small: np.ndarray, paper: np.ndarray, crop: bool) -> np.ndarray:
    """The paper of dark ink, uint8 [h, w]: lighter where a desk, a shadow or bold ink nearby drew the median away.

    There it is what lies around the strokes (a morphological closing), which is too light elsewhere, on patterned
    paper; of a `crop`, which bold ink may fill, the border, too, where that is even.
    """
    import cv2

    fine = cv2.medianBlur(small, 3)
    around = cv2.morphologyEx(fine, cv2.MORPH_CLOSE, np.ones((STROKE, STROKE), np.uint8))
    level = even_border(small, STRONG) if crop else None
    if level is not None:
        around = np.maximum(around, np.uint8(level))
    drawn = cv2.subtract(around, paper) > DRAWN * np.maximum(paper, DARKEST).astype(np.float32)
    return np.where(drawn, around, paper)


def _solid(unruled: rules.Unruled, floor: np.ndarray) -> np.ndarray:
    """Contrast as a share of the solid ink of its piece, uint8 [H, W]; 0 outside the strokes."""
    import cv2

    contrast, lined, blots = unruled.contrast, unruled.broad, unruled.blots
    likely = contrast > floor
    count, label = cv2.connectedComponents(likely.view(np.uint8), connectivity=8)
    at = np.flatnonzero(likely)
    value, piece = contrast.ravel()[at], label.ravel()[at]
    large = np.bincount(piece, minlength=count) >= SPECK
    number = np.cumsum(large) - 1
    kept = large[piece]
    at, value, piece = at[kept], value[kept], number[piece[kept]]
    count = int(large.sum())
    free = ~lined.ravel()[at]
    own = np.bincount(piece, free, minlength=count) >= FREE * np.bincount(piece, minlength=count)
    asked = free | ~own[piece]
    table = np.bincount(piece[asked] * LEVELS + value[asked] // (256 // LEVELS), minlength=count * LEVELS)
    solid = _upper(table.reshape(count, LEVELS)) * 255
    dark = _dark(value)
    pale = solid < PALE * dark
    if pale.any():
        box = boxes(at, piece, count, contrast.shape[1])
        far = np.any(box[:, 2:] > LARGE * np.array(contrast.shape[::-1]), axis=1)
        area, thick = (np.bincount(piece, weight, count) for weight in (None, blots.ravel()[at]))
        desk = far & (thick > THICK * area)
        if desk.any() and not desk.all():
            dark = _dark(value[~desk[piece]])
            pale = solid < PALE * dark
        wide, high = box[:, 2:].T
        signs = ~pale & ~desk & (high >= DUST)
        signs = signs & ~far if (signs & ~far).any() else signs
        usual = usual_height(high[signs]) if signs.any() else DUST
        pencil = pale & (solid >= PENCIL * dark) & _is_sign(high / usual, wide / high)
        area = np.bincount(piece, minlength=count)
        other = pale & ~pencil & ~far & (solid >= PENCIL * dark)
        rare = area[other].sum() < COMMON * area[pencil].sum()
        if rare and (high * wide)[pencil].sum() < CROWDED * contrast.size:
            pale &= ~pencil
    solid[pale | (solid < 255 * MIN_CONTRAST)] = np.inf
    share: np.ndarray = np.zeros(contrast.shape, np.uint8)
    share.ravel()[at] = np.minimum(value * (255 / solid)[piece], 255)
    core = cv2.dilate(cv2.inRange(share, int(255 * CORE) + 1, 255), np.ones((3, 3), np.uint8))
    return cv2.threshold(share & core, int(255 * EDGE), 0, cv2.THRESH_TOZERO)[1]


def _dark(value: np.ndarray) -> float:
    """How dark solid ink is, of the contrast of all that may be ink."""
    return float(np.searchsorted(np.cumsum(np.bincount(value, minlength=256)), 0.95 * len(value)))


def _is_sign(high: np.ndarray, aspect: np.ndarray) -> np.ndarray:
    """Whether pieces may be signs, by height as a share of the usual and width of height; an upright bar may not, and a
    row of touching ones may."""
    return (high > 0.5) & (high < 4.0) & (aspect < np.where(high < TWO, STRING, 1.5)) & (aspect > 0.25)


def _upper(table: np.ndarray) -> np.ndarray:
    """Mean contrast of the upper of Otsu's two classes, of histograms [n, LEVELS]."""
    middle = (np.arange(LEVELS) + 0.5) / LEVELS
    below, total = np.cumsum(table, 1), table.sum(1, keepdims=True)
    mass = np.cumsum(table * middle, 1)
    above, rest = total - below, mass[:, -1:] - mass
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass / below - rest / above) ** 2
        upper = rest / above
    cut = np.nan_to_num(between, nan=-1.0).argmax(1)
    mean = np.where(total[:, 0] > 0, mass[:, -1] / np.maximum(total[:, 0], 1), 0)
    chosen = upper[np.arange(len(table)), cut]
    return np.where(np.isfinite(chosen), chosen, mean).astype(np.float32)
