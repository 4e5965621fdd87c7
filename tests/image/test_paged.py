"""Files of several pages: TIFF directories of both byte orders, damaged chains, PDF."""

from __future__ import annotations

import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest

from netsuke.errors import DataError
from netsuke.image import decode, paged, pages


def sheet(level: int, height: int = 30, width: int = 20) -> np.ndarray:
    return np.full((height, width), level, np.uint8)


def tiff(*sheets: np.ndarray) -> bytes:
    done, data = cv2.imencodemulti(".tiff", list(sheets))
    assert done
    return data.tobytes()


def big_endian(*levels: int) -> bytes:
    """Pages of one pixel, each directory behind its pixel."""
    data, next_at = bytearray(b"MM\0*" + bytes(4)), 4
    for level in levels:
        pixel = len(data)
        data += bytes([level, 0])
        start = len(data)
        data[next_at : next_at + 4] = struct.pack(">I", start)
        tags = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, pixel), (277, 1), (278, 1), (279, 1)]
        data += struct.pack(">H", len(tags))
        for tag, value in tags:
            data += struct.pack(">HHIHH", tag, 3, 1, value, 0)
        next_at = len(data)
        data += bytes(4)
    return bytes(data)


def pdf(*sizes: tuple[int, int]) -> bytes:
    """Pages of these sizes in points, each with a black bar in its lower left quarter."""
    kids = " ".join(f"{3 + 2 * i} 0 R" for i in range(len(sizes)))
    objects = ["<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Count {len(sizes)}/Kids[{kids}]>>"]
    for i, (w, h) in enumerate(sizes):
        content = f"0 g 0 0 {w / 2} {h / 2} re f"
        objects.append(f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 {w} {h}]/Contents {4 + 2 * i} 0 R>>")
        objects.append(f"<</Length {len(content)}>>stream\n{content}\nendstream")
    out, starts = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        starts.append(len(out))
        out += f"{number} 0 obj{body}endobj\n".encode()
    table = "".join(f"{start:010d} 00000 n \n" for start in starts)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer<</Size {len(objects) + 1}/Root 1 0 R>>\n"
    return out + f"{end}startxref\n{len(out)}\n%%EOF\n".encode()


def test_every_page_of_a_tiff_comes_in_order(tmp_path):
    levels = [10, 90, 170, 250]
    data = tiff(*(sheet(level, 30 + i, 20) for i, level in enumerate(levels)))
    (tmp_path / "scan.tiff").write_bytes(data)
    assert paged.count(data) == 4
    for source in (data, tmp_path / "scan.tiff"):
        got = list(pages(source))
        assert [int(page[0, 0]) for page in got] == levels
        assert [page.shape for page in got] == [(30, 20), (31, 20), (32, 20), (33, 20)]
    np.testing.assert_array_equal(next(pages(data)), decode(data))


def test_both_byte_orders():
    assert [int(page[0, 0]) for page in pages(big_endian(7, 8, 9))] == [7, 8, 9]


def test_other_images_are_one_page():
    for extension in (".png", ".jpg", ".bmp", ".webp"):
        data = cv2.imencode(extension, sheet(200))[1].tobytes()
        assert paged.count(data) == 1
        assert len(list(pages(data))) == 1
    assert paged.count(b"nothing") == 1  # and `page` says what is wrong with it
    with pytest.raises(DataError, match="not an image"):
        list(pages(b"nothing"))


def test_a_broken_chain_ends_where_it_breaks():
    data = bytearray(big_endian(1, 2, 3))
    first = struct.unpack_from(">I", data, 4)[0]
    link = first + 2 + 12 * 9
    loop = bytearray(data)
    loop[link : link + 4] = struct.pack(">I", first)
    assert paged.count(bytes(loop)) == 1
    beyond = bytearray(data)
    beyond[link : link + 4] = struct.pack(">I", 1 << 30)
    assert paged.count(bytes(beyond)) == 1
    with pytest.raises(DataError, match="no page 4"):
        paged.page(bytes(data), 4)
    with pytest.raises(DataError, match="limit is 10000"):
        paged.count(big_endian(*[0] * 20) if paged.MAX_PAGES < 20 else endless())


def endless() -> bytes:
    """Directories without an entry, each leading to the next."""
    count = paged.MAX_PAGES + 2
    return b"II*\0" + struct.pack("<I", 8) + b"".join(struct.pack("<HI", 0, 14 + 6 * i) for i in range(count))


def test_a_damaged_page_is_named():
    data = bytearray(tiff(sheet(1), sheet(2)))
    second = paged._directories(bytes(data))[1]
    at = data.index(struct.pack("<HH", 256, 3), second)
    data[at + 8 : at + 10] = b"\0\0"  # no width
    got = pages(bytes(data), name="scan.tiff")
    assert next(got)[0, 0] == 1
    with pytest.raises(DataError, match=r"scan\.tiff, page 2"):
        next(got)


def test_pdf_pages_at_200_dpi(tmp_path):
    pytest.importorskip("pypdfium2", reason="needs pypdfium2: pip install 'netsuke[pdf]'")
    data = pdf((72, 144), (36, 36))
    (tmp_path / "form.pdf").write_bytes(data)
    first, second = pages(tmp_path / "form.pdf")
    assert first.shape == (400, 200, 3)
    assert second.shape == (100, 100, 3)
    assert first[390, 10].tolist() == [0, 0, 0]
    assert first[10, 190].tolist() == [255, 255, 255]
    assert paged.count(b"junk\n" + data) == 2  # readers allow it
    (vast,) = pages(pdf((14_000, 14_000)))
    assert 49_000_000 < vast.shape[0] * vast.shape[1] <= 50_000_000  # rendered less finely instead


def test_damaged_pdfs_are_one_clear_line():
    pytest.importorskip("pypdfium2", reason="needs pypdfium2: pip install 'netsuke[pdf]'")
    data = pdf((72, 72))
    with pytest.raises(DataError, match=r"x\.pdf: truncated or damaged PDF"):
        paged.count(data[:40], name="x.pdf")
    with pytest.raises(DataError, match="no page 2"):
        paged.page(data, 2)
    rng = np.random.default_rng(0)
    for _ in range(100):
        bad = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            bad[at] = rng.integers(0, 256)
        said = ""
        try:
            assert all(page.dtype == np.uint8 for page in pages(bytes(bad)))
        except DataError as error:
            said = str(error)
        assert "\n" not in said


def test_without_pypdfium2_a_pdf_says_what_to_install(tmp_path):
    (tmp_path / "pypdfium2.py").write_text("raise ImportError")
    script = "import sys; sys.path.insert(0, sys.argv[1])\nfrom netsuke.image import pages\nlist(pages(b'%PDF-1.4'))"
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False
    )
    assert "MissingExtra: image: a PDF needs pypdfium2: pip install 'netsuke[pdf]'" in done.stderr
