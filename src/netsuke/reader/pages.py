"""A page's ink to readings: candidates to the classifier in one batch, rows to the decoder, its paths to texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from math import log

import numpy as np

from netsuke import image as images
from netsuke.artifact import Artifact
from netsuke.reader import places, scanner, segments, sums, trust, weights
from netsuke.reader.confidence import rejection, state, worst
from netsuke.reader.field import LAST, SEPARATORS, Field
from netsuke.reader.lattice import Anything, Edge, Path, decode
from netsuke.reader.reading import Box, Digit, Reading
from netsuke.reader.scanner import SIGNS
from netsuke.reader.sight import Seen, Sight

ALTERNATIVES = 5  # texts that are told of a number
FAR = 12.0  # nats below the likeliest texts at which those that add up are given up
ADDENDS = 40  # texts of each number that a sum may take
NUMBER = 0.5  # probability of being a number at all, under which a row is passed over
UNLIKE = 0.3  # where no candidate of a row is likelier a digit than this, to model, finder or scanner, none is read
KNOWN = 0.95  # probability from which a piece is one digit, neither to be cut nor joined
SHORT = 12  # atoms of a row, in which a field may ask for any class of any candidate: in longer ones it takes seconds
PARTS, WHOLE = 0.4, 0.25  # powers of what all say of a row's parts, and of what the scanner says of the whole
CLEAR = 1e-5  # probability of a number's second text, as a share of the first's, from which that is the one
BARS, ALL = (
    20,
    0.95,
)  # numbers of 1s alone that make a pattern, at least, and their share of all numbers as low
LOW = 0.5  # of the height of the other digits: what a pattern consists of is lower,
UPPER = 0.8  # of those, by their squares, that are higher
SLACK = 25.0  # nats below all its paths together at which a text of a number is given up
LIKELY = 1e-10  # share of all paths that a field must admit, else the number is none of its kind

Classify = Callable[[list[np.ndarray]], np.ndarray]


@dataclass(frozen=True, eq=False)
class Found:
    """A number: its row, its candidates' probabilities [n, K + 1] and crops, and its texts, the best first."""

    row: segments.Row
    share: np.ndarray
    crops: list[tuple[np.ndarray, np.ndarray]]  # ink and mask, as `segments.crop` gives them
    paths: list[Path]
    seen: Seen | None = None  # what finder and scanner say of the candidates
    trust: float = 1.0  # probability that it is a number


def read(
    pixels: np.ndarray, artifact: Artifact, classify: Classify, field: Field, sight: Sight | None = None
) -> list[Reading]:
    """The numbers of a uint8 image in reading order; `classify` takes crops of ink to probabilities [n, K + 1]."""
    page = images.page_ink(pixels)
    found = list(numbers(page.pixels, artifact, classify, field, sight, walls=page.walls))
    total = field.total
    if total is not None:
        found = _adding_up(found, total)
    return [_reading(number, artifact, page.scale, pixels.shape) for number in found]


def numbers(
    ink: np.ndarray,
    artifact: Artifact,
    classify: Classify,
    field: Field,
    sight: Sight | None,
    *,
    least: float = NUMBER,
    walls: np.ndarray | None = None,
) -> Iterator[Found]:
    """The numbers of a page's ink uint8 [H, W]: rows, parted by `walls`, bool [H, W], that are numbers with a
    probability of `least`."""
    classify = _once(classify)  # pieces that are asked for before they are cut are often candidates, too
    scans = sight.scanner.scan if sight else None
    rows, atoms = segments.rows(ink, known(artifact, classify), scans, walls)
    crops = [segments.crop(ink, atoms, row, span) for row in rows for span in row.spans]
    if not crops:
        return
    share = classify([pixels for pixels, _ in crops])
    seen: list[Seen | None] = [None] * len(rows) if sight is None else [*sight.see(ink, rows)]
    knowing = rejection(artifact) is not None
    fitted = weights.choice(knowing, sight is not None)
    best, last = ADDENDS if field.total is not None else ALTERNATIVES, 0
    found: list[Found] = []
    for row, told in zip(rows, seen, strict=True):
        first, last = last, last + len(row.spans)
        own = share[first:last]
        if _likeliest(own, told) < UNLIKE and not row.upright:
            continue
        automaton = field.automaton(len(row.atoms))
        every = not isinstance(automaton, Anything) and len(row.atoms) <= SHORT
        edges = weights.edges(row, own, artifact.classes, fitted, seen=told, every=every)
        paths = decode(len(row.atoms), edges, automaton, best=best, slack=SLACK)
        paths = _bare(paths) if row.amid and isinstance(automaton, Anything) else paths
        if not paths or paths[0].admitted <= LIKELY or not _says(paths[0]):
            continue
        found.append(Found(row, own, crops[first:last], [path for path in paths if _says(path)], told))
    trusted = []
    for number in _respelt(found):
        sure = 1.0
        if knowing:
            sure = trust.number(number.row, number.paths[0], number.share, number.seen, artifact.classes)
        if sure >= least:
            trusted.append(replace(number, trust=sure))
    yield from _without_pattern(trusted)


def _without_pattern(found: list[Found]) -> list[Found]:
    """Numbers without the low ones where nearly all of these are 1s, and many: bars, of which a pattern consists.

    They are low beside the page's other digits, each weighed by its height squared: UPPER of them are twice as high.
    """
    texts = [number.paths[0].text for number in found]
    bars = np.array(
        [set(text) == {"1"} and not number.row.amid for text, number in zip(texts, found, strict=True)]
    )
    if bars.sum() < BARS or bars.all():
        return found
    height = np.array([number.row.height for number in found])
    digits = np.array([sum(c not in SEPARATORS for c in text) for text in texts])
    others = np.flatnonzero(~bars)[np.argsort(height[~bars])]
    filled = np.cumsum(digits[others] * height[others] ** 2)
    low = height < LOW * height[others[np.searchsorted(filled, (1 - UPPER) * filled[-1])]]
    own = (low & bars).sum()
    if own < max(BARS, ALL * low.sum()):
        return found
    return [number for number, below in zip(found, low, strict=True) if not below]


def _bare(paths: list[Path]) -> list[Path]:
    """Paths without separators, the likeliest first: in a puzzle's cell these are what is left of its lines."""
    out: dict[str, Path] = {}
    for path in paths:
        text = path.text.translate(dict.fromkeys(map(ord, SEPARATORS)))
        first = out.get(text)
        if first:
            out[text] = replace(first, probability=first.probability + path.probability)
        else:
            edges = tuple(replace(e, symbol="") if e.symbol in SEPARATORS else e for e in path.edges)
            out[text] = replace(path, text=text, edges=edges)
    return sorted(out.values(), key=lambda path: -path.probability)


def _once(classify: Classify) -> Classify:
    """The same, but each crop is looked at once."""
    seen: dict[tuple[int, bytes], np.ndarray] = {}

    def ask(crops: list[np.ndarray]) -> np.ndarray:
        keys = [(len(crop), crop.tobytes()) for crop in crops]
        new = {key: crop for key, crop in zip(keys, crops, strict=True) if key not in seen}
        if new:
            seen.update(zip(new, classify([*new.values()]), strict=True))
        return np.array([seen[key] for key in keys])

    return ask


def _respelt(found: list[Found]) -> list[Found]:
    """Numbers whose texts weigh what the scanner says of the row as a whole, too: it needs no bounds between signs.

    Their share of all paths stays as it was. What is said of parts is said of the same ink again and again; alone it is
    far too sure. Of dashes the scanner has no say, as it takes some for what is left of lines.
    """
    scans = {
        k: number.row.scan for k, number in enumerate(found) if number.row.scan and _doubtful(number.paths)
    }
    texts = [
        list(dict.fromkeys(text for path in found[k].paths for text in (path.text, _undashed(path.text))))
        for k in scans
    ]
    out = list(found)
    for k, own, spelt in zip(scans, texts, scanner.spelling([*scans.values()], texts), strict=True):
        out[k] = _weighed(found[k], dict(zip(own, spelt, strict=True)))
    return out


def _weighed(number: Found, logs: dict[str, float]) -> Found:
    """A number with the probabilities of its texts anew, of the scanner's log-probabilities: of those that differ only
    in dashes the highest counts for all."""
    paths = number.paths
    own = np.array([path.probability for path in paths])
    best: dict[str, float] = {}
    for text, value in logs.items():
        best[_undashed(text)] = max(value, best.get(_undashed(text), -np.inf))
    spelt = np.array([best[_undashed(path.text)] for path in paths])
    weight = own**PARTS * np.exp(WHOLE * (spelt - spelt.max()))
    weight *= own.sum() / max(weight.sum(), 1e-300)
    order = np.argsort(-weight, kind="stable")
    return replace(number, paths=[replace(paths[i], probability=float(weight[i])) for i in order])


def _doubtful(paths: list[Path]) -> bool:
    """Whether there is a second text that may yet be the first."""
    return len(paths) > 1 and paths[1].probability > CLEAR * paths[0].probability


def _undashed(text: str) -> str:
    return text.replace("-", "")


def _likeliest(share: np.ndarray, seen: Seen | None) -> float:
    """The greatest probability that model, finder or scanner gives any digit of any candidate."""
    sure = float(share[:, :-1].max())
    if seen is None:
        return sure
    return max(
        sure, float(np.exp(max(seen.found[:, :-2].max(), seen.scanned[:, : share.shape[1] - 1].max())))
    )


def known(artifact: Artifact, classify: Classify) -> segments.Judge | None:
    """What tells a piece that is surely one digit; None for a model that calls everything a digit."""
    return (lambda crops: classify(crops)[:, :-1].max(1) > KNOWN) if rejection(artifact) else None


def _says(path: Path) -> bool:
    return any(sign.isdigit() for sign in path.text)


def _adding_up(found: list[Found], total: Decimal | str) -> list[Found]:
    """The numbers with those texts first that add up; none where no choice does that may be what is written."""
    options = [
        [(sums.value(path.text), log(max(path.probability, 1e-300))) for path in number.paths]
        for number in found
    ]
    if total == LAST:
        if len(options) < 2:
            return []
        options[-1] = [(-worth, weight) for worth, weight in options[-1]]
    chosen = sums.choice(options, Decimal(0) if total == LAST else Decimal(total))
    if chosen is None:
        return []
    worth = [[weight for _, weight in own] for own in options]
    if sum(own[k] for own, k in zip(worth, chosen, strict=True)) < sum(map(max, worth)) - FAR:
        return []
    out = []
    for number, k in zip(found, chosen, strict=True):
        paths = [number.paths[k], *number.paths[:k], *number.paths[k + 1 :]]
        out.append(replace(number, paths=paths))
    return out


def _reading(number: Found, artifact: Artifact, scale: float, shape: tuple[int, ...]) -> Reading:
    path, *others = number.paths
    edges = [edge for edge in path.edges if edge.symbol]
    stand = places.places(number.row, edges, number.crops, number.seen)
    digits = tuple(
        _digit(edge, number, artifact, *places.in_input(*place, scale, shape))
        for edge, place in zip(edges, stand, strict=True)
    )
    boxes = np.array([digit.box for digit in digits])
    x, y = boxes[:, :2].min(0)
    right, bottom = (boxes[:, :2] + boxes[:, 2:]).max(0)
    return Reading(
        path.text,
        path.probability * number.trust,
        (int(x), int(y), int(right - x), int(bottom - y)),
        digits,
        tuple((other.text, other.probability * number.trust) for other in others[: ALTERNATIVES - 1]),
        worst([digit.state for digit in digits if not digit.separator]),
    )


def _digit(edge: Edge, number: Found, artifact: Artifact, box: Box, mask: np.ndarray) -> Digit:
    share = number.share[edge.key]
    if edge.symbol in SEPARATORS:
        return Digit(edge.symbol, 1.0 - float(share[:-1].max()), box, "", 0.0, separator=True, mask=mask)
    k = artifact.classes.index(edge.symbol)
    if number.seen is not None:  # cut from its neighbours it may look like none to the classifier
        scanned = np.exp(number.seen.scanned[edge.key, [SIGNS.index(name) for name in artifact.classes]])
        share = np.append((share[:-1] + scanned) / 2, share[-1])
    second = max((i for i in range(len(share) - 1) if i != k), key=lambda i: share[i], default=k)
    sure = float(share[k])
    runner_up = artifact.classes[second]
    return Digit(edge.symbol, sure, box, runner_up, float(share[second]), state(artifact, sure), mask=mask)
