"""The training loop: reproducible, resumable, every option does what it says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lab.sets import blobs
from netsuke.data import Dataset, Split
from netsuke.errors import DataError, OptionError
from netsuke.lab.augment import Augment
from netsuke.lab.inference import accuracy, logits, recalibrate
from netsuke.lab.models import build
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Teacher, Training, train
from netsuke.lab.training import OPTIMIZERS, SCHEDULES

SHAPE = (1, 8, 8)
DATA = blobs(SHAPE)


def network(data: Dataset = DATA, seed: int = 0, width: float = 0.2, **options: Any) -> nn.Module:
    """A small convnet with batch norms and dropout: everything that has a state."""
    settings = {"norm": True, **options}
    return build("convnet", data.image_shape, len(data.classes), seed=seed, width=width, **settings)


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


QUICK = Training(epochs=3, batch=16)


# --- reproducible -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [QUICK, replace(QUICK, augment=Augment(rotate=9, elastic=1, noise=0.1), ema=0.9, optimizer="adamw")],
    ids=["plain", "everything"],
)
def test_same_seed_same_weights(options: Training) -> None:
    first = train(network(), DATA, options)
    torch.manual_seed(999)  # what happened before must not matter
    np.random.seed(999)
    assert same(first, train(network(), DATA, options))
    assert not same(first, train(network(), DATA, replace(options, seed=1)))


def test_input_is_untouched() -> None:
    model = network()
    train(model, DATA, QUICK)
    assert same(model, network())
    assert model.training


def test_learns_the_digits(digits: Dataset) -> None:
    history: list[dict[str, float]] = []
    model = train(network(digits, width=0.3), digits, Training(epochs=6, batch=32, lr=4e-3), history=history)
    right, loss = accuracy(model, digits.test)
    assert right > 0.93
    assert loss < 0.3
    assert not model.training
    out = logits(model, torch.from_numpy(digits.test.images))
    assert right == pytest.approx(float((out.argmax(1).numpy() == digits.test.labels).mean()))


def test_history_has_a_row_an_epoch() -> None:
    history: list[dict[str, float]] = []
    seen: list[tuple[float, str]] = []
    model = train(
        network(),
        DATA,
        QUICK,
        history=history,
        progress=lambda done, info, resumed: seen.append((done, info)),
    )
    assert [row["epoch"] for row in history] == [1, 2, 3]
    for row in history:
        assert {"loss", "accuracy", "val_accuracy", "val_loss", "seconds"} <= row.keys()
        assert all(math.isfinite(value) for value in row.values())
        assert 0 <= row["accuracy"] <= 1
    assert (history[-1]["val_accuracy"], history[-1]["val_loss"]) == pytest.approx(accuracy(model, DATA.val))
    assert sum(done for done, _ in seen) == pytest.approx(3)
    assert all(word in seen[-1][1] for word in ("epoch 3/3", "loss", "accuracy"))


def test_without_validation_images() -> None:
    bare = replace(DATA, val=Split(DATA.val.images[:0], DATA.val.labels[:0]))
    history: list[dict[str, float]] = []
    train(network(), bare, replace(QUICK, best=True), history=history)
    assert len(history) == 3
    assert "val_accuracy" not in history[0]


# --- options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_optimizer_under_every_schedule(optimizer: str, schedule: str) -> None:
    history: list[dict[str, float]] = []
    lr = 0.03 if optimizer == "sgd" else 3e-3
    options = Training(epochs=4, batch=16, optimizer=optimizer, schedule=schedule, lr=lr)
    train(network(dropout=0.0), DATA, options, history=history)
    assert history[-1]["loss"] < history[0]["loss"]


def test_schedules() -> None:
    at = {name: [rate(t) for t in (0, 0.1, 0.25, 0.49, 0.5, 0.81, 0.999)] for name, rate in SCHEDULES.items()}
    assert at["constant"] == [1] * 7
    assert at["step"] == pytest.approx([1, 1, 1, 1, 0.1, 0.01, 0.01])
    assert at["cosine"] == sorted(at["cosine"], reverse=True)
    assert at["cosine"][4] == pytest.approx(0.5)
    assert at["one-cycle"][2] == pytest.approx(1) == max(at["one-cycle"])
    assert at["one-cycle"][0] < 0.1
    for rates in at.values():
        assert all(0 <= rate <= 1 for rate in rates)
    assert at["cosine"][-1] < 1e-4 > at["one-cycle"][-1]


@pytest.mark.parametrize(
    "change",
    [
        {"label_smoothing": 0.2}, {"l1": 1e-3}, {"l2": 0.1}, {"l2": 0.1, "optimizer": "adamw"}, {"clip": 0.01},
        {"ema": 0.9}, {"freeze_norm": 0.5}, {"momentum": 0.5}, {"batch": 32}, {"lr": 1e-4},
        {"precision": "bfloat16"}, {"augment": Augment(noise=0.1)}, {"optimizer": "rmsprop"}, {"schedule": "step"},
    ],
    ids=str,
)  # fmt: skip
def test_every_option_does_something(change: dict[str, Any]) -> None:
    base = replace(QUICK, precision="float32", optimizer=change.get("optimizer", "adam"))
    if "l2" not in change:
        base = replace(QUICK, precision="float32")
    changed = train(network(), DATA, replace(base, **change))
    assert not same(changed, train(network(), DATA, base))
    assert all(torch.isfinite(value).all() for value in changed.state_dict().values())


def _weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.ndim > 1])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_l2_shrinks_weights_and_l1_thins_them(optimizer: str) -> None:
    base = Training(epochs=6, batch=16, optimizer=optimizer, schedule="constant", lr=0.01)
    free = _weights(train(network(), DATA, base))
    decayed = _weights(train(network(), DATA, replace(base, l2=1.0 if optimizer == "adamw" else 0.1)))
    thinned = _weights(train(network(), DATA, replace(base, l1=0.01)))
    assert decayed.square().sum() < 0.9 * free.square().sum()
    assert (thinned.abs() < 0.01).sum() > 2 * (free.abs() < 0.01).sum()


def test_clip_bounds_a_step() -> None:
    """Plain SGD moves by lr times the gradient: no further than lr * clip a step."""
    options = Training(
        epochs=1, batch=96, optimizer="sgd", momentum=0, schedule="constant", lr=1.0, clip=0.05
    )
    start = network(norm=False)
    end = train(start, DATA, options)
    moved = torch.cat([(a - b).flatten() for a, b in zip(end.parameters(), start.parameters(), strict=True)])
    assert 0.04 < moved.norm() <= 0.0501


def test_average_lies_between_start_and_end() -> None:
    options = Training(epochs=6, batch=16, optimizer="sgd", momentum=0, schedule="constant", lr=0.01)
    start = _weights(network())
    last, mean = (_weights(train(network(), DATA, replace(options, ema=ema))) for ema in (0.0, 0.99))
    assert 0 < (mean - start).norm() < (last - start).norm()


def test_patience_stops_and_keeps_the_best() -> None:
    """Learnt to be right, then taught wrong labels: the first epoch is the best."""
    taught = train(network(dropout=0.0), DATA, Training(epochs=12, batch=16, lr=5e-3))
    assert accuracy(taught, DATA.val)[0] > 0.9
    wrong = replace(DATA, train=Split(DATA.train.images, (DATA.train.labels + 1) % len(DATA.classes)))
    options = Training(epochs=40, batch=16, lr=2e-3, patience=3, schedule="constant")
    history: list[dict[str, float]] = []
    kept = train(taught, wrong, options, history=history)
    each = [row["val_accuracy"] for row in history]
    best = each.index(max(each))
    assert len(history) == best + 1 + 3
    assert each[-1] < max(each)
    assert accuracy(kept, DATA.val)[0] == pytest.approx(max(each))
    full = replace(options, patience=0, best=True, epochs=len(history))
    assert same(kept, train(taught, wrong, full)), "`best` alone keeps the same weights"


def test_norms_freeze() -> None:
    """Frozen from the start, the running statistics stay as they were."""
    start = network()
    end = train(start, DATA, replace(QUICK, freeze_norm=0.0))
    for key, value in end.state_dict().items():
        if "running" in key:
            assert torch.equal(value, start.state_dict()[key])


def test_recalibrate_measures_the_statistics() -> None:
    model = network(dropout=0.0).train()
    images = torch.from_numpy(DATA.train.images)
    first = model[0]
    recalibrate(model, images, batch=len(images))
    sums = first(images.float() / 255)
    norm = next(m for m in model if isinstance(m, nn.BatchNorm2d))
    assert torch.allclose(norm.running_mean, sums.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, sums.var((0, 2, 3)), rtol=1e-3)
    assert model.training
    assert norm.training
    assert norm.momentum == 0.1


# --- errors -----------------------------------------------------------------------------------------


def test_loss_that_is_not_finite_advises() -> None:
    options = Training(epochs=5, batch=16, optimizer="sgd", lr=1e8, schedule="constant", precision="float32")
    with pytest.raises(DataError, match=r"epoch \d+ is not finite.*lower --lr than 1e\+08"):
        train(network(norm=False), DATA, options)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": "lion"}, ["lion", *OPTIMIZERS]),
        ({"schedule": "linear"}, ["linear", *SCHEDULES]),
        ({"precision": "int8"}, ["int8", "bfloat16"]),
        ({"epochs": -1}, ["epochs", "-1"]),
        ({"batch": 0}, ["batch"]),
        ({"lr": 0.0}, ["lr"]),
        ({"lr": float("nan")}, ["lr"]),
        ({"l1": -0.1}, ["l1"]),
        ({"l2": -0.1}, ["l2"]),
        ({"clip": -1}, ["clip"]),
        ({"views": -1}, ["views"]),
        ({"patience": -1}, ["patience"]),
        ({"threads": -1}, ["threads"]),
        ({"momentum": 1.0}, ["momentum"]),
        ({"label_smoothing": 1.0}, ["label_smoothing"]),
        ({"ema": 1.5}, ["ema"]),
        ({"freeze_norm": -0.5}, ["freeze_norm"]),
        ({"seed": -1}, ["seed"]),
        ({"seed": 10**15}, ["seed"]),
    ],
    ids=str,
)
def test_errors_name_the_option(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(OptionError) as caught:
        Training(**change)
    for word in words:
        assert word in str(caught.value)


def test_nothing_to_train_on() -> None:
    empty = replace(DATA, train=Split(DATA.train.images[:0], DATA.train.labels[:0]), absent="put some there")
    with pytest.raises(DataError, match="put some there"):
        train(network(), empty, QUICK)


def test_no_epoch_is_no_training() -> None:
    assert same(train(network(), DATA, Training(epochs=0)), network())


# --- checkpoints ------------------------------------------------------------------------------------


class Killed(Exception):
    pass


def killed_after(epoch: int) -> Callable[[float, str, bool], None]:
    def progress(done: float, info: str, resumed: bool) -> None:
        if info.startswith(f"epoch {epoch + 1}/"):
            raise Killed

    return progress


def resumed(
    model: nn.Module, data: Dataset, options: Training, work: Path, **more: Any
) -> tuple[nn.Module, int]:
    """The trained model, and the epoch from which the run went on (0: from the start)."""
    notes: list[str] = []
    trained = train(
        model, data, options, work=work, progress=lambda done, info, resumed: notes.append(info), **more
    )
    found = [int(note.split()[-1]) for note in notes if note.startswith("resumed")]
    return trained, found[0] if found else 0


def _quantised() -> nn.Module:
    return quantize(network(), DATA, bits=4)


RUNS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], bool]] = {
    "plain": (network, {}, False),
    "augmented": (network, {"augment": Augment(rotate=9, thickness=0.4, noise=0.1, clean=0.3)}, False),
    "averaged": (network, {"ema": 0.95, "optimizer": "adamw", "l2": 0.01}, False),
    "sgd with patience": (network, {"optimizer": "sgd", "lr": 0.02, "patience": 9}, False),
    "rmsprop keeping the best": (network, {"optimizer": "rmsprop", "best": True, "ema": 0.9}, False),
    "distilled": (network, {}, True),
    "quantised": (_quantised, {"ema": 0.9, "freeze_norm": 0.6}, True),
}


@pytest.mark.parametrize("run", RUNS)
def test_interrupted_run_ends_the_same(run: str, tmp_path: Path) -> None:
    make, change, taught = RUNS[run]
    options = replace(QUICK, epochs=4, **change)
    more = {"teacher": Teacher(network(seed=5, width=0.3))} if taught else {}
    whole_history: list[dict[str, float]] = []
    whole = train(make(), DATA, options, history=whole_history, **more)
    for epoch in (1, 3):
        with pytest.raises(Killed):
            train(make(), DATA, options, work=tmp_path, progress=killed_after(epoch), **more)
    history: list[dict[str, float]] = []
    again, start = resumed(make(), DATA, options, tmp_path, history=history, **more)
    assert start == 3
    assert same(again, whole)

    def plain(rows: list[dict[str, float]]) -> list[dict[str, float]]:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    assert plain(history) == plain(whole_history)
    finished, start = resumed(make(), DATA, options, tmp_path, **more)
    assert start == 4
    assert same(finished, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "other"])
def test_damaged_checkpoint_is_ignored(damage: str, tmp_path: Path) -> None:
    whole = train(network(), DATA, QUICK)
    with pytest.raises(Killed):
        train(network(), DATA, QUICK, work=tmp_path, progress=killed_after(2))
    file = tmp_path / "checkpoint.pt"
    data = file.read_bytes()
    if damage == "other":
        torch.save([1, 2, 3], file)
    else:
        file.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "noise": data[::-1]}[damage])
    again, start = resumed(network(), DATA, QUICK, tmp_path)
    assert start == 0
    assert same(again, whole)


def test_checkpoint_never_runs_code(tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "checkpoint.pt").write_bytes(pickle.dumps({"identity": Bomb()}))
    assert resumed(network(), DATA, QUICK, tmp_path)[1] == 0
    assert not (tmp_path / "ran").exists()


OTHERS: dict[str, Callable[[], tuple[nn.Module, Dataset, Training, dict[str, Any]]]] = {
    "options": lambda: (network(), DATA, replace(QUICK, lr=1e-3), {}),
    "epochs": lambda: (network(), DATA, replace(QUICK, epochs=4), {}),
    "augmentation": lambda: (network(), DATA, replace(QUICK, augment=Augment(noise=0.1)), {}),
    "data": lambda: (network(), blobs(SHAPE, seed=1), QUICK, {}),
    "weights": lambda: (network(seed=1), DATA, QUICK, {}),
    "width": lambda: (network(width=0.3), DATA, QUICK, {}),
    "teacher": lambda: (network(), DATA, QUICK, {"teacher": Teacher(network(seed=6))}),
    "temperature": lambda: (network(), DATA, QUICK, {"teacher": Teacher(network(seed=5), temperature=3)}),
    "no teacher": lambda: (network(), DATA, QUICK, {}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_checkpoint_of_another_run_is_not_taken(other: str, tmp_path: Path) -> None:
    taught = {"teacher": Teacher(network(seed=5))} if "teach" in other or other == "temperature" else {}
    train(network(), DATA, QUICK, work=tmp_path, **taught)
    model, data, options, more = OTHERS[other]()
    again, start = resumed(model, data, options, tmp_path, **more)
    assert start == 0
    assert same(again, train(model, data, options, **more))


def test_threads_do_not_make_another_run(tmp_path: Path) -> None:
    train(network(), DATA, QUICK, work=tmp_path)
    was = torch.get_num_threads()
    try:
        assert resumed(network(), DATA, replace(QUICK, threads=1), tmp_path)[1] == 3
    finally:
        torch.set_num_threads(was)


def test_outliers_are_told_from_the_classes() -> None:
    """Bars at ten heights are the classes, noise is none of them; the logits stay ten."""
    rng = np.random.default_rng(0)
    images, labels = np.zeros((550, 1, 16, 16), np.uint8), np.repeat(np.arange(11), 50)
    for image, label in zip(images, labels, strict=True):
        image[0, label : label + 4, 3:13] = 255
        if label == 10:
            image[0] = rng.integers(0, 256, (16, 16))
    split = Split(images, labels)
    data = Dataset("bars", tuple("0123456789"), split, split, split, "bars", "none", "any")
    model = build("lenet5", (1, 16, 16), 10)
    history: list[dict[str, float]] = []
    trained = train(model, data, Training(epochs=12, batch=50, threads=1), history=history)
    out = logits(trained, torch.from_numpy(images))
    assert out.shape == (550, 10)
    assert history[-1]["val_accuracy"] == pytest.approx(accuracy(trained, split)[0])
    assert ((out.logsumexp(1) > 0).numpy() == (labels < 10)).mean() > 0.95
    assert (out.argmax(1).numpy() == labels)[labels < 10].mean() > 0.95
