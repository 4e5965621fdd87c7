"""Training a finder: it learns, goes on where it was stopped, and ends as an artifact that a Finder takes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from netsuke.lab.finder import Sheets, Tiles, finished, loss, network, train
from netsuke.reader.finder import Finder


@pytest.fixture
def tiles() -> Tiles:
    """Printed digits on a page, 21 pixels high."""
    page, boxes = np.zeros((220, 300), np.uint8), []
    for i in range(10):
        x, y = 20 + 52 * (i % 5), 60 + 80 * (i // 5)
        cv2.putText(page, str(i), (x, y), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 2, cv2.LINE_AA)
        boxes.append([i, x, y - 22, 18, 22])
    return Tiles(Sheets([cv2.imencode(".png", page)[1].tobytes()], [np.array(boxes, np.float32)]), seed=3)


def test_it_learns_and_becomes_a_finder(tiles, tmp_path):
    torch.manual_seed(0)
    values: list[float] = []
    net = train(
        network(width=16, depth=1),
        tiles,
        steps=60,
        batch=8,
        lr=1e-2,
        told=lambda _, value: values.append(value),
    )
    assert np.mean(values[-10:]) < 0.8 * np.mean(values[:10])
    made = finished(net, tiles, images=16, steps=2)
    made.save(tmp_path / "finder.netsuke")
    assert made.manifest["finds"] == list("0123456789")
    told, _ = Finder(made, backend="numpy").look(
        np.zeros((50, 50), np.uint8), np.array([[10.0, 10, 15, 20]]), np.array([20.0]), np.zeros(1, int)
    )
    assert np.exp(told[0, :11]).sum() == pytest.approx(1)


def test_a_stopped_run_goes_on_and_another_run_does_not_take_its_place(tiles, tmp_path, monkeypatch):
    monkeypatch.setattr("netsuke.lab.sampled.SAVED", 2)
    work, steps = tmp_path / "work", []

    class Killed(Exception):
        pass

    def told(step: int, _: float) -> None:
        steps.append(step)
        if step == 3 and len(steps) == 4:
            raise Killed

    def go(width: int, seed: int = 0) -> None:
        torch.manual_seed(seed)
        train(network(width=width, depth=1), tiles, steps=6, batch=2, work=work, told=told)

    with pytest.raises(Killed):
        go(8)
    go(8)
    assert steps == [0, 1, 2, 3, 2, 3, 4, 5]  # from the checkpoint after two
    go(12)
    assert steps[8:] == [0, 1, 2, 3, 4, 5]


def test_the_loss_knows_what_it_is_not_asked():
    tiles = torch.zeros(1, 1, 128, 128, dtype=torch.uint8)
    cells = torch.full((1, 32, 32), -1)
    reach = torch.full((1, 4, 32, 32), torch.nan)
    out = torch.randn(1, 14, 32, 32)
    assert loss(out, tiles, cells, reach) == 0
    cells[0, 3, 3], reach[0, :, 3, 3] = 7, 1.0
    sure = out.clone()
    sure[0, 7, 3, 3], sure[0, 10:, 3, 3] = 50.0, 1.0
    assert loss(sure, tiles, cells, reach) < 1e-4 < loss(out, tiles, cells, reach)
