"""Writes what the firmware is built from: model.c and model.h of an artifact, and images.h with their logits.

python prepare.py MODEL.netsuke build/ [--data mnist] [--images 3] [--set multiply=shifts]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from netsuke import data
from netsuke.artifact import Artifact
from netsuke.errors import NetsukeError, OptionError
from netsuke.export import TARGETS


def drawn(shape: tuple[int, int, int], count: int) -> np.ndarray:
    """Digits in a printed hand, uint8 [n, C, H, W], bright on dark."""
    channels, high, wide = shape
    images = np.zeros((count, high * 4, wide * 4), np.uint8)
    for i, image in enumerate(images):
        text, scale = str(i % 10), high / 9
        (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 8)
        place = (2 * wide - w // 2, 2 * high + h // 2)
        cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 8, cv2.LINE_AA)
    small = [cv2.resize(image, (wide, high), interpolation=cv2.INTER_AREA) for image in images]
    return np.repeat(np.stack(small)[:, None], channels, 1)


def listed(array: np.ndarray) -> str:
    return "{" + ", ".join(map(str, array.reshape(-1).tolist())) + "}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", help="test images of this set instead of drawn digits")
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="an option of the C export, as NAME=VALUE")
    args = parser.parse_args()
    options = dict(setting.partition("=")[::2] for setting in args.set)
    if not 1 <= args.images <= 255:
        raise OptionError(f"IMAGES must be 1 to 255; got {args.images}")
    artifact = Artifact.load(args.model)
    if args.data:
        images = data.load(args.data).require("test").test.images[: args.images]
    else:
        images = drawn(artifact.graph.input_shape, args.images)
    TARGETS["c"].write(artifact, args.folder, "model", **options)
    rows = ",\n    ".join(map(listed, images))
    logits = ",\n    ".join(map(listed, artifact.logits(images)))
    size = images[0].size
    (args.folder / "images.h").write_text(f"""\
/* Images to classify, and the logits that the reference gives for them. */
#define IMAGES {len(images)}

static const uint8_t images[IMAGES][{size}] FLASH = {{
    {rows}
}};
static const int32_t expected[IMAGES][{len(artifact.classes)}] FLASH = {{
    {logits}
}};

static uint8_t image_byte(uint8_t image, uint16_t place)
{{
    return flash_8(&images[image][place]);
}}

static int32_t image_logit(uint8_t image, uint8_t place)
{{
    return (int32_t)flash_32(&expected[image][place]);
}}
""")


if __name__ == "__main__":
    try:
        main()
    except NetsukeError as error:
        sys.exit(f"prepare.py: {error}")
