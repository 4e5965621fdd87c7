"""The strict parsers: what is right comes back, whatever is wrong is a DataError and nothing else."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsuke.data import parsers
from netsuke.errors import DataError

SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    shape = draw(SHAPES)
    count = int(np.prod(shape))
    return np.frombuffer(draw(st.binary(min_size=count, max_size=count)), np.uint8).reshape(shape)


@given(arrays(), st.booleans())
def test_idx_round_trip(array: np.ndarray, packed: bool) -> None:
    data = gzip.compress(idx(array)) if packed else idx(array)
    np.testing.assert_array_equal(parsers.parse_idx(data, "x"), array)


def test_idx_round_trip_past_one_piece() -> None:
    array = np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype=np.uint8)
    np.testing.assert_array_equal(parsers.parse_idx(gzip.compress(idx(array)), "x"), array)


@given(arrays(), st.booleans(), st.data())
def test_idx_truncated(array: np.ndarray, packed: bool, data: st.DataObject) -> None:
    whole = gzip.compress(idx(array)) if packed else idx(array)
    with pytest.raises(DataError):
        parsers.parse_idx(whole[: data.draw(st.integers(0, len(whole) - 1))], "x")


@given(arrays(), st.data())
def test_idx_mutated_gzip_is_an_error_or_the_same_data(array: np.ndarray, data: st.DataObject) -> None:
    whole = bytearray(gzip.compress(idx(array)))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        got = parsers.parse_idx(bytes(whole), "x")
    except DataError:
        return
    np.testing.assert_array_equal(got, array)


@given(st.binary(max_size=64), st.booleans())
def test_idx_of_any_bytes_is_an_error_or_just_those_bytes(tail: bytes, packed: bool) -> None:
    data = b"\0\0\x08" + tail  # past the magic, so that shapes are reached
    try:
        got = parsers.parse_idx(gzip.compress(data) if packed else data, "x")
    except DataError:
        return
    assert got.tobytes() == data[4 + 4 * got.ndim :]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "truncated"),
        (b"\0\0\x0d\x01" + b"\0\0\0\1" + b"\0" * 4, "wrong magic"),
        (b"\0\0\x08\0", "wrong magic"),
        (b"\0\0\x08\x03\0\0", "truncated"),
        (idx(np.zeros((2, 3), np.uint8)) + b"\0", "trailing"),
        (gzip.compress(idx(np.zeros((2, 3), np.uint8)) + b"\0"), "trailing"),
        (gzip.compress(idx(np.zeros((2, 3), np.uint8))) + b"more", "trailing"),
        (gzip.compress(idx(np.zeros((2, 3), np.uint8))[:-1]), "truncated"),
        (idx(np.zeros((0, 3, 3), np.uint8)), "empty"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "does not fit"),
        (gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12), "does not fit"),
        (b"\x1f\x8bnonsense", "damaged"),
    ],
    ids=range(12),  # gzip stamps the time: not for a test's name
)
def test_idx_says_what_is_wrong(data: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        parsers.parse_idx(data, "a.gz")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("a.gz")


def peak_bytes(data: bytes) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            parsers.parse_idx(data, "x")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_idx_bomb_is_not_inflated() -> None:
    bomb = gzip.compress(idx(np.zeros((10, 28, 28), np.uint8)) + bytes(1 << 26))
    assert peak_bytes(bomb) < 1 << 20


def test_idx_large_claim_is_not_allocated() -> None:
    claim = b"\0\0\x08\x03" + struct.pack(">3I", 60000, 28, 28)
    assert peak_bytes(claim) < 1 << 16
    assert peak_bytes(gzip.compress(claim)) < 1 << 16


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def test_npz_round_trip(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(parsers.read_npz(npz(tmp_path / "a.npz", images=array), "images"), array)


def test_npz_is_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="uint8"):
        parsers.read_npz(path, "images")


def test_npz_large_claim(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 28)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(DataError, match="declares"):
        parsers.read_npz(tmp_path / "a.npz", "images")


def test_npz_lacks_the_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no labels.npy; it has images.npy"):
        parsers.read_npz(npz(tmp_path / "a.npz", images=np.zeros((1, 1), np.uint8)), "labels")


@given(st.data())
def test_npz_mutated(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    array = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=array)
    whole = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "mutated.npz"
    path.write_bytes(whole[: data.draw(st.integers(len(whole) // 2, len(whole)))])
    try:
        got = parsers.read_npz(path, "images")
    except DataError:
        return
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "empty"),
        (b"1 2\n3\n", "no table"),
        (b"1 2\n3 x\n", "no table"),
        (b"1 2 3\n", "3 values in a row"),
        (b"1 nan\n", "outside"),
        (b"1 99\n", "outside"),
        (b"\xff\xfe1 2\n", "no table"),
        (gzip.compress(b"1 2\n")[:-3], "truncated"),
    ],
    ids=range(8),
)
def test_table_says_what_is_wrong(tmp_path: Path, text: bytes, says: str) -> None:
    (tmp_path / "t").write_bytes(text)
    with pytest.raises(DataError, match=says):
        parsers.read_table(tmp_path / "t", 2, 0, 9)


def test_table_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsers, "MAX_TEXT_BYTES", 1000)
    (tmp_path / "t").write_bytes(gzip.compress(b"1 2\n" * 1000))
    with pytest.raises(DataError, match="1000 bytes of text"):
        parsers.read_table(tmp_path / "t", 2, 0, 9)


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        ((3, 4, 4), [0, 1], "3 images but labels"),
        ((3, 4, 4), [0, 1, 2], "labels must be whole numbers from 0 to 1"),
        ((3, 4, 5), [0, 1, 1], "4x4 are expected"),
        ((3, 16), [0, 1, 1], "4x4 are expected"),
    ],
)
def test_pair_checks_images_against_labels(images: tuple[int, ...], labels: list[int], says: str) -> None:
    with pytest.raises(DataError, match=says):
        parsers.pair(np.zeros(images, np.uint8), np.array(labels, np.uint8), 2, (1, 4, 4), "x")
