"""Distillation: what the loss is, who may teach, and that it helps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lab.sets import blobs
from netsuke.data import Dataset, Split
from netsuke.errors import NetsukeError, OptionError
from netsuke.lab.carve import carve
from netsuke.lab.fresh import fresh
from netsuke.lab.hints import Hinted, attention_loss, feature_loss
from netsuke.lab.inference import accuracy, logits
from netsuke.lab.lower import lower
from netsuke.lab.models import MODELS, build
from netsuke.lab.modules import FloatGraph
from netsuke.lab.quantgraph import QuantGraph
from netsuke.lab.steps.distil import Distil, as_module, distil, generations
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Teacher, Training, train
from netsuke.lab.taps import Tapped, pair, places
from netsuke.lab.teachers import together

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
    for options in ({"temperature": 0.0}, {"hard": -0.1}, {"hard": 1.1}, {"temperature": float("nan")}):
        with pytest.raises(OptionError, match=r"temperature > 0 and hard in 0\.\.1"):
            Teacher(teacher, **options)


def test_module_of_other_classes_is_refused() -> None:
    with pytest.raises(NetsukeError, match="2"):
        distil(network(), DATA, Training(epochs=1), teacher=network(blobs((1, 8, 8), classes=2)))


# --- what goes on inside ------------------------------------------------------------------------------

SHAPE = DATA.image_shape


def small(seed: int = 0) -> nn.Module:
    return build("separable", SHAPE, 4, seed=seed, width=6, depth=1)


def hinted(student: nn.Module, teacher: nn.Module, **options: float) -> Hinted:
    return Hinted(student, FloatGraph(*lower(teacher, SHAPE)), SHAPE, **options)  # type: ignore[arg-type]


def losses(model: Hinted, x: torch.Tensor) -> tuple[float, float]:
    """Feature and attention loss on images."""
    with torch.no_grad():
        model.teacher(x)
        model.train()(x)
        features, attention = model.losses().tolist()
    return features, attention


def test_attention_is_zagoruykos() -> None:
    """Against the formula, pixel by pixel; neither scale nor the number of channels counts."""
    a, b = torch.rand(3, 4, 5, 5), torch.rand(3, 7, 5, 5)
    want = 0.0
    for s, t in zip(a, b, strict=True):
        p, q = ((m**2).sum(0).flatten() for m in (s, t))
        want += float(((p / p.norm() - q / q.norm()) ** 2).sum()) / 3
    assert float(attention_loss(a, b)) == pytest.approx(want, rel=1e-4)
    assert float(attention_loss(3 * a, torch.cat([a, a], 1))) == pytest.approx(0, abs=1e-6)
    assert attention_loss(a, torch.rand(3, 7, 10, 10)).shape == ()


def test_feature_loss_is_a_share_of_the_teachers_power() -> None:
    t = torch.rand(3, 4, 5, 5) * 40
    assert float(feature_loss(t, t)) == 0
    assert float(feature_loss(torch.zeros_like(t), t)) == pytest.approx(1)


@pytest.mark.parametrize("form", ["module", "graph", "integers"])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 30.0)])
def test_hints_fall_in_every_form_of_student(
    form: str, weights: tuple[float, float], teacher: nn.Module
) -> None:
    """Plain modules with their norms, float graphs and integer ones; the regressors go."""
    student = small()
    if form == "graph":
        student = FloatGraph(*lower(student, SHAPE))
    if form == "integers":
        student = quantize(train(student, DATA, Training(epochs=2, batch=16)), DATA, bits=4)
    x = torch.from_numpy(DATA.train.images).float() / 255
    features, attention = weights
    options = Distil(features=features, attention=attention, training=Training(epochs=25, batch=16, lr=5e-3))
    got = distil(student, DATA, options, teacher=teacher)
    assert type(got) is type(student)
    assert {k: v.shape for k, v in got.state_dict().items()} == {
        k: v.shape for k, v in student.state_dict().items()
    }
    assert lower(got, SHAPE)[0].integer == (form == "integers")
    if attention:  # which has no regressor that would have to be kept to measure it
        before, after = (losses(hinted(m, teacher, attention=1.0), x)[1] for m in (student, got))
        without = distil(student, DATA, options, teacher=teacher, attention=0.0, features=0.0)
        plain = losses(hinted(without, teacher, attention=1.0), x)[1]
        assert after < 0.8 * before
        assert after < 0.8 * plain


@pytest.mark.parametrize("form", ["module", "graph", "integers"])
def test_features_come_nearer_to_the_teachers(form: str, teacher: nn.Module) -> None:
    """Trained on the hints alone, the student with its regressors matches features that at first it does not."""
    student = small()
    if form == "graph":
        student = FloatGraph(*lower(student, SHAPE))
    if form == "integers":
        student = quantize(student, DATA, bits=4)
    model = hinted(student, teacher, features=1.0)
    x = torch.from_numpy(DATA.train.images).float() / 255
    before = losses(model, x)[0]
    guide = Teacher(model.teacher, hard=1.0)
    trained = train(model, DATA, Training(epochs=25, batch=16, lr=5e-3), teacher=guide)
    assert isinstance(trained, Hinted)
    assert losses(trained, x)[0] < 0.6 * before


def test_gradient_of_the_hints_reaches_the_student_and_not_the_teacher(teacher: nn.Module) -> None:
    model = hinted(small(), teacher, features=1.0, attention=1.0).train()
    x = torch.rand(8, *SHAPE)
    model.teacher(x)
    model(x)
    assert model.aside is not None
    model.aside.backward()
    reached = [
        n for n, p in model.student.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    ]
    assert any("weight" in name for name in reached)
    assert all(p.grad is None for p in model.teacher.parameters())
    assert not any("teacher" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_can_be_tapped_and_paired(name: str, teacher: nn.Module) -> None:
    """What the traced module shows is what its graph twin computes, norms and activations included."""
    shape = (1, 32, 32)
    model = build(name, shape, 4).eval()
    found = places(model, shape)
    twin = FloatGraph(*lower(model, shape))
    names = [p.name for p in found.values()]
    x = torch.rand(2, *shape)
    with torch.no_grad():
        ours, theirs = Tapped(model, shape, names), Tapped(twin, shape, names)
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-3, atol=1e-4)
        ends = [a for a, _ in pair(found, found)]
    assert ends
    for place in ends:
        a, b = (side.seen[place].flatten(1) for side in (ours, theirs))
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert all(a == b for a, b in pair(found, found))


def test_pairs_are_of_one_map_size_where_there_is_one() -> None:
    mine, theirs = (
        places(build("separable", (1, 28, 28), 4), (1, 28, 28)),
        places(build("resnet_small", (1, 28, 28), 4), (1, 28, 28)),
    )
    sizes = {p.rows for p in theirs.values()}
    for a, b in pair(mine, theirs):
        if mine[a].rows in sizes:
            assert (mine[a].rows, mine[a].columns) == (theirs[b].rows, theirs[b].columns)


def test_integers_are_seen_in_the_units_of_the_floats(teacher: nn.Module) -> None:
    """With 8 bits the intermediates of the integer twin are about those of the float graph."""
    twin = quantize(teacher, DATA, bits=8)
    names = [n for n in places(twin, SHAPE) if n in Tapped(twin, SHAPE, []).units]
    assert names
    inside = Tapped(twin.eval(), SHAPE, names)
    graph = FloatGraph(*lower(teacher, SHAPE))
    x = torch.from_numpy(DATA.val.images).float() / 255
    with torch.no_grad():
        inside(x)
        values = graph.activations(x)
    for name in names:
        # A ReLU is fused into the op before it, and may change places with a pool of the same name.
        candidates = [v for v in values.values() if v.shape == inside.seen[name].shape]
        error = min(
            float((inside.seen[name] - v).abs().mean() / v.abs().mean().clamp(min=1e-6)) for v in candidates
        )
        assert error < 0.15, name


def test_explicit_pairs_freezing_and_rates_reach_the_student(teacher: nn.Module) -> None:
    student = small()
    layer, head = next(iter(places(student, SHAPE))), next(iter(places(teacher, SHAPE)))
    first = next(n for n, _ in student.named_parameters()).rpartition(".")[0]
    training = Training(epochs=2, batch=16, freeze=(first,), rates=((f"{first}*", 0.5),))
    options = Distil(features=1.0, layers=((layer, head),), training=training)
    got = distil(student, DATA, options, teacher=teacher)
    before, after = dict(student.named_parameters()), dict(got.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(name.startswith(f"{first}.") for name in changed)


def test_a_killed_run_with_hints_goes_on(teacher: nn.Module, tmp_path: Path) -> None:
    options = Distil(features=1.0, attention=5.0, training=Training(epochs=4, batch=16, ema=0.9))
    whole = distil(small(), DATA, options, teacher=teacher)

    def stop(done: float, info: str, resumed: bool) -> None:
        if info.startswith("epoch 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distil(small(), DATA, options, teacher=teacher, work=tmp_path, progress=stop)
    again: list[float] = []
    got = distil(
        small(), DATA, options, teacher=teacher, work=tmp_path,
        progress=lambda done, info, resumed: again.append(done) if resumed else None,
    )  # fmt: skip
    assert again == [2]
    for a, b in zip(whole.parameters(), got.parameters(), strict=True):
        assert torch.equal(a, b)


# --- self-distillation and generations ----------------------------------------------------------------


def test_own_copy_teaches(teacher: nn.Module) -> None:
    """On wrong labels a network that heeds only itself stays right."""
    wrong = replace(DATA, train=Split(DATA.train.images, (DATA.train.labels + 1) % 4))
    kept = distil(teacher, wrong, Distil(self=True, hard=0.0, training=Training(epochs=3, batch=16)))
    assert accuracy(kept, DATA.val)[0] > 0.9
    reborn = distil(
        teacher,
        wrong,
        Distil(self=True, fresh=True, hard=0.0, training=Training(epochs=15, batch=16, lr=5e-3)),
    )
    assert accuracy(reborn, DATA.val)[0] > 0.9


@pytest.mark.parametrize("form", ["module", "graph"])
def test_generations_are_born_again(form: str, teacher: nn.Module, tmp_path: Path) -> None:
    start = network() if form == "module" else FloatGraph(*lower(network(), SHAPE))
    options = Distil(generations=3, hard=0.0, training=Training(epochs=15, batch=16, lr=5e-3))
    history: list[dict[str, float]] = []
    done = generations(start, DATA, options, teacher=teacher, work=tmp_path, history=history)
    assert [row["generation"] for row in history] == [1.0] * 15 + [2.0] * 15 + [3.0] * 15
    assert len(done) == 3
    assert not torch.equal(next(done[0].parameters()), next(done[1].parameters()))
    for model in (*done, together(done)):
        assert accuracy(model, DATA.val)[0] > 0.8
    again = generations(start, DATA, options, teacher=teacher, work=tmp_path)
    for a, b in zip(done[-1].parameters(), again[-1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_fresh_weights() -> None:
    model = network(seed=9)
    a, b, c = fresh(model, 0), fresh(model, 0), fresh(model, 1)
    weights = [next(m.parameters()) for m in (model, a, b, c)]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[3])
    with pytest.raises(OptionError, match="start from its float network"):
        fresh(quantize(model, DATA), 0)
    with pytest.raises(OptionError, match="no layers whose weights"):
        fresh(nn.Identity(), 0)


def test_options_are_checked_at_once() -> None:
    for options, match in (
        ({"features": -1.0}, "features must be at least 0"),
        ({"attention": float("nan")}, "attention must be at least 0"),
        ({"combine": "vote"}, "there are logits, probabilities"),
        ({"generations": 0}, "generations must be 1 to 1000"),
        ({"layers": (("a", "b"),)}, "give one of them a weight"),
        ({"features": 1.0, "training": Training(unfreeze=1)}, "take freeze"),
        ({"hard": 2.0}, "hard in 0..1"),
    ):
        with pytest.raises(OptionError, match=match):
            Distil(**options)  # type: ignore[arg-type]


def test_what_cannot_teach(teacher: nn.Module) -> None:
    with pytest.raises(OptionError, match="needs a teacher"):
        distil(network(), DATA, Training(epochs=1))
    integer = carve(quantize(teacher, DATA), DATA, recipe={}, seed=0)
    with pytest.raises(OptionError, match="gives only its logits"):
        distil(network(), DATA, teacher=integer, features=1.0)
    with pytest.raises(OptionError, match="the student has no layer 'nowhere'; it has "):
        distil(network(), DATA, teacher=teacher, features=1.0, layers=(("nowhere", "x"),))


@pytest.mark.parametrize("bits", [8, 4])
def test_integer_twin_teaches_with_what_goes_on_in_it(bits: int, teacher: nn.Module) -> None:
    twin = quantize(teacher, DATA, bits=bits)
    assert isinstance(twin, QuantGraph)
    options = Distil(features=1.0, attention=1.0, training=Training(epochs=8, batch=16, lr=5e-3))
    assert accuracy(distil(small(), DATA, options, teacher=twin), DATA.val)[0] > 0.5
