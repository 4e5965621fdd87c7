"""Pieces of ink as they are told to `reader.lines`, and which of them it takes for a number."""

from __future__ import annotations

import numpy as np

from netsuke.reader import lines


def digits(x: int, y: int, count: int, height: int = 30) -> list[list[int]]:
    return [[x + 26 * i, y, 20, height, 9 * height] for i in range(count)]


def found(*pieces: list[int]) -> list[list[int]]:
    return [sorted(number.members.tolist()) for number in lines.numbers(np.array(pieces))]
