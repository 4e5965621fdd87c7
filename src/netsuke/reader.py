"""Reader: an image of one handwritten digit to the digit, how sure that is, and where it stands."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from netsuke import image as images
from netsuke import zoo
from netsuke.artifact import Artifact
from netsuke.engine import Engine
from netsuke.errors import ArtifactError

DEFAULT = "digit-small"
CENTRINGS = ("mass", "box", "none")

Box = tuple[int, int, int, int]  # x, y, w, h in pixels of the upright input


@dataclass(frozen=True)
class Digit:
    """One sign: its class, how sure that is (0 to 1), where it stands, and the second choice."""

    digit: str
    confidence: float
    box: Box
    runner_up: str
    runner_up_confidence: float


@dataclass(frozen=True)
class Reading:
    """What an image says; on blank paper `text` is empty and there are no digits."""

    text: str
    confidence: float
    box: Box
    digits: tuple[Digit, ...]

    @property
    def blank(self) -> bool:
        return not self.digits

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Reader:
    """Reads images with one artifact, the shipped `digit-small` unless another is given.

    Raises ArtifactError where the artifact is no classifier, or its input contract is not one that images can be
    brought to.
    """

    def __init__(self, artifact: Artifact | None = None, *, backend: str = "auto"):
        self.artifact = Artifact.load(zoo.path(DEFAULT)) if artifact is None else artifact
        _ = self.artifact.classes  # one logit a class, or an error
        self._centring, self._box = _contract(self.artifact)
        self._engine = Engine(self.artifact, backend=backend)

    def read(self, image: str | os.PathLike[str] | bytes | np.ndarray) -> Reading:
        """Read the one digit in an image: a file, its bytes, or uint8 pixels [H, W] or RGB(A) [H, W, 3 or 4].

        Paper and ink may be of any brightness and size. Raises DataError where `image` cannot be decoded.
        """
        pixels = image if isinstance(image, np.ndarray) else images.decode(image)
        prepared = self.prepare(pixels)
        if prepared is None:
            return Reading("", 0.0, (0, 0, 0, 0), ())
        x, box = prepared
        return self._reading(self._engine.run(x)[0], box)

    def prepare(self, pixels: np.ndarray) -> tuple[np.ndarray, Box] | None:
        """The model's input, uint8 [1, C, H, W], and the box it was taken from; None where the paper is blank."""
        channels, height, width = self.artifact.graph.input_shape
        if self._centring == "none":  # the model was trained on whole images, as they were
            return _resized(pixels, channels, height, width), (0, 0, pixels.shape[1], pixels.shape[0])
        ink = images.find_ink(pixels)
        if ink is None:
            return None
        plane = images.fit(ink.pixels, size=height, box=self._box, centring=self._centring)
        return np.repeat(plane[None, None], channels, 1), ink.box

    def _reading(self, logits: np.ndarray, box: Box) -> Reading:
        share = confidences(self.artifact, logits)
        order = np.argsort(-share, kind="stable")
        classes = self.artifact.classes
        first, second = int(order[0]), int(order[min(1, len(order) - 1)])
        digit = Digit(classes[first], float(share[first]), box, classes[second], float(share[second]))
        return Reading(digit.digit, digit.confidence, box, (digit,))


def confidences(artifact: Artifact, logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float64; integer logits are first brought to their scale."""
    last = artifact.graph.ops[-1]
    value = logits.astype(np.float64) * (last.attrs["scale"] if last.kind == "qlogits" else 1.0)
    power = np.exp(value - value.max(-1, keepdims=True))
    return power / power.sum(-1, keepdims=True)


def _contract(artifact: Artifact) -> tuple[str, int]:
    """Centring and box from the manifest; an artifact that says nothing of them gets whole images."""
    contract = artifact.manifest.get("input", {})
    _, height, width = artifact.graph.input_shape
    centring = contract.get("centring", "none") if isinstance(contract, dict) else None
    if centring not in CENTRINGS:
        raise ArtifactError(
            f"its input's centring is {str(centring)[:40]!r}; netsuke knows {', '.join(CENTRINGS)}"
        )
    if centring == "none":
        return centring, 0
    box = contract.get("box", round(height * 20 / 28))  # MNIST's proportion
    if height != width or not isinstance(box, int) or isinstance(box, bool) or not 1 <= box <= height:
        raise ArtifactError(
            f"centred ink needs a square input and a box of 1 to its side; got {height}x{width}, {box}"
        )
    return centring, box


def _resized(pixels: np.ndarray, channels: int, height: int, width: int) -> np.ndarray:
    """uint8 pixels as [1, C, height, width], stretched; grey for one channel, RGB for three."""
    import cv2

    plane = images.grey(pixels)
    if channels == 3 and pixels.shape[2:] == (3,):
        plane = pixels
    shrinks = plane.shape[0] * plane.shape[1] > height * width
    if plane.shape[:2] != (height, width):
        plane = cv2.resize(
            plane, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
    if plane.ndim == 2:
        plane = np.repeat(plane[..., None], channels, 2)
    return np.ascontiguousarray(plane.transpose(2, 0, 1)[None])
