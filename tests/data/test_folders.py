"""Folders of images: layouts, sizes, colour, and everything that can be wrong with them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from netsuke import data
from netsuke.errors import DataError, OptionError
from netsuke.image.files import dimensions, truncated


def draw(path: Path, value: int = 200, shape: tuple[int, ...] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full(shape, value, np.uint8))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two grey classes of ten images each; the pixel value tells the image."""
    for name, base in (("cat", 0), ("dog", 100)):
        for i in range(10):
            draw(tmp_path / "pets" / name / f"{i}.png", base + i)
    return tmp_path / "pets"


def test_flat_folder(root: Path) -> None:
    pets = data.load(root)
    assert (pets.name, pets.classes, pets.image_shape) == ("pets/", ("cat", "dog"), (1, 12, 10))
    assert (len(pets.train), len(pets.val), len(pets.test)) == (14, 2, 4)
    for split in (pets.train, pets.val, pets.test):
        np.testing.assert_array_equal(split.images[:, 0, 0, 0] >= 100, split.labels == 1)
    everything = np.concatenate([pets.train.images, pets.val.images, pets.test.images])[:, 0, 0, 0]
    assert sorted(everything) == [*range(10), *range(100, 110)]


def test_test_images_do_not_depend_on_the_seed(root: Path) -> None:
    first, other = data.load(root, seed=0), data.load(root, seed=1)
    np.testing.assert_array_equal(first.test.images, other.test.images)
    assert (first.val.images != other.val.images).any()


def test_split_folder(tmp_path: Path) -> None:
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        for name in ("a", "b"):
            for i in range(count):
                draw(tmp_path / split / name / f"{i}.png")
    loaded = data.load(tmp_path).require("train", "val", "test")
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (12, 6, 4)


def test_split_folder_without_training_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw(tmp_path / "test" / name / "1.png")
    loaded = data.load(tmp_path).require("test")
    with pytest.raises(DataError, match="holds no train/ folder"):
        loaded.require("train")


def test_class_unknown_in_training(tmp_path: Path) -> None:
    for path in ("train/a", "train/b", "test/a", "test/c"):
        draw(tmp_path / path / "1.png")
    with pytest.raises(DataError, match="class 'c' has no folder"):
        data.load(tmp_path)


def test_names_sort_naturally(tmp_path: Path) -> None:
    for name in ("10", "2", "1"):
        draw(tmp_path / name / "1.png")
    assert data.load(tmp_path).classes == ("1", "2", "10")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".bmp", ".webp", ".PNG"])
def test_every_format(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        draw(tmp_path / name / f"1{suffix}", shape=(33, 47, 3))
        assert dimensions((tmp_path / name / f"1{suffix}").read_bytes()) == (47, 33)
    assert data.load(tmp_path).image_shape == (1, 33, 47)


def test_lossless_webp_header(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.webp"), np.zeros((33, 47, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 101])
    assert dimensions((tmp_path / "a.webp").read_bytes()) == (47, 33)


def test_one_coloured_image_makes_the_set_rgb(root: Path) -> None:
    colour = np.zeros((12, 10, 3), np.uint8)
    colour[:, :, 0] = 250  # OpenCV's blue
    cv2.imwrite(str(root / "cat" / "blue.png"), colour)
    pets = data.load(root)
    assert pets.image_shape == (3, 12, 10)
    pixels = np.concatenate([pets.train.images, pets.val.images, pets.test.images])[:, :, 0, 0]
    assert [0, 0, 250] in pixels.tolist()


def test_mixed_sizes_become_squares(root: Path) -> None:
    draw(root / "cat" / "large.png", 77, (300, 200))
    assert data.load(root).image_shape == (1, 28, 28)
    assert data.load(root, size=16).image_shape == (1, 16, 16)


def test_large_images_shrink_by_area(tmp_path: Path) -> None:
    stripes = np.zeros((112, 112), np.uint8)
    stripes[:, ::2] = 200
    for name in ("a", "b"):
        draw(tmp_path / name / "1.png")
        cv2.imwrite(str(tmp_path / name / "1.png"), stripes)
    loaded = data.load(tmp_path)
    assert (loaded.train.images == 100).all()


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[2:4, :, 3] = 255
    for name in ("a", "b"):
        draw(tmp_path / name / "1.png")
        cv2.imwrite(str(tmp_path / name / "1.png"), ink)
    image = data.load(tmp_path).train.images[0, 0]
    assert image[0, 0] == 255
    assert image[2, 0] == 0


def test_sixteen_bits_a_channel(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "1.png"), np.full((8, 8), 0x80FF, np.uint16))
    assert (data.load(tmp_path).train.images == 0x80).all()


def test_hidden_and_foreign_files_are_ignored(root: Path) -> None:
    before = data.load(root)
    (root / ".git").mkdir()
    (root / "notes.txt").write_text("x")
    (root / "cat" / ".hidden.png").write_bytes(b"x")
    (root / "cat" / "labels.csv").write_text("x")
    assert data.load(root).hash == before.hash


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty"):
        data.load(tmp_path)


def test_empty_class(root: Path) -> None:
    (root / "emu").mkdir()
    with pytest.raises(DataError, match="emu: no image"):
        data.load(root)


def test_single_class(tmp_path: Path) -> None:
    draw(tmp_path / "cat" / "1.png")
    with pytest.raises(DataError, match="1 class \\(cat\\)"):
        data.load(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
@pytest.mark.parametrize("keep", [0, 20, 0.5, 0.9])
def test_unreadable_image_among_good_ones(
    root: Path, suffix: str, keep: float, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    bad = root / "dog" / f"bad{suffix}"
    cv2.imwrite(str(bad), noise)
    whole = bad.read_bytes()
    bad.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match=f"bad{suffix}: unreadable") as caught:
        data.load(root)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # the one line is all that is said


def test_text_named_png(root: Path) -> None:
    (root / "dog" / "bad.png").write_text("not an image")
    with pytest.raises(DataError, match=r"bad\.png: unreadable"):
        data.load(root)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_huge_image_is_refused_before_decoding(root: Path) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0))
    (root / "dog" / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IEND", b""))
    with pytest.raises(DataError, match=r"huge\.png: 30000x30000 .* too large"):
        data.load(root)


@pytest.mark.parametrize("claims", [b"\x7f\0\0\0", b"\xf0\0\0\0", b"\0\1\0\0"])
def test_a_chunk_that_claims_too_much_never_meets_the_decoder(
    root: Path, claims: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (root / "dog" / "0.png").read_bytes()
    at = whole.index(b"IDAT") - 4
    (root / "dog" / "bomb.png").write_bytes(whole[:at] + claims + whole[at + 4 :])
    decoder, seen = cv2.imdecode, []
    monkeypatch.setattr(cv2, "imdecode", lambda data, mode: seen.append(bytes(data)) or decoder(data, mode))
    with pytest.raises(DataError, match=r"bomb\.png: unreadable: damaged or truncated image"):
        data.load(root)
    assert seen
    assert not any(claims + b"IDAT" in given for given in seen)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_images_are_turned_upright(tmp_path: Path, suffix: str) -> None:
    image = np.zeros((16, 16), np.uint8)
    image[:8] = 200  # the top half is bright, on what the camera held sideways
    whole = cv2.imencode(suffix, image)[1].tobytes()
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6
    block = b"Exif\0\0" + exif
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(block)) + block
    turned = {".png": whole[:33] + chunk(b"eXIf", exif) + whole[33:], ".jpg": whole[:2] + segment + whole[2:]}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"1{suffix}").write_bytes(turned[suffix])
    upright = data.load(tmp_path).train.images[0, 0]
    assert upright[:, 8:].min() > 150  # a quarter turn clockwise brings the top to the right
    assert upright[:, :8].max() < 50


def test_a_gif_named_png(root: Path) -> None:
    (root / "dog" / "bad.png").write_bytes(b"GIF89a\x08\0\x08\0\0\0\0;")
    with pytest.raises(DataError, match=r"bad\.png: unreadable as an image; netsuke reads PNG, JPEG"):
        data.load(root)


def test_no_such_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a known data set nor a folder; known sets: digits, mnist"):
        data.load("mnits")
    with pytest.raises(DataError, match="a file, not a folder"):
        data.load(draw(tmp_path / "a.png"))


def test_catalogue_name_comes_first_but_a_path_is_a_path(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root.rename(root.parent / "usps")
    monkeypatch.chdir(root.parent)
    assert data.load("./usps").classes == ("cat", "dog")
    assert data.load(Path("usps")).classes == ("cat", "dog")


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 5000}, {"seed": -1}, {"val_share": 1.0}])
def test_options_out_of_range(root: Path, options: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        data.load(root, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "junk", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"RIFF", b"RIFF1234WEBPVP8X"]
)
def test_headers_cut_short(junk: bytes) -> None:
    assert dimensions(junk) is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_missing_end_is_seen_without_the_decoder(suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    whole = cv2.imencode(suffix, noise)[1].tobytes()
    assert not truncated(whole)
    assert not truncated(whole + b"trailing")
    assert truncated(whole[:-10])
