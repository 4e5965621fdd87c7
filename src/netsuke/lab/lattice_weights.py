"""The numbers in netsuke.reader.weights: a conditional random field fitted to strings whose texts are known.

The likelihood of a text is the weight of all paths that spell it as a share of all paths; its gradient is the
difference of the features' expectations under both (Sarawagi and Cohen, 2004). Fit anew where the classifier or
the cuts change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from netsuke import image as images
from netsuke.measure.reading import iou
from netsuke.reader import Reader, segments, weights
from netsuke.reader.pages import known
from netsuke.reader.sight import Seen

Box = tuple[float, float, float, float]  # x, y, w, h
Text = tuple[str, Box]

PLACED = 0.4  # share of two boxes that is common to both: the same digit
HOPELESS = 8.0  # nats: a text less likely than this moves little


@dataclass(frozen=True, eq=False)
class Case:
    """A row's edges: features float32 [n, features], where each begins and ends, and what a text makes of them.

    `symbols` are their signs (empty: none); `spelt` float [n, T] is 0 where an edge is sign t of the text and
    stands where that does, else -inf.
    """

    features: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    symbols: np.ndarray
    spelt: np.ndarray
    atoms: int


def cases(reader: Reader, image: np.ndarray, digits: Sequence[Box], texts: Sequence[Text]) -> Iterator[Case]:
    """The lattices of an image's rows (uint8 [H, W]) whose texts are known: those of numbers, and "" where none is.

    `digits` are boxes of single digits, `texts` numbers with their boxes (x, y, w, h). A row with digits that is not
    one whole number is left out.
    """
    page = images.page_ink(image)
    sight = reader.sight
    rows, atoms = segments.rows(
        page.pixels,
        known(reader.artifact, reader.classified),
        sight.scanner.scan if sight else None,
        page.walls,
    )
    rows = [row for row in rows if row.spans]
    if not rows:
        return
    crops = [segments.crop(page.pixels, atoms, row, span)[0] for row in rows for span in row.spans]
    share = reader.classified(crops)
    seen: list[Seen | None] = [None] * len(rows)
    if sight is not None:
        seen = [*sight.see(page.pixels, rows)]
    first = 0
    for row, told in zip(rows, seen, strict=True):
        last = first + len(row.spans)
        place = scaled(row.box, page.scale)
        which = row_text(place, digits, texts)
        if which is not None:
            text = texts[which][0] if which >= 0 else ""
            features, edges = weights.features(row, share[first:last], reader.artifact.classes, told)
            symbols = np.array([symbol for _, symbol in edges])
            spans = np.array([row.spans[key] for key, _ in edges])
            spelt = np.where(symbols[:, None] == np.array(list(text), dtype="<U1"), 0.0, -np.inf)
            boxes = [segments.around(row, row.spans[key]) for key, _ in edges]
            elsewhere = ~_placed([scaled(box, page.scale) for box in boxes], text, digits, place)
            spelt[elsewhere] = -np.inf
            yield Case(features.astype(np.float32), spans[:, 0], spans[:, 1], symbols, spelt, len(row.atoms))
        first = last


def scaled(box: Sequence[float], factor: float) -> Box:
    """A box in other pixels."""
    x, y, w, h = box
    return x * factor, y * factor, w * factor, h * factor


def _placed(boxes: Sequence[Box], text: str, digits: Sequence[Box], row: Box) -> np.ndarray:
    """Which edges (boxes [n, 4]) stand where the signs of a row's text do, bool [n, signs]: a digit on its own box."""
    inside = sorted((box for box in digits if _covered(box, row) > 0.5), key=lambda box: box[0] + box[2] / 2)
    place = iter(inside)
    signs = [
        iou(boxes, [next(place)])[:, 0] > PLACED if sign.isdigit() else np.ones(len(boxes), bool)
        for sign in text
    ]
    return np.stack(signs, 1) if signs else np.ones((len(boxes), 0), bool)


def row_text(row: Box, digits: Sequence[Box], texts: Sequence[Text]) -> int | None:
    """Which text a row says: one that it covers alone and whole, -1 where it covers no digit, None for all else."""
    inside = [box for box in digits if _covered(box, row) > 0.5]
    if not inside:
        return -1 if all(_covered(box, row) < 0.1 for box in digits) else None
    own = [k for k, (_, box) in enumerate(texts) if _covered(box, row) > 0.8]
    if len(own) != 1 or sum(map(str.isdigit, texts[own[0]][0])) != len(inside):
        return None
    return own[0]


def _covered(a: Box, b: Box) -> float:
    """The share of box a that lies in box b."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(across, 0) * max(down, 0) / max(a[2] * a[3], 1e-9)


def fit(cases: Iterable[Case], start: np.ndarray, *, steps: int = 40, decay: float = 1e-4) -> np.ndarray:
    """Weights float [features] of greatest likelihood, by L-BFGS from `start`, to which `decay` ties them."""
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    kept = list(cases)

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        total, slope, n = 0.0, np.zeros_like(theta), 0
        for one in kept:
            weight = one.features @ theta
            right, spelling = _posterior(one, weight, one.spelt)
            if not np.isfinite(right):
                continue  # no path spells it
            every, any_ = _posterior(one, weight, np.zeros((len(weight), 0)))
            lost = every - right
            total -= np.logaddexp(-lost, -HOPELESS)
            slope += one.features.T @ (any_ - spelling) / (1 + np.exp(min(lost - HOPELESS, 50.0)))
            n += 1
        away = theta - start
        return total / max(n, 1) + decay * away @ away, slope / max(n, 1) + 2 * decay * away

    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": steps}).x


def _posterior(one: Case, weight: np.ndarray, spelt: np.ndarray) -> tuple[float, np.ndarray]:
    """Log weight of all paths that spell a text (`spelt` [n, 0]: of all), and the share of it on each edge."""
    signs = spelt.shape[1]
    silent = one.symbols == ""
    ahead, behind = np.full((2, one.atoms + 1, signs + 1), -np.inf)
    ahead[one.atoms, signs] = behind[0, 0] = 0.0

    def through(values: np.ndarray, edge: np.ndarray, onward: bool) -> np.ndarray:
        stay = values + weight[edge, None]
        if not signs:
            return stay
        moved = np.full_like(stay, -np.inf)
        if onward:
            moved[:, 1:] = stay[:, :-1] + spelt[edge]
        else:
            moved[:, :-1] = stay[:, 1:] + spelt[edge]
        return np.where(silent[edge, None], stay, moved)

    for at in range(1, one.atoms + 1):
        edge = np.flatnonzero(one.stop == at)
        behind[at] = np.logaddexp.reduce(through(behind[one.start[edge]], edge, True), 0, initial=-np.inf)
    for at in range(one.atoms - 1, -1, -1):
        edge = np.flatnonzero(one.start == at)
        ahead[at] = np.logaddexp.reduce(through(ahead[one.stop[edge]], edge, False), 0, initial=-np.inf)
    total = float(ahead[0, 0])
    if not np.isfinite(total):
        return total, np.zeros(len(weight))
    edge = np.arange(len(weight))
    return total, np.exp(behind[one.start] + through(ahead[one.stop], edge, False) - total).sum(1)
