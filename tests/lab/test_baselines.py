"""The classical baselines learn, answer in scores, and cost what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lab.sets import blobs
from netsuke.data import Dataset, Split
from netsuke.errors import DataError, OptionError
from netsuke.lab.baselines import BASELINES, Baseline, fit, hog
from netsuke.measure.accuracy import evaluate

NAMES = list(BASELINES)


@pytest.fixture(scope="module")
def fitted(digits: Any) -> dict[str, Baseline]:
    return {name: fit(name, digits, 0) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_learns_the_digits(name: str, digits: Any, fitted: dict[str, Baseline]) -> None:
    model = fitted[name]
    scores = model.scores(digits.val.images)
    assert scores.shape == (len(digits.val), 10)
    figures = evaluate(scores, digits.val.labels, digits.classes)
    assert figures["accuracy"] > 0.93
    assert np.isfinite(figures["loss"])
    assert model.name == name
    assert "size: " in model.description


def test_sizes_are_counted(digits: Any, fitted: dict[str, Baseline]) -> None:
    features = hog(digits.val.images[:1]).shape[1]
    assert fitted["hog-svm"].parameters == 10 * (features + 1)
    assert fitted["hog-svm"].size_bytes == 4 * 10 * (features + 1)
    assert fitted["knn"].size_bytes == len(digits.train) * (64 + 1)
    assert fitted["forest"].size_bytes > 10_000


def test_one_split_in_a_forest_is_counted_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netsuke.lab.baselines.TREES", 3)
    monkeypatch.setattr("netsuke.lab.baselines.LEAVES", 2)
    model = fit("forest", blobs((1, 8, 8)), 0)
    assert model.size_bytes == 3 * (7 + 2 * 4 * 4), "a split is 7 bytes, a leaf four classes of 4 bytes"
    assert model.parameters == 3 * (4 + 2 * 4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 17, 20), (1, 28, 28), (2, 9, 8)])
def test_any_size_and_any_channels(name: str, shape: tuple[int, int, int]) -> None:
    data = blobs(shape)
    scores = fit(name, data, 0).scores(data.test.images)
    assert (scores.argmax(1) == data.test.labels).mean() > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_an_image_of_one_row(name: str) -> None:
    data = blobs((1, 1, 4))
    assert fit(name, data, 0).scores(data.test.images).shape == (len(data.test), 4)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides(name: str) -> None:
    data = blobs((1, 12, 12))
    one, same = (fit(name, data, 3).scores(data.test.images) for _ in range(2))
    np.testing.assert_array_equal(one, same)


def test_knn_keeps_a_random_part_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netsuke.lab.baselines.KEPT", 20)
    data = blobs((1, 8, 8))
    one, other = (fit("knn", data, seed) for seed in (0, 1))
    assert one.size_bytes == 20 * 65
    assert "among 20 training images" in one.description
    assert (one.scores(data.test.images) != other.scores(data.test.images)).any()


def of_classes(data: Dataset, kept: set[int]) -> Dataset:
    mask = np.isin(data.train.labels, list(kept))
    return replace(data, train=Split(data.train.images[mask], data.train.labels[mask]))


@pytest.mark.parametrize("name", NAMES)
def test_classes_without_training_images_never_win(name: str) -> None:
    data = blobs((1, 12, 12))
    scores = fit(name, of_classes(data, {1, 3}), 0).scores(data.test.images)
    known = np.isin(data.test.labels, [1, 3])
    assert scores.shape == (len(data.test), 4)
    assert set(scores.argmax(1)) == {1, 3}
    assert (scores.argmax(1) == data.test.labels)[known].mean() > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_one_class_is_nothing_to_learn(name: str) -> None:
    with pytest.raises(DataError, match="two classes or more"):
        fit(name, of_classes(blobs((1, 8, 8)), {2}), 0)


def test_unknown_name() -> None:
    with pytest.raises(OptionError, match="no baseline 'svm'; there are hog-svm, knn, forest"):
        fit("svm", blobs((1, 8, 8)), 0)


@pytest.mark.parametrize("name", NAMES)
def test_other_images_are_refused_and_none_are_fine(name: str, fitted: dict[str, Baseline]) -> None:
    with pytest.raises(DataError, match=r"fitted to uint8 \[n, 1, 8, 8\]; got uint8 \[1, 1, 9, 8\]"):
        fitted[name].scores(np.zeros((1, 1, 9, 8), np.uint8))
    assert fitted[name].scores(np.zeros((0, 1, 8, 8), np.uint8)).shape == (0, 10)


def test_hog_sees_direction_and_not_brightness() -> None:
    ramp = np.tile(np.arange(0, 112, 4, dtype=np.uint8), (28, 1))
    images = np.stack([ramp, ramp.T, ramp * 2, 255 - ramp, 255 - ramp.T])[:, None]
    across, down, brighter, inverted, up = hog(images)
    assert across.shape == (6 * 6 * 4 * 9,)
    np.testing.assert_allclose(brighter, across, atol=0.01)
    np.testing.assert_allclose(inverted, across, atol=0.01)
    np.testing.assert_allclose(up, down, atol=0.01)
    bins = across.reshape(-1, 9).sum(0), down.reshape(-1, 9).sum(0)
    assert bins[0].argmax() == 0, "a gradient across is the first bin"
    assert set(np.argsort(bins[1])[-2:]) == {4, 5}, "one down is half way round"


def test_hog_of_a_flat_image_is_nothing() -> None:
    assert not hog(np.full((2, 3, 10, 1), 77, np.uint8)).any()
