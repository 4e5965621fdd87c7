"""Where digits are: a fully convolutional network over tiles of a page's ink, and what it says of each candidate.

The classifier sees one candidate, cut out; the finder sees what stands around it: that an o is among letters, and
which of two touching digits a stroke belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netsuke.artifact import Artifact
from netsuke.engine import Engine
from netsuke.errors import ArtifactError
from netsuke.reader import segments
from netsuke.reader.segments import Row

TILE, STRIDE = 128, 4  # pixels of a tile's side and of a cell's
MARGIN = 16  # pixels at a tile's sides that are left to its neighbours
HEIGHT = 20.0  # pixels: digits are brought to about that, in steps of the root of two
UNIT = 8.0  # pixels: distances are told in these
BATCH = 16  # tiles that are run together: a float runtime takes 4 MB for each
BOX = 4  # outputs that tell of the box, after those of the classes
LEVELS = range(-12, 3)  # halves of a power of two: from a 64th of the page to twice its size


class Finder:
    """Looks at the ink of pages with an artifact that gives a map [classes + 4, S / 4, S / 4] of a tile [1, S, S]."""

    def __init__(self, artifact: Artifact, *, backend: str = "auto"):
        finds = artifact.manifest.get("finds")
        if not isinstance(finds, list) or not all(isinstance(name, str) for name in finds):
            raise ArtifactError("no finder: its manifest does not say what it finds")
        self.classes = tuple(finds)
        channels, self._side, width = artifact.graph.input_shape
        shape = artifact.graph.types(artifact.tensors)[artifact.graph.output].shape
        cells = self._side // STRIDE
        if channels != 1 or self._side != width or shape != (len(self.classes) + BOX, cells, cells):
            raise ArtifactError(
                f"a finder maps [1, S, S] to [{len(self.classes) + BOX}, S/{STRIDE}, S/{STRIDE}]; "
                f"this maps {list(artifact.graph.input_shape)} to {list(shape)}"
            )
        self._scale = float(artifact.graph.ops[-1].attrs.get("scale", 1.0))
        self._engine = Engine(artifact, backend=backend)

    def look(
        self, ink: np.ndarray, boxes: np.ndarray, heights: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What stands in the middle of boxes [n, 4] (x, y, w, h) of ink uint8 [H, W]: float64 [n, K + 2], [n, 4].

        Log-probabilities of the classes and of none, and the share of box and what the finder takes for the digit's
        box that is not common to both; and that box (x, y, w, h). `heights` [n] are those of the digits around, which
        choose the scale; where the digits it finds in one of the `rows` [n] are of another height, it looks once more
        at that.
        """
        level, known = _level(heights), dict[float, np.ndarray]()
        out, theirs = self._look(ink, boxes, level, known)
        found, again = out[:, -2] < np.log(0.5), level.copy()
        for row in np.unique(rows[found]):
            again[rows == row] = _level(np.median(theirs[(rows == row) & found, 3]))
        moved = np.flatnonzero(again != level)
        if len(moved):
            out[moved], theirs[moved] = self._look(ink, boxes[moved], again[moved], known)
        corners = np.stack([theirs[:, :2], theirs[:, :2] + theirs[:, 2:].clip(0)]).clip(0, ink.shape[::-1])
        return out, np.concatenate([corners[0], corners[1] - corners[0]], 1)

    def _look(
        self, ink: np.ndarray, boxes: np.ndarray, level: np.ndarray, known: dict[float, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """`look` at the boxes' levels; `known` are those for which the ink was scaled."""
        out, theirs = np.zeros((len(boxes), len(self.classes) + 2)), np.zeros((len(boxes), 4))
        for step in np.unique(level):
            at = np.flatnonzero(level == step)
            scale = float(2 ** (step / 2))
            if scale not in known:
                known[scale] = self._scaled(ink, scale)
            places, tiles = self._tiles(known[scale], scale, boxes[at])
            maps = [self._engine.run(tiles[i : i + BATCH]) for i in range(0, len(tiles), BATCH)]
            out[at], box = self._told(np.concatenate(maps), places, boxes[at] * scale)
            theirs[at] = box / scale
        return out, theirs

    def _scaled(self, ink: np.ndarray, scale: float) -> np.ndarray:
        """Ink at a scale, in whole tiles with margins around."""
        import cv2

        core = self._side - 2 * MARGIN
        size = max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale))
        fine = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        level = ink if scale == 1 else cv2.resize(ink, size, interpolation=fine)
        down, across = -(-level.shape[0] // core), -(-level.shape[1] // core)
        padded = np.zeros((down * core + 2 * MARGIN, across * core + 2 * MARGIN), np.uint8)
        padded[MARGIN : MARGIN + level.shape[0], MARGIN : MARGIN + level.shape[1]] = level
        return padded

    def _tiles(self, padded: np.ndarray, scale: float, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each box its tile's number, left and top [n, 3], and those tiles uint8 [m, 1, S, S] of scaled ink."""
        core = self._side - 2 * MARGIN
        down, across = ((side - 2 * MARGIN) // core for side in padded.shape)
        middle = (boxes[:, :2] + boxes[:, 2:] / 2) * scale
        column, row = (middle // core).astype(np.int64).clip(0, [across - 1, down - 1]).T
        used, number = np.unique(row * across + column, return_inverse=True)
        corners = np.stack([used % across, used // across], 1) * core
        tiles = np.stack([padded[y : y + self._side, x : x + self._side][None] for x, y in corners])
        return np.concatenate([number[:, None], corners[number] - MARGIN], 1), tiles

    def _told(self, maps: np.ndarray, places: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y, w, h = boxes.T
        middle = np.stack([x + w / 2, y + h / 2], 1) - places[:, 1:]
        cell = np.round((middle - 0.5) / STRIDE).astype(np.int64).clip(0, maps.shape[-1] - 1)
        value = maps[places[:, 0], :, cell[:, 1], cell[:, 0]] * self._scale
        logits = np.concatenate([value[:, :-BOX], np.zeros((len(value), 1))], 1)
        logits -= logits.max(1, keepdims=True)
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        left, top, right, foot = value[:, -BOX:].T * UNIT
        at = cell * STRIDE + 0.5 + places[:, 1:]
        theirs = at[:, 0] - left, at[:, 1] - top, at[:, 0] + right, at[:, 1] + foot
        found = np.concatenate([logs, _apart((x, y, x + w, y + h), theirs)[:, None]], 1)
        return found, np.stack([theirs[0], theirs[1], left + right, top + foot], 1)


def around(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all candidates of some rows, in order: boxes float [n, 4], the heights [n] of their rows' digits, rows [n]."""
    boxes = [segments.around(row, span) for row in rows for span in row.spans]
    counts = [len(row.spans) for row in rows]
    heights = np.repeat([row.height for row in rows], counts)
    return np.array(boxes, float).reshape(-1, 4), heights, np.repeat(np.arange(len(rows)), counts)


def _level(heights: np.ndarray) -> np.ndarray:
    """In halves of a power of two: what brings digits of such heights nearest to HEIGHT."""
    return np.round(2 * np.log2(HEIGHT / np.maximum(heights, 1.0))).clip(LEVELS[0], LEVELS[-1])


def _apart(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """1 - the intersection over the union of boxes given by left, top, right and foot, each [n]."""
    across = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
    down = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    common = np.maximum(across, 0) * np.maximum(down, 0)
    sizes = [np.maximum(s[2] - s[0], 0) * np.maximum(s[3] - s[1], 0) for s in (a, b)]
    return 1 - common / np.maximum(sizes[0] + sizes[1] - common, 1e-9)
