"""The catalogue and the splits: real sets where NETSUKE_DATA has them, small written ones for the rest."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from netsuke import data
from netsuke.data.catalogue import CATALOGUE
from netsuke.data.dataset import Split, divide
from netsuke.errors import DataError

ROLES = {"usps": "experiment", "exam-digits": "validation", "screen-digits": "validation"}


def real(name: str) -> data.Dataset:
    if name == "digits":
        pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'netsuke[lab]'")
    elif not os.environ.get("NETSUKE_DATA") or not data.on_disk(name):
        pytest.skip(f"needs {name}: set NETSUKE_DATA to a folder that holds {name}/")
    return data.load(name, need=data.on_disk(name))  # a test run makes no hundred thousand images unasked


def packed(array: np.ndarray) -> bytes:
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(head + array.tobytes())


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """NETSUKE_DATA with a tiny mnist: 120 training and 20 test images."""
    monkeypatch.setenv("NETSUKE_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    (tmp_path / "mnist").mkdir()
    for half, count in (("train", 120), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (tmp_path / "mnist" / f"{half}-images-idx3-ubyte.gz").write_bytes(packed(images))
        (tmp_path / "mnist" / f"{half}-labels-idx1-ubyte.gz").write_bytes(packed(labels))
    return tmp_path / "mnist"


@pytest.mark.parametrize("name", CATALOGUE)
def test_real_sets(name: str) -> None:
    loaded, entry = real(name), CATALOGUE[name]
    assert loaded.role == ROLES.get(name, "any")
    assert loaded.image_shape == entry.shape
    assert len(loaded.hash) == 64
    sizes = {key: len(getattr(loaded, key)) for key in ("train", "val", "test")}
    halves = [half for half in sizes if sizes[half]]
    if entry.maker is None:  # what is divided off a half is its
        halves = [*entry.counts] if sizes["train"] else ["test"]
    assert sum(sizes.values()) == sum(entry.counts[half] for half in halves)
    for split in (loaded.train, loaded.val, loaded.test):
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert split.images.shape == (len(split), *entry.shape)
    assert set(loaded.test.labels) == set(range(10))
    assert loaded.test.images.max() > 200


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name != "fashion-mnist"])
def test_bright_ink_on_dark_ground(name: str) -> None:
    images = real(name).test.images[:, 0]
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean()
    assert corners < images[:, 2:-2, 2:-2].mean()
    assert corners < 64


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "usps", "optdigits", "semeion"])
def test_check_sums_are_those_of_the_files(name: str) -> None:
    real(name)
    for half in data.on_disk(name):
        for file in CATALOGUE[name].files[half]:
            path = data.locate(name, file)
            assert path is not None
            assert path.stat().st_size == file.size
            assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


def test_mnist_splits(mnist: data.Dataset) -> None:
    assert (len(mnist.train), len(mnist.val), len(mnist.test)) == (55_000, 5_000, 10_000)
    share = np.bincount(mnist.val.labels) / np.bincount(np.r_[mnist.train.labels, mnist.val.labels])
    np.testing.assert_allclose(share, 1 / 12, atol=2e-4)
    assert mnist.test.labels[:5].tolist() == [7, 2, 1, 0, 4]  # as published, in the order of the file


def test_digits(digits: data.Dataset) -> None:
    assert (len(digits.train), len(digits.val), len(digits.test)) == (1222, 216, 359)
    assert set(np.unique(digits.train.images)) <= {round(v * 255 / 16) for v in range(17)}


@pytest.mark.parametrize("name", ["exam-digits", "screen-digits"])
def test_validation_sets_refuse_training(name: str) -> None:
    loaded = real(name).require("test")
    with pytest.raises(DataError, match="validation only"):
        loaded.require("train")


def test_small_mnist_loads(small_mnist: Path) -> None:
    loaded = data.load("mnist").require("train", "val", "test")
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (102, 18, 20)
    assert data.load("mnist", size=14).image_shape == (1, 14, 14)


def test_test_half_alone_evaluates_and_names_what_training_needs(small_mnist: Path) -> None:
    (small_mnist / "train-labels-idx1-ubyte.gz").unlink()
    loaded = data.load("mnist").require("test")
    with pytest.raises(
        DataError, match=r"mnist has no train images: .*fetch mnist.*train-labels-idx1"
    ) as caught:
        loaded.require("train")
    assert str(small_mnist.parent / "cache" / "netsuke" / "mnist") in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("train-images-idx3-ubyte.gz", b"", "truncated"),
        ("train-images-idx3-ubyte.gz", packed(np.zeros((120, 28), np.uint8)), "28x28 are expected"),
        ("train-labels-idx1-ubyte.gz", packed(np.zeros(119, np.uint8)), "120 images but labels of shape 119"),
        ("train-labels-idx1-ubyte.gz", packed(np.full(120, 10, np.uint8)), "a label of 10"),
    ],
    ids=["empty file", "no images", "too few labels", "label out of range"],
)
def test_bad_files(small_mnist: Path, file: str, content: bytes, says: str) -> None:
    (small_mnist / file).write_bytes(content)
    with pytest.raises(DataError, match=says):
        data.load("mnist")


def test_emnist_is_turned_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETSUKE_DATA", str(tmp_path))
    upright = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    (tmp_path / "emnist").mkdir()
    with zipfile.ZipFile(tmp_path / "emnist" / "gzip.zip", "w") as archive:
        for half in ("train", "test"):
            stored = np.ascontiguousarray(upright.transpose(0, 2, 1))
            archive.writestr(f"gzip/emnist-digits-{half}-images-idx3-ubyte.gz", packed(stored))
            labels = (np.arange(40) % 10).astype(np.uint8)
            archive.writestr(f"gzip/emnist-digits-{half}-labels-idx1-ubyte.gz", packed(labels))
    np.testing.assert_array_equal(data.load("emnist-digits").test.images[:, 0], upright)


def test_seed_moves_validation_images_and_nothing_else(small_mnist: Path) -> None:
    first, again, other = (data.load("mnist", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.val.images, again.val.images)
    assert (first.val.images != other.val.images).any()
    np.testing.assert_array_equal(first.test.images, other.test.images)
    assert first.hash == again.hash == other.hash


def test_val_share(small_mnist: Path) -> None:
    assert len(data.load("mnist", val_share=0.25).val) == 30
    with pytest.raises(DataError, match="val_share of 0 leaves none"):
        data.load("mnist", val_share=0).require("val")


def test_hash_follows_content(small_mnist: Path) -> None:
    before = data.load("mnist").hash
    labels = (np.arange(20) % 10).astype(np.uint8)[::-1].copy()
    (small_mnist / "t10k-labels-idx1-ubyte.gz").write_bytes(packed(labels))
    assert data.load("mnist").hash != before


def test_division_is_frozen() -> None:
    """These very images: a changed test split would make old figures incomparable."""
    split = Split(np.zeros((20, 1, 1, 1), np.uint8), np.arange(20) % 2)
    split.images[:, 0, 0, 0] = np.arange(20)
    rest, taken = divide(split, 0.2, 0)
    assert taken.images.ravel().tolist() == [4, 7, 11, 16]
    assert sorted([*rest.images.ravel(), *taken.images.ravel()]) == list(range(20))


def test_small_classes_keep_an_image_on_each_side() -> None:
    labels = np.array([0] * 50 + [1] * 3 + [2])
    rest, taken = divide(Split(np.zeros((54, 1, 1, 1), np.uint8), labels), 0.1, 0)
    assert set(rest.labels) == {0, 1, 2}
    assert set(taken.labels) == {0, 1}
