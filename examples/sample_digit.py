"""Write one digit of the embedded set's test half as a picture that could come from a scanner.

python examples/sample_digit.py 7 seven.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from netsuke import data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("digit", type=int, choices=range(10), metavar="DIGIT")
    parser.add_argument("output", type=Path, metavar="FILE.png")
    args = parser.parse_args()

    test = data.load("digits").test
    ink = test.images[int(np.flatnonzero(test.labels == args.digit)[0]), 0]
    large = cv2.resize(ink, None, fx=20, fy=20, interpolation=cv2.INTER_CUBIC)
    paper = 255 - cv2.copyMakeBorder(
        large, 40, 40, 40, 40, cv2.BORDER_CONSTANT, value=0
    )  # ink is dark on paper
    args.output.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.output), paper)


if __name__ == "__main__":
    main()
