"""The normaliser in C: `NAME_normalise`, a grey image of any size to the model's input.

`normaliser.c` is the code; here stand the numbers of one model and what its header says.
"""

from __future__ import annotations

from importlib.resources import files

from netsuke.artifact import Artifact
from netsuke.errors import OptionError

GRAIN = {"mass": 1, "box": 4}  # as image/fitting.py has it
LARGEST = 160  # pixels of the input's side, above which sums need more than 32 bits
WORK = 240 * 240  # pixels of the largest image at which ink is looked for

HEADER = """\
/* Pixels of the ink, or of the input, and the memory that normalising needs of an image, in int32_t. */
#define {upper}_NORMALISE_INK(width, height) \\
    ((int32_t)(width) * (height) > {work} ? (int32_t){work} : (int32_t)(width) * (height))
#define {upper}_NORMALISE_INPUT(width, height) \\
    ({upper}_NORMALISE_INK(width, height) > {pixels} ? {upper}_NORMALISE_INK(width, height) : {pixels})
#define {upper}_NORMALISE_WORK(width, height) \\
    (80 + (3 * {upper}_NORMALISE_INK(width, height) + 2 * {upper}_NORMALISE_INPUT(width, height)) / 4)

/* A grey image of one digit, of any size up to 16383 x 16383, on light or dark paper, to the model's input: the ink is
   found, cropped, fitted and centred. Rows of `grey` lie `stride` bytes apart; `out` takes {upper}_INPUT_BYTES bytes,
   `work` has {upper}_NORMALISE_WORK(width, height) integers. Returns 1, or 0 for blank paper, or -1 for a size out of
   range; `out` is then 0. The first four integers of `work` are left, top, width and height of the ink in the image.
   The same as netsuke.image in Python, bit for bit. */
int {name}_normalise(const uint8_t *grey, int32_t width, int32_t height, int32_t stride, uint8_t *out, int32_t *work);
"""


def contract(artifact: Artifact) -> tuple[int, int, str]:
    """Side, box and centring of the model's input. Raises OptionError where it takes images as they are."""
    told = artifact.manifest.get("input", {})
    centring = told.get("centring", "none") if isinstance(told, dict) else "none"
    _, high, wide = artifact.graph.input_shape
    box = told.get("box", round(high * 20 / 28)) if isinstance(told, dict) else 0
    if centring not in GRAIN:
        raise OptionError(
            "normaliser: this model takes whole images, not centred ink; there is nothing to normalise"
        )
    if high != wide or high > LARGEST or not isinstance(box, int) or not 1 <= box <= high:
        raise OptionError(
            f"normaliser: takes square inputs of at most {LARGEST} pixels with a box of 1 to its side; "
            f"got {high}x{wide}, {box}"
        )
    return high, box, centring


def header(artifact: Artifact, name: str) -> str:
    """The lines of NAME.h."""
    side = contract(artifact)[0]
    return HEADER.format(name=name, upper=name.upper(), work=WORK, pixels=side * side)


def source(artifact: Artifact, name: str) -> str:
    """The lines of NAME.c."""
    side, box, centring = contract(artifact)
    grain, planes = GRAIN[centring], artifact.graph.input_shape[0]
    numbers = {"SIZE": side, "BOX": box * grain, "GRAIN": grain, "PLANES": planes}
    lines = "".join(f"#define N_{key} {value}\n" for key, value in numbers.items())
    code = files(__package__).joinpath("normaliser.c").read_text(encoding="ascii")
    return lines + code.replace("NAME_", f"{name}_")
