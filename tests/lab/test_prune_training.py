"""Pruning that trains: masks that move, rounds, rewinding, kills, and channels that go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lab.sets import blobs
from netsuke.errors import OptionError
from netsuke.lab.forms import form_of
from netsuke.lab.inference import accuracy
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.modules import FloatGraph
from netsuke.lab.steps.prune import Prune, prune
from netsuke.lab.steps.prune.masks import Selection
from netsuke.lab.steps.prune.moving import Moved, Moving, Soft, soften
from netsuke.lab.steps.prune.weights import layers
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Training, train
from netsuke.measure.cost import macs, parameters

SHAPE = (1, 8, 8)
DATA = blobs(SHAPE)
QUICK = Training(epochs=4, batch=16)


def network(seed: int = 0) -> nn.Module:
    return build("convnet", SHAPE, len(DATA.classes), seed=seed, width=0.2, norm=True)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return train(network(), DATA, replace(QUICK, epochs=8))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: layer.weight.detach() for name, layer in layers(model).items()}  # type: ignore


def sparsity(model: nn.Module) -> float:
    found = weights(model).values()
    return sum(int((w == 0).sum()) for w in found) / sum(w.numel() for w in found)


def patterns(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight != 0 for name, weight in weights(model).items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Watched(Moving):
    """Notes the masks after each choice."""

    def update(self, model: nn.Module, epoch: int, step: int, steps: int) -> bool:
        done = super().update(model, epoch, step, steps)
        if done:
            masks = {n: form_of(layer, Soft) or form_of(layer, Moved) for n, layer in layers(model).items()}
            SEEN.append((epoch, step, {n: form.mask.clone() for n, form in masks.items()}))  # type: ignore
        return done


SEEN: list[tuple[int, int, dict[str, Tensor]]] = []


def watched(model: nn.Module, form: type, options: Training, each_epoch: bool) -> nn.Module:
    """A training under moving masks to 80 %, its masks noted in SEEN."""
    SEEN.clear()
    graph = FloatGraph(*lower(model, SHAPE))
    names = tuple(layers(graph))
    soften(graph, names, form)
    moving = Watched(Selection(0.8), names, "polynomial", options.epochs, each_epoch)
    return train(graph, DATA, options, masks=moving)


# --- masks that move ------------------------------------------------------------------------------------


def test_soft_masks_come_back(trained):
    result = watched(trained, Soft, replace(QUICK, epochs=8, lr=0.01), each_epoch=True)
    assert [(epoch, step) for epoch, step, _ in SEEN] == [(epoch, 0) for epoch in range(8)]
    returned = 0
    for (_, _, before), (_, _, after) in pairwise(SEEN):
        returned += sum(int(((before[n] == 0) & (after[n] == 1)).sum()) for n in before)
    assert returned > 0
    shares = [
        1 - sum(float(m.sum()) for m in s.values()) / sum(m.numel() for m in s.values()) for _, _, s in SEEN
    ]
    expected = [0.8 * (1 - (1 - min(1, (epoch + 1) / 6)) ** 3) for epoch in range(8)]
    assert shares == pytest.approx(expected, abs=1e-3)
    assert all(torch.equal(patterns(result)[n], SEEN[-1][2][n] == 1) for n in SEEN[-1][2])


def test_gradual_masks_only_grow(trained):
    SEEN.clear()
    sparsities = []

    def note(done: float, info: str, resumed: bool) -> None:
        sparsities.append(info)

    pruned = prune(trained, DATA, amount=0.9, rounds=0, training=QUICK, progress=note)
    assert sparsity(pruned) == pytest.approx(0.9, abs=1e-3)
    assert sparsities[0].startswith("pruning: epoch 1/4")


def test_movement_goes_by_the_loss_not_by_size(trained):
    options: dict[str, Any] = {"amount": 0.7, "training": replace(QUICK, epochs=8)}
    by_movement = prune(trained, DATA, importance="movement", **options)
    by_size = prune(trained, DATA, rounds=0, **options)
    assert not same(patterns(by_movement), patterns(by_size))
    whole = weights(FloatGraph(*lower(trained, SHAPE)))
    # It drops weights larger than some it keeps, which magnitude never would at the start.
    stays = torch.cat([w[patterns(by_movement)[n]].abs() for n, w in whole.items()])
    goes = torch.cat([w[~patterns(by_movement)[n]].abs() for n, w in whole.items()])
    assert goes.max() > stays.min()
    assert accuracy(by_movement, DATA.test)[0] > 0.9


def test_movement_scores_are_the_sum_of_products():
    layer = nn.Linear(3, 2, bias=False)
    start = layer.weight.detach().clone()
    form = Moved(torch.tensor([[1.0, 0, 1], [0, 1, 1]]))
    nn.utils.parametrize.register_parametrization(layer, "weight", form)
    x = torch.tensor([[1.0, 2.0, -1.0]])
    for _ in range(2):
        layer(x).sum().backward()
    torch.testing.assert_close(form.scores, -2 * start * x)  # pruned weights too: they may come back
    gradient = layer.parametrizations["weight"].original.grad  # type: ignore
    torch.testing.assert_close(gradient, 2 * x * form.mask)  # but they themselves stay


def test_soft_weights_learn_behind_the_mask():
    layer = nn.Linear(3, 1, bias=False)
    form = Soft(torch.tensor([[1.0, 0, 1]]))
    nn.utils.parametrize.register_parametrization(layer, "weight", form)
    assert layer.weight[0, 1] == 0
    layer(torch.tensor([[1.0, 2.0, -1.0]])).sum().backward()
    assert layer.parametrizations["weight"].original.grad.tolist() == [[1, 2, -1]]  # type: ignore


MOVING: dict[str, dict[str, Any]] = {
    "soft": {"soft": True},
    "gradual": {"rounds": 0},
    "movement": {"importance": "movement"},
    "soft movement": {"importance": "movement", "soft": True},
    "pattern": {"structure": "2:4", "amount": 0.5, "rounds": 0},
}


@pytest.mark.parametrize("way", MOVING)
@pytest.mark.parametrize("epochs", [1, 5])
def test_moving_masks_end_at_the_amount(trained, way, epochs):
    options = {"amount": 0.8, **MOVING[way]}
    training = replace(QUICK, epochs=epochs, ema=0.8, best=epochs > 1)
    pruned = prune(trained, DATA, training=training, **options)
    assert sparsity(pruned) == pytest.approx(options["amount"], abs=0.02)
    assert same(patterns(train(pruned, DATA, QUICK)), patterns(pruned))  # plain masks now


def test_the_best_epoch_is_one_at_the_full_amount(trained):
    history: list[dict[str, float]] = []
    training = replace(QUICK, epochs=8, patience=2)
    pruned = prune(trained, DATA, amount=0.9, soft=True, training=training, history=history)
    assert sparsity(pruned) == pytest.approx(0.9, abs=1e-3)
    assert len(history) >= 6  # patience waits until the masks have settled
    assert {row["amount"] for row in history} == {0.9}


# --- rounds and rewinding -----------------------------------------------------------------------------------


def test_rounds_follow_the_schedule(trained):
    history: list[dict[str, float]] = []
    pruned = prune(trained, DATA, amount=0.9, rounds=3, schedule="linear", training=QUICK, history=history)
    assert [row["amount"] for row in history] == pytest.approx([0.3] * 4 + [0.6] * 4 + [0.9] * 4)
    assert sparsity(pruned) == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize("rewind", ["init", "early"])
def test_a_ticket_starts_from_early_weights(rewind, monkeypatch):
    """What each round trains are the early weights under its mask, to the last bit."""
    from netsuke.lab.steps.prune import rounds

    starts: list[nn.Module] = []

    def noted(model: nn.Module, *args: Any, **options: Any) -> nn.Module:
        starts.append(model)
        return train(model, *args, **options)

    monkeypatch.setattr(rounds, "train", noted)
    start = network()
    ticket = prune(start, DATA, amount=0.8, rounds=2, rewind=rewind, early=2, training=QUICK)
    early = start if rewind == "init" else train(start, DATA, replace(QUICK, epochs=2))
    first = 1 if rewind == "init" else 2
    assert len(starts) == first + 2
    for model, amount in zip(starts[first:], (0.8 * (1 - 0.5**3), 0.8), strict=True):
        assert sparsity(model) == pytest.approx(amount, abs=1e-3)
        for name, weight in weights(early).items():
            mask = patterns(model)[name]
            assert torch.equal(weights(model)[name][mask], weight[mask])
        left = [n for n in early.state_dict() if "weight" not in n]
        assert all(torch.equal(model.state_dict()[n], early.state_dict()[n]) for n in left)
    assert isinstance(ticket, FloatGraph)
    assert sparsity(ticket) == pytest.approx(0.8, abs=1e-3)
    assert same(patterns(train(ticket, DATA, QUICK)), patterns(ticket))


def test_rewinding_needs_a_past(trained):
    with pytest.raises(OptionError, match="rewind 'rate' works on a finished one"):
        prune(FloatGraph(*lower(trained, SHAPE)), DATA, rewind="early", training=QUICK)
    pruned = prune(FloatGraph(*lower(trained, SHAPE)), DATA, rewind="rate", rounds=2, training=QUICK)
    assert sparsity(pruned) == pytest.approx(0.5, abs=1e-3)


def test_norms_bring_activations_back_to_scale(trained):
    options: dict[str, Any] = {"amount": 0.9, "training": replace(QUICK, epochs=3)}
    with_norms, without = (prune(trained, DATA, norms=n, **options) for n in (True, False))
    assert with_norms.graph == without.graph  # folded again
    assert accuracy(with_norms, DATA.train)[1] < accuracy(without, DATA.train)[1]


# --- a kill changes nothing -----------------------------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from lab.test_prune_training import run
run(sys.argv[2], Path(sys.argv[3]))
"""
LONG = replace(QUICK, epochs=6, ema=0.9)
KILLED: dict[str, tuple[dict[str, Any], str]] = {  # the options, and which training is killed
    "within a round": ({"rounds": 2}, "round-2"),
    "movement": ({"importance": "movement"}, "pruning"),
    "soft": ({"soft": True}, "pruning"),
    "ticket": ({"rewind": "early", "rounds": 2}, "dense"),
    "channels": ({"structure": "channels", "rounds": 2, "amount": 0.5}, "round-2"),
    "soft channels": ({"structure": "channels", "soft": True, "amount": 0.5}, "pruning"),
}


def run(case: str, work: Path, progress: Any = None) -> nn.Module:
    options = Prune(**{"amount": 0.8, "training": LONG, **KILLED[case][0]})
    return prune(network(), DATA, options, work=work, progress=progress)


class Killed(Exception):
    pass


@pytest.mark.parametrize("case", KILLED)
@pytest.mark.parametrize("epoch", [1, 5])  # before its first checkpoint, and behind one
def test_broken_off_and_again_gives_the_same_weights(case, epoch, tmp_path):
    whole, name = run(case, tmp_path / "whole"), KILLED[case][1]

    def broken(done: float, info: str, resumed: bool) -> None:
        if info.startswith(f"{name}: epoch {epoch}/"):
            raise Killed

    with pytest.raises(Killed):
        run(case, tmp_path / "killed", broken)
    notes: list[str] = []
    again = run(
        case, tmp_path / "killed", lambda done, info, resumed: notes.append(info) if resumed else None
    )
    assert (f"{name}: resumed after epoch 4" in notes) == (epoch == 5)
    if name == "round-2":
        assert "round-1: resumed after epoch 6" in notes
    assert same(again.state_dict(), whole.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("case", ["within a round", "movement"])
def test_sigkill_and_again_gives_the_same_weights(case, tmp_path):
    whole = run(case, tmp_path / "whole")
    work = tmp_path / "killed"
    checkpoint = work / KILLED[case][1] / "checkpoint.pt"
    root = Path(__file__).parents[1]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, root, case, work], env=os.environ)
    end = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert checkpoint.exists()
    notes: list[str] = []
    again = run(case, work, lambda done, info, resumed: notes.append(info) if resumed else None)
    assert any(note.startswith(f"{KILLED[case][1]}: resumed") for note in notes)
    assert same(again.state_dict(), whole.state_dict())


# --- channels and layers that go --------------------------------------------------------------------------------


def figures(model: nn.Module) -> tuple[int, int]:
    graph, found = lower(model, SHAPE)
    return sum(macs(graph, found).values()), parameters(graph, found)


@pytest.mark.parametrize("importance", ["taylor", "l1", "l2", "bn", "activation", "median", "random"])
def test_channels_go_in_rounds(trained, importance):
    options = Prune(0.5, "channels", importance=importance, rounds=2, training=replace(QUICK, epochs=2))
    pruned = prune(trained, DATA, options)
    before, after = figures(trained), figures(pruned)
    assert after[0] < 0.6 * before[0]
    assert after[1] < 0.6 * before[1]
    assert type(pruned) is FloatGraph
    quantize(pruned, DATA)


@pytest.mark.parametrize(("target", "index"), [("macs", 0), ("parameters", 1)])
@pytest.mark.parametrize("rounds", [1, 3])
def test_targets_are_reached(trained, target, index, rounds):
    pruned = prune(trained, DATA, structure="channels", target=target, amount=0.6, rounds=rounds)
    assert 0.2 < figures(pruned)[index] / figures(trained)[index] <= 0.4


def test_skipped_and_own_amounts_of_channels(trained):
    names = list(layers(FloatGraph(*lower(trained, SHAPE))))
    pruned = prune(trained, DATA, structure="channels", amount=0.5, skip=(names[0],), layers={names[1]: 0.25})
    before, after = weights(FloatGraph(*lower(trained, SHAPE))), weights(pruned)
    assert len(after[names[0]]) == len(before[names[0]])
    assert len(after[names[1]]) == int(0.75 * len(before[names[1]]))


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_soft_channels_go_at_the_end(trained, scope):
    options = replace(QUICK, epochs=8)
    pruned = prune(trained, DATA, structure="channels", soft=True, amount=0.5, scope=scope, training=options)
    before, after = (sum(len(w) for w in weights(m).values()) - 4 for m in (trained, pruned))
    assert after == before // 2
    assert sparsity(pruned) == 0  # what the masks hid is what went
    assert accuracy(pruned, DATA.test)[0] > 0.6  # chance is 0.25


def test_layers_go():
    model = train(
        build("resnet_small", SHAPE, len(DATA.classes), seed=0, width=0.2), DATA, replace(QUICK, epochs=1)
    )
    pruned = prune(model, DATA, structure="layers", amount=0.5, training=replace(QUICK, epochs=1))
    assert len(pruned.graph.ops) < len(lower(model, SHAPE)[0].ops)  # type: ignore
