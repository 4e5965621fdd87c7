"""Images of no class, in everything that computes a loss or an accuracy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lab.sets import blobs
from netsuke.cli.evaluate import measured
from netsuke.data import Dataset, Split
from netsuke.data.adapt import few
from netsuke.engine import Engine
from netsuke.errors import DataError, OptionError
from netsuke.lab import baselines
from netsuke.lab.carve import carve
from netsuke.lab.folds import folds
from netsuke.lab.inference import accuracy, logits, tensors
from netsuke.lab.lower import lower
from netsuke.lab.mixed import layer_losses
from netsuke.lab.models import build
from netsuke.lab.modules import FloatGraph
from netsuke.lab.objective import Objective, objective
from netsuke.lab.recipe import rows
from netsuke.lab.sensitivity import sensitivity
from netsuke.lab.shrink import Shrink
from netsuke.lab.steps.distil import distil
from netsuke.lab.steps.prune import Prune, prune
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Training, train
from netsuke.lab.teachers import Ensemble
from netsuke.measure import METRICS
from netsuke.measure.accuracy import evaluate
from netsuke.reader.confidence import probabilities, state

SHAPE = (1, 12, 12)


def with_outliers(seed: int = 0) -> Dataset:
    """Blobs, and a third as many images of noise alone whose label says that they are of no class."""
    plain, rng = blobs(SHAPE, n=480, seed=seed), np.random.default_rng(seed + 1)

    def mixed(split: Split) -> Split:
        n = len(split) // 3
        images = np.concatenate([split.images, rng.integers(0, 90, (n, *SHAPE), np.uint8)])
        labels = np.concatenate([split.labels, np.full(n, len(plain.classes))])
        order = rng.permutation(len(labels))
        return Split(images[order], labels[order])

    parts = {key: mixed(getattr(plain, key)) for key in ("train", "val", "test")}
    return replace(plain, name="outlying", hash="outlying", **parts)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return with_outliers()


@pytest.fixture(scope="module")
def trained(data) -> nn.Module:
    model = build("separable", SHAPE, 4, width=8, depth=2)
    return train(model, data, Training(epochs=12, batch=32, lr=1e-2, threads=1))


# --- the objective ----------------------------------------------------------------------------------


def test_the_loss_is_the_softmax_over_one_more_class():
    out, labels = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 5
    logs = torch.cat([out, torch.zeros(50, 1)], 1).log_softmax(1)
    aim = Objective(outliers=True)
    assert aim.loss(out, labels, reduction="sum").item() == pytest.approx(
        -logs[torch.arange(50), labels].sum().item(), rel=1e-5
    )
    want = -(0.9 * logs[torch.arange(50), labels] + 0.1 * logs.mean(1)).mean()
    assert aim.loss(out, labels, label_smoothing=0.1).item() == pytest.approx(want.item(), rel=1e-5)
    some = labels < 4  # a batch without outliers is measured by the same rule
    assert aim.loss(out[some], labels[some]).item() > F.cross_entropy(out[some], labels[some]).item()


def test_without_outliers_nothing_changes():
    plain = blobs(SHAPE)
    assert not plain.outliers
    assert objective(plain) == Objective()
    out = torch.randn(10, 4)
    assert Objective().shown(out) is out


def test_one_definition_of_right(data, trained):
    """Training, recipe rows and the layers' sensitivities give one accuracy, to the image."""
    images, labels = tensors(data.val)
    out = logits(trained, images)
    said = torch.where((out > 0).any(1), out.argmax(1), 4)
    want = (said == labels).float().mean().item()
    assert accuracy(trained, data.val)[0] == pytest.approx(want)
    assert want > 0.9
    artifact = carve(trained, data, recipe={}, seed=0)
    assert rows.accuracy(Engine(artifact, backend="numpy"), data) == pytest.approx(want)
    found = sensitivity(trained, data, widths=(8,), ratios=())
    assert (found.accuracy, found.loss) == pytest.approx(accuracy(trained, data.val), rel=1e-4)
    assert layer_losses(trained, data, (8,)).base == pytest.approx(found.loss, rel=1e-4)


# --- training and steps -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"ema": 0.9, "best": True}, {"views": 2}])
def test_training_learns_to_stay_silent(data, options):
    history: list[dict[str, float]] = []
    training = Training(epochs=12, batch=32, lr=1e-2, threads=1, **options)
    train(build("separable", SHAPE, 4, width=8, depth=2), data, training, history=history)
    assert history[-1]["val_accuracy"] > 0.9
    assert history[-1]["accuracy"] > 0.85


@pytest.mark.parametrize(
    "options",
    [
        {"amount": 0.3, "importance": "taylor"},
        {"amount": 0.3, "importance": "gradient"},
        {"amount": 0.2, "structure": "channels", "importance": "taylor"},
    ],
)
def test_pruning(data, trained, options):
    pruned = prune(trained, data, Prune(**options, training=Training(epochs=3, batch=32, threads=1)))
    assert accuracy(pruned, data.val)[0] > 0.8


@pytest.mark.parametrize("importance", ["taylor", "loss"])
def test_pruning_of_layers(data, importance):
    model = train(
        build("resnet_small", SHAPE, 4, width=0.25, depth=2),
        data,
        Training(epochs=4, batch=32, lr=1e-2, threads=1),
    )
    pruned = prune(model, data, Prune(amount=0.3, structure="layers", importance=importance))
    assert logits(pruned, tensors(data.val)[0]).shape[1] == 4


def test_quantised_and_mixed_precision(data, trained):
    whole = quantize(trained, data, bits=8)
    assert accuracy(whole, data.val)[0] > 0.9
    size = carve(whole, data, recipe={}, seed=0).size_bytes
    small = quantize(trained, data, bits=8, max_bytes=int(size * 0.8))
    assert accuracy(small, data.val)[0] > 0.8


@pytest.mark.parametrize("combine", ["logits", "probabilities"])
def test_distillation(data, trained, combine):
    student = build("separable", SHAPE, 4, width=8, depth=2, seed=1)
    options = Training(epochs=12, batch=32, lr=1e-2, threads=1)
    taught = distil(student, data, options, teacher=[trained, trained], combine=combine, hard=0.0)
    assert accuracy(taught, data.val)[0] > 0.85


def test_the_mean_of_probabilities_counts_none(trained):
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))
    other = build("separable", SHAPE, 4, width=6, depth=2, seed=1).eval()
    both = Ensemble([trained, other], "probabilities", 2.0, outliers=True)

    def shares(z: torch.Tensor) -> torch.Tensor:
        return F.softmax(F.pad(z, (0, 1)) / 2.0, 1)

    with torch.no_grad():
        want = (shares(trained(x)) + shares(other(x))) / 2
        torch.testing.assert_close(shares(both(x)), want)


def test_a_teacher_that_knows_no_outliers_is_refused(data, trained):
    stranger = carve(trained, blobs(SHAPE), recipe={}, seed=0)
    with pytest.raises(OptionError, match="never saw an image of no class"):
        distil(trained, data, Training(epochs=1), teacher=stranger)
    with pytest.raises(OptionError, match="never saw an image of no class"):
        Shrink(data, 4000, teachers=[stranger])
    distil(trained, data, Training(epochs=1, threads=1), teacher=carve(trained, data, recipe={}, seed=0))


def test_folds_and_few_take_outliers_for_one_more_class(data):
    for part in folds(data, 3, seed=0):
        assert part.outliers
        assert set(part.val.labels) == set(range(5))
    assert list(np.bincount(few(data, 5, 0).train.labels)) == [5] * 5
    scarce = replace(data, train=data.train.take(np.flatnonzero(data.train.labels < 4)[:200]))
    scarce = replace(scarce, val=data.val.take(np.flatnonzero(data.val.labels == 4)[:1]))
    with pytest.raises(OptionError, match="none of the classes has 1"):
        folds(scarce, 3, seed=0)
    lone = np.concatenate([np.flatnonzero(data.train.labels < 4), np.flatnonzero(data.train.labels == 4)[:1]])
    with pytest.raises(DataError, match="1 training images of none of the classes"):
        few(replace(data, train=data.train.take(lone)), 5, 0)


def test_baselines_learn_the_classes_alone(data):
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'netsuke[lab]'")
    fitted = baselines.fit("forest", data)
    document = evaluate(fitted.scores(data.test.images), data.test.labels, data.classes)
    assert document["n"] == int((data.test.labels < 4).sum())
    assert document["accuracy"] > 0.8


# --- the artifact -----------------------------------------------------------------------------------


def test_an_artifact_knows_when_to_stay_silent(data, trained):
    artifact = carve(trained, data, recipe={}, seed=0)
    entry = artifact.manifest["reject"]
    assert set(entry) == {"temperature", "threshold", "unsure", "curve"}
    found = probabilities(artifact, artifact.logits(data.test.images))
    states = np.array([state(artifact, row[:-1].max()) for row in found])
    known = data.test.labels < 4
    assert (states[known] == "digit").mean() > 0.7
    assert (states[~known] == "digit").mean() < 0.1
    assert "reject" not in carve(trained, blobs(SHAPE), recipe={}, seed=0).manifest


def test_without_validation_images_the_entry_is_the_trained_decision(data, trained):
    untried = carve(trained, replace(data, val=data.val.take(np.arange(0))), recipe={}, seed=0)
    assert untried.manifest["reject"] == {"temperature": 1.0, "threshold": 0.5, "unsure": 0.25}


def test_evaluation_is_over_class_images_and_tells_the_rest(data, trained):
    artifact = carve(trained, data, recipe={}, seed=0)
    document = measured(artifact, data, "test")
    known = data.test.known(4)
    plain = measured(artifact, replace(data, test=known), "test")
    for key in ("accuracy", "loss", "n", "confusion", "per_class"):
        assert document[key] == plain[key]
    assert document["rejection"]["accepted"]["n"] == len(data.test) - len(known)
    assert document["rejection"]["kept"] == plain["rejection"]["kept"]
    assert plain["rejection"]["accepted"] is None
    for name in ("accuracy", "loss"):
        report = METRICS[name](artifact, data.test)
        assert report.n == len(known)
        assert report.value == pytest.approx(document[name], rel=1e-5)


def test_a_model_that_always_answers_accepts_all(data, trained):
    talker = carve(trained, blobs(SHAPE), recipe={}, seed=0)
    found = measured(talker, data, "test")["rejection"]
    assert found["kept"]["share"] == found["accepted"]["share"] == 1
    assert "rejection" not in measured(talker, blobs(SHAPE), "test")


def test_an_untaught_graph_lowers_as_before(trained, data):
    graph, arrays = lower(trained, SHAPE)
    twin = FloatGraph(graph, arrays).eval()
    assert twin(torch.rand(2, *SHAPE)).shape == (2, 4)
