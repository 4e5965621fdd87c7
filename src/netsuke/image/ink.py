"""Pixels to ink to the model's input.

The last step follows how MNIST was made (LeCun et al., 1998): crop to the ink, fit to a 20-pixel box with the
aspect kept, anti-alias, put the centre of mass in the middle of 28x28. Before it the ink must be found, which
MNIST never had to do: on shaded paper, faint, of either polarity, among specks and the lines of a form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netsuke.errors import DataError, OptionError
from netsuke.image.files import opaque

# Lengths are shares of the image's shorter side, contrasts shares of the largest there can be, unless it says more.
# Chosen on the validation sets exam-digits, screen-digits and usps, and on MNIST training images drawn into photos.
WORK = 512  # pixels of the longer side at which ink is looked for: a digit a tenth of that still has 50
RING = 0.1  # width of the border whose brightness is the paper's
EVEN = 4  # grey levels by which the border of an evenly lit paper varies (median)
DEEPEST = (
    0.3  # of the paper's brightest: a soft shadow leaves more, ink at the border pulls the surface below
)
MIN_CONTRAST = 0.05  # fainter is paper
SOLID = 90  # the percentile of ink that counts as solid
SURE, LIKELY = 0.5, 0.05  # of solid ink: where a stroke certainly is, and how far it may reach from there
BAND = 0.12  # width of the border in which the lines of a form are looked for
FULL = 75  # the percentile of the input's ink that becomes 255: lifts the strokes of a thin pen to MNIST's


@dataclass(frozen=True, eq=False)
class Ink:
    """What was written: `pixels` uint8 [h, w], bright ink on 0, and where: `box` is x, y, w, h in the input."""

    pixels: np.ndarray
    box: tuple[int, int, int, int]


def normalize(image: np.ndarray, *, size: int = 28, box: int = 20, centring: str = "mass") -> np.ndarray:
    """A uint8 image of one digit, any size and polarity, as uint8 [size, size], all 0 if it is blank."""
    ink = find_ink(image)
    if ink is None:
        return np.zeros((size, size), np.uint8)
    return fit(ink.pixels, size=size, box=box, centring=centring)


def find_ink(image: np.ndarray) -> Ink | None:
    """The digit in a uint8 image [H, W] or [H, W, 1, 3 (RGB) or 4 (RGBA)]; None where the paper is blank.

    Ink is what stands out from the paper, on whichever side more does. What is surely ink grows into what is
    likely ink (hysteresis: Canny, 1986); specks, and lines along the border, are left out.
    """

    full = grey(image)
    high, wide = full.shape
    scale = max(1.0, max(full.shape) / WORK)
    full = shrunk(full, WORK)
    contrast, noise = _contrast(full.astype(np.float32))
    mask, solid = _ink(contrast, noise)
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y, x, h, w = rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    ink = np.where(mask, contrast, 0)[y : y + h, x : x + w] / solid
    left, top = min(int(x * scale), wide - 1), min(int(y * scale), high - 1)
    box = (left, top, min(wide - left, max(1, round(w * scale))), min(high - top, max(1, round(h * scale))))
    return Ink((ink.clip(0, 1) * 255).round().astype(np.uint8), box)


def grey(image: np.ndarray) -> np.ndarray:
    """Any uint8 image as uint8 [H, W]. Raises DataError for another type, another shape or no pixel."""
    import cv2

    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,), (4,)):
        raise DataError(
            f"an image is uint8 [H, W], [H, W, 3] or [H, W, 4]; got {image.dtype} {list(image.shape)}"
        )
    if image.size == 0:
        raise DataError(f"an image needs at least one pixel; got {list(image.shape)}")
    if image.shape[2:] == (4,):
        image = opaque(np.ascontiguousarray(image[..., :3]), image[..., 3])
    if image.shape[2:] == (3,):
        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    return np.ascontiguousarray(image.reshape(image.shape[:2]))


def shrunk(full: np.ndarray, longer: int) -> np.ndarray:
    """The image with a longer side of `longer` pixels at most, and no side below one."""
    import cv2

    scale = longer / max(full.shape)
    if scale >= 1:
        return full
    size = (max(1, round(full.shape[1] * scale)), max(1, round(full.shape[0] * scale)))
    return cv2.resize(full, size, interpolation=cv2.INTER_AREA)


# --- paper -------------------------------------------------------------------------------------------


def _contrast(full: np.ndarray) -> tuple[np.ndarray, float]:
    """How far each pixel stands out from the paper, ink positive; and one sigma of the paper's noise."""
    paper = _paper(full)
    rest = full - paper
    floor = max(3 * min(_noise(rest), _noise(-rest)), 255 * MIN_CONTRAST / 2)
    dark = -rest[rest < -floor].sum() > rest[rest > floor].sum()
    # A shadow darkens ink and paper by the same factor, so dark ink is measured as a share of its paper.
    contrast = -rest / np.maximum(paper, 32) if dark else rest / 255
    return contrast, _noise(contrast)


def _noise(rest: np.ndarray) -> float:
    """One sigma, from the side of the paper on which no ink lies: thick ink must not count as noise."""
    below = rest[rest < 0]
    return 1.4826 * float(np.median(-below)) if below.size else 0.0


def _paper(full: np.ndarray) -> np.ndarray:
    """The brightness of the background, float32 [H, W]: one level, or a surface where that explains it better."""

    small = shrunk(full, 64)
    high, wide = small.shape
    ring = ~_inside(small.shape, max(1, round(RING * min(high, wide))))
    border = small[ring]
    level = float(np.median(border))
    if float(np.median(np.abs(border - level))) < EVEN:
        return np.full(full.shape, level, np.float32)

    # The border is uneven, by a shadow or by ink that a tight crop cut. Against one level, its commonest, the
    # first leaves little that fits, the second all that is not ink.
    bins = (border / 8).astype(int)
    level = float(np.median(border[bins == np.bincount(bins).argmax()]))
    if min(high, wide) >= 12:
        surface = _surface(small, ring)
        shape = (_terms(high, wide) @ surface).reshape(high, wide)
        soft = shape.min() > DEEPEST * shape.max()
        if soft and np.percentile(np.abs(small - shape), 40) < np.percentile(np.abs(small - level), 40):
            return (_terms(*full.shape) @ surface).reshape(full.shape).clip(0, 255).astype(np.float32)
    return np.full(full.shape, level, np.float32)


def _surface(small: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Six coefficients of a quadratic surface, in the L1 norm (by reweighting) so that ink hardly pulls it."""
    terms, values, use = _terms(*small.shape), small.ravel(), ring.ravel()
    surface = np.array([np.median(small[ring]), 0, 0, 0, 0, 0], np.float32)
    for turn in range(12):
        rest = np.abs(values - terms @ surface)
        if turn == 6:  # the border gave the shape; now all the paper inside refines it
            use = rest < max(8.0, 6 * float(np.median(rest[use])))
        weight = np.sqrt(1 / np.maximum(rest[use], 1))
        surface = np.linalg.lstsq(terms[use] * weight[:, None], values[use] * weight, rcond=None)[0]
    return surface


def _terms(high: int, wide: int) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : high * 1j, -1 : 1 : wide * 1j].astype(np.float32).reshape(2, -1)
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)


def _inside(shape: tuple[int, ...], edge: int) -> np.ndarray:
    inside = np.zeros(shape, bool)
    inside[edge : shape[0] - edge, edge : shape[1] - edge] = True
    return inside


# --- ink ---------------------------------------------------------------------------------------------


def _ink(contrast: np.ndarray, noise: float) -> tuple[np.ndarray, float]:
    """Which pixels are ink, bool [H, W], and the contrast of solid ink."""
    import cv2

    nothing = np.zeros(contrast.shape, bool), 1.0
    floor = max(MIN_CONTRAST / 2, 4 * noise)
    candidates = contrast[contrast > floor]
    solid = float(np.percentile(candidates, SOLID)) if candidates.size else 0.0
    if solid < max(MIN_CONTRAST, 6 * noise):
        return nothing
    likely = contrast > max(floor, LIKELY * solid)
    count, label, stats, _ = cv2.connectedComponentsWithStats(likely.astype(np.uint8), connectivity=8)
    sure = np.bincount(label[contrast > SURE * solid], minlength=count)  # the size of each piece's sure part
    sure[0] = 0
    sure[_lines(label, stats)] = 0
    across = _across(label.shape, stats)
    if sure[~across].sum() > 0.1 * sure.sum():  # else it is a 1 from edge to edge
        sure[across] = 0
    if not sure.any():
        return nothing
    return _strokes(sure, stats)[label], solid


def _lines(label: np.ndarray, stats: np.ndarray) -> np.ndarray:
    """Which pieces are lines of a form: along the border, and thin or from corner to corner (a tight 0 is neither)."""
    high, wide = label.shape
    width, height, area = stats[:, 2], stats[:, 3], stats[:, 4]
    edge = round(BAND * min(high, wide))
    along = np.bincount(label[_inside(label.shape, edge)], minlength=len(stats)) < 0.3 * area
    ends = np.zeros(len(stats), int)
    for rows in (slice(edge), slice(high - edge, None)):
        for columns in (slice(edge), slice(wide - edge, None)):
            ends[np.unique(label[rows, columns])] += 1
    thin = area < 0.05 * np.maximum(width, height) * min(high, wide)
    return along & (thin | (ends >= 2))


def _across(shape: tuple[int, ...], stats: np.ndarray) -> np.ndarray:
    """Which pieces run from edge to edge of the image and are thin."""
    width, height, area = stats[:, 2], stats[:, 3], stats[:, 4]
    spans = (width == shape[1]) | (height == shape[0])
    return spans & (area < 0.1 * np.maximum(width, height) * min(shape))


def _strokes(sure: np.ndarray, stats: np.ndarray) -> np.ndarray:
    """Which pieces are the digit: the large ones, and small ones among them, but no full stop beside."""
    x, y, right, bottom = stats[:, 0], stats[:, 1], stats[:, 0] + stats[:, 2], stats[:, 1] + stats[:, 3]
    length = np.maximum(stats[:, 2], stats[:, 3]) / max(stats[sure.argmax(), 2:4])
    large = (sure > 0) & (length >= 0.2) & ((sure >= 0.1 * sure.max()) | (length >= 0.3))
    within = (x >= x[large].min()) & (y >= y[large].min())
    return (sure > 0) & within & (right <= right[large].max()) & (bottom <= bottom[large].max())


# --- the model's input -------------------------------------------------------------------------------


def fit(ink: np.ndarray, *, size: int = 28, box: int = 20, centring: str = "mass") -> np.ndarray:
    """Bright ink uint8 [h, w] -> uint8 [size, size]: longer side `box`, centred by "mass" or "box", peak 255.

    Raises OptionError where `box` is not 1 to `size`, or for another centring.
    """
    import cv2

    if not 1 <= box <= size or centring not in ("mass", "box"):
        raise OptionError(f"box must be 1 to {size} and centring mass or box; got {box} and {centring!r}")
    grain = 1 if centring == "mass" else 4
    ink = _boxed(ink, box * grain)[: size * grain, : size * grain]
    h, w = ink.shape
    if centring == "mass":  # MNIST's own centres of mass lie from 14.0 to 15.0 of 28: it rounded up
        total = max(float(ink.sum()), 1.0)
        y, x = float(ink.sum(1) @ np.arange(h)) / total + 0.5, float(ink.sum(0) @ np.arange(w)) / total + 0.5
        top, left = int(np.ceil(size / 2 - y)), int(np.ceil(size / 2 - x))
    else:  # the 8x8 digits count ink in blocks of 4x4, which places them to a quarter of a pixel
        top, left = (size * grain - h) // 2, (size * grain - w) // 2
    top, left = min(max(top, 0), size * grain - h), min(max(left, 0), size * grain - w)
    out: np.ndarray = np.zeros((size * grain, size * grain), np.uint8)
    out[top : top + h, left : left + w] = ink
    if grain > 1:
        out = cv2.resize(out, (size, size), interpolation=cv2.INTER_AREA)
    solid = _percentile(out[out > 0], FULL if centring == "mass" else 100) if out.any() else 255.0
    return (out * (255 / solid)).clip(0, 255).round().astype(np.uint8)


def _percentile(values: np.ndarray, share: float) -> float:
    """As np.percentile has it, at a tenth of its time for a few hundred bytes."""
    values = np.sort(values)
    place = share / 100 * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return float(values[low]) + (place - low) * (float(values[high]) - float(values[low]))


def _boxed(ink: np.ndarray, box: int) -> np.ndarray:
    """Ink scaled so that its longer side is `box`."""
    import cv2

    longer = max(ink.shape)
    if abs(longer - box) <= box // 20:  # ink that fits already would only be blurred
        return ink
    h, w = (max(1, round(side * box / longer)) for side in ink.shape)
    return cv2.resize(ink, (w, h), interpolation=cv2.INTER_AREA if longer > box else cv2.INTER_CUBIC)
