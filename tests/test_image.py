"""The decoder on real and hostile files, and the normaliser on drawn digits and known sets."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from contextlib import suppress

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.errors import DataError, OptionError
from netsuke.image import decode, find_ink, fit, normalize
from netsuke.image.files import FORMATS

EXTENSIONS = (".png", ".jpg", ".bmp", ".webp", ".tiff", ".gif")


def five(height: int = 120, width: int = 90, paper: int = 235, ink: int = 40) -> np.ndarray:
    """A drawn 5, uint8 [height, width]."""
    image = np.full((height, width), paper, np.uint8)
    points = np.array(
        [[0.7, 0.2], [0.35, 0.2], [0.33, 0.45], [0.55, 0.43], [0.68, 0.55], [0.6, 0.75], [0.3, 0.78]]
    )
    line = (points * [width, height]).astype(np.int32)
    cv2.polylines(image, [line], False, ink, max(1, height // 14), cv2.LINE_AA)
    return image


def encoded(image: np.ndarray, extension: str) -> bytes:
    if extension == ".gif":
        return gif(image)
    done, data = cv2.imencode(extension, image)
    assert done
    return data.tobytes()


def gif(image: np.ndarray) -> bytes:
    """Grey, BGR or BGRA as GIF: seven-bit pixels, and codes cleared before they would grow past a byte."""
    height, width = image.shape[:2]
    planes = image.reshape(height * width, -1)
    colours, alpha = planes[:, [2, 1, 0] if planes.shape[1] >= 3 else [0, 0, 0]], planes[:, 3:]
    step = 1
    while len(np.unique(colours // step, axis=0)) > 127:
        step *= 2
    palette, index = np.unique(colours // step * step, axis=0, return_inverse=True)
    index = np.where(alpha[:, 0] < 128, 127, index) if alpha.size else index
    codes = bytearray()
    for at in range(0, len(index), 100):
        codes += b"\x80" + bytes(index[at : at + 100].astype(np.uint8))
    codes += b"\x81"
    blocks = b"".join(
        bytes([len(codes[at : at + 255])]) + codes[at : at + 255] for at in range(0, len(codes), 255)
    )
    table = palette.astype(np.uint8).tobytes().ljust(3 * 128, b"\0")
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF6, 0, 0) + table
    control = b"\x21\xf9\x04" + bytes([bool(alpha.size), 0, 0, 127]) + b"\0"
    return (
        screen
        + control
        + b"\x2c"
        + struct.pack("<HHHHB", 0, 0, width, height, 0)
        + b"\x07"
        + blocks
        + b"\0\x3b"
    )


def close(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *extra: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body


def directory(order: str, tags: list[tuple[int, int]]) -> bytes:
    """A TIFF header with one directory of short tags."""
    entries = b"".join(struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    start = b"MM\0*" if order == ">" else b"II*\0"
    return start + struct.pack(order + "IH", 8, len(tags)) + entries + bytes(4)


def rotated(extension: str, image: np.ndarray, orientation: int, order: str) -> bytes:
    """A file whose Exif says how to turn it."""
    data = encoded(image, extension)
    exif = directory(order, [(271, 1), (274, orientation)])
    if extension == ".jpg":
        content = b"Exif\0\0" + exif
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + data[2:]
    if extension == ".png":
        return data[:33] + chunk(b"eXIf", exif) + data[33:]
    height, width = image.shape[:2]
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = b"VP8X" + struct.pack("<I", 10) + bytes([8, 0, 0, 0]) + sizes + data[12:]
    chunks += b"EXIF" + struct.pack("<I", len(exif)) + exif
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


# --- decoding ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("colour", [False, True])
def test_every_format(extension, colour, tmp_path):
    image = five()
    if colour:
        image = np.dstack([image, image, np.full_like(image, 235)])  # BGR: red ink
    path = tmp_path / f"five{extension}"
    path.write_bytes(encoded(image, extension))
    pixels = decode(path)
    assert pixels.dtype == np.uint8
    assert pixels.shape[:2] == (120, 90)
    assert normalize(pixels).max() == 255
    if colour:
        assert close(pixels[..., ::-1], image) < 6  # RGB out, BGR in; JPEG, GIF and WebP lose a little
    np.testing.assert_array_equal(pixels, decode(path.read_bytes()))


TURNS = {  # what a camera did to the upright image, by Exif orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp"])
def test_exif_turns_the_image_upright(extension, orientation):
    image = np.ascontiguousarray(TURNS[orientation](np.dstack([five()] * 3)))
    for order in "<>":
        assert close(decode(rotated(extension, image, orientation, order))[..., 0], five()) < 4


@pytest.mark.parametrize("orientation", TURNS)
def test_tiff_is_turned_once(orientation):
    image = np.ascontiguousarray(TURNS[orientation](five()))
    height, width = image.shape
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 134), (274, orientation)]
    tags += [(277, 1), (278, height), (279, width * height)]
    data = directory("<", tags)
    assert len(data) == 134
    assert close(decode(data + image.tobytes()), five()) == 0


def test_damaged_exif_is_ignored():
    for orientation in (0, 9, 65535):
        assert decode(rotated(".jpg", five(), orientation, "<")).shape == (120, 90)
    data = rotated(".png", np.dstack([five()] * 3), 6, ">")
    at = data.index(b"eXIf")
    content = b"MM\0*" + b"\xff" * 20
    assert decode(data[: at - 4] + chunk(b"eXIf", content) + data[33 + 12 + 38 :]).shape[:2] == (120, 90)


@pytest.mark.parametrize("extension", [".png", ".webp", ".tiff", ".gif"])
def test_transparent_is_white(extension):
    hidden = np.zeros((120, 90), np.uint8)  # black everywhere; alpha alone draws
    image = np.dstack([hidden] * 3 + [255 - five(paper=255, ink=0)])
    assert close(normalize(decode(encoded(image, extension))), normalize(five(paper=255, ink=0))) < 10


def test_white_strokes_on_nothing_stay_visible():
    white = np.full((120, 90), 255, np.uint8)
    image = np.dstack([white] * 3 + [255 - five(paper=255, ink=0)])
    assert close(normalize(decode(encoded(image, ".png"))), normalize(five(paper=255, ink=0))) < 2


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_sixteen_bits(extension):
    wide = five().astype(np.uint16) * 257
    np.testing.assert_array_equal(decode(encoded(wide, extension)), five())


def test_palettes_and_few_bits():
    row = bytes([0, 0xF0, 0x0F])  # no filter, then 1111 0000 0000 1111
    palette = chunk(b"PLTE", bytes([0, 0, 0, 255, 0, 0]))
    red = decode(png(16, 2, 1, 3, row * 2, palette))
    assert red.shape == (2, 16, 3)
    assert red[0, 0].tolist() == [255, 0, 0]
    over = decode(png(16, 2, 1, 3, row * 2, palette, chunk(b"tRNS", bytes([0, 255]))))
    assert over[0, 8].tolist() == [255, 255, 255]  # its entry 0 is transparent
    assert decode(png(4, 1, 2, 0, b"\0\x1b")).tolist() == [[0, 85, 170, 255]]
    grey_alpha = decode(png(2, 1, 8, 4, bytes([0, 10, 255, 10, 0])))
    assert grey_alpha[0, 0].tolist() == [10, 10, 10]
    assert grey_alpha[0, 1].tolist() == [255, 255, 255]


def test_float_pixels_say_what_to_do():
    with pytest.raises(DataError, match="8 or 16 bits"):
        decode(encoded(five().astype(np.float32), ".tiff"))


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_truncated(extension, tmp_path):
    data = encoded(five(), extension)
    path = tmp_path / f"cut{extension}"
    for share in (0.1, 0.3, 0.6, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(DataError, match=f"cut{extension}: truncated or damaged") as caught:
            decode(path)
        assert "\n" not in str(caught.value)


def test_unreadable(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "note.jpg").write_text("not an image")
    for name, says in {
        "empty.png": "not an image",
        "note.jpg": "JPEG",
        "gone.png": "No such file",
        ".": "directory",
    }.items():
        with pytest.raises(DataError, match=says):
            decode(tmp_path / name)
    with pytest.raises(DataError, match="null"):
        decode("a\0b")


def huge() -> dict[str, bytes]:
    """A small file of each format that claims enormous sizes."""
    wide = 60_000
    jpeg = bytearray(encoded(five(), ".jpg"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", wide, wide)
    bmp = bytearray(encoded(five(), ".bmp"))
    bmp[18:26] = struct.pack("<ii", wide, -wide)
    gif = bytearray(encoded(five(), ".gif"))
    gif[6:10] = struct.pack("<HH", wide, wide)
    sizes = (wide - 1).to_bytes(3, "little") * 2
    return {
        "PNG": png(wide, wide, 8, 0, bytes(1000)),
        "JPEG": bytes(jpeg),
        "BMP": bytes(bmp),
        "GIF": bytes(gif),
        "WebP": b"RIFF"
        + struct.pack("<I", 100)
        + b"WEBPVP8X"
        + struct.pack("<I", 10)
        + bytes(4)
        + sizes
        + bytes(70),
        "TIFF": directory(
            "<", [(256, wide), (257, wide), (258, 8), (262, 1), (273, 8), (278, wide), (279, 9)]
        ),
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_huge_is_refused_by_its_header(kind):
    with pytest.raises(DataError, match="60000x60000 pixels"):
        decode(huge()[kind])


def test_decoders_are_silent(capfd):
    data = bytearray(encoded(np.dstack([five()] * 3), ".png"))
    data[len(data) // 2] ^= 0xFF
    for bad in (bytes(data), encoded(five(), ".png")[:-30], encoded(five(), ".jpg")[:-30] + b"\xff\xd9"):
        with suppress(DataError):
            decode(bad)
    os.write(2, b"still here\n")  # what comes after is heard again
    assert capfd.readouterr().err == "still here\n"


SAMPLES = [encoded(image, e) for e in EXTENSIONS for image in (five(40, 30), np.dstack([five(40, 30)] * 3))]
SAMPLES += [rotated(e, np.dstack([five(40, 30)] * 3), 6, ">") for e in (".jpg", ".png", ".webp")]


@settings(max_examples=400)
@given(st.data())
def test_mutated_files_give_one_error_or_an_image(data):
    sample = bytearray(data.draw(st.sampled_from(SAMPLES)))
    for _ in range(data.draw(st.integers(0, 8))):
        at = data.draw(st.integers(0, len(sample) - 1) | st.integers(0, 64))
        sample[at] = data.draw(st.integers(0, 255) | st.sampled_from([0, 1, 127, 128, 255]))
    cut = data.draw(st.integers(0, len(sample)) | st.just(len(sample)))
    pixels, said = None, ""
    try:
        pixels = decode(bytes(sample[:cut]))
    except DataError as error:
        said = str(error)
    assert "\n" not in said
    if pixels is None:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim in (2, 3)
    if pixels.size < 1 << 22:
        find_ink(pixels)


MEMORY = """
import random, resource, sys
sys.path.insert(0, sys.argv[1])
from test_image import SAMPLES, huge, decode, DataError
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before, rng = peak(), random.Random(0)
at = SAMPLES[0].index(b"IDAT")
for length in (b"\\xf0", b"\\x7f", b"\\x20"):  # a chunk of gigabytes
    try: decode(SAMPLES[0][:at - 4] + length + SAMPLES[0][at - 3:])
    except DataError: pass
for data in [*huge().values(), *SAMPLES * 20]:
    bad = bytearray(data)
    for _ in range(rng.randrange(4)):
        bad[rng.randrange(min(len(bad), 80))] = rng.choice([0, 1, 255, rng.randrange(256)])
    try: decode(bytes(bad))
    except DataError: pass
print(peak() - before)
"""


def test_memory_stays_bounded():
    """No file of a few kilobytes makes the process grow by more than its limit of pixels costs."""
    script = [sys.executable, "-c", MEMORY, os.path.dirname(__file__)]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 600  # MiB: what 50 million pixels cost as BGR, RGB and alpha


# --- the normaliser ----------------------------------------------------------------------------------


def shadowed(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    light = np.linspace(1, 0.5, width)[None] * np.linspace(1, 0.8, height)[:, None]
    return (image * light).round().astype(np.uint8)


def noisy(image: np.ndarray, sigma: float = 5) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, image.shape)
    return (image + noise).clip(0, 255).round().astype(np.uint8)


def lined(image: np.ndarray) -> np.ndarray:
    """In a cell of a form: a line along three sides, one a little inside."""
    out = image.copy()
    out[:3] = out[:, -3:] = 60
    out[:, 4:6] = 60
    return out


PHOTOS = {
    "inverted": 255 - five(),
    "large": five(1200, 900),
    "photo": five(2400, 1800),
    "small": five(40, 30),
    "faint": five(ink=200),
    "shadow": shadowed(five()),
    "noise": noisy(five()),
    "faint in shadow and noise": noisy(shadowed(five(ink=180)), 3),
    "off centre": np.pad(five(paper=235), ((10, 150), (200, 5)), constant_values=235),
    "lines": lined(five()),
    "lines on black": 255 - lined(five()),
    "speck": cv2.circle(five(), (85, 112), 2, 40, -1),
    "full stop": cv2.circle(np.pad(five(), ((0, 0), (0, 20)), constant_values=235), (88, 94), 4, 40, -1),
    "colour": np.dstack([five(ink=40), five(ink=40), five(ink=200)]),
    "jpeg": decode(encoded(noisy(shadowed(five())), ".jpg")),
}


@pytest.mark.parametrize("name", PHOTOS)
def test_photos_of_one_digit_look_alike(name):
    assert close(normalize(PHOTOS[name]), normalize(five())) < 10


def test_photos_differ_from_another_digit():
    """The bound of the test above means something."""
    assert close(normalize(five()[::-1]), normalize(five())) > 30


def test_output_is_centred_and_boxed():
    out = normalize(five(300, 500))
    rows, columns = np.flatnonzero(out.any(1)), np.flatnonzero(out.any(0))
    assert 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
    mass = out.astype(float)
    for axis in (0, 1):
        centre = mass.sum(1 - axis) @ (np.arange(28) + 0.5) / mass.sum()
        assert 13.9 < centre < 15.1
    assert out.max() == 255


def test_box_is_in_pixels_of_the_input():
    for scale in (1, 3, 15):
        image = np.pad(five(120 * scale, 90 * scale), ((0, 0), (60 * scale, 0)), constant_values=235)
        ink = find_ink(image)
        assert ink is not None
        x, y, w, h = (side / scale for side in ink.box)
        assert abs(x - 83) < 4
        assert abs(y - 20) < 4
        assert abs(w - 44) < 6
        assert abs(h - 78) < 6


def test_one_survives_a_tight_crop():
    """A stroke from edge to edge is a 1, though it runs like a line of a form."""
    image = np.full((60, 40), 235, np.uint8)
    image[:, 18:21] = 40
    assert find_ink(image) is not None


BLANK = {
    "white": np.full((50, 40), 255, np.uint8),
    "black": np.zeros((50, 40), np.uint8),
    "one pixel": np.full((1, 1), 7, np.uint8),
    "noise": noisy(np.full((200, 150), 200, np.uint8), 6),
    "shadow": noisy(shadowed(np.full((200, 150), 230, np.uint8)), 4),
    "empty cell": lined(np.full((120, 90), 235, np.uint8)),
    "jpeg": decode(encoded(noisy(np.full((200, 150), 200, np.uint8), 6), ".jpg")),
}


@pytest.mark.parametrize("name", BLANK)
def test_blank_paper_holds_no_ink(name):
    assert find_ink(BLANK[name]) is None
    assert not normalize(BLANK[name]).any()


@settings(max_examples=60)
@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([(), (1,), (3,), (4,)]), st.integers(0, 2**32 - 1)
)
def test_any_pixels_give_an_answer(height, width, channels, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, *channels), dtype=np.uint8)
    if rng.random() < 0.5:
        image = np.where(image < rng.integers(1, 255), 0, 255).astype(np.uint8)
    out = normalize(image)
    assert out.shape == (28, 28)
    assert out.dtype == np.uint8
    ink = find_ink(image)
    if ink is not None:
        x, y, w, h = ink.box
        assert x >= 0 <= y
        assert 1 <= w <= width - x
        assert 1 <= h <= height - y


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4)), np.zeros((2, 3, 4, 5), np.uint8), np.zeros((4, 4, 2), np.uint8)]
)
def test_other_arrays_are_refused(bad):
    with pytest.raises(DataError, match="an image is uint8"):
        find_ink(bad)
    with pytest.raises(DataError, match="at least one pixel"):
        find_ink(np.zeros((0, 5), np.uint8))


def test_fit_refuses_what_does_not_fit():
    ink = np.full((9, 4), 255, np.uint8)
    for wrong in ({"box": 29}, {"box": 0}, {"centring": "middle"}):
        with pytest.raises(OptionError):
            fit(ink, **wrong)
    out = fit(ink, size=8, box=8, centring="box")
    assert out[:, 2:6].any(0).all()  # 8 tall, 4 wide, in the middle
    assert not out[:, [0, 1, 6, 7]].any()


def test_mnist_stays_as_it_is(mnist):
    images = mnist.train.images[:300, 0]
    again = np.stack([normalize(image) for image in images])
    change = np.abs(again.astype(int) - images).mean((1, 2))
    assert np.median(change) < 1
    assert (change < 6).mean() > 0.95  # of the rest, a crop lost a faint tail and moved by a pixel
    third = np.stack([normalize(image) for image in again])
    assert (np.abs(third.astype(int) - again).mean((1, 2)) < 1).mean() > 0.95


def test_small_digits_stay_as_they_are(digits):
    """The 8x8 set, enlarged to a photo of paper, comes back."""
    images = digits.train.images[:200, 0]
    again = []
    for image in images:
        page = np.pad(cv2.resize(image, (160, 160), interpolation=cv2.INTER_CUBIC), 40)
        again.append(normalize(255 - page, size=8, box=8, centring="box"))
    change = np.abs(np.stack(again).astype(int) - images).mean((1, 2))
    assert np.median(change) < 20
