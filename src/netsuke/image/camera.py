"""One picture from a camera."""

from __future__ import annotations

import os

import numpy as np

from netsuke.errors import DataError
from netsuke.image.files import silence

SETTLE = 15  # frames that a camera takes to find its exposure


def frame(source: int | str) -> np.ndarray:
    """A picture, RGB uint8 [H, W, 3], from camera `source` (0 is the first), or from a device, stream or video.

    The first frames are passed over, as the camera finds its exposure; of a shorter video comes the last one.
    Raises DataError where there is no such camera or it gives no picture.
    """
    import cv2

    with silence():  # every backend that finds nothing says so
        camera = cv2.VideoCapture(source)
        try:
            if not camera.isOpened():
                there = sorted(name for name in _devices() if name.startswith("video"))
                known = f"there is /dev/{', /dev/'.join(there)}" if there else "none is connected"
                raise DataError(f"camera {source}: cannot be opened; {known}")
            pixels = None
            for _ in range(SETTLE):
                done, picture = camera.read()
                if not done:
                    break
                pixels = picture
        finally:
            camera.release()
    if pixels is None:
        raise DataError(f"camera {source}: it gives no picture; another program may be using it")
    return np.ascontiguousarray(pixels[..., ::-1])


def _devices() -> list[str]:
    try:
        return os.listdir("/dev")
    except OSError:
        return []
