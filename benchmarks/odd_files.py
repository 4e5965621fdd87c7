"""Odd, damaged and hostile image files, made by seed: `odd(seed) -> (kind, bytes)`. What odd_images.py reads."""

from __future__ import annotations

import functools
import random
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np

Maker = Callable[[random.Random], bytes]
EXTENSIONS = (".png", ".jpg", ".bmp", ".webp", ".tiff", ".gif")
WIDE = 20_000


def odd(seed: int) -> tuple[str, bytes]:
    """A file of the kind that `seed` falls on, and the kind's name; the same bytes for the same seed."""
    rng = random.Random(seed)
    kind = list(KINDS)[seed % len(KINDS)]
    return kind, KINDS[kind](rng)


# --- healthy files to start from ---------------------------------------------------------------------


def drawn(rng: random.Random, height: int = 0, width: int = 0, channels: int = 0) -> np.ndarray:
    """A number on paper, uint8 [h, w] or [h, w, 3 or 4]."""
    height, width = height or rng.randrange(8, 160), width or rng.randrange(8, 240)
    paper, ink = rng.choice([(235, 40), (20, 230), (200, 170), (255, 0), (128, 120)])
    image = np.full((height, width), paper, np.uint8)
    text, scale = str(rng.randrange(10 ** rng.randrange(1, 6))), height / 40
    thick = max(1, height // 20)
    cv2.putText(image, text, (width // 10, height * 3 // 4), 0, scale, ink, thick, cv2.LINE_AA)
    channels = channels or rng.choice([1, 1, 3, 4])
    if channels == 1:
        return image
    planes = [image, np.full_like(image, paper), image]
    return np.dstack(planes + [np.full_like(image, rng.choice([0, 128, 255]))] * (channels == 4))


def healthy(rng: random.Random) -> bytes:
    return encoded(drawn(rng, channels=rng.choice([1, 3, 4])), rng.choice(EXTENSIONS))


def encoded(image: np.ndarray, extension: str) -> bytes:
    if extension in (".jpg", ".bmp") and image.ndim == 3 and image.shape[2] == 4:
        image = np.ascontiguousarray(image[..., :3])
    done, data = cv2.imencode(extension, image) if extension != ".gif" else (True, None)
    assert done
    return gif(image) if data is None else data.tobytes()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    width: int, height: int, depth: int, kind: int, packed: bytes, *extra: bytes, interlace: int = 0
) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace))
    body = chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body


def gif(image: np.ndarray, frames: int = 1, canvas: tuple[int, int] | None = None) -> bytes:
    """Seven-bit grey; codes are cleared before they would grow past a byte."""
    grey = image if image.ndim == 2 else image[..., 0]
    height, width = grey.shape
    index = (grey >> 1).ravel()
    codes = bytearray()
    for at in range(0, len(index), 100):
        codes += b"\x80" + bytes(index[at : at + 100])
    codes += b"\x81"
    blocks = b"".join(
        bytes([len(codes[a : a + 255])]) + codes[a : a + 255] for a in range(0, len(codes), 255)
    )
    table = bytes(c for v in range(128) for c in (2 * v,) * 3)
    w, h = canvas or (width, height)
    frame = (
        b"\x21\xf9\x04\0\x05\0\0\0\x2c"
        + struct.pack("<HHHHB", 0, 0, width, height, 0)
        + b"\x07"
        + blocks
        + b"\0"
    )
    return b"GIF89a" + struct.pack("<HHBBB", w, h, 0xF6, 0, 0) + table + frame * frames + b"\x3b"


def tiff(tags: list[tuple[int, int, int]], data: bytes = b"", order: str = "<", after: int = 0) -> bytes:
    """One directory of (tag, type, value), then `data` at 8 + 2 + 12 n + 4; `after` is where the next one starts."""
    entries = b""
    for tag, kind, value in tags:
        packed = struct.pack(
            order + ("HH" if kind == 3 else "I"), *((value & 0xFFFF, 0) if kind == 3 else (value,))
        )
        entries += struct.pack(order + "HHI", tag, kind, 1) + packed
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(order + "IH", 8, len(tags)) + entries + struct.pack(order + "I", after) + data


def jpeg(rng: random.Random, parts: int, adobe: bool) -> bytes:
    """A baseline JPEG of flat blocks with `parts` components: 4 are CMYK, or Adobe's YCCK."""
    across, down = rng.randrange(1, 8), rng.randrange(1, 8)
    bits = ""
    last = [0] * parts
    for _ in range(across * down):
        for part in range(parts):
            value = rng.randrange(-500, 500)
            step, last[part] = value - last[part], value
            size = abs(step).bit_length()
            bits += f"{size:04b}"
            bits += f"{step if step > 0 else step + (1 << size) - 1:0{size}b}" if size else ""
            bits += "0"  # the end of the block
    bits += "1" * (-len(bits) % 8)
    scan = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")

    def segment(marker: int, content: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content

    names = bytes(b for part in range(parts) for b in (part + 1, 0x11, 0))
    out = b"\xff\xd8"
    out += segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, rng.choice([0, 2]))) if adobe else b""
    out += segment(0xDB, b"\0" + bytes([1] * 64))
    out += segment(0xC0, struct.pack(">BHHB", 8, down * 8, across * 8, parts) + names)
    out += segment(0xC4, b"\0" + bytes([0, 0, 0, 12] + [0] * 12) + bytes(range(12)))
    out += segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0")
    out += segment(0xDA, bytes([parts]) + bytes(b for p in range(parts) for b in (p + 1, 0)) + b"\0\x3f\0")
    return out + scan + b"\xff\xd9"


@functools.cache
def flat(count: int) -> bytes:
    """So many zero bytes, deflated."""
    squeeze = zlib.compressobj(9)
    parts = [squeeze.compress(bytes(1 << 20)) for _ in range(count >> 20)]
    return b"".join([*parts, squeeze.compress(bytes(count & 0xFFFFF)), squeeze.flush()])


# --- damage ------------------------------------------------------------------------------------------


def truncated(rng: random.Random) -> bytes:
    data = healthy(rng)
    return data[: rng.randrange(len(data))]


def flipped(rng: random.Random) -> bytes:
    data = bytearray(healthy(rng))
    for _ in range(rng.randrange(1, 12)):
        data[rng.randrange(len(data))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    return bytes(data)


def header_flipped(rng: random.Random) -> bytes:
    data = bytearray(healthy(rng))
    for _ in range(rng.randrange(1, 5)):
        data[rng.randrange(min(len(data), 100))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    return bytes(data)


def numbers_replaced(rng: random.Random) -> bytes:
    """Sizes, offsets and counts become extreme ones."""
    data = bytearray(healthy(rng))
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(min(len(data), 400))
        value = rng.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 65_500, 100_000])
        packed = struct.pack(rng.choice("<>") + ("H" if value <= 0xFFFF else "I"), value)
        data[at : at + len(packed)] = packed
    return bytes(data)


def spliced(rng: random.Random) -> bytes:
    """A span cut out, doubled, zeroed, or taken from another file."""
    data, other = healthy(rng), healthy(rng)
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    middle = rng.choice([b"", data[a:b] * 2, bytes(b - a), other[: b - a], rng.randbytes(b - a)])
    return data[:a] + middle + data[b:]


def junk_behind(rng: random.Random) -> bytes:
    return healthy(rng) + rng.randbytes(rng.randrange(5000))


def nothing(rng: random.Random) -> bytes:
    return rng.choice([b"", bytes(rng.randrange(1, 4096)), rng.randbytes(rng.randrange(1, 4096))])


def other_files(rng: random.Random) -> bytes:
    starts = [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"PK\3\4",
        b"%!PS-Adobe",
        b"\0\0\0\x20ftypheic",
        b"<html>",
    ]
    starts += [
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"RIFF",
        b"II*\0",
        b"MM\0*",
        b"BM",
        b"GIF89a",
        b"\x76\x2f\x31\x01",
    ]
    starts += [
        b"P5 9 9 255\n",
        b"#?RADIANCE\n",
        b"RIFF\x20\0\0\0WAVE",
        b"II+\0\x08\0\0\0",
        b"\0\0\x01\0",
        b"qoif",
    ]
    return rng.choice(starts) + rng.randbytes(rng.randrange(600))


# --- shapes ------------------------------------------------------------------------------------------


def tiny(rng: random.Random) -> bytes:
    shape = rng.choice([(1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (1, 50), (50, 1), (1, 7)])
    image = np.frombuffer(rng.randbytes(3 * shape[0] * shape[1]), np.uint8).reshape(*shape, 3)
    image = image if rng.random() < 0.5 else np.ascontiguousarray(image[..., 0])
    return encoded(image, rng.choice(EXTENSIONS))


def very_wide(rng: random.Random) -> bytes:
    image = drawn(rng, rng.choice([1, 2, 5, 30]), rng.choice([WIDE, 65_000]), rng.choice([1, 3]))
    image = image.swapaxes(0, 1) if rng.random() < 0.5 else image
    extensions = [".png", ".jpg", ".bmp", ".tiff"] if max(image.shape) <= 65_000 else [".png"]
    return encoded(np.ascontiguousarray(image), rng.choice(extensions))


def large(rng: random.Random) -> bytes:
    """Megapixels of noise or of nothing."""
    height, width = rng.choice([(1200, 1600), (1000, 3000), (2000, 2000)])
    image = np.full((height, width), 240, np.uint8)
    if rng.random() < 0.5:
        image = np.random.default_rng(rng.randrange(1 << 30)).integers(0, 256, image.shape, np.uint8)
    return encoded(image, rng.choice([".jpg", ".png", ".tiff"]))


# --- kinds of pixel ----------------------------------------------------------------------------------


def sixteen_bits(rng: random.Random) -> bytes:
    wide = drawn(rng, channels=rng.choice([1, 3, 4])).astype(np.uint16) * rng.choice([1, 16, 257])
    return encoded(wide, rng.choice([".png", ".tiff"]))


def strange_depths(rng: random.Random) -> bytes:
    image = drawn(rng, channels=1)
    kind = rng.choice([np.float32, np.float64, np.int16, np.int32, np.int8, np.uint32])
    try:
        return encoded(image.astype(kind), ".tiff")
    except (cv2.error, AssertionError):
        return encoded(image.astype(np.float32) / rng.choice([1, 0.001, np.nan, np.inf]), ".tiff")


def cmyk(rng: random.Random) -> bytes:
    return jpeg(rng, rng.choice([1, 2, 3, 4, 4, 4]), rng.random() < 0.6)


def palette(rng: random.Random) -> bytes:
    """Indices past the palette's end among them."""
    depth, width, height = rng.choice([1, 2, 4, 8]), rng.randrange(1, 70), rng.randrange(1, 70)
    row = (width * depth + 7) // 8
    rows = b"".join(b"\0" + rng.randbytes(row) for _ in range(height))
    colours = rng.choice([0, 1, 2, 2**depth, 256])
    extra = [chunk(b"PLTE", rng.randbytes(3 * colours))] if rng.random() < 0.9 else []
    extra += [chunk(b"tRNS", rng.randbytes(rng.randrange(1, 300)))] if rng.random() < 0.5 else []
    return png(width, height, depth, 3, zlib.compress(rows), *extra)


def alpha(rng: random.Random) -> bytes:
    image = drawn(rng, channels=4)
    image[..., 3] = np.frombuffer(rng.randbytes(image[..., 3].size), np.uint8).reshape(image.shape[:2])
    return encoded(image, rng.choice([".png", ".webp", ".tiff"]))


def rare_png(rng: random.Random) -> bytes:
    """Every colour type with every depth, interlaced too, allowed or not."""
    width, height = rng.randrange(1, 40), rng.randrange(1, 40)
    rows = bytes([0, *rng.randbytes(rng.randrange(1, 20))]) + bytes(height * (width * 8 + 9))
    return png(
        width, height, rng.choice([1, 2, 4, 8, 16, 3]), rng.choice([0, 2, 3, 4, 6, 1]), zlib.compress(rows),
        interlace=rng.choice([0, 1, 1, 2]),
    )  # fmt: skip


def rare_tiff(rng: random.Random) -> bytes:
    """Directories with every compression, photometry, planes and sample format, much of it nonsense."""
    width, height = rng.randrange(1, 60), rng.randrange(1, 60)
    parts = rng.choice([1, 1, 1, 3, 4])

    def either(usual: int, *rare: int) -> int:
        return usual if rng.random() < 0.8 else rng.choice(rare)

    tags = [
        (256, 3, width), (257, 3, height), (258, 3, either(8, 1, 2, 4, 12, 16, 32, 64)),
        (259, 3, either(1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34712, 50000)),
        (262, 3, either(1 if parts == 1 else 2, 0, 3, 4, 5, 6, 8)), (273, 4, 0), (274, 3, rng.randrange(10)),
        (277, 3, either(parts, 2, 5)), (278, 4, either(height, 1, 0, 0xFFFFFFFF)),
        (279, 4, either(width * height * parts, 0, 0x7FFFFFFF)), (284, 3, either(1, 2)),
        (339, 3, either(1, 2, 3, 4)),
    ]  # fmt: skip
    if rng.random() < 0.15:
        tags += [(322, 4, rng.choice([16, 0, 1 << 30])), (323, 4, rng.choice([16, 0, 1 << 30])), (324, 4, 8)]
        tags.sort()
    at = 8 + 2 + 12 * len(tags) + 4
    tags = [(tag, kind, at if tag == 273 else value) for tag, kind, value in tags]
    order, after = rng.choice("<>"), rng.choice([0, 0, 8, at, 0xFFFFFFF0])
    return tiff(tags, rng.randbytes(width * height * parts), order, after)


def rare_bmp(rng: random.Random) -> bytes:
    """Run lengths, bit fields, odd depths, rows from the top, headers of OS/2."""
    width, height = rng.randrange(1, 60), rng.choice([1, -1]) * rng.randrange(1, 60)
    depth, packed = rng.choice([1, 2, 4, 8, 16, 24, 32, 0, 7]), rng.choice([0, 0, 1, 2, 3, 4, 9])
    colours = rng.choice([0, 2, 256, 1 << 30])
    if rng.random() < 0.2:
        header = struct.pack("<IHHHH", 12, width, abs(height), 1, depth)
    else:
        header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, packed, 0, 0, 0, colours, 0)
    body = rng.randbytes(rng.randrange(4096))
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(body), 0, 0, 14 + len(header)) + header + body


# --- several pictures --------------------------------------------------------------------------------


def animated(rng: random.Random) -> bytes:
    frames = rng.randrange(2, 6)
    extension = rng.choice([".gif", ".webp", ".png"])
    if extension == ".gif" or not hasattr(cv2, "imencodeanimation"):
        return gif(drawn(rng, channels=1), frames)
    animation = cv2.Animation()
    first = drawn(rng, channels=4)
    animation.frames = [np.roll(first, i, 1) for i in range(frames)]
    animation.durations = np.full(frames, 100, np.int32)
    done, data = cv2.imencodeanimation(extension, animation)
    assert done
    data = bytearray(data.tobytes())
    if rng.random() < 0.5:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def many_pages(rng: random.Random) -> bytes:
    sheets = [drawn(rng, channels=1) for _ in range(rng.randrange(2, 5))]
    done, data = cv2.imencodemulti(".tiff", sheets)
    assert done
    data = bytearray(data.tobytes())
    if rng.random() < 0.5:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


# --- bombs -------------------------------------------------------------------------------------------


def bomb(rng: random.Random) -> bytes:
    """A few kilobytes that claim, or really hold, far more."""
    side = rng.choice([8_000, 30_000, 60_000, 0x7FFFFFFF])
    small = min(side, 60_000)
    kind = rng.randrange(9)
    if kind == 0:  # it does hold what it claims
        return png(15_000, 15_000, 1, 0, flat(15_000 * (15_000 // 8 + 1)))
    if kind == 1:
        depth, colour, each = rng.choice([(8, 0, 1)] * 12 + [(8, 2, 3)] * 2 + [(16, 6, 8)])
        return png(7_000, 7_000, depth, colour, flat(7_000 * (7_000 * each + 1)))
    if kind == 2:
        return png(side, side, 8, 6, zlib.compress(bytes(1000)))
    if kind == 3:  # in a remark
        return png(9, 9, 8, 0, zlib.compress(bytes(90)), chunk(b"zTXt", b"a\0\0" + flat(1 << 28)))
    if kind == 4:
        return png(9, 9, 8, 0, zlib.compress(bytes(90)), chunk(b"iCCP", b"a\0\0" + flat(1 << 26)))
    if kind == 5:
        return gif(drawn(rng, 20, 20, 1), rng.randrange(1, 200), (min(side, 65_535), min(side, 65_535)))
    if kind == 6:
        at = 8 + 2 + 12 * 8 + 4
        tags = [(256, 4, small), (257, 4, small), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, at)]
        return tiff([*tags, (278, 4, small), (279, 4, 1000)], flat(1 << 26)[:2000])
    if kind == 7:
        return png(
            4, 4, 8, 0, zlib.compress(bytes(20)), *[chunk(b"tEXt", b"a\0b")] * rng.choice([1000, 200_000])
        )
    data = bytearray(encoded(drawn(rng, channels=3), ".jpg"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", min(side, 65_535), rng.choice([1, 700, 65_535]))
    return bytes(data)


KINDS: dict[str, Maker] = {
    "healthy": healthy,
    "truncated": truncated,
    "flipped": flipped,
    "header flipped": header_flipped,
    "numbers replaced": numbers_replaced,
    "spliced": spliced,
    "junk behind": junk_behind,
    "nothing": nothing,
    "another kind": other_files,
    "tiny": tiny,
    "20 000 wide": very_wide,
    "large": large,
    "16 bits": sixteen_bits,
    "strange depths": strange_depths,
    "CMYK": cmyk,
    "palette": palette,
    "alpha": alpha,
    "rare PNG": rare_png,
    "rare TIFF": rare_tiff,
    "rare BMP": rare_bmp,
    "animated": animated,
    "many pages": many_pages,
    "bomb": bomb,
}
