"""Data made to fit: sizes, channels, few labels, and the manifest's word on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from netsuke.data import Dataset, Split
from netsuke.data.adapt import adapt, adapt_images, adaptation, as_trained, few
from netsuke.errors import DataError


def dataset(shape: tuple[int, int, int] = (1, 8, 8), n: int = 60, classes: int = 3) -> Dataset:
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        return Split(rng.integers(0, 256, (count, *shape), np.uint8), np.arange(count) % classes)

    names = tuple(f"c{i}" for i in range(classes))
    return Dataset("noise", names, split(n), split(n // 2), split(n // 3), "0" * 64, "none", "any")


def test_grey_is_repeated_and_resized_once() -> None:
    images = dataset().train.images
    got = adapt_images(images, (3, 16, 12))
    assert got.shape == (60, 3, 16, 12)
    assert got.dtype == np.uint8
    for channel in (1, 2):
        np.testing.assert_array_equal(got[:, 0], got[:, channel])
    np.testing.assert_array_equal(got[:, :1], adapt_images(images, (1, 16, 12)))


def test_shrinking_averages() -> None:
    images = dataset().train.images
    blocks = images.reshape(60, 1, 4, 2, 4, 2).mean((3, 5))
    assert np.abs(adapt_images(images, (1, 4, 4)) - blocks).max() <= 0.5


def test_luma_weighs_green_most() -> None:
    pure = np.zeros((3, 3, 4, 4), np.uint8)
    for colour in range(3):
        pure[colour, colour] = 255
    got = adapt_images(pure, (1, 4, 4))[:, 0, 0, 0]
    np.testing.assert_allclose(got, [0.299 * 255, 0.587 * 255, 0.114 * 255], atol=0.51)


def test_a_flat_image_stays_flat() -> None:
    flat = np.full((2, 1, 5, 7), 131, np.uint8)
    assert (adapt_images(flat, (3, 11, 3)) == 131).all()


def test_adapt_keeps_labels_and_changes_the_hash() -> None:
    data = dataset()
    assert adapt(data, (1, 8, 8)) is data
    got = adapt(data, (3, 16, 16))
    assert got.image_shape == (3, 16, 16)
    assert (len(got.train), len(got.val), len(got.test)) == (60, 30, 20)
    np.testing.assert_array_equal(got.train.labels, data.train.labels)
    hashes = {data.hash, got.hash, adapt(data, (1, 16, 16)).hash}
    assert len(hashes) == 3


def test_empty_splits_stay_empty() -> None:
    data = dataset()
    bare = replace(data, val=Split(data.val.images[:0], data.val.labels[:0]))
    assert adapt(bare, (1, 4, 4)).val.images.shape == (0, 1, 4, 4)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((2, 8, 8), ["1 channels", "2"]), ((1, 0, 8), ["1 to 1024", "0x8"]), ((1, 8, 4000), ["8x4000"])],
    ids=str,
)
def test_impossible_shapes(shape: tuple[int, int, int], words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        adapt(dataset(), shape)
    assert all(word in str(caught.value) for word in words)


def test_too_much_for_memory_is_said_first() -> None:
    data = dataset()
    many = np.broadcast_to(data.train.images[:1], (10**6, 1, 8, 8))
    with pytest.raises(DataError, match=r"3x224x224 take 151 GB.*--size"):
        adapt(replace(data, train=Split(many, np.zeros(10**6, np.int64))), (3, 224, 224))


def test_the_manifest_tells_and_is_followed() -> None:
    data = dataset()
    told = adaptation(data, (3, 16, 16))
    assert told == {"from": [1, 8, 8], "to": [3, 16, 16], "channels": "repeat", "resize": "linear"}
    assert adaptation(data, (1, 4, 4))["resize"] == "area"
    assert adaptation(data, (3, 8, 8))["resize"] == "none"
    assert adaptation(data, data.image_shape) == {}
    assert as_trained(data, told, (3, 16, 16)).image_shape == (3, 16, 16)
    other = dataset((1, 9, 9))
    for manifest in (None, {}, "yes", {"from": 3}, told):
        assert as_trained(other, manifest, (3, 16, 16)) is other


def test_few_draws_by_seed() -> None:
    data = dataset()
    first, again, other = few(data, 4, 0), few(data, 4, 0), few(data, 4, 1)
    assert np.bincount(first.train.labels).tolist() == [4, 4, 4]
    assert np.bincount(first.val.labels).tolist() == [4, 4, 4]
    assert first.test is data.test
    np.testing.assert_array_equal(first.train.images, again.train.images)
    assert (first.train.images != other.train.images).any()
    assert len({data.hash, first.hash, other.hash, few(data, 5, 0).hash}) == 4
    known = {image.tobytes() for image in data.train.images}
    assert all(image.tobytes() in known for image in first.train.images)


def test_few_takes_what_there_is_of_validation_images_but_not_of_training_images() -> None:
    data = dataset()
    assert np.bincount(few(data, 15, 0).val.labels).tolist() == [10, 10, 10]
    with pytest.raises(DataError, match="20 training images of 'c0'"):
        few(data, 21, 0)
    with pytest.raises(DataError, match="at least 1"):
        few(data, 0, 0)
