"""What a scanner learns from: rows as the reader finds them, with their signs in place, and tiles cut from them."""

from __future__ import annotations

import cv2
import numpy as np

from lab.handwriting import needed
from lab.printed_rows import sheet, sheets
from netsuke.lab.finder import Sheets
from netsuke.lab.scanner import Strips, made
from netsuke.lab.scanner.rows import KEPT, placed
from netsuke.reader.scanner import SIGNS, STRIDE, TALL, WIDE


def test_tiles_hold_their_signs_in_order_and_in_place():
    tiles, signs, frames, free = Strips(sheets("258"), 1).draw(40)
    assert tiles.shape == (40, 1, TALL, WIDE)
    assert free.shape == (40, WIDE // STRIDE)
    for tile, names, (first, last) in zip(tiles, signs, frames.transpose(0, 2, 1), strict=True):
        known = names[names >= 0]
        assert "".join(SIGNS[k] for k in known) == "258"  # 60 pixels wide: all of it is in any tile
        first, last = first[: len(known)], last[: len(known)]
        assert (first <= last).all()
        assert (np.diff(first) > 0).all()
        columns = [tile[0, :, STRIDE * a : STRIDE * (b + 1)].max() for a, b in zip(first, last, strict=True)]
        assert min(columns) > 100  # there is ink where a sign is told


def test_of_long_rows_a_part_is_asked_and_digits_cut_by_the_tile_are_free():
    text = "31415926535897932384"
    _, signs, frames, free = Strips(sheets(text), 2).draw(30)
    assert free.any(1).mean() > 0.5
    for names, (first, last), open_ in zip(signs, frames.transpose(0, 2, 1), free, strict=True):
        known = names[names >= 0]
        assert "".join(SIGNS[k] for k in known) in text
        middle = (first[: len(known)] + last[: len(known)]) // 2
        assert not open_[middle].any()


def test_rows_that_say_nothing_are_drawn_at_their_share():
    blank = sheet("")
    both = Sheets([sheet("2580")[0], blank[0]], [sheet("2580")[1], blank[1]])
    signs = Strips(both, 3).draw(200, silent=0.3)[1]
    assert 0.2 < (signs[:, 0] < 0).mean() < 0.4


def test_a_separator_stands_between_its_neighbours_middles():
    boxes = [(10.0, 5.0, 20.0, 30.0), (50.0, 6.0, 20.0, 28.0)]
    found = placed("1.2-", boxes)
    assert [SIGNS[int(k)] for k in found[:, 0]] == list("1.2-")
    assert found[1, [1, 3]].tolist() == [20.0, 40.0]
    assert found[3, 1] == 60.0
    assert placed(",7", boxes[:1])[0, 1] < 10


def test_rows_of_scenes_hold_whole_numbers():
    needed()
    rows = list(made(5, 0, 12))
    spoken = [(png, boxes) for png, boxes in rows if len(boxes)]
    assert len(spoken) > 5
    for png, boxes in spoken:
        ink = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
        digits = boxes[boxes[:, 0] < 10]
        assert 0.3 * KEPT < np.median(digits[:, 4]) < 1.7 * KEPT
        inside = (digits[:, 1] > -8) & (digits[:, 1] + digits[:, 3] < ink.shape[1] + 8)
        assert inside.mean() > 0.9
