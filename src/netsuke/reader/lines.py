"""Pieces of ink to numbers: neighbours of one height on one baseline, in reading order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from netsuke.image.pieces import usual_height
from netsuke.reader import cells, drawings
from netsuke.reader.drawings import ALIKE, OUTSIZED, PATH, SLENDER

SPECK = 0.004  # of the square of a sign's height: the area below which ink is dirt
SMALLEST = 7  # pixels of a sign's height
BESIDE = 0.4  # of the smaller one's height that lies within the larger one's
DOT = 0.7  # of the square of a stroke's breadth: the area of a full stop, at least
ABOUT = 0.12  # of a number's height: how far below its foot, and half of how far above, full stops lie
GAP = 0.8  # of the larger one's height: wider apart are two numbers
OVER = 1.4  # unless a separator stands between, and then not so wide
LESSER = 0.55  # of the height of a number nearby: lower groups are parts of it
DASH = 0.4  # of the digits' height: a dash, and a full stop, is as high at most
HANGING = 0.2  # of the digits' height: how far below their foot the middle of a comma is, at most
COMMA = 0.65  # of the digits' height: a comma is as high at most, that hangs at their foot
LONELY = 0.5  # of the page's usual height: a lone upright bar as low is no 1
HUGE = 3.0  # times the median: higher ones, a desk's edge, say no more of what is usual
SPACE, USUAL = 0.35, 2.5  # of the height, and of the row's usual gap: a wider one parts words and numbers
PIECES, LONG = 4000, 60  # of a page and of a number, at most: more are texture and no writing
REACH = 0.6  # of a number's height: how far around it its full stops and flags lie


@dataclass(frozen=True, eq=False)
class Number:
    """Components of one number, `members` in the order of their centres, and the height of its signs in pixels; and
    whether it is a single sign amid a cell of a puzzle."""

    members: np.ndarray
    box: tuple[int, int, int, int]
    height: float
    amid: bool = False


def numbers(
    stats: np.ndarray, label: np.ndarray | None = None, walls: np.ndarray | None = None
) -> list[Number]:
    """Components (x, y, w, h, area; int [n, 5]) as numbers in reading order; those of none are left out.

    `label`, int32 [H, W] with i + 1 where component i is, tells a frame from touching digits with a loose stroke amid
    them: the frame is closed around what it holds. `walls`, bool [H, W], are upright lines: those of a table or a
    puzzle, whose cells are wider than signs are high, part numbers; those of a single field tie its digits. Slashes are
    looked for where `label` is given.
    """
    if not len(stats):
        return []
    large = tall_enough(stats)
    large = large[
        np.argsort(-stats[large, 3], kind="stable")[:PIECES]
    ]  # before any pair of them is looked at
    within = drawings.within(stats[large])
    if label is not None:
        drawings.keep_enclosed(within, stats, large, label)
    framed = (
        drawings.frames(stats[large], within)
        | drawings.bars(stats[large])
        | drawings.stamps(stats[large], within)
    )
    lines = cells.Walls.of(walls)
    apart, amid = cells.apart(stats[large], lines)
    amid_cells = set(large[amid].tolist())
    between, single = (bars & ~framed for bars in cells.fences(stats[large], stats[large], apart))
    fences, parting = large[single], large[between & ~single]
    framed |= ((drawings.hairs(stats[large]) & ~amid) | between) & ~single
    stats = stats.copy()
    stats[large[framed], 4] = 0  # no ink of anybody's
    slashes = (
        large[drawings.slashes(stats[large], label, large, apart) & ~framed]
        if label is not None
        else large[:0]
    )
    slashes = np.concatenate([slashes, parting])
    posts = cells.posts(stats[large[~framed]], lines)
    more = len(stats) + np.arange(len(posts))
    tied, apart = np.concatenate([stats, posts]), np.pad(apart[np.ix_(~framed, ~framed)], (0, len(posts)))
    linked = _linked(tied, np.concatenate([large[~framed], more]), apart)
    ties = np.concatenate([fences, more])  # they tie digits together, and are none
    groups = [part for group in linked for part in _parted(tied, group, ties)]
    groups = [np.setdiff1d(group, ties) for group in groups]
    groups = [part for group in groups for part in _cut(stats, group, slashes)]
    stats[fences, 4] = stats[slashes, 4] = 0
    found = [_number(stats, group, amid_cells) for group in groups if len(group)]
    found = _with_endings(stats, _with_small(stats, _standing(found)))
    return _in_order([_with_points(stats, number) for number in found if len(number.members) <= LONG])


def tall_enough(stats: np.ndarray) -> np.ndarray:
    """Which components may be signs, or drawings, and are no dots: int [k]."""
    return np.flatnonzero((stats[:, 3] >= SMALLEST) & (stats[:, 4] >= 2 * SMALLEST))


def _cut(stats: np.ndarray, group: np.ndarray, slashes: np.ndarray) -> list[np.ndarray]:
    """A group, cut at the slashes and bars within it, which are no part of it."""
    group = np.setdiff1d(group, slashes)
    if not len(slashes) or len(group) < 2:
        return [group]
    middle = stats[group, 0] + stats[group, 2] / 2
    low, high = stats[group, 1].min(), (stats[group, 1] + stats[group, 3]).max()
    at = [
        left + wide / 2
        for left, top, wide, tall in stats[slashes, :4].tolist()
        if low < top + tall / 2 < high
    ]
    side = np.searchsorted(np.sort(at), middle)
    return [group[side == k] for k in range(len(at) + 1) if (side == k).any()]


def _linked(stats: np.ndarray, large: np.ndarray, apart: np.ndarray) -> list[np.ndarray]:
    """Large components that are neighbours in a line, and not `apart`, bool [n, n], by union of pairs."""
    parent = {int(i): int(i) for i in large}

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    along = np.argsort(stats[large, 0])
    order, apart = large[along], apart[np.ix_(along, along)]
    x, y, w, h = (stats[order, k].astype(float) for k in range(4))
    points = stats[stats[:, 4] > 0]
    for a in range(len(order)):
        tall = np.maximum(h[a], h)
        gap = x - (x[a] + w[a])
        near = (x >= x[a]) & (
            (gap < GAP * tall) | ((gap < OVER * tall) & _pointed(points, x[a] + w[a], x, y[a] + h[a], h[a]))
        )
        shared = np.minimum(y[a] + h[a], y + h) - np.maximum(y[a], y)
        level = (shared > BESIDE * np.minimum(h[a], h)) & (np.minimum(h[a], h) > ALIKE * tall)
        inside = (x + w <= x[a] + w[a]) & (shared > 0.9 * h)  # a piece above or within another
        for b in np.flatnonzero(near & (level | inside) & ~apart[a]):
            parent[root(int(order[b]))] = root(int(order[a]))
    groups: dict[int, list[int]] = {}
    for i in order:
        groups.setdefault(root(int(i)), []).append(int(i))
    return [np.array(group) for group in groups.values()]


def _parted(stats: np.ndarray, group: np.ndarray, ties: np.ndarray) -> list[np.ndarray]:
    """A group, cut at the gaps that are wider than SPACE and than those between its other pieces; not at separators,
    and not between a sign and one of `ties`."""
    if len(group) < 4:
        return [group]
    group = group[np.argsort(stats[group, 0], kind="stable")]
    x, y, w, h = stats[group, :4].T.astype(float)
    end, height = np.maximum.accumulate(x + w), float(np.median(h))
    gap = np.maximum(x[1:] - end[:-1], 0) / height
    usual = max(float(np.median(gap)), 0.06)
    points = stats[stats[:, 4] > 0]
    tie = np.isin(group, ties)
    wide = [
        i + 1
        for i in np.flatnonzero((gap > max(SPACE, USUAL * usual)) & (tie[1:] == tie[:-1]))
        if not _pointed(points, end[i], x[i + 1 : i + 2], y[i] + h[i], height).any()
    ]
    return np.split(group, wide)


def _pointed(points: np.ndarray, left: float, right: np.ndarray, foot: float, height: float) -> np.ndarray:
    """Whether a full stop, a comma or a dash stands between `left` and each of `right`, bool [n]."""
    x, y, w, h, area = points.T
    middle = (foot - y - h / 2) / height  # 0 at the foot of the digits, 1 at their top
    dot = (w < 0.4 * height) & (np.abs(middle) < 0.35) & (h < COMMA * height) & (area >= SPECK * height**2)
    ends = np.sort((x + w)[(dot | _dashes(points, foot, height)) & (x + w / 2 >= left)])
    return np.searchsorted(ends, right, "right") > 0


def _dashes(points: np.ndarray, foot: float, height: float) -> np.ndarray:
    """Which pieces are dashes of a line of signs with that foot and height, bool [n]."""
    _, y, w, h, area = points.T
    middle = (foot - y - h / 2) / height
    level = (middle > 0.2) & (middle < 0.8) & (area >= SPECK * height**2)
    return level & (w > 1.3 * h) & (w < height) & (h < DASH * height)


def _number(stats: np.ndarray, group: np.ndarray, amid_cells: set[int]) -> Number:
    heights = stats[group, 3].astype(float)
    tall = heights[heights >= 0.5 * heights.max()]
    height = float(np.median(tall))
    x, y = stats[group, 0].min(), stats[group, 1].min()
    right, bottom = (stats[group, 0] + stats[group, 2]).max(), (stats[group, 1] + stats[group, 3]).max()
    amid = len(group) == 1 and int(group[0]) in amid_cells
    return Number(group, (int(x), int(y), int(right - x), int(bottom - y)), height, amid)


def _standing(found: list[Number]) -> list[Number]:
    """Without the groups that are full stops, flags and dashes beside a taller number, or a lone low bar, which is left
    of a grid."""
    boxes = np.array([(*number.box, number.height) for number in found], float).reshape(-1, 5)
    if not found:
        return []
    heights = np.repeat(boxes[:, 4], [len(number.members) for number in found])
    usual = usual_height(np.minimum(heights, HUGE * np.median(heights)))
    boxes = boxes[boxes[:, 4] < OUTSIZED * usual]  # beside a drawing they are numbers of their own
    keep = []
    for number in found:
        if len(number.members) == 1 and number.box[2] <= SLENDER * number.height < SLENDER * LONELY * usual:
            continue
        aside, out = _off(boxes, number.box)
        tall = max(number.height, LESSER * number.box[2]) < LESSER * boxes[:, 4]
        if not (tall & (aside < REACH * boxes[:, 4]) & (out < 0.5 * REACH * boxes[:, 4])).any():
            keep.append(number)
    return keep


def _off(boxes: np.ndarray, box: Iterable[float]) -> tuple[np.ndarray, np.ndarray]:
    """How far a box lies beside each of `boxes` (float [n, 5]), and how far its middle lies above or below."""
    x, y, w, h = box
    aside = np.maximum(boxes[:, 0] - (x + w), x - (boxes[:, 0] + boxes[:, 2])).clip(0)
    middle = y + h / 2
    return aside, np.maximum(boxes[:, 1] - middle, middle - (boxes[:, 1] + boxes[:, 3])).clip(0)


def _dot(signs: np.ndarray, height: float) -> float:
    """The area of a full stop beside signs, int [n, 5], of a height, at least: of a fine pen it is smaller than dirt
    elsewhere."""
    stroke = float(np.median(signs[:, 4] / (PATH * signs[:, 3])))
    return min(SPECK * height**2, DOT * stroke**2)


def _with_small(stats: np.ndarray, found: list[Number]) -> list[Number]:
    """Give each small piece to the number it lies nearest to, if it lies beside one."""
    taken = {int(i) for number in found for i in number.members}
    extra: list[list[int]] = [[] for _ in found]
    boxes = np.array([(*number.box, number.height) for number in found], float).reshape(-1, 5)
    dots = np.array([_dot(stats[number.members], number.height) for number in found])
    foot, dirt = boxes[:, 1] + boxes[:, 3], SPECK * boxes[:, 4] ** 2
    for i in range(len(stats)) if found else ():
        if i in taken:
            continue
        aside, out = _off(boxes, stats[i, :4])
        far = np.maximum(aside, 2 * out) / boxes[:, 4]
        over = (foot - stats[i, 1] - stats[i, 3] / 2) / boxes[:, 4]
        far[stats[i, 4] < np.where((over > -ABOUT) & (over < 2 * ABOUT), dots, dirt)] = np.inf
        best = int(far.argmin())
        if far[best] <= REACH:
            extra[best].append(i)
    out_: list[Number] = []
    for number, more in zip(found, extra, strict=True):
        members = np.concatenate([number.members, np.array(more, int)])
        centre = stats[members, 0] + stats[members, 2] / 2
        out_.append(replace(number, members=members[np.argsort(centre, kind="stable")]))
    return out_


def _with_endings(stats: np.ndarray, found: list[Number]) -> list[Number]:
    """Give each number that ends in a full stop the dash behind that, as of 25.-, however far from its digits."""
    x, _, w, h, area = stats.T
    taken = np.array([i for number in found if len(number.members) > 1 for i in number.members], int)
    free = np.setdiff1d(np.flatnonzero(area), taken)
    out: list[Number] = []
    gone: set[int] = set()
    for number in found:
        left, top, wide, high = number.box
        last, tall = number.members[-1], number.height
        if h[last] < DASH * tall and x[last] + w[last] / 2 > left + wide:
            behind = x[free] - (x[last] + w[last])
            near = (behind > -0.1 * tall) & (behind < REACH * tall)
            near &= _dashes(stats[free], top + high, tall)
            if near.any():
                one = int(free[near][behind[near].argmin()])
                number = replace(number, members=np.append(number.members, one))
                gone.add(one)
        out.append(number)
    return [number for number in out if not (len(number.members) == 1 and int(number.members[0]) in gone)]


def _with_points(stats: np.ndarray, number: Number) -> Number:
    """A number whose box holds the full stops, commas and dashes beside its digits and at their foot, too."""
    x, y, w, h = stats[number.members, :4].T
    left, top, wide, high = number.box
    low = y + h / 2 < top + high + HANGING * number.height
    foot = max(top + high, int((y + h)[low].max(initial=0)))
    start, end = min(left, int(x.min())), max(left + wide, int((x + w).max()))
    return replace(number, box=(start, top, end - start, foot - top))


def _in_order(found: list[Number]) -> list[Number]:
    """Lines from the top, each from the left: a number joins the line whose last member it overlaps by half."""
    lines: list[list[Number]] = []
    for number in sorted(found, key=lambda n: n.box[1] + n.box[3] / 2):
        for line in reversed(lines):
            top = max(number.box[1], min(n.box[1] for n in line[-3:]))
            bottom = min(number.box[1] + number.box[3], max(n.box[1] + n.box[3] for n in line[-3:]))
            if bottom - top > 0.5 * min(number.box[3], line[-1].box[3]):
                line.append(number)
                break
        else:
            lines.append([number])
    return [number for line in lines for number in sorted(line, key=lambda n: n.box[0])]
