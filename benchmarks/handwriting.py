"""Contact sheets of the made handwriting to look at, and how fast it is made on one core.

    python benchmarks/handwriting.py                      # sheets into ./handwriting, and rates
    python benchmarks/handwriting.py --seed 3 --out /tmp/sheets --json

Needs pen strokes, MNIST, Semeion, optdigits and Fashion-MNIST in $NETSUKE_DATA. Rates are of CPU time, the best of
five rounds. crops.png: photographs of digits; outliers.png: of no digits; inputs.png: what a model is fed;
strings.png and pages/*.png: scenes, each above its truth (a colour a digit, a blue box a number).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from netsuke.lab import pens, scenes
from netsuke.measure.latency import hardware


def contact_sheet(images: list[np.ndarray], titles: list[str], *, cell: int, across: int) -> np.ndarray:
    """Images uint8 [h, w] or [h, w, 3] in a grid, each at most `cell` pixels a side, enlarged by 3 at most."""
    down = -(-len(images) // across)
    out = np.full((down * (cell + 14), across * cell, 3), 128, np.uint8)
    for k, (image, title) in enumerate(zip(images, titles, strict=True)):
        scale = min((cell - 2) / max(image.shape[:2]), 3)
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
        y, x = k // across * (cell + 14) + 14, k % across * cell
        out[y : y + image.shape[0], x : x + image.shape[1]] = image if image.ndim == 3 else image[..., None]
        cv2.putText(out, title, (x + 2, y - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 255), 1)
    return out


def with_truth(scene: scenes.Scene) -> np.ndarray:
    """A scene above its truth, uint8 [2 h, w, 3]."""
    image = cv2.cvtColor(scene.image, cv2.COLOR_GRAY2BGR)
    truth, marked = image.copy(), scene.mask > 0
    colours = np.random.default_rng(1).integers(60, 255, (len(scene.digits) + 1, 3))
    truth[marked] = (0.4 * truth[marked] + 0.6 * colours[scene.mask[marked]]).astype(np.uint8)
    for label, (x, y, w, h), _ in scene.digits:
        cv2.rectangle(truth, (x, y), (x + w - 1, y + h - 1), (0, 0, 255), 1)
        cv2.putText(truth, str(label), (x, y - 1), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (0, 120, 0), 1)
    for _, (x, y, w, h) in scene.strings:
        cv2.rectangle(truth, (x - 2, y - 2), (x + w + 1, y + h + 1), (255, 0, 0), 1)
    return np.concatenate([image, truth])


def draw(out: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    (out / "pages").mkdir(parents=True, exist_ok=True)
    for name, share in (("crops", 0.0), ("outliers", 1.0)):
        photos = pens.crops(160, rng, outliers=share)
        sheet = contact_sheet([p for p, _ in photos], [str(y) for _, y in photos], cell=72, across=16)
        cv2.imwrite(str(out / f"{name}.png"), sheet)
    images, labels = pens.samples(400, seed)
    sheet = contact_sheet(list(images[:, 0]), [str(y) for y in labels], cell=42, across=25)
    cv2.imwrite(str(out / "inputs.png"), sheet)
    strips = [scenes.string(rng) for _ in range(32)]
    titles = [scene.strings[0].text if scene.strings else "" for scene in strips]
    cv2.imwrite(
        str(out / "strings.png"), contact_sheet([with_truth(s) for s in strips], titles, cell=280, across=4)
    )
    for kind in scenes.PAGES:
        cv2.imwrite(str(out / "pages" / f"{kind}.png"), with_truth(scenes.page(rng, kind=kind)))


def rate(make: Callable[[int], Any], count: int) -> float:
    """Things made a second of CPU time, the best of five rounds after a warm-up."""
    make(99)
    best = float("inf")
    for seed in range(5):
        start = time.process_time()
        make(seed)
        best = min(best, time.process_time() - start)
    return count / best


def rates() -> dict[str, float]:
    def rng(seed: int) -> np.random.Generator:
        return np.random.default_rng(seed)

    return {
        "samples": rate(lambda seed: pens.samples(300, seed), 300),
        "samples, ink found": rate(lambda seed: pens.samples(300, seed, found=1.0), 300),
        "samples, photographed": rate(lambda seed: pens.samples(150, seed, found=0.0), 150),
        "crops": rate(lambda seed: pens.crops(200, rng(seed), outliers=0.3), 200),
        "strings": rate(lambda seed: [scenes.string(r) for r in [rng(seed)] for _ in range(15)], 15),
        "pages": rate(lambda seed: [scenes.page(r) for r in [rng(seed)] for _ in range(5)], 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("handwriting"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    draw(options.out, options.seed)
    figures = rates()
    if options.json:
        print(json.dumps({"hardware": hardware(), "a_second": figures}, indent=2))
        return
    print(f"sheets in {options.out}")
    for name, value in figures.items():
        print(f"{name:24} {value:8.0f} a second")


if __name__ == "__main__":
    main()
