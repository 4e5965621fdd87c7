"""Teachers: artifacts of floats and integers, modules, and ensembles of any of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lab.sets import blobs
from netsuke.artifact import Artifact
from netsuke.errors import OptionError
from netsuke.lab.carve import carve
from netsuke.lab.inference import accuracy, weights_hash
from netsuke.lab.models import build
from netsuke.lab.steps.distil import distil
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Training, train
from netsuke.lab.teachers import Answers, Ensemble, as_module, ask, together
from netsuke.lab.views import Views

DATA = blobs((1, 8, 8))
X = torch.from_numpy(DATA.val.images).float() / 255


def network(seed: int = 0, classes: int = 4) -> nn.Module:
    return build("convnet", DATA.image_shape, classes, seed=seed, width=0.2, dropout=0.0)


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    return train(network(1), DATA, Training(epochs=12, batch=16, lr=5e-3))


@pytest.fixture(scope="module")
def integer(teacher: nn.Module) -> Artifact:
    return carve(quantize(teacher, DATA, bits=4), DATA, recipe={}, seed=0)


@pytest.mark.parametrize("backend", ["numpy", "onnxruntime"])
def test_integer_artifact_answers_in_real_units(integer: Artifact, teacher: nn.Module, backend: str) -> None:
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime")
    answers = ask(Answers(integer, backend), X)
    unit = integer.graph.ops[-1].attrs["scale"]
    np.testing.assert_allclose(answers.numpy(), integer.logits(DATA.val.images) * unit, rtol=1e-6)
    twin = quantize(teacher, DATA, bits=4).eval()
    torch.testing.assert_close(answers, ask(twin, X), rtol=1e-4, atol=1e-4)


def test_float_artifact_comes_back_as_a_module(teacher: nn.Module) -> None:
    artifact = carve(teacher, DATA, recipe={}, seed=0)
    with torch.no_grad():
        torch.testing.assert_close(as_module(artifact)(X), teacher(X), rtol=1e-3, atol=1e-3)
    assert as_module(teacher) is teacher


def test_ensemble_is_the_mean_of_logits_or_of_softened_probabilities(
    teacher: nn.Module, integer: Artifact
) -> None:
    members = [teacher, as_module(integer), network(5).eval()]
    each = torch.stack([ask(m, X) for m in members])
    torch.testing.assert_close(ask(together(members), X), each.mean(0))
    for t in (1.0, 3.0):
        got = F.softmax(ask(together(members, "probabilities", t), X) / t, 1)
        torch.testing.assert_close(got, F.softmax(each / t, 2).mean(0), rtol=1e-3, atol=1e-5)
    assert together([teacher]) is teacher


def test_ask_leaves_the_mode_and_uses_evaluation() -> None:
    model = build("separable", DATA.image_shape, 4, width=6, depth=1).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first = ask(model, X)
    assert model.training
    assert torch.equal(first, ask(model, X))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_hash_tells_teachers_apart(teacher: nn.Module, integer: Artifact) -> None:
    other = carve(quantize(teacher, DATA, bits=3), DATA, recipe={}, seed=0)
    made = [
        Answers(integer),
        Answers(other),
        Ensemble([teacher, Answers(integer)]),
        Ensemble([teacher, Answers(other)]),
        Ensemble([teacher, Answers(other)], "probabilities", 2.0),
        Ensemble([teacher, Answers(other)], "probabilities", 3.0),
    ]
    assert len({weights_hash(m) for m in made}) == len(made)
    assert weights_hash(Answers(integer)) == weights_hash(made[0])


def test_mixed_ensemble_teaches_on_wrong_labels_of_its_own(teacher: nn.Module, integer: Artifact) -> None:
    """An integer file, a float file and a module teach together, logits alone."""
    files = [integer, carve(teacher, DATA, recipe={}, seed=0), teacher]
    options = Training(epochs=15, batch=16, lr=5e-3)
    for combine in ("logits", "probabilities"):
        student = distil(network(), DATA, options, teacher=files, hard=0.0, combine=combine)
        assert accuracy(student, DATA.val)[0] > 0.9


def test_views_keep_the_answers_of_an_integer_file(integer: Artifact) -> None:
    from netsuke.lab.augment import Augment

    copies, answers = Views(DATA, Augment(), 1, 0, as_module(integer)).get(0)
    want = integer.logits(copies.numpy()) * integer.graph.ops[-1].attrs["scale"]
    assert answers is not None
    np.testing.assert_allclose(answers.numpy(), want, rtol=1e-6)


def test_errors(teacher: nn.Module) -> None:
    with pytest.raises(OptionError, match="at least one"):
        Ensemble([])
    with pytest.raises(OptionError, match="there are logits, probabilities"):
        Ensemble([teacher], "vote")
    with pytest.raises(OptionError, match="the teachers give 4, 3 logits; they must agree"):
        ask(Ensemble([teacher, network(classes=3)]), X)
