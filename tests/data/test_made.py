"""Sets that are made: cut, kept, read back, resumed; with a small maker of the test's own, then the real one."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.handwriting import needed
from netsuke import data
from netsuke.data import CATALOGUE, made
from netsuke.data.made import Maker, Part
from netsuke.errors import DataError

PARTS = (
    Part("train", "a", 1, 60),
    Part("train", "a", 2, 60),
    Part("train", "b", 1, 40),
    Part("val", "a", 9, 30),
)
SHAPE = (1, 4, 4)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A maker of numbers; `toy.calls` tells what it was asked for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("NETSUKE_DATA", raising=False)
    module = ModuleType("toy_maker")

    def make(part: Part) -> tuple[np.ndarray, np.ndarray]:
        module.calls.append(part.file)
        rng = np.random.default_rng([part.seed, len(part.kind)])
        images = np.stack([rng.integers(0, 256, SHAPE, np.uint8) for _ in range(part.count)])
        return images, np.arange(part.count) % 4

    module.calls, module.make, module.check = [], make, lambda: None
    monkeypatch.setitem(sys.modules, "toy_maker", module)
    module.maker = Maker("toy_maker", 3, PARTS)
    module.folder = tmp_path / "netsuke" / "toy" / "edition-3"
    return module


@given(st.integers(40, 160))
def test_a_smaller_set_has_its_share_of_every_kind(images):
    parts = made.cut(PARTS, images)
    train = [part for part in parts if part.half == "train"]
    assert sum(part.count for part in train) == images
    assert sum(part.count for part in parts) - images == min(30, images // 4)
    assert sum(part.count for part in train if part.kind == "a") == pytest.approx(0.75 * images, abs=1)
    assert all(
        0 < part.count <= whole.count
        for part in parts
        for whole in PARTS
        if replace(part, count=whole.count) == whole
    )


def test_out_of_range():
    assert made.cut(PARTS, None) == PARTS
    for images in (0, 39, 161):
        with pytest.raises(DataError, match="40 to 160"):
            made.cut(PARTS, images)


def test_made_once_and_read_back(toy, capsys):
    paths = made.ensure("toy", toy.maker, PARTS)
    assert [path.name for path in paths] == [part.file for part in PARTS]
    assert "making 190 images in 4 parts" in capsys.readouterr().err
    asked = len(toy.calls)
    assert made.ensure("toy", toy.maker, PARTS) == paths
    assert len(toy.calls) == asked
    split = made.joined(paths, PARTS, 3, SHAPE)
    want = [toy.make(part) for part in PARTS]
    np.testing.assert_array_equal(split.images, np.concatenate([images for images, _ in want]))
    np.testing.assert_array_equal(split.labels, np.concatenate([labels for _, labels in want]))
    assert split.outliers(3)


def test_a_killed_run_goes_on(toy, monkeypatch):
    whole = toy.make

    def stopped(part: Part) -> tuple[np.ndarray, np.ndarray]:
        if part == PARTS[2]:
            raise KeyboardInterrupt
        return whole(part)

    toy.make = stopped
    with pytest.raises(KeyboardInterrupt):
        made.ensure("toy", toy.maker, PARTS)
    assert sorted(path.name for path in toy.folder.iterdir()) == sorted(part.file for part in PARTS[:2])
    toy.make = whole
    toy.calls.clear()
    made.ensure("toy", toy.maker, PARTS)
    assert PARTS[0].file not in toy.calls


def test_a_longer_part_serves_a_shorter_one(toy):
    made.ensure("toy", toy.maker, PARTS[:1])
    toy.calls.clear()
    short = replace(PARTS[0], count=10)
    (path,) = made.ensure("toy", toy.maker, [short])
    assert path.name == PARTS[0].file
    assert not toy.calls
    assert len(made.joined([path], [short], 3, SHAPE)) == 10
    assert made.locate("toy", replace(toy.maker, edition=4), short) is None


def test_damage_is_seen(toy):
    (path,) = made.ensure("toy", toy.maker, PARTS[:1])
    with np.load(path) as file:
        held = dict(file)
    held["images"] = held["images"] ^ 1
    np.savez(path, **held)
    with pytest.raises(DataError, match="delete it"):
        made.read(path, 3, SHAPE, 60)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError):
        made.read(path, 3, SHAPE, 60)


# --- handwriting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("handwriting:", "stands a number"),
        ("handwriting:-5", "stands a number"),
        ("handwriting:7", "40 to 280000"),
        ("mnist:100", "goes with handwriting only"),
    ],
)
def test_names_that_are_none(name, says):
    with pytest.raises(DataError, match=says):
        data.load(name)


def test_the_catalogue_counts_its_parts():
    entry = CATALOGUE["handwriting"]
    assert entry.counts == {"train": 280_000, "val": 15_000, "test": 10_000}
    assert entry.maker is not None
    assert len({part.file for part in entry.maker.parts}) == len(entry.maker.parts)


def test_without_pen_strokes(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="needs torch: pip install 'netsuke[lab]'")
    from netsuke.lab.pens import strokes

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NETSUKE_DATA", str(tmp_path))
    strokes.load.cache_clear()
    with pytest.raises(DataError, match=r"made from pen strokes.*digits\.npz.*NETSUKE_DATA"):
        data.load("handwriting:40", need=("val",))


def test_a_few_real_ones(tmp_path, monkeypatch):
    needed()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small = data.load("handwriting:60", need=("train", "val"))
    assert (len(small.train), len(small.val), len(small.test)) == (60, 15, 0)
    assert small.image_shape == (1, 28, 28)
    assert small.family == "handwriting"
    assert small.outliers
    with pytest.raises(DataError, match="only train, val were asked for"):
        small.require("test")
    from netsuke.lab import pens

    images, labels = pens.samples(90, 1000, outliers=0.35)
    np.testing.assert_array_equal(small.train.images, images[:60])
    np.testing.assert_array_equal(small.train.labels, labels[:60])


def test_the_test_half_is_that_of_mnist_and_makes_nothing(mnist, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = data.load("handwriting", need=("test",))
    np.testing.assert_array_equal(found.test.images, mnist.test.images)
    assert not (tmp_path / "netsuke").exists()
