"""Distillation: what the loss is, who may teach, and that it helps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lab.sets import blobs
from netsuke.data import Dataset, Split
from netsuke.errors import NetsukeError, OptionError, UnsupportedOp
from netsuke.lab.carve import carve
from netsuke.lab.inference import accuracy, logits
from netsuke.lab.models import build
from netsuke.lab.steps.distil import as_module, distil
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Teacher, Training, train

DATA = blobs((1, 8, 8))


def network(data: Dataset = DATA, seed: int = 0) -> nn.Module:
    return build("convnet", data.image_shape, len(data.classes), seed=seed, width=0.2, dropout=0.0)


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    model = train(network(seed=1), DATA, Training(epochs=12, batch=16, lr=5e-3))
    assert accuracy(model, DATA.val)[0] > 0.9
    return model


def test_learns_from_the_teacher_alone(teacher: nn.Module) -> None:
    """With hard=0 the labels may be wrong: only the teacher counts."""
    wrong = replace(DATA, train=Split(DATA.train.images, (DATA.train.labels + 1) % 4))
    options = Training(epochs=15, batch=16, lr=5e-3)
    student = distil(network(), wrong, options, teacher=teacher, hard=0)
    assert accuracy(student, DATA.val)[0] > 0.9
    untaught = distil(network(), wrong, options, teacher=teacher, hard=1)
    assert accuracy(untaught, DATA.val)[0] < 0.2


@pytest.mark.parametrize(("temperature", "hard"), [(1.0, 0.0), (4.0, 0.3), (2.0, 1.0)])
def test_loss_is_hintons(teacher: nn.Module, temperature: float, hard: float) -> None:
    """The loss of one batch before the first step, against the formula in probabilities."""
    options = Training(epochs=1, batch=len(DATA.train), lr=1e-9, optimizer="sgd", precision="float32")
    history: list[dict[str, float]] = []
    distil(network(), DATA, options, teacher=teacher, temperature=temperature, hard=hard, history=history)
    images, labels = torch.from_numpy(DATA.train.images), torch.from_numpy(DATA.train.labels)
    taught, own = logits(teacher, images), logits(network(), images)
    p, q = (F.softmax(z / temperature, 1) for z in (taught, own))
    soft = (p * (p.log() - q.log())).sum(1).mean() * temperature**2
    want = (1 - hard) * soft + hard * F.cross_entropy(own, labels)
    # The teacher runs in bf16 where the processor has it: two digits.
    assert history[0]["loss"] == pytest.approx(want.item(), rel=0.03)


def test_artifact_teaches_as_its_module_does(teacher: nn.Module) -> None:
    artifact = carve(teacher, DATA, recipe={}, seed=0)
    options = Training(epochs=4, batch=16)
    by_artifact = distil(network(), DATA, options, teacher=artifact)
    by_module = distil(network(), DATA, options, teacher=as_module(artifact))
    for a, b in zip(by_artifact.parameters(), by_module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_teacher_is_untouched(teacher: nn.Module) -> None:
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    distil(network(), DATA, Training(epochs=1), teacher=teacher)
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())


def test_quantised_student(teacher: nn.Module) -> None:
    twin = quantize(teacher, DATA, bits=2)
    trained = distil(twin, DATA, Training(epochs=6, batch=16, lr=2e-3), teacher=teacher)
    assert accuracy(trained, DATA.val)[0] >= accuracy(twin, DATA.val)[0]
    assert carve(trained, DATA, recipe={}, seed=0).graph.integer


def test_errors(teacher: nn.Module) -> None:
    other = blobs((1, 8, 8), classes=2)
    artifact = carve(network(other), other, recipe={}, seed=0)
    with pytest.raises(OptionError, match="knows 2 classes; the data have 4"):
        distil(network(), DATA, Training(epochs=1), teacher=artifact)
    integer = carve(quantize(teacher, DATA), DATA, recipe={}, seed=0)
    with pytest.raises(UnsupportedOp, match="only float graphs"):
        distil(network(), DATA, Training(epochs=1), teacher=integer)
    for options in ({"temperature": 0.0}, {"hard": -0.1}, {"hard": 1.1}, {"temperature": float("nan")}):
        with pytest.raises(OptionError, match=r"temperature > 0 and hard in 0\.\.1"):
            Teacher(teacher, **options)


def test_module_of_other_classes_is_refused() -> None:
    with pytest.raises(NetsukeError, match="2"):
        distil(network(), DATA, Training(epochs=1), teacher=network(blobs((1, 8, 8), classes=2)))
