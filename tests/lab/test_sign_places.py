"""Fitting how far boxes are led towards the finder's: digits with their truth, and weights that lead them there."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs PyTorch: pip install 'netsuke[lab]'")

from lab.handwriting import needed
from netsuke.lab import sign_places
from netsuke.lab.sign_places import Examples
from netsuke.reader import Reader, places


def test_examples_are_digits_that_the_finder_sees_elsewhere():
    needed()
    from netsuke.lab import scenes

    reader, parts = Reader(backend="packaged"), []
    for seed in range(12):
        scene = scenes.string(np.random.default_rng(seed), spacing="touching", height=50)
        parts += sign_places.examples(reader, scene.image, [(mark.label, mark.box) for mark in scene.digits])
    every = Examples.joined(parts)
    assert len(every.table) > 10
    assert every.table.shape[1] == len(places.NAMES)
    assert (every.table[:, places.NAMES.index("misfit")] >= places.MISFIT).all()
    for found in (every.near, every.far, every.true):
        assert found.shape == (len(every.table), 4)
        assert ((found[:, 2:] - found[:, :2]) > 0).all()
    assert np.abs(every.near - every.true).mean() < 0.2  # of the digits' height: it is the same ones


def test_a_fit_leads_the_sides_that_were_cut():
    rng = np.random.default_rng(0)
    near = np.tile([0.0, 0.0, 0.6, 1.0], (800, 1))
    cut = rng.random((800, 1)) < 0.5
    far = near - np.array([0.5, 0, 0, 0]) + rng.normal(0, 0.02, (800, 4))
    true = np.where(cut & (np.arange(4) == 0), far, near)
    table = np.zeros((800, len(places.NAMES)))
    table[:, 0], table[:, places.NAMES.index("cut left")] = 1, cut[:, 0]
    weights = sign_places.fit(Examples(table, near, far, true))
    share = 1 / (1 + np.exp(-table @ weights.T))[:, 0]
    assert share[cut[:, 0]].min() > 0.8
    assert share[~cut[:, 0]].max() < 0.2
