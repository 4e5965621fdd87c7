"""Reader: an image of handwritten digits to what it says, how sure that is, and where it stands."""

from __future__ import annotations

import os
from functools import cached_property

import numpy as np

from netsuke import image as images
from netsuke import zoo
from netsuke.artifact import Artifact
from netsuke.engine import Engine
from netsuke.errors import ArtifactError, OptionError
from netsuke.reader import pages
from netsuke.reader.confidence import STATES, probabilities, rejection, state
from netsuke.reader.field import Field
from netsuke.reader.finder import Finder
from netsuke.reader.reading import Box, Digit, Reading
from netsuke.reader.scanner import Scanner
from netsuke.reader.sight import Sight

DEFAULT, FINDER, SCANNER = "digit-base", "finder", "scanner"
SECOND = 0.7  # of its confidence is left to a digit that is seen at the second look only
DOUBTFUL = 0.3, 0.97  # probabilities of a crop's likeliest digit between which it is looked at again,
TURNED = -7.0, 7.0  # by so many degrees
EDGE = 0.03  # of a crop's side: nearer to it is at it
SLIVER, LINE = (
    0.15,
    0.1,
)  # of a crop's side: what is at its edge, or goes from edge to edge, and is no broader
NOTHING = Reading("", 0.0, (0, 0, 0, 0), (), state=STATES[2])
CENTRINGS = ("mass", "box", "none")


class Reader:
    """Reads images with one artifact, the shipped `digit-base` unless another is given.

    On pages finder and scanner look beside it: `sight` "auto" is the shipped ones, for models of digits that know what
    is none; None is none, and then only shapes and gaps tell which ink is a number.
    Raises ArtifactError where the artifact is no classifier, or its input contract is not one that images can be
    brought to.
    """

    def __init__(
        self, artifact: Artifact | None = None, *, sight: Sight | str | None = "auto", backend: str = "auto"
    ):
        self.artifact = Artifact.load(zoo.path(DEFAULT)) if artifact is None else artifact
        _ = self.artifact.classes  # one logit a class, or an error
        self._centring, self._box = _contract(self.artifact)
        rejection(self.artifact)  # what it says there must make sense
        if isinstance(sight, str) and sight != "auto":
            raise OptionError(f'sight is a Sight, None or "auto"; got {sight!r}')
        self._given, self._backend = sight, backend
        self._engine = Engine(self.artifact, backend=backend)

    @cached_property
    def sight(self) -> Sight | None:
        """What looks at pages beside the model; made when first asked for, as crops need none."""
        return _sight(self.artifact, self._backend) if isinstance(self._given, str) else self._given

    def read(self, image: str | os.PathLike[str] | bytes | np.ndarray) -> Reading:
        """Read the one digit in an image: a file, its bytes, or uint8 pixels [H, W] or RGB(A) [H, W, 3 or 4].

        Paper and ink may be of any brightness and size. Raises DataError where `image` cannot be decoded.
        """
        pixels = image if isinstance(image, np.ndarray) else images.decode(image)
        seen, first = self._first(pixels), NOTHING
        if seen is not None:
            share, box = seen
            if not _sliver(box, pixels):
                first = self._reading(share, box)
            if not _covers(box, pixels):
                return first
        second = self._second(pixels)
        if (
            second is None and first.state == STATES[1]
        ):  # a pattern of the paper that is a little like a digit
            return NOTHING
        return second if second and second.confidence > SECOND * first.confidence else first

    def prepare(self, pixels: np.ndarray) -> tuple[np.ndarray, Box] | None:
        """The model's input, uint8 [1, C, H, W], and the box it was taken from; None where the paper is blank."""
        channels, height, width = self.artifact.graph.input_shape
        if self._centring == "none":  # the model was trained on whole images, as they were
            return _resized(pixels, channels, height, width), (0, 0, pixels.shape[1], pixels.shape[0])
        ink = images.find_ink(pixels)
        if ink is None:
            return None
        return self._inputs([ink.pixels]), ink.box

    def read_all(
        self, image: str | os.PathLike[str] | bytes | np.ndarray, *, field: Field | None = None
    ) -> list[Reading]:
        """Every number of an image, in reading order; none where the paper is blank. Takes what `read` takes.

        Each text keeps to `field`; ink that cannot be read so is passed over. Raises DataError where `image`
        cannot be decoded, ArtifactError where the model reads whole images only.
        """
        if self._centring == "none":
            raise ArtifactError("a model of whole images (centring none) cannot read a page; use read")
        pixels = image if isinstance(image, np.ndarray) else images.decode(image)
        return pages.read(pixels, self.artifact, self.classified, field or Field(), self.sight)

    def _first(self, pixels: np.ndarray) -> tuple[np.ndarray, Box] | None:
        """Probabilities [K + 1] of a crop, and the box of its ink; None where the paper is blank.

        A doubtful one is looked at turned a little each way, too: digits stay what they are, others mostly do not.
        """
        prepared = self.prepare(pixels)
        if prepared is None:
            return None
        x, box = prepared
        share: np.ndarray = probabilities(self.artifact, self._engine.run(x))[0]
        knows = self._centring != "none" and rejection(self.artifact) is not None
        if knows and DOUBTFUL[0] < share[:-1].max() < DOUBTFUL[1] and (ink := images.find_ink(pixels)):
            turned = [images.turned(ink.pixels, degrees) for degrees in TURNED]
            share = np.mean([share, *self.classified(turned)], 0)
        return share, box

    def _second(self, pixels: np.ndarray) -> Reading | None:
        """A crop that looks blank, or full of ink, by its page's ink; None where that is no digit, or the model cannot
        tell."""
        knows = self._centring != "none" and rejection(self.artifact) is not None
        ink = images.page_digit(pixels) if knows else None
        if ink is None:
            return None
        reading = self._reading(self.classified([ink.pixels])[0] * SECOND, ink.box)
        return None if reading.state == STATES[2] else reading

    def classified(self, crops: list[np.ndarray]) -> np.ndarray:
        """Probabilities float64 [n, K + 1] of crops of bright ink uint8 [h, w]; the last is that it is no digit."""
        return probabilities(self.artifact, self._engine.run(self._inputs(crops)))

    def _inputs(self, crops: list[np.ndarray]) -> np.ndarray:
        """Crops of bright ink uint8 [h, w] as the model's input uint8 [n, C, H, W]."""
        channels, height, _ = self.artifact.graph.input_shape
        planes = images.fits(crops, size=height, box=self._box, centring=self._centring)
        return np.repeat(planes[:, None], channels, 1)

    def _reading(self, share: np.ndarray, box: Box) -> Reading:
        order = np.argsort(-share[:-1], kind="stable")
        classes = self.artifact.classes
        first, second = int(order[0]), int(order[min(1, len(order) - 1)])
        sure = float(share[first])
        name = state(self.artifact, sure)
        digit = Digit(classes[first], sure, box, classes[second], float(share[second]), name)
        return Reading(digit.digit if name != STATES[2] else "", sure, box, (digit,), state=name)


def _covers(box: Box, pixels: np.ndarray) -> bool:
    """Whether ink goes to all sides of an image, as a pattern of the paper does."""
    (x, y, w, h), (high, wide) = box, pixels.shape[:2]
    return x <= EDGE * wide and y <= EDGE * high and x + w >= (1 - EDGE) * wide and y + h >= (1 - EDGE) * high


def _sliver(box: Box, pixels: np.ndarray) -> bool:
    """Whether all ink is a rim of what stands beside the image, or a line through it: nobody could tell a digit."""
    (x, y, w, h), (high, wide) = box, pixels.shape[:2]
    left, right = x <= EDGE * wide, x + w >= (1 - EDGE) * wide
    top, foot = y <= EDGE * high, y + h >= (1 - EDGE) * high
    if (left and right and h < LINE * high) or (top and foot and w < LINE * wide):
        return True
    return (left != right and w < SLIVER * wide) or (top != foot and h < SLIVER * high)


def _sight(artifact: Artifact, backend: str) -> Sight | None:
    """The shipped finder and scanner, for a model of single digits that knows what is none."""
    if rejection(artifact) is None or not {FINDER, SCANNER} <= set(zoo.names()):
        return None
    finder = Finder(Artifact.load(zoo.path(FINDER)), backend=backend)
    if artifact.classes != finder.classes:
        return None
    return Sight(finder, Scanner(Artifact.load(zoo.path(SCANNER)), backend=backend))


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
