"""What the edges of a row's lattice weigh: the classifier's word, and what sizes, cuts and gaps say.

The weights are those of a conditional random field, fitted by maximum likelihood on synthetic handwriting
(benchmarks/family.py decoder): each edge's log weight is the sum of its features times the numbers of fitted.json.
Lengths are shares of the height of the row's digits.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from netsuke.reader import scanner
from netsuke.reader.fitted import fitted
from netsuke.reader.lattice import Edge
from netsuke.reader.segments import Row
from netsuke.reader.sight import Seen

SIGN = 0.6  # of the height of a row's digits: ink so high is a sign
LEAST = 1e-5  # probability that the classifier is never below: it may be wrong
TOP, WORTH = (
    3,
    7.0,
)  # classes of a candidate that are worth an edge: so many, and so far below the best log weight
SIGNS = (
    "sign",
    "low",
    "very low",
    "tall",
    "broad",
    "very broad",
    "inked",
    "off line",
    "none",
    "likely",
    "one",
)
TIES = ("cut", "strokes", "join", "gap", "uncut")  # of every edge: where it begins, and what it ties together
DROPS = ("drop", "area", "height", "none dropped", "part dropped")
POINTS = tuple(f"{name} {sign}" for sign in ".,-" for name in ("is", "large", "place", "long", "none of"))
# What the finder says of a digit, of what is dropped and of a separator; and the scanner.
FOUND = ("found", "found none", "misfit", "none dropped there", "none of a point there")
SCANNED = ("scanned", "scanned none", "scanned point")
NAMES = SIGNS + TIES + DROPS + POINTS + FOUND + SCANNED
POINTED = -2.0  # log-probability from which the scanner makes a span of any shape a possible separator
UNSEEN = 12.0  # nats: the scanner is never surer that a sign does not stand somewhere
UNDASHED = 3.0  # and of a clear dash, as it takes some for what is left of lines
# Of a model that knows what is no digit, with finder and scanner and without; and of one that does not.
SEEING, KNOWING, NAIVE = (fitted("lattice", kind, NAMES) for kind in ("seeing", "knowing", "naive"))


def choice(knowing: bool, seeing: bool) -> np.ndarray:
    """The weights of a classifier that knows what is no digit, or does not, with a Sight beside it or without."""
    if not knowing:
        return NAIVE
    return SEEING if seeing else KNOWING


def edges(
    row: Row,
    share: np.ndarray,
    classes: tuple[str, ...],
    weights: np.ndarray,
    *,
    seen: Seen | None = None,
    every: bool = False,
) -> list[Edge]:
    """The edges of a row from the probabilities float64 [spans, K + 1] of its candidates; their key is the span.

    `seen` is what finder and scanner say of them.
    `every` class of a candidate gets one, for a field that may ask for any; else those that may be right.
    """
    table, names = features(row, share, classes, seen)
    weight = table @ weights
    by_class = weight[: len(row.spans) * len(classes)].reshape(len(row.spans), len(classes))
    rank = np.argsort(np.argsort(-by_class, 1), 1)
    use = every | ((rank < TOP) & (by_class > by_class.max(1, keepdims=True) - WORTH))
    kept = [*np.flatnonzero(use), *range(by_class.size, len(weight))]
    if row.upright:  # its stroke is not passed over
        tall = [row.atoms[start].box[3] > SIGN * row.height for start, _ in row.spans]
        kept = [i for i in kept if names[i][1] or not tall[names[i][0]]]
    chosen = ((*names[i], float(weight[i])) for i in kept)
    return [Edge(row.spans[key][0], row.spans[key][1], symbol, value, key) for key, symbol, value in chosen]


def features(
    row: Row, share: np.ndarray, classes: tuple[str, ...], seen: Seen | None = None
) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Features float64 [edges, NAMES] of all edges of a row, and of each its span's number and its sign.

    First every span as every class, then as no sign, then as a separator.
    """
    shape, tie, (likely, none) = shapes(row), ties(row), logs(share)
    n, k = likely.shape
    there, told = np.zeros((n, k + 2)), np.zeros((n, len(scanner.SIGNS) + 1))
    if seen is not None:
        there, told = np.maximum(seen.found, np.log(LEAST)), np.maximum(seen.scanned, -UNSEEN)
    signed, dropped, pointed = np.cumsum([len(SIGNS), len(TIES), len(DROPS)])
    found_at = NAMES.index("found")  # then "found none" and "misfit"
    digits = np.zeros((n, k, len(NAMES)))
    digits[..., : signed - 2] = signs(row, shape, none)[:, None]
    digits[..., signed - 2] = likely
    digits[..., signed - 1] = [symbol == "1" for symbol in classes]
    digits[..., signed:dropped] = tie[:, None]
    digits[..., found_at], digits[..., found_at + 1 : found_at + 3] = there[:, :k], there[:, None, k:]
    if seen is not None:  # the classes of a Sight are digits
        digits[..., NAMES.index("scanned")] = told[:, [scanner.SIGNS.index(symbol) for symbol in classes]]
    tables = [digits.reshape(n * k, -1)]
    names = [(key, symbol) for key in range(n) for symbol in classes]

    def add(keys: np.ndarray, symbol: str, at: int, part: np.ndarray) -> None:
        table = np.zeros((len(keys), len(NAMES)))
        table[:, NAMES.index("none of a point there" if symbol else "none dropped there")] = there[keys, k]
        read = "scanned point" if symbol else "scanned none"
        table[:, NAMES.index(read)] = told[keys, scanner.SIGNS.index(symbol) if symbol else -1]
        table[:, signed:dropped], table[:, at : at + part.shape[1]] = tie[keys], part[keys]
        tables.append(table)
        names.extend((int(key), symbol) for key in keys)

    add(
        np.flatnonzero([stop == start + 1 for start, stop in row.spans]), "", dropped, drops(row, shape, none)
    )
    for symbol, may_be, part in points(row, shape, none):
        if seen is not None:
            read = told[:, scanner.SIGNS.index(symbol)]
            if symbol == "-":
                clear = dashes(shape)
                read[clear] = np.maximum(read[clear], -UNDASHED)
            may_be = may_be | (read > POINTED)
        add(np.flatnonzero(may_be), symbol, pointed + POINTS.index(f"is {symbol}"), part)
    return np.concatenate(tables), names


def logs(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of the classes [n, K] and of none [n]; the latter 0 where the model has no "none"."""
    log = np.log(np.maximum(share, LEAST))
    return log[:, :-1], log[:, -1] if share[:, -1].any() else np.zeros(len(share))


def shapes(row: Row) -> np.ndarray:
    """Of each span: x, y, w, h, area and, from 0 at the top of the row's digits to 1 at their foot, its middle."""
    boxes = np.array([atom.box for atom in row.atoms], float)
    areas = np.concatenate([[0], np.cumsum([atom.area for atom in row.atoms])])
    tall = boxes[boxes[:, 3] >= SIGN * row.height]
    if not len(tall):
        tall = np.array([row.box], float)
    top, foot = (float(np.median(side)) for side in (tall[:, 1], tall[:, 1] + tall[:, 3]))
    start, stop = np.array(row.spans).T
    at = start[:, None] + np.arange((stop - start).max())  # the atoms of each span, the last over and over
    held = boxes[np.minimum(at, stop[:, None] - 1)]
    low = held[..., :2].min(1)
    high = (held[..., :2] + held[..., 2:]).max(1)
    middle = ((low[:, 1] + high[:, 1]) / 2 - top) / max(foot - top, 1)
    out = np.column_stack([low, high - low, areas[stop] - areas[start], middle])
    out[:, 2:4] /= row.height
    out[:, 4] /= row.height**2
    return out


def signs(row: Row, shape: np.ndarray, none: np.ndarray) -> np.ndarray:
    """Features of a span as a digit, whichever: SIGNS but the last two."""
    _, _, w, h, area, middle = shape.T
    low, broad = np.maximum(0, 0.8 - h), np.maximum(0, w - 0.8)
    return np.array(
        [
            np.ones_like(w), low, 5 * low**2, np.maximum(0, h - 1.25), broad, 3 * np.maximum(0, w - 1.1) ** 2,
            np.maximum(0, 0.1 - area) * 10, np.maximum(0, np.abs(middle - 0.5) - 0.2), none,
        ]
    ).T  # fmt: skip


def ties(row: Row) -> np.ndarray:
    """Features of where a span begins and of what it ties together: TIES."""
    atoms = row.atoms
    out = np.zeros((len(row.spans), len(TIES)))
    for k, (start, stop) in enumerate(row.spans):
        if start and atoms[start].piece == atoms[start - 1].piece:
            out[k, :2] = 1, atoms[start].cut
        right = atoms[start].box[0] + atoms[start].box[2]
        for i in range(start + 1, stop):
            if atoms[i].piece == atoms[i - 1].piece:
                out[k, 4] += max(0.0, 1 - atoms[i].cut)
            else:
                out[k, 2] += 1
                out[k, 3] += max(0.0, (atoms[i].box[0] - right) / row.height)
            right = max(right, atoms[i].box[0] + atoms[i].box[2])
    return out


def drops(row: Row, shape: np.ndarray, none: np.ndarray) -> np.ndarray:
    """Features of a span as ink that is no sign: DROPS."""
    parts = Counter(atom.piece for atom in row.atoms)
    part = [float(parts[row.atoms[start].piece] > 1) for start, _ in row.spans]
    return np.array([np.ones(len(shape)), shape[:, 4], shape[:, 3], none, part]).T


def dashes(shape: np.ndarray) -> np.ndarray:
    """Which spans are clear dashes, bool [n]: as thick as a pen, and half-way up."""
    _, _, w, h, _, middle = shape.T
    return (w > 2 * h) & (w < 0.9) & (h > 0.08) & (h < 0.25) & (np.abs(middle - 0.5) < 0.2)


def points(row: Row, shape: np.ndarray, none: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Of each separator: which spans may be one, and their features, named by POINTS."""
    _, _, w, h, _, middle = shape.T
    one, longer, small = np.ones_like(w), np.maximum(w, h), (h < 0.6) & (w < 0.45)
    dot = np.array(
        [
            one,
            np.maximum(0, longer - 0.2) ** 2 * 25,
            np.maximum(0, np.abs(middle - 0.95) - 0.1),
            longer,
            none,
        ]
    ).T
    comma = np.array(
        [one, np.maximum(0, longer - 0.35) ** 2 * 25, np.maximum(0, np.abs(middle - 1.05) - 0.1), h, none]
    ).T
    dash = np.array(
        [
            one,
            np.maximum(0, h - 0.2) * 5,
            np.maximum(0, np.abs(middle - 0.5) - 0.1),
            np.minimum(w / np.maximum(h, 0.03), 5),
            none,
        ]
    ).T
    return [
        (".", small & (middle > 0.55), dot),
        (",", small & (middle > 0.65), comma),
        ("-", (w > 1.3 * h) & (w > 0.15) & (w < 1.4) & (h < 0.45) & (middle > 0.1) & (middle < 0.95), dash),
    ]
