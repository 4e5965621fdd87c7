"""Strips that hold one number."""

from __future__ import annotations

import numpy as np

from netsuke.lab.scenes import grounds
from netsuke.lab.scenes.hands import Hand, hand, printing, steadier
from netsuke.lab.scenes.sheet import Scene, Sheet
from netsuke.lab.scenes.writing import CURRENCY, amount, letters, number, type_set, write

# How often each setting is chosen.
STRINGS = {"plain": 0.3, "ruled": 0.15, "squared": 0.1, "cheque": 0.3, "boxed": 0.15}
HEIGHT = (14.0, 120.0)  # pixels of a digit
PRINTED = 0.06  # of the strips: those whose number is printed
DECORATED = 0.25  # of the strips that are no cheque's: those with signs before or behind the number
UNLIKE = "acdehknprtuvwxyACEFHKLMNPQRTUVWXY"  # letters, of units and words, that are no digit's twins


def string(
    rng: np.random.Generator, text: str | None = None, *, height: float | None = None, setting: str | None = None,
    spacing: str | None = None, split: str = "train",
) -> Scene:  # fmt: skip
    """A strip with one number of 1 to 12 digits, by one writer, among what surrounds numbers on real paper.

    `text` is digits with . , -; `height` that of a digit in pixels; `setting` a key of STRINGS; `spacing` a key of
    `netsuke.lab.scenes.writing.SPACING`. What is not given is drawn.
    """
    height = height or HEIGHT[0] * (HEIGHT[1] / HEIGHT[0]) ** float(rng.random() ** 1.3)
    setting = setting or str(rng.choice(list(STRINGS), p=list(STRINGS.values())))
    finest = (
        float(rng.uniform(0.03, 0.09)) if setting == "cheque" else 0.0
    )  # cheques are written boldly, or scanned so
    writer = steadier(hand(rng, split), max(1.0 / height, finest))
    if rng.random() < PRINTED:
        writer = printing(writer, rng)
    run = number(text or amount(rng), writer, rng, spacing=spacing)
    around = rng.uniform(0.12, 0.9, 4) * height  # left, top, right, bottom
    if setting == "cheque":
        around[[0, 2]] += height * rng.uniform(0, 1.6, 2)
    size = (
        max(12, round(1.25 * height + around[1] + around[3])),
        max(12, round(run.width * height + around[0] + around[2])),
    )
    sheet = Sheet(size, rng, fine=1 if height > 36 else 2, view=grounds.view(size, rng))
    foot = float(around[0]), float(around[1] + 1.1 * height)
    _print(setting, sheet, rng, foot, height, run.width * height)
    write(sheet, run, foot, height, writer, tilt=float(rng.normal(0, 0.03)))
    if setting == "cheque" or rng.random() < DECORATED:
        _decorate(sheet, rng, foot, height, run.width * height, writer)
    ground = grounds.ground(sheet, rng, pattern=0.8 if setting == "cheque" else 0.06, unit=height)
    return sheet.photograph(ground, uneven=0.4)


def _print(
    setting: str,
    sheet: Sheet,
    rng: np.random.Generator,
    foot: tuple[float, float],
    height: float,
    width: float,
) -> None:
    """What was on the paper before anyone wrote."""
    (x, y), gap = foot, height * float(rng.uniform(1.3, 2.2))
    if setting == "ruled":
        grounds.ruled(sheet, rng, gap, y + height * float(rng.uniform(0.0, 0.2)))
    elif setting == "squared":
        grounds.squared(sheet, rng, height * float(rng.uniform(0.35, 1.2)))
    elif setting == "boxed":
        top, bottom = y - height * rng.uniform(1.1, 1.5), y + height * rng.uniform(0.1, 0.4)
        left, right = x - height * rng.uniform(0.1, 0.5), x + width + height * rng.uniform(0.1, 0.5)
        grounds.grid(
            sheet, rng, (float(left), float(top)), [0, float(bottom - top)], [0, float(right - left)]
        )
    elif setting == "cheque" and rng.random() < 0.5:
        level = y + height * float(rng.uniform(-1.2, 0.25))
        sheet.rule(
            [((-height, level), (sheet.size[1] + height, level))],
            max(0.8, 0.03 * height),
            float(rng.uniform(0.2, 0.7)),
        )


def _decorate(
    sheet: Sheet,
    rng: np.random.Generator,
    foot: tuple[float, float],
    height: float,
    width: float,
    writer: Hand,
) -> None:
    """What stands close to a number: signs and units, a printed sign, a line through the rest."""
    (x, y), tall = foot, height * float(rng.uniform(0.6, 1.0))
    for ahead in (True, False):
        gap, kind = height * float(rng.uniform(0.1, 0.35)), rng.random()
        if kind < 0.25:
            signs = CURRENCY if rng.random() < 0.7 else UNLIKE
            run = letters("".join(rng.choice(list(signs), int(rng.integers(1, 3)))), writer, rng)
            write(sheet, run, (x - gap - run.width * tall if ahead else x + width + gap, y), tall, writer)
        elif kind < 0.45:
            at = x - gap - tall if ahead else x + width + gap
            type_set(
                sheet, str(rng.choice(list("#*$&%="))), (at, y), tall, rng, dark=float(rng.uniform(0.4, 0.9))
            )
        elif kind < 0.6 and not ahead:
            level = y - height * float(rng.uniform(0.3, 0.6))
            wave = np.linspace(0, 1, 20)[:, None] * (2 * height, 0) + (x + width + gap, level)
            wave[:, 1] += 0.1 * height * np.sin(np.linspace(0, rng.uniform(0, 20), 20))
            sheet.print_path([wave], max(1.0, writer.pen.width * height), writer.pen.dark)
