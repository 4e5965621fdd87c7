"""Training a scanner: its loss is that of all alignments, and what it has learnt a Scanner reads."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from lab.printed_rows import sheets
from netsuke.lab.scanner import Strips, finished, loss, network, train
from netsuke.lab.steps.quantize import calibrated
from netsuke.reader import segments
from netsuke.reader.scanner import SIGNS, STRIDE, WIDE, Scanner

NONE = len(SIGNS)


def by_hand(logs: np.ndarray, signs: list[int], frames: list[tuple[int, int]], free: list[int]) -> float:
    """The probability of the signs as the sum over all ways to tell them, one by one; logs [F, 14]."""
    total = 0.0
    for way in product(range(NONE + 1), repeat=len(logs)):
        told: list[int] = []
        allowed = True
        for f, k in enumerate(way):
            if k == NONE:
                continue
            if f == 0 or way[f - 1] != k:
                told.append(k)
            place = len(told) - 1
            allowed &= place < len(frames) and frames[place][0] <= f <= frames[place][1]
        if allowed and told == signs:
            total += np.exp(sum(0.0 if f in free else logs[f, k] for f, k in enumerate(way)))
    return total


@pytest.mark.parametrize(
    ("signs", "frames", "free"),
    [
        ([3], [(0, 3)], []),
        ([3, 3], [(0, 3), (0, 3)], []),  # told twice only with none between
        ([3, 10], [(0, 1), (1, 3)], []),
        ([1, 2], [(0, 3), (0, 3)], [3]),
        ([], [], []),
    ],
)
def test_the_loss_is_the_probability_of_all_alignments(signs, frames, free):
    rng = np.random.default_rng(len(signs))
    out = torch.from_numpy(rng.normal(0, 1, (1, NONE, 1, 4)))
    logs = torch.log_softmax(torch.cat([out[0, :, 0], torch.zeros(1, 4)]), 0).T.numpy()
    names, places, open_ = torch.full((1, 3), -1), torch.zeros(1, 3, 2, dtype=torch.int64), torch.zeros(1, 4)
    names[0, : len(signs)] = torch.tensor(signs, dtype=torch.int64)
    if frames:
        places[0, : len(frames)] = torch.tensor(frames)
    open_[0, free] = 1
    value = loss(out, torch.zeros(0), names, places, open_.bool())
    assert float(value) * 4 == pytest.approx(-np.log(by_hand(logs, signs, frames, free)), rel=1e-5)


def test_the_loss_has_a_gradient_everywhere():
    tiles, *wanted = (torch.from_numpy(part) for part in Strips(sheets("2580", "11"), 1).draw(4))
    out = torch.randn(4, NONE, 1, WIDE // STRIDE, requires_grad=True)
    loss(out, tiles, *wanted).backward()
    assert torch.isfinite(out.grad).all()
    assert out.grad.abs().sum() > 0


def test_it_learns_and_becomes_a_scanner(tmp_path):
    torch.manual_seed(0)
    strips, values = Strips(sheets("2580", "3", "41"), 3), []
    net = train(
        network(width=16, depth=1, along=1), strips, steps=120, batch=8, lr=1e-2, work=tmp_path / "work",
        told=lambda _, value: values.append(value),
    )  # fmt: skip
    assert np.mean(values[-10:]) < 0.5 * np.mean(values[:10])
    made = finished(net, strips, images=16)
    made.save(tmp_path / "scanner.netsuke")
    page = np.zeros((60, 60), np.uint8)
    page[20:42, 20:36] = 255
    (row,), _ = segments.rows(page, scans=Scanner(made, backend="numpy").scan)
    told = row.told
    assert told.shape == (len(row.spans), NONE + 1)
    assert (told <= 1e-9).all()


def test_its_integers_train_on_with_the_norms_held_still():
    torch.manual_seed(0)
    strips = Strips(sheets("2580", "3", "41"), 3)
    net = train(network(width=16, depth=1, along=1), strips, steps=120, batch=8, lr=1e-2)
    tiles, *wanted = map(torch.from_numpy, strips.draw(64))
    twin = calibrated(net, tiles, equalise=True, clip=False)
    before = {name: part.clone() for name, part in twin.named_buffers() if "running" in name}
    trained = train(twin, strips, steps=60, batch=8, lr=1e-3, steady=True)
    after = dict(trained.named_buffers())
    assert before
    assert all(torch.equal(after[name], part) for name, part in before.items())

    def lost(model):
        with torch.no_grad():
            return float(loss(model.eval()(tiles.float() / 255), tiles, *wanted))

    assert lost(trained) < lost(calibrated(net, tiles, equalise=True))
    assert finished(net, strips, images=16, steps=2).manifest["task"] == "scan"
