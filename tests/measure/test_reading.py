"""The figures of a reader: edit distance, intervals, boxes, masks, confidence."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsuke.measure import reading

TEXT = st.text("0123.", max_size=7)
BOX = st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(0, 20)] * 2)
ANSWERS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=300)


def by_definition(a: str, b: str) -> int:
    @cache
    def of(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(of(i - 1, j) + 1, of(i, j - 1) + 1, of(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return of(len(a), len(b))


@given(TEXT, TEXT)
def test_distance_is_what_its_definition_says(a, b):
    assert reading.distance(a, b) == by_definition(a, b)


@given(TEXT, TEXT, TEXT)
def test_distance_is_a_metric(a, b, c):
    assert (reading.distance(a, b) == 0) == (a == b)
    assert reading.distance(a, b) == reading.distance(b, a)
    assert reading.distance(a, c) <= reading.distance(a, b) + reading.distance(b, c)


@given(TEXT, TEXT)
def test_characters_that_are_right_and_edits_account_for_the_string(a, b):
    edits, right = reading.align(a, b)
    assert max(0, len(a) - edits) <= right <= min(len(a), len(b))
    assert edits >= max(len(a), len(b)) - right


def test_known_alignments():
    assert reading.align("1990", "1990") == (0, 4)
    assert reading.align("1990", "190") == (1, 3)
    assert reading.align("1990", "7990") == (1, 3)
    assert reading.align("", "12") == (2, 0)
    assert reading.align("12", "") == (2, 0)


def test_wilson_as_published():
    got = reading.share(8, 10)
    assert (got["low"], got["high"]) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert reading.share(0, 10)["high"] == pytest.approx(0.2775, abs=1e-4)
    assert reading.share(0, 0) == {"value": None, "low": 0.0, "high": 1.0, "n": 0}


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_value_and_shrinks(pair):
    right, n = pair
    got, more = reading.share(right, n), reading.share(10 * right, 10 * n)
    assert 0 <= got["low"] <= got["value"] <= got["high"] <= 1
    assert more["high"] - more["low"] < got["high"] - got["low"]


def test_the_bootstrap_covers_as_often_as_it_says():
    rng, p, inside = np.random.default_rng(3), 0.8, 0
    for _ in range(100):
        parts = np.stack([rng.binomial(5, p, 60), np.full(60, 5)], 1)
        got = reading.ratio(parts)
        inside += got["low"] <= p <= got["high"]
    assert 87 <= inside <= 100
    assert reading.ratio(parts) == reading.ratio(parts)  # by a fixed seed
    assert reading.ratio([]) == {"value": None, "low": None, "high": None, "n": 0}
    assert reading.ratio([(0, 0)])["value"] is None


@given(BOX, BOX)
def test_iou_by_counting_pixels(a, b):
    def sheet(box):
        x, y, w, h = box
        out = np.zeros((40, 40), bool)
        out[y : y + h, x : x + w] = True
        return out

    p, q = sheet(a), sheet(b)
    expected = (p & q).sum() / (p | q).sum() if (p | q).any() else 0.0
    assert reading.iou([a], [b])[0, 0] == pytest.approx(expected)
    assert reading.iou([b], [a])[0, 0] == pytest.approx(expected)
    if (p | q).any():
        assert reading.mask_iou(p, q) == pytest.approx(expected)


@given(st.lists(BOX, max_size=6), st.lists(st.tuples(BOX, st.floats(0, 1)), max_size=6))
def test_each_box_is_matched_once_and_well(truth, found):
    boxes, sure = [box for box, _ in found], [c for _, c in found]
    pairs = reading.match(truth, boxes, sure)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    overlap = reading.iou(truth, boxes)
    assert all(overlap[i, j] >= reading.MATCH for i, j in pairs)
    left_i, left_j = (
        set(range(len(truth))) - {i for i, _ in pairs},
        set(range(len(found))) - {j for _, j in pairs},
    )
    assert not any(overlap[i, j] >= reading.MATCH for i in left_i for j in left_j)


def test_a_second_box_on_a_digit_finds_nothing():
    assert reading.match([(0, 0, 10, 10)], [(0, 0, 10, 9), (0, 0, 10, 10)], [0.5, 0.9]) == [(0, 1)]
    counts = np.array([[1, 2, 1]])
    assert reading.ratio(counts, reading.f1)["value"] == pytest.approx(2 / 3)


@given(ANSWERS)
def test_the_curve_ends_at_everything(answers):
    sure, right = zip(*answers, strict=True)
    got = reading.curve(sure, right)
    assert len(got) <= reading.POINTS
    assert got[-1]["coverage"] == 1
    assert got[-1]["accuracy"] == pytest.approx(np.mean(right))
    coverages, thresholds = [p["coverage"] for p in got], [p["threshold"] for p in got]
    assert coverages == sorted(coverages)
    assert thresholds == sorted(thresholds, reverse=True)
    for point in got:
        accepted = [hit for c, hit in answers if c >= point["threshold"]]
        assert point["coverage"] == pytest.approx(len(accepted) / len(answers))
        assert point["accuracy"] == pytest.approx(np.mean(accepted))


@given(ANSWERS)
def test_calibration_error_is_a_share(answers):
    sure, right = zip(*answers, strict=True)
    assert 0 <= reading.calibration_error(sure, right) <= 1
    assert reading.calibration_error([float(r) for r in right], right) == 0


def test_calibration_error_of_known_cases():
    assert reading.calibration_error([0.9] * 10, [True] * 9 + [False]) == pytest.approx(0, abs=1e-12)
    assert reading.calibration_error([1.0] * 10, [True] * 5 + [False] * 5) == pytest.approx(0.5)
    assert reading.calibration_error([], []) is None
