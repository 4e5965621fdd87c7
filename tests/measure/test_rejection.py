"""When to stay silent: the arithmetic against its definition, the promises against many draws."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import small_artifact
from netsuke.errors import DataError, OptionError
from netsuke.measure import rejection
from netsuke.measure.accuracy import right
from netsuke.reader.confidence import probabilities


def drawn(n: int = 4000, seed: int = 0, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of three classes and labels that follow their softmax with "none", then `factor` times too sure."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(-1, 3, (n, 3))
    odds = np.cumsum(rejection.chances(scores), 1)
    return scores * factor, (rng.random((n, 1)) > odds).sum(1)


@given(st.integers(0, 10_000), st.floats(0.1, 8))
def test_probabilities_are_those_of_the_reader(seed, t):
    artifact = small_artifact().with_manifest(reject={"temperature": t, "threshold": 0.5, "unsure": 0.2})
    logits = np.random.default_rng(seed).integers(-3000, 3000, (5, 3)).astype(np.int32)
    scores = logits * artifact.graph.ops[-1].attrs["scale"]
    np.testing.assert_allclose(
        rejection.chances(scores, t), probabilities(artifact, logits), rtol=1e-9, atol=1e-300
    )


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_a_factor_and_mends_calibration(factor):
    scores, labels = drawn(20_000, factor=factor)
    t = rejection.temperature(scores, labels)
    assert t * factor == pytest.approx(1, abs=0.04)
    before, after = (
        rejection.calibration_error(rejection.chances(scores, each), labels) for each in (1.0, t)
    )
    assert after < 0.015
    assert after <= before + 0.003


def test_calibration_error_by_hand():
    found = np.array([[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.1, 0.05, 0.85]])
    assert rejection.calibration_error(found, np.array([0, 1, 2])) == pytest.approx((0.8 + 0.1) / 3)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=30), st.lists(st.integers(0, 5), min_size=1, max_size=30)
)
def test_auroc_counts_pairs(known, strange):
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in known for b in strange]
    assert rejection.auroc(np.array(known), np.array(strange)) == pytest.approx(np.mean(pairs))


def test_energy_is_the_log_of_summed_exponentials():
    scores = np.array([[1.0, 2.0], [800.0, -800.0]])
    np.testing.assert_allclose(rejection.energy(scores), [np.log(np.exp(1) + np.exp(2)), 800])


@given(st.integers(0, 60), st.integers(1, 60))
def test_the_exact_bound_has_its_tail(hits, n):
    hits = min(hits, n)
    bound = rejection.at_most(hits, n)
    if hits == n:
        assert bound == 1
        return
    tail = sum(comb(n, k) * bound**k * (1 - bound) ** (n - k) for k in range(hits + 1))
    assert tail == pytest.approx(0.05, rel=1e-6)
    low, high = rejection.wilson(hits, n)
    assert 0 <= low <= hits / n <= high <= 1


def test_wilson_against_the_textbook():
    assert rejection.wilson(10, 100) == pytest.approx((0.05523, 0.17437), abs=1e-5)
    assert rejection.wilson(0, 0) == (0, 1)


@given(st.integers(0, 1000), st.floats(0.001, 0.9))
def test_accepting_is_the_lowest_threshold_that_holds(seed, share):
    scores, labels = drawn(200, seed)
    found = rejection.chances(scores)
    threshold = rejection.accepting(found, labels, share)
    strange = found[labels == 3, :-1].max(1)
    assert (strange >= threshold).mean() <= share + 1e-12
    below = np.sort(strange[strange < threshold])
    if len(below):
        assert (strange >= below[-1]).mean() > share - 1e-12


def test_a_promise_holds_on_other_images():
    """Of 60 draws of 1000 images, the promise of 10 % may break on 100 000 others in a few only."""
    world, truth = drawn(100_000, seed=1)
    elsewhere = rejection.chances(world)
    broken = 0
    for seed in range(60):
        scores, labels = drawn(1000, seed=100 + seed)
        threshold = rejection.promising(rejection.chances(scores), labels, 0.1)
        seen = rejection.judged(elsewhere, truth, threshold)["errors"]["share"]
        broken += seen > 0.1
    assert broken <= 6


def test_the_bound_is_what_was_promised():
    scores, labels = drawn(5000)
    found = rejection.chances(scores)
    for error in (0.05, 0.1):
        threshold = rejection.promising(found, labels, error)
        assert rejection.bound(found, labels, threshold) <= error + 1e-3


def test_too_much_promised():
    scores, labels = drawn(300)
    with pytest.raises(OptionError, match="least that can be promised"):
        rejection.reject(scores, labels, error=0.0001)
    with pytest.raises(OptionError, match="above 0 and below 1"):
        rejection.reject(scores, labels, accept=1.0)
    with pytest.raises(DataError, match="no class"):
        rejection.reject(scores, np.minimum(labels, 2))


@pytest.mark.parametrize("asked", [{}, {"accept": 0.02}, {"error": 0.08}, {"error": 0.08, "accept": 0.02}])
def test_the_entry_of_a_manifest(asked):
    scores, labels = drawn()
    entry = rejection.reject(scores, labels, **asked)
    assert 0 <= entry["unsure"] <= entry["threshold"] <= 1
    found = rejection.chances(scores, entry["temperature"])
    at = rejection.judged(found, labels, entry["threshold"])
    if "accept" in asked or not asked:
        assert at["accepted"]["share"] <= asked.get("accept", rejection.ACCEPTED)
    if "error" in asked:
        assert at["errors"]["share"] <= asked["error"]
    levels, wrong, kept, passed = np.array(entry["curve"]).T
    assert (np.diff(levels) > 0).all()
    assert (np.diff(kept) <= 0).all()
    assert (np.diff(passed) <= 0).all()
    assert wrong[0] > wrong[-1]


@given(st.integers(0, 10_000))
def test_right_is_silence_for_an_outlier(seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.integers(-2, 3, (20, 3)), rng.integers(0, 4, 20)
    for got, row, label in zip(right(logits, labels, outliers=True), logits, labels, strict=True):
        said = int(row.argmax()) if row.max() > 0 else 3
        assert got == (said == label)
    np.testing.assert_array_equal(right(logits, labels), logits.argmax(1) == labels)
