"""Transfer: what is loaded, what is frozen, what learns how fast, and what a bad file is told."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lab.sets import blobs
from netsuke.artifact import Artifact
from netsuke.errors import DataError, OptionError
from netsuke.lab import transfer
from netsuke.lab.carve import carve
from netsuke.lab.freeze import Freezing, layers, matching, names
from netsuke.lab.inference import accuracy
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.models.blocks import Standardize
from netsuke.lab.modules import FloatGraph
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Training, train

DATA = blobs((1, 8, 8))
QUICK = Training(epochs=2, batch=16, lr=5e-3)
SMALL = {"width": 0.1, "dropout": 0.0}


def network(seed: int = 0) -> nn.Sequential:
    model = build("convnet", (1, 8, 8), 4, seed=seed, width=0.2, norm=True, dropout=0.0)
    assert isinstance(model, nn.Sequential)
    return model


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return carve(train(network(), DATA, QUICK), DATA, recipe={}, seed=0)


# --- patterns ---------------------------------------------------------------------------------------


def test_names_are_those_of_the_artifact(artifact: Artifact) -> None:
    assert list(names(FloatGraph(artifact.graph, artifact.tensors))) == list(artifact.graph.roles())
    assert list(names(network()))[:2] == ["0.weight", "1.weight"]


def test_patterns_match_names_and_what_they_lie_in() -> None:
    known = ["features.0.weight", "features.10.weight", "classifier.weight"]
    assert matching("features.*", known) == {"features.0.weight", "features.10.weight"}
    assert matching("features", known) == matching("features.*", known)
    assert matching("features.1", [*known, "features.1.bias"]) == {"features.1.bias"}
    assert matching("*.weight", known) == set(known)
    with pytest.raises(OptionError, match=r"'featurs.0.weight'.*near: features.0.weight.*all 3"):
        matching("featurs.0.weight", known)


def test_a_norm_belongs_to_the_layer_before_it() -> None:
    got = [[name.partition(".")[0] for name in layer] for layer in layers(names(network()))]
    assert got == [["0", "1", "1"], ["4", "5", "5"], ["9", "9"], ["12", "12"]]


# --- freezing ---------------------------------------------------------------------------------------


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    old, new = before.state_dict(), after.state_dict()
    return {key for key in old if not torch.equal(old[key], new[key])}


@pytest.mark.parametrize(
    "options",
    [QUICK, replace(QUICK, ema=0.9), replace(QUICK, optimizer="adamw", l2=0.1), replace(QUICK, l1=0.1, clip=1.0)],
    ids=["plain", "ema", "decay", "penalty"],
)  # fmt: skip
def test_what_is_frozen_stays_with_its_statistics(options: Training) -> None:
    start = network()
    end = train(start, DATA, replace(options, freeze=("0", "1", "4*", "5.*")))
    assert changed(start, end) == {"9.weight", "9.bias", "12.weight", "12.bias"}
    assert all(p.requires_grad for p in end.parameters())


def test_freezing_everything_is_refused() -> None:
    with pytest.raises(OptionError, match="leave the head"):
        train(network(), DATA, replace(QUICK, freeze=("*",)))
    with pytest.raises(OptionError, match="matches no parameter"):
        train(network(), DATA, replace(QUICK, freeze=("conv9",)))
    with pytest.raises(OptionError, match="matches no parameter"):
        train(network(), DATA, replace(QUICK, rates=(("conv9", 0.1),)))


def test_a_rate_scales_the_step_of_its_group() -> None:
    """Plain SGD: a step is lr times factor times gradient."""
    options = Training(epochs=1, batch=96, optimizer="sgd", momentum=0, schedule="constant", lr=0.1)
    start = network()
    plain = train(start, DATA, options).state_dict()
    slow = train(start, DATA, replace(options, rates=(("*", 0.5), ("0", 0.1)))).state_dict()
    before = start.state_dict()
    for key, factor in (("0.weight", 0.1), ("12.weight", 0.5), ("1.weight", 0.5)):
        moved = (plain[key] - before[key]) * factor
        assert torch.allclose(slow[key] - before[key], moved, atol=1e-6)
        assert moved.abs().max() > 1e-5


def test_layers_thaw_from_the_head_down() -> None:
    model = network()
    freezing = Freezing(model, replace(QUICK, epochs=8, unfreeze=2, freeze=("0",)))
    learning = []
    for epoch in range(8):
        model.train()
        freezing.hold(epoch)
        learning.append({name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad})
        assert model[1].training == ("1" in learning[-1])
    assert learning[:2] == [{"12"}] * 2
    assert learning[2:4] == [{"12", "9"}] * 2
    assert learning[4:6] == [{"12", "9", "5", "4"}] * 2
    assert learning[6:] == [{"12", "9", "5", "4", "1"}] * 2


def test_interrupted_gradual_run_ends_the_same(tmp_path: Path) -> None:
    options = replace(QUICK, epochs=4, unfreeze=1, rates=(("0", 0.2), ("4", 0.5)), freeze=("1",), ema=0.9)
    whole = train(network(), DATA, options)

    class Killed(Exception):
        pass

    def progress(done: float, info: str, resumed: bool) -> None:
        if info.startswith("epoch 3/"):
            raise Killed

    with pytest.raises(Killed):
        train(network(), DATA, options, work=tmp_path, progress=progress)
    seen: list[str] = []
    again = train(
        network(), DATA, options, work=tmp_path, progress=lambda done, info, resumed: seen.append(info)
    )
    assert seen[0] == "resumed after epoch 2"
    assert not changed(whole, again)


# --- from an artifact -------------------------------------------------------------------------------


def test_an_artifact_goes_on_where_it_stopped(artifact: Artifact) -> None:
    module = transfer.from_artifact(artifact, "a", 4, new_head=False, seed=0)
    graph, tensors = lower(module, (1, 8, 8))
    assert Artifact(graph, tensors, artifact.manifest).weight_hash == artifact.weight_hash


def test_a_new_head_is_drawn_by_the_seed(artifact: Artifact) -> None:
    made = {
        (classes, seed): transfer.from_artifact(artifact, "a", classes, new_head=True, seed=seed)
        for classes, seed in ((7, 0), (7, 1), (4, 0))
    }
    weights = {key: names(module) for key, module in made.items()}
    *body, weight, bias = artifact.graph.roles()
    assert weights[7, 0][weight].shape[0] == weights[7, 0][bias].shape[0] == 7
    assert not torch.equal(weights[7, 0][weight], weights[7, 1][weight])
    assert not np.array_equal(weights[4, 0][weight].detach().numpy(), artifact.tensors[weight])
    again = names(transfer.from_artifact(artifact, "a", 7, new_head=True, seed=0))
    assert torch.equal(again[weight], weights[7, 0][weight])
    for name in body:
        np.testing.assert_array_equal(weights[7, 0][name].detach().numpy(), artifact.tensors[name])


def test_a_new_head_alone_learns(artifact: Artifact) -> None:
    other = blobs((1, 8, 8), classes=2, seed=3)
    module = transfer.from_artifact(artifact, "a", 2, new_head=True, seed=0)
    *body, _, _ = artifact.graph.roles()
    end = train(module, other, replace(QUICK, epochs=12, lr=0.05, freeze=tuple(body)))
    assert accuracy(end, other.test)[0] > 0.9
    assert changed(module, end) == {key for key in module.state_dict() if key not in _keys(module, body)}


def _keys(module: nn.Module, shown: list[str]) -> set[str]:
    of = {id(p): key for key, p in module.named_parameters()}
    return {of[id(names(module)[name])] for name in shown}


def test_a_convolution_is_the_head_where_nothing_is_dense() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    made = carve(model, DATA, recipe={}, seed=0)
    module = transfer.from_artifact(made, "a", 9, new_head=True, seed=0)
    assert module(torch.zeros(2, 1, 8, 8)).shape == (2, 9)
    assert transfer.head(model) == "2"
    with pytest.raises(OptionError, match="no dense layer"):
        transfer.head(nn.Sequential(nn.Flatten()))


def test_artifacts_that_cannot_be_trained(artifact: Artifact) -> None:
    with pytest.raises(OptionError, match=r"a\.netsuke knows 4 classes, the data has 7: add --new-head"):
        transfer.from_artifact(artifact, "a.netsuke", 7, new_head=False, seed=0)
    integer = carve(quantize(network(), DATA, bits=4), DATA, recipe={}, seed=0)
    with pytest.raises(OptionError, match=r"a\.netsuke is quantised.*float model"):
        transfer.from_artifact(integer, "a.netsuke", 4, new_head=False, seed=0)


# --- from weights -----------------------------------------------------------------------------------

RGB = blobs((3, 32, 32), n=40)


def weights(model: str, classes: int = 6, seed: int = 5, **options: Any) -> dict[str, Tensor]:
    made = build(model, (3, 32, 32), classes, seed=seed, **options)
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.rand(v.shape, generator=generator) * 0.1 + 0.5 if v.is_floating_point() else v
        for key, v in made.state_dict().items()
    }


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2", "squeezenet"])
def test_published_form_loads(model: str, suffix: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"width": 0.1}
    state = weights(model, **options)
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    got = transfer.read_weights(path)
    assert got.keys() == state.keys()
    kept, shape = transfer.from_weights(got, "w", model, 32, 6, new_head=False, seed=0, **options)
    assert shape == (3, 32, 32)
    assert list(names(kept)) == [key for key, _ in build(model, shape, 6, **options).named_parameters()]
    for key, value in names(kept).items():
        assert torch.equal(value, state[key])
    fresh, _ = transfer.from_weights(got, "w", model, 32, 9, new_head=True, seed=0, **options)
    lead = transfer.head(build(model, shape, 9, **options))
    for key, value in names(fresh).items():
        if key.startswith(f"{lead}."):
            assert value.shape[0] == 9
        else:
            assert torch.equal(value, state[key])


def test_standardised_in_front_and_lowered() -> None:
    state = build("mobilenet_v2", (3, 32, 32), 4, seed=1, width=0.1).state_dict()
    module, shape = transfer.from_weights(
        state, "w", "mobilenet_v2", 32, 4, new_head=False, seed=0, width=0.1
    )
    bare, _ = transfer.from_weights(
        state, "w", "mobilenet_v2", 32, 4, new_head=False, seed=0, standardize=False, width=0.1
    )
    images = torch.from_numpy(RGB.test.images[:8])
    x = images.float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (transfer.IMAGENET_MEAN, transfer.IMAGENET_STD))
    with torch.no_grad():
        expected = bare.eval()((x - mean) / std)
        assert torch.allclose(module.eval()(x), expected, atol=1e-5)
    graph, tensors = lower(module, shape)
    got = Artifact(graph, tensors, {"classes": list("abcd")}).logits(images.numpy())
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-4)


def test_grey_weights_take_grey_images() -> None:
    state = build("convnet", (1, 8, 8), 4, width=0.1).state_dict()
    module, shape = transfer.from_weights(state, "w", "convnet", 8, 4, new_head=False, seed=0, width=0.1)
    assert shape == (1, 8, 8)
    assert not any(isinstance(m, Standardize) for m in module.modules())


def test_standardize_checks_its_figures() -> None:
    assert Standardize([0.5], [0.25])(torch.ones(1, 1, 2, 2)).max() == 2
    for mean, std in (([0.5], [0.0]), ([0.5], [1.0, 1.0])):
        with pytest.raises(OptionError, match="a channel"):
            Standardize(mean, std)


def load(state: dict[str, Tensor], classes: int = 6, new_head: bool = False) -> nn.Module:
    return transfer.from_weights(
        state, "w.pth", "mobilenet_v2", 32, classes, new_head=new_head, seed=0, width=0.1
    )[0]


def test_weights_that_do_not_belong() -> None:
    state = weights("mobilenet_v2", width=0.1)
    load({key: v for key, v in state.items() if not key.endswith("num_batches_tracked")})
    with pytest.raises(OptionError, match=r"w\.pth knows 6 classes, the data has 4: add --new-head"):
        load(state, classes=4)
    first, *rest = state
    with pytest.raises(DataError, match=f"w.pth does not hold the weights of mobilenet_v2: it lacks {first}"):
        load({key: state[key] for key in rest})
    with pytest.raises(DataError, match="has what the network lacks: a, b, c and 2 more"):
        load({**state, **{key: torch.zeros(1) for key in "abcde"}})
    with pytest.raises(DataError, match=f"{first} must be 8x3x3x3, is 8x3x5x5"):
        load({**state, first: torch.zeros(8, 3, 5, 5)})


# --- files ------------------------------------------------------------------------------------------


def test_a_dictionary_around_the_weights_is_opened_and_halves_become_floats(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(2, dtype=torch.float16)}, "epoch": 3}, tmp_path / "w.pth")
    got = transfer.read_weights(tmp_path / "w.pth")
    assert got["a"].dtype == torch.float32


class Bomb:
    def __init__(self, flag: Path):
        self.flag = flag

    def __reduce__(self) -> tuple:
        return Path.touch, (self.flag,)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    torch.save({"a": Bomb(flag)}, tmp_path / "zip.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps({"a": Bomb(flag)}, protocol=2))
    for name in ("zip.pth", "bare.pth"):
        with pytest.raises(DataError, match=rf"{name}.*runs no code") as caught:
            transfer.read_weights(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not flag.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "huge"])
def test_damaged_files(suffix: str, damage: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    state = {"a": torch.ones(40, 40)}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    data = path.read_bytes()
    path.write_bytes(
        {"cut": data[: len(data) // 2], "empty": b"", "noise": data[::-1], "huge": b"\xff" * 8 + data}[damage]
    )
    with pytest.raises(DataError, match=f"w{suffix}") as caught:
        transfer.read_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [([1, 2], "table of tensors"), ({"a": 3}, "table of tensors"), ({"a": torch.tensor([1, np.nan])}, "not finite")],
    ids=["list", "number", "nan"],
)  # fmt: skip
def test_files_of_something_else(content: Any, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(DataError, match=words):
        transfer.read_weights(tmp_path / "w.pth")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not there"):
        transfer.read_weights(tmp_path / "w.pth")
    with pytest.raises(DataError, match="no file"):
        transfer.read_weights(tmp_path)


def test_published_files_are_fetched_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hashlib import sha256

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server = tmp_path / "server"
    server.mkdir()
    monkeypatch.setattr(transfer, "SERVER", f"{server.as_uri()}/")
    right = f"net-{sha256(b'weights').hexdigest()[:8]}.pth"
    wrong = "other-00000000.pth"
    for name in (right, wrong):
        (server / name).write_bytes(b"weights")
    table: dict[str, tuple[str, dict[str, Any]]] = {
        right: ("resnet18", {}), wrong: ("vgg16", {}), "away-12345678.pth": ("vgg11", {}),
    }  # fmt: skip
    monkeypatch.setattr(transfer, "PUBLISHED", table)
    path = transfer.published("resnet18")
    assert path == tmp_path / "cache" / "netsuke" / "weights" / right
    (server / right).unlink()
    assert transfer.published("resnet18").read_bytes() == b"weights", "found in the cache"
    for model in ("vgg16", "vgg11"):
        with pytest.raises(DataError, match=r"cannot fetch .*put the file at .*weights.*--from"):
            transfer.published(model)
    assert [file.name for file in path.parent.iterdir()] == [right], "nothing half-fetched stays"
    with pytest.raises(OptionError, match=r"no published weights for 'lenet5'.*resnet18"):
        transfer.published("lenet5")


def test_published_names_are_networks_of_ours() -> None:
    from netsuke.lab.models import MODELS

    for name, (model, options) in transfer.PUBLISHED.items():
        assert model in MODELS
        build(model, (3, 64, 64), 2, **options) if options else None
        assert len(name.rpartition("-")[2].partition(".")[0]) in (8, 10)
