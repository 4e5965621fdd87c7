"""Fitting the decoder's weights: its gradient, and that a fit makes texts likelier."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs SciPy: pip install 'netsuke[lab]'")

from netsuke.lab import lattice_weights
from netsuke.lab.candidates import NONE, candidates
from netsuke.reader import Reader, weights
from netsuke.reader.lattice import Edge, decode


def strip(text: str) -> np.ndarray:
    image = np.full((80, 40 + 50 * len(text)), 235, np.uint8)
    cv2.putText(image, text, (15, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.8, 30, 4, cv2.LINE_AA)
    return image


TEXTS = ["2580", "36", "104", "9.75"]


@pytest.fixture(scope="module")
def cases() -> list[lattice_weights.Case]:
    reader = Reader(backend="packaged")
    found = [list(lattice_weights.cases(reader, strip(text), *placed(text))) for text in TEXTS]
    assert [len(ones) for ones in found] == [1] * len(TEXTS)
    return [one for (one,) in found]


def placed(text: str) -> tuple[list, list]:
    """Where `strip` puts its digits, and its number."""
    ends = [cv2.getTextSize(text[:k], cv2.FONT_HERSHEY_SIMPLEX, 1.8, 4)[0][0] for k in range(len(text) + 1)]
    boxes = [(15 + a, 20, b - a, 42) for a, b, sign in zip(ends, ends[1:], text, strict=False) if sign != "."]
    return boxes, [(text, (20, 22, ends[-1] - 10, 38))]


def test_a_row_without_digits_says_nothing():
    reader = Reader(backend="packaged")
    (one,) = lattice_weights.cases(reader, strip("2580"), [], [])
    assert one.spelt.shape[1] == 0  # all of it is to be passed over
    assert not list(
        lattice_weights.cases(reader, strip("2580"), [(15, 20, 40, 42)], [])
    )  # half known: left out


def test_a_text_is_spelt_by_what_stands_in_its_place():
    reader, (boxes, texts) = Reader(backend="packaged"), placed("2580")
    (right,) = lattice_weights.cases(reader, strip("2580"), boxes, texts)
    aside = [(x, y, w, 0.35 * h) for x, y, w, h in boxes]  # its upper third
    (wrong,) = lattice_weights.cases(reader, strip("2580"), aside, texts)
    assert np.isfinite(right.spelt).any(0).all()
    assert np.isfinite(wrong.spelt).sum() < np.isfinite(right.spelt).sum()
    assert not np.isfinite(wrong.spelt).any(0).all()


def test_a_fit_makes_texts_likelier(cases):
    def likelihood(theta: np.ndarray) -> float:
        total = 0.0
        for one in cases:
            weight = one.features @ theta
            spelt, _ = lattice_weights._posterior(one, weight, one.spelt)
            every, _ = lattice_weights._posterior(one, weight, np.zeros((len(weight), 0)))
            assert spelt <= every + 1e-9
            total += spelt - every
        return total

    start = np.zeros(len(weights.NAMES))
    start[weights.NAMES.index("likely")] = 0.3
    assert likelihood(lattice_weights.fit(cases, start, steps=15)) > likelihood(start) + 1


def test_shares_of_edges_are_slopes_of_the_weight(cases):
    one, rng = cases[0], np.random.default_rng(0)
    weight = rng.normal(0, 1, len(one.features))
    for spelt in (one.spelt, np.zeros((len(weight), 0))):
        total, share = lattice_weights._posterior(one, weight, spelt)
        for edge in rng.integers(0, len(weight), 12):
            more = weight.copy()
            more[edge] += 1e-5
            assert (lattice_weights._posterior(one, more, spelt)[0] - total) / 1e-5 == pytest.approx(
                share[edge], abs=1e-3
            )


def test_the_decoder_agrees_about_all_paths(cases):
    one = cases[1]
    weight = one.features @ weights.NAIVE
    every, _ = lattice_weights._posterior(one, weight, np.zeros((len(weight), 0)))
    spelt, _ = lattice_weights._posterior(one, weight, one.spelt)
    edges = [
        Edge(int(a), int(b), str(symbol), float(w))
        for a, b, symbol, w in zip(one.start, one.stop, one.symbols, weight, strict=True)
    ]
    found = {path.text: path.probability for path in decode(one.atoms, edges, best=1000, beam=1000)}
    assert found[TEXTS[1]] == pytest.approx(np.exp(spelt - every))


def test_candidates_carry_the_truth():
    image = strip("2580")
    mask = np.zeros(image.shape, np.uint8)
    count, label = cv2.connectedComponents((image < 130).astype(np.uint8))
    assert count == 5
    order = np.argsort([np.flatnonzero((label == k).any(0))[0] for k in range(1, 5)])
    for number, k in enumerate(order, 1):
        mask[label == k + 1] = number
    x, y = candidates(image, mask, {1: 2, 2: 5, 3: 8, 4: 0})
    assert x.shape[1:] == (1, 28, 28)
    assert sorted(set(y) - {NONE}) == [0, 2, 5, 8]
    blank, none = candidates(np.full((60, 60), 230, np.uint8), np.zeros((60, 60), np.uint8), {})
    assert len(blank) == len(none) == 0
