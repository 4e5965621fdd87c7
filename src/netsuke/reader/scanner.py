"""What a row says from left to right: a network that reads strips of ink, and its word on each candidate.

The finder looks at places of a page, one by one; the scanner reads along a row, each digit once: of two that touch it
sees both. It tells of each frame, two pixels wide, which sign is written there or that none begins or goes on: the
alphabet of connectionist temporal classification (Graves et al., 2006). Between the bounds of a candidate that gives
the probability that exactly one sign stands there, and which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from netsuke.artifact import Artifact
from netsuke.engine import Engine
from netsuke.errors import ArtifactError

TALL, WIDE, STRIDE = 32, 128, 2  # pixels of a tile, and of a frame
MARGIN = 16  # pixels at a tile's ends that are left to its neighbours
HEIGHT = 22.0  # pixels: a row's digits are brought to that
SQUEEZED = 0.75  # a row that is taller than a tile is made smaller by so much at most, then cut
NEAR = 4.0  # frames by which a bound is moved at most
AROUND = 4  # pixels before and behind a row that are its own
LARGER = 4.0  # a row is made larger by so much at most
LOOKS = 0.95, 1.15  # of its width, for each look at a row
CLEAR = 0.97  # probability of each sign, and of none between them, from which a row is looked at once
SIGNS = "0123456789.,-"
BATCH = 32  # tiles that are run together, and rows that are spelt
DOUBT = 0.65  # probability of none from which no sign is told


class Scanner:
    """Reads rows with an artifact that gives a map [signs, 1, W / 2] of a tile [1, 32, W]."""

    def __init__(self, artifact: Artifact, *, backend: str = "auto"):
        scans = artifact.manifest.get("scans")
        if scans != list(SIGNS):
            raise ArtifactError("no scanner: its manifest does not say that it scans for digits and . , -")
        shape = artifact.graph.types(artifact.tensors)[artifact.graph.output].shape
        wanted = (1, TALL, WIDE), (len(SIGNS), 1, WIDE // STRIDE)
        if (artifact.graph.input_shape, shape) != wanted:
            raise ArtifactError(
                f"a scanner maps {list(wanted[0])} to {list(wanted[1])}; "
                f"this maps {list(artifact.graph.input_shape)} to {list(shape)}"
            )
        self._scale = float(artifact.graph.ops[-1].attrs.get("scale", 1.0))
        self._engine = Engine(artifact, backend=backend)

    def scan(self, inks: Sequence[np.ndarray], heights: Sequence[float]) -> list[Scan]:
        """Reads rows of ink, uint8 [h, w] each, whose digits are of these heights in pixels.

        What is not clear is looked at again, wider: what both looks say together is surer.
        """
        scans = self._look(inks, heights, LOOKS[0])
        again = [k for k, scan in enumerate(scans) if not scan.is_clear()]
        second = self._look([inks[k] for k in again], [heights[k] for k in again], LOOKS[1])
        for k, other in zip(again, second, strict=True):
            scans[k] = replace(scans[k], second=other)
        return scans

    def _look(self, inks: Sequence[np.ndarray], heights: Sequence[float], across: float) -> list[Scan]:
        if not len(inks):
            return []
        sizes = [scale(ink.shape[0], height) for ink, height in zip(inks, heights, strict=True)]
        cut = [tiles(strip(ink, size, size * across)) for ink, size in zip(inks, sizes, strict=True)]
        together = np.concatenate(cut)
        maps = [self._engine.run(together[i : i + BATCH]) for i in range(0, len(together), BATCH)]
        last = np.cumsum([len(part) for part in cut])
        own = np.split(np.concatenate(maps)[:, :, 0] * self._scale, last[:-1])
        return [Scan(framed(part), size * across) for part, size in zip(own, sizes, strict=True)]


@dataclass(frozen=True, eq=False)
class Scan:
    """What is read along a row: log-probabilities float64 [frames, 14] of SIGNS and of none; a pixel of its ink is
    `factor` pixels of the strip, and its first is MARGIN pixels behind the first frame. `second` is another look."""

    frames: np.ndarray
    factor: float
    second: Scan | None = None

    def loudest(self) -> float:
        """The greatest probability of a digit anywhere."""
        return float(np.exp(self.frames[:, :10].max()))

    def is_clear(self) -> bool:
        """Whether each sign, and none between them, is sure somewhere."""
        chance = np.exp(self.frames)
        begins = np.flatnonzero(np.diff(chance.argmax(1), prepend=-1))
        return bool(np.maximum.reduceat(chance.max(1), begins).min() >= CLEAR)

    def peaks(self) -> np.ndarray:
        """Where a sign is told, in frames: float [n], growing."""
        frames = np.exp(self.frames)
        sign = np.where(frames[:, -1] < DOUBT, frames[:, :-1].argmax(1), -1)
        begins = np.flatnonzero(np.diff(sign, prepend=-1) * (sign >= 0))
        ends = np.flatnonzero(np.diff(sign, append=-1) * (sign >= 0)) + 1
        return (begins + ends) / 2

    def marks(self) -> np.ndarray:
        """The same in pixels of the row's ink from its left."""
        return (self.peaks() * STRIDE - MARGIN) / self.factor


def told(
    scans: Sequence[Scan],
    boxes: Sequence[np.ndarray],
    spans: Sequence[Sequence[tuple[int, int]]],
    left: Sequence[int],
) -> list[np.ndarray]:
    """Of each row's spans of atoms the log-probabilities float64 [spans, 14] that exactly one sign stands within it,
    one column a sign, and that none does: the mean of both looks.

    `boxes` [atoms, 4] (x, y, w, h) are in the order of their middles, `left` is where the row's ink begins.
    """

    def ask(look: Sequence[Scan], rows: Sequence[int]) -> list[np.ndarray]:
        return _told(look, [boxes[k] for k in rows], [spans[k] for k in rows], [left[k] for k in rows])

    return _heard(scans, ask)


def _heard(
    scans: Sequence[Scan], ask: Callable[[Sequence[Scan], Sequence[int]], list[np.ndarray]]
) -> list[np.ndarray]:
    """Log-probabilities of each row: what `ask` tells of its look, or the mean of both; it takes looks and which rows
    they are of."""
    found = ask(scans, range(len(scans)))
    second = {k: scan.second for k, scan in enumerate(scans) if scan.second}
    for k, other in zip(second, ask([*second.values()], [*second]), strict=True):
        found[k] = np.logaddexp(found[k], other) - np.log(2)
    return found


def _told(
    scans: Sequence[Scan],
    boxes: Sequence[np.ndarray],
    spans: Sequence[Sequence[tuple[int, int]]],
    left: Sequence[int],
) -> list[np.ndarray]:
    """`told`, of one look."""
    if not len(scans):
        return []
    ends, past = [], 0
    for scan, box, span, begin in zip(scans, boxes, spans, left, strict=True):
        starts = bounds((box[:, [0, 2]] - [begin, 0]) * scan.factor, len(scan.frames), scan.peaks())
        ends.append(past + starts[np.array(span).reshape(-1, 2)])
        past += len(scan.frames)
    frames, (first, last) = np.concatenate([scan.frames for scan in scans]), np.concatenate(ends).T
    found = np.concatenate([once(frames, first, last), silent(frames, first, last)[:, None]], 1)
    return np.split(found, np.cumsum([len(span) for span in spans])[:-1])


def scale(tall: int, height: float) -> float:
    """What brings a row's digits of `height` pixels to HEIGHT, or to less where the row is `tall`."""
    factor = min(HEIGHT / max(height, 1.0), LARGER)
    return factor * min(1.0, max(SQUEEZED, (TALL - 2) / (tall * factor)))


def strip(ink: np.ndarray, down: float, across: float, *, lift: float = 0.0) -> np.ndarray:
    """Ink uint8 [h, w] scaled and set in the middle of a strip uint8 [TALL, n], or so many pixels above it."""
    import cv2

    size = max(1, round(ink.shape[1] * across)), max(1, round(ink.shape[0] * down))
    fine = cv2.INTER_AREA if down < 1 else cv2.INTER_LINEAR
    small = ink if size == ink.shape[::-1] else cv2.resize(ink, size, interpolation=fine)
    out = np.zeros((TALL, size[0]), np.uint8)
    top = round((TALL - size[1]) / 2 - lift)
    skip, left = max(0, -top), max(0, top)
    part = small[skip : skip + TALL - left]
    out[left : left + len(part)] = part
    return out


def tiles(one: np.ndarray) -> np.ndarray:
    """A strip [TALL, n] as tiles [m, 1, TALL, WIDE] that overlap by two margins."""
    core = WIDE - 2 * MARGIN
    count = max(1, -(-one.shape[1] // core))
    padded = np.zeros((TALL, count * core + 2 * MARGIN), np.uint8)
    padded[:, MARGIN : MARGIN + one.shape[1]] = one
    return np.stack([padded[None, :, i * core : i * core + WIDE] for i in range(count)])


def framed(maps: np.ndarray) -> np.ndarray:
    """Log-probabilities [frames, 14] of the signs and of none along a strip, from its tiles' maps [m, 13, 64]."""
    edge = MARGIN // STRIDE
    middle = maps[:, :, edge:-edge].transpose(0, 2, 1).reshape(-1, maps.shape[1])
    value = np.concatenate([maps[0, :, :edge].T, middle, maps[-1, :, -edge:].T])
    value = np.concatenate([value, np.zeros((len(value), 1))], 1)
    value -= value.max(1, keepdims=True)
    return value - np.log(np.exp(value).sum(1, keepdims=True))


def bounds(places: np.ndarray, frames: int, peaks: np.ndarray) -> np.ndarray:
    """The first frame of each atom and of what follows the last, [atoms + 1]: every frame is of one atom, but for
    those that lie more than AROUND pixels outside.

    `places` [atoms, 2] are left sides and widths in pixels of the strip, in the order of their middles. Where signs
    lean over each other boxes don't say where one ends: the bound that is nearest to the middle of two neighbouring
    `peaks` lies there.
    """
    left, right = places[1:, 0], np.maximum.accumulate(places.sum(1))[:-1]
    middle = places[:, 0] + places[:, 1] / 2
    between = np.clip((left + right) / 2, middle[:-1], middle[1:])
    outer = (MARGIN - AROUND) // STRIDE
    at = (between + MARGIN - 0.5) / STRIDE
    cells = np.round(at).astype(np.int64).clip(outer, frames - outer)
    for a, b in pairwise(peaks):
        if not len(at):
            break
        k = int(np.abs(at - (a + b) / 2).argmin())
        if abs(at[k] - (a + b) / 2) <= NEAR:
            cells[k] = min(max(round((a + b) / 2), outer), frames - outer)
            cells[:k] = np.minimum(cells[:k], cells[k])
            cells[k + 1 :] = np.maximum(cells[k + 1 :], cells[k])
    return np.concatenate([[outer], cells, [frames - outer]])


def silent(frames: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Log-probability [n] that no sign stands from frame `first` to `last` (exclusive)."""
    behind = np.concatenate([[0.0], np.cumsum(frames[:, -1])])
    return behind[last] - behind[first]


def once(frames: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Log-probabilities [n, 13] that from frame `first` to `last` (exclusive) exactly one sign stands, and which.

    That is the sum over all frames in which it may begin and end; before and behind it is none. -inf is less than any
    number can tell.
    """
    chance, long = np.exp(frames), last - first
    order = np.argsort(-long, kind="stable")  # the longest first: those that go on are a slice of all
    begin, going = first[order], np.searchsorted(-long[order], -np.arange(long.max(initial=0)), "left")
    ahead = np.ones((len(first), 1))  # none so far; then in the sign, and behind it
    within, behind = np.zeros((2, len(first), frames.shape[1] - 1))
    for step, count in enumerate(going.tolist()):
        part = chance[begin[:count] + step]
        sign, none = part[:, :-1], part[:, -1:]
        behind[:count] = (behind[:count] + within[:count]) * none
        within[:count] = (within[:count] + ahead[:count]) * sign
        ahead[:count] *= none
    found = np.empty_like(within)
    with np.errstate(divide="ignore"):
        found[order] = np.log(within + behind)
    return found


def spelling(scans: Sequence[Scan], texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """The log-probability that a row says just this text and no more: float64 [texts] of each row.

    It is the sum over all ways to set the text's signs on frames, the forward variable of Graves et al. (2006), so it
    needs no bounds between signs that overlap; and the mean of both looks.
    """
    return _heard(scans, lambda look, rows: _spelt_all(look, [texts[k] for k in rows]))


def _spelt_all(scans: Sequence[Scan], texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """`spelling`, of one look."""
    parts = (slice(first, first + BATCH) for first in range(0, len(scans), BATCH))
    return [one for part in parts for one in _spelt(scans[part], texts[part])]


def _spelt(scans: Sequence[Scan], texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
    every = [(k, text) for k, said in enumerate(texts) for text in said]
    if not every:
        return [np.zeros(0) for _ in texts]
    none = len(SIGNS)
    states = np.full((len(every), 2 * max(len(text) for _, text in every) + 1), none)
    frames = np.zeros((max(len(scans[k].frames) for k, _ in every), len(every), none + 1))
    frames[..., none] = 1.0  # behind a row nothing more is said
    for i, (k, text) in enumerate(every):
        states[i, 1 : 2 * len(text) : 2] = [SIGNS.index(sign) for sign in text]
        frames[: len(scans[k].frames), i] = np.exp(scans[k].frames)
    chance = np.take_along_axis(frames, states[None], 2)
    apart = states[:, 2:] != states[:, :-2]  # between two of one sign there is none
    ahead = np.zeros((len(every), states.shape[1] + 2))  # with two more before the first
    ahead[:, 2] = 1.0
    for own in chance:
        following = ahead[:, 2:] + ahead[:, 1:-1]
        following[:, 2:] += apart * ahead[:, 2:-2]
        ahead[:, 2:] = following * own
    last = 2 + 2 * np.array([len(text) for _, text in every])[:, None]
    whole = np.take_along_axis(ahead, np.concatenate([last, last - 1], 1), 1).sum(1)
    return np.split(np.log(np.maximum(whole, 1e-300)), np.cumsum([len(said) for said in texts])[:-1])
