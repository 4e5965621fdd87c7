"""Pixels to ink to the model's input.

The last step follows how MNIST was made (LeCun et al., 1998): crop to the ink, fit to a 20-pixel box with the
aspect kept, anti-alias, put the centre of mass in the middle of 28x28. Before it the ink must be found, which
MNIST never had to do: on shaded paper, faint, of either polarity, among specks and the lines of a form.

Whole numbers of 32 bits throughout, so that C and WebAssembly do the same, bit for bit (`export/c/normaliser.c`). `//`
and `>>` round down. Contrasts are 1024ths of the largest there can be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netsuke.errors import DataError
from netsuke.image.files import opaque
from netsuke.image.fitting import fit
from netsuke.image.paper import boxes, paper, ranked

# Chosen on the validation sets exam-digits, screen-digits and usps, and on MNIST training images drawn into photos.
WORK = 240  # pixels of the longer side at which ink is looked for: a digit a tenth of that still has 24
FAINT = 51  # contrast below which is paper
SOLID = 90  # the percentile of ink that counts as solid


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
    full = _shrunk(full)
    contrast = _contrast(full)
    mask, solid = _ink(contrast)
    if mask is None:
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y, x, bottom, right = (int(v) for v in (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1))
    ink = (contrast * mask)[y:bottom, x:right]
    pixels = np.minimum((510 * ink + solid) // (2 * solid), 255).astype(np.uint8)
    left, end = (side * wide // full.shape[1] for side in (x, right))
    top, low = (side * high // full.shape[0] for side in (y, bottom))
    return Ink(pixels, (left, top, end - left, low - top))


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


def _shrunk(full: np.ndarray) -> np.ndarray:
    """The image with a longer side of WORK pixels at most, and no side below one."""
    longer = max(full.shape)
    if longer <= WORK:
        return full
    high, wide = (max(1, (2 * side * WORK + longer) // (2 * longer)) for side in full.shape)
    return boxes(full, high, wide).astype(np.uint8)


# --- contrast ----------------------------------------------------------------------------------------


def _contrast(full: np.ndarray) -> np.ndarray:
    """How far each pixel stands out from the paper, ink positive, int32 [H, W]."""
    ground = paper(full)
    rest = full.astype(np.int32) * 16 - ground
    floor = max(9 * min(_noise(rest), _noise(-rest)) // 2, FAINT * 2)
    dark = -int(rest[rest < -floor].sum()) > int(rest[rest > floor].sum())
    # A shadow darkens ink and paper by the same factor, so dark ink is measured as a share of its paper.
    return -rest * 1024 // np.maximum(ground, 32 * 16) if dark else rest * 1024 // (255 * 16)


def _noise(rest: np.ndarray) -> int:
    """The median of the side of the paper on which no ink lies, two thirds of a sigma: thick ink is not noise."""
    return ranked(-rest[rest < 0], 50)


# --- ink ---------------------------------------------------------------------------------------------


def _ink(contrast: np.ndarray) -> tuple[np.ndarray | None, int]:
    """Which pixels are ink, bool [H, W], None where none is; and the contrast of solid ink."""
    import cv2

    noise = _noise(contrast)
    floor = max(FAINT // 2, 6 * noise)
    solid = ranked(contrast[contrast > floor], SOLID)
    if solid < max(FAINT, 9 * noise):
        return None, 0
    likely = (contrast > max(floor, solid // 20)).view(np.uint8)
    count, label, stats, _ = cv2.connectedComponentsWithStats(likely, connectivity=8)
    sure = np.bincount(label[2 * contrast > solid], minlength=count)  # the size of each piece's sure part
    sure[0] = 0
    if np.count_nonzero(sure) > contrast.size // 16 + 16:  # nothing but noise
        return None, 0
    sure[_lines(label, stats)] = 0
    across = _across(label.shape, stats)
    if 10 * sure[~across].sum() > sure.sum():  # else it is a 1 from edge to edge
        sure[across] = 0
    if not sure.any():
        return None, 0
    return _strokes(sure, stats)[label], solid


def _lines(label: np.ndarray, stats: np.ndarray) -> np.ndarray:
    """Which pieces are lines of a form: along the border, and thin or from corner to corner (a tight 0 is neither)."""
    high, wide = label.shape
    width, height, area = stats[:, 2], stats[:, 3], stats[:, 4]
    edge = (12 * min(high, wide) + 50) // 100  # a band in which lines are looked for
    inner = np.bincount(label[edge : high - edge, edge : wide - edge].ravel(), minlength=len(stats))
    ends = np.zeros(len(stats), int)
    for rows in (slice(edge), slice(high - edge, None)):
        for columns in (slice(edge), slice(wide - edge, None)):
            ends[np.unique(label[rows, columns])] += 1
    thin = 20 * area < np.maximum(width, height) * min(high, wide)
    lines: np.ndarray = (10 * inner < 3 * area) & (thin | (ends >= 2))
    return lines


def _across(shape: tuple[int, ...], stats: np.ndarray) -> np.ndarray:
    """Which pieces run from edge to edge of the image and are thin."""
    width, height, area = stats[:, 2], stats[:, 3], stats[:, 4]
    spans = (width == shape[1]) | (height == shape[0])
    return spans & (10 * area < np.maximum(width, height) * min(shape))


def _strokes(sure: np.ndarray, stats: np.ndarray) -> np.ndarray:
    """Which pieces are the digit: the large ones, and small ones among them, but no full stop beside."""
    x, y, right, bottom = stats[:, 0], stats[:, 1], stats[:, 0] + stats[:, 2], stats[:, 1] + stats[:, 3]
    length, most = np.maximum(stats[:, 2], stats[:, 3]), sure.max()
    longest = length[sure == most].max()
    large = (sure > 0) & (5 * length >= longest) & ((10 * sure >= most) | (10 * length >= 3 * longest))
    within = (x >= x[large].min()) & (y >= y[large].min())
    return (sure > 0) & within & (right <= right[large].max()) & (bottom <= bottom[large].max())
