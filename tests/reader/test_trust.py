"""Whether a row is a number: what speaks for it and what against."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from netsuke.reader import trust, weights
from netsuke.reader.fitted import fitted
from netsuke.reader.lattice import Edge, Path
from netsuke.reader.segments import Atom, Row
from netsuke.reader.sight import Seen

CLASSES = tuple("0123456789")


def row(signs: str) -> tuple[Row, Path]:
    """Atoms of 20 pixels side by side, a digit's edge for each, or an edge of no sign for "-"."""
    atoms = [Atom((25 * i, 0, 16, 20), 80.0, i) for i in range(len(signs))]
    spans = [(i, i + 1) for i in range(len(signs))]
    edges = tuple(Edge(i, i + 1, "" if sign == "-" else sign, 0.0, i) for i, sign in enumerate(signs))
    text = signs.replace("-", "")
    return Row(atoms, 1, 20.0, (0, 0, 25 * len(signs), 20), spans), Path(text, 0.9, edges)


def shares(signs: str, sure: float) -> np.ndarray:
    out = np.full((len(signs), 11), (1 - sure) / 20)
    for i, sign in enumerate(signs):
        out[i, 10 if sign == "-" else int(sign)] = sure
        out[i, 3 if sign == "-" else 10] = 1 - sure
    return out / out.sum(1, keepdims=True)


def seen(share: np.ndarray) -> Seen:
    """Finder and scanner that say what the classifier says."""
    with np.errstate(divide="ignore"):
        log = np.log(share)
    points = np.full((len(share), 3), -9.0)
    boxes = np.zeros((len(share), 4))
    return Seen(np.c_[log, np.full(len(share), 0.15)], boxes, np.c_[log[:, :10], points, log[:, 10]])


@pytest.mark.parametrize("sight", [True, False])
def test_clear_digits_are_a_number_and_digits_among_letters_are_none(sight):
    def number(signs: str, sure: float) -> float:
        share = shares(signs, sure)
        return trust.number(*row(signs), share, seen(share) if sight else None, CLASSES)

    assert number("2580", 0.99) > 0.95
    assert number("-0--1-", 0.7) < 0.5
    assert number("-0--1-", 0.7) < number("-0001-", 0.7) < number("00010", 0.99)


def test_a_sign_amid_a_puzzles_cell_is_rather_a_digit_and_an_upright_stroke_never_passed_over():
    share = shares("1", 0.3)
    plain, path = row("1")
    plain.atoms[0] = replace(plain.atoms[0], box=(8, 0, 4, 20))
    amid = replace(plain, amid=True)
    own = [trust.number(one, path, share, seen(share), CLASSES) for one in (plain, amid)]
    assert own[0] < own[1] < 1
    signs = [
        {edge.symbol for edge in weights.edges(one, share, CLASSES, weights.SEEING, seen=seen(share))}
        for one in (plain, amid)
    ]
    assert "" in signs[0]
    assert "" not in signs[1]


def test_features_are_named_and_bounded():
    signs = "12-4"
    extreme = np.zeros((4, 11))
    extreme[np.arange(4), [1, 2, 10, 4]] = 1.0
    found = trust.features(*row(signs), extreme, seen(extreme), CLASSES)
    values = dict(zip(trust.NAMES, found, strict=True))
    assert np.isfinite(found).all()
    assert values["sure"] == values["found least"] == values["scanned least"] == trust.MOST
    assert values["passed over"] == 0.25
    assert values["alone"] == pytest.approx(1 / 3)


def test_fitted_numbers_have_the_names_they_are_used_by():
    from netsuke.reader import weights

    for what, names in (("lattice", weights.NAMES), ("number", trust.NAMES)):
        for kind in ("seeing", "knowing"):
            assert np.count_nonzero(fitted(what, kind, names)) > len(names) / 2
