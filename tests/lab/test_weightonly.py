"""Weight-only and dynamic quantisation: every architecture, every runtime that takes them, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lab.sets import blobs
from lab.test_models import CASES, Options, small, stirred
from netsuke.artifact import Artifact
from netsuke.data import Dataset
from netsuke.errors import OptionError, UnsupportedOp
from netsuke.export import TARGETS
from netsuke.export import onnx as target
from netsuke.graph import Graph, Op
from netsuke.lab.carve import carve
from netsuke.lab.inference import accuracy, logits
from netsuke.lab.models import MODELS, build
from netsuke.lab.modules import FloatGraph
from netsuke.lab.steps.dynamic import Dynamic, dynamic
from netsuke.lab.steps.train import Training, train
from netsuke.lab.steps.weightonly import WeightOnly, quantized_weight, weight_only
from netsuke.lab.storedgraph import StoredGraph

STEPS: dict[str, Callable[..., StoredGraph]] = {"weight_only": weight_only, "dynamic": dynamic}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return blobs((1, 28, 28), n=60)


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> nn.Module:
    model = build("convnet", digits.image_shape, 10, width=0.25, norm=True, dropout=0.0)
    return train(model, digits, Training(epochs=6, batch=32, lr=4e-3))


# --- every architecture -----------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_weight_only_on_every_architecture(
    name: str, options: Options, bits: int, data: Dataset, tmp_path: Path
) -> None:
    model = stirred(build(name, data.image_shape, 4, seed=3, **options))
    before, after = (carve(m, data, recipe={}, seed=0) for m in (model, weight_only(model, data, bits=bits)))
    raw = data.test.images[:8]
    want = after.logits(raw)
    assert np.abs(want - before.logits(raw)).max() > 0, "rounding changes something"
    near = 1e-4 * max(1.0, np.abs(want).max())
    assert np.abs(target.run(target.write(after, tmp_path), raw) - want).max() <= near
    twin = logits(weight_only(model, data, bits=bits), torch.from_numpy(raw.copy()))
    assert np.abs(twin.numpy() - want).max() <= near
    for artifact, path in ((before, tmp_path / "float.netsuke"), (after, tmp_path / "small.netsuke")):
        artifact.save(path)
    weights = sum(t.size for n, t in after.tensors.items() if n.endswith(".weight"))
    saved = before.size_bytes - after.size_bytes
    scales = sum(t.nbytes for n, t in after.tensors.items() if n.endswith(".scale"))
    ends = sum(n.endswith(".weight") for n in after.tensors)
    assert abs(saved - (weights * (32 - bits) / 8 - scales)) < ends + 1, "every weight takes its bits"
    assert (tmp_path / "small.netsuke").stat().st_size < (tmp_path / "float.netsuke").stat().st_size


@pytest.mark.parametrize(("name", "options"), CASES)
def test_dynamic_on_every_architecture(name: str, options: Options, data: Dataset, tmp_path: Path) -> None:
    """Where another runtime's last bit takes an activation over a half, that image's logits move by a step."""
    model = stirred(build(name, data.image_shape, 4, seed=3, **options))
    before, after = (carve(m, data, recipe={}, seed=0) for m in (model, dynamic(model, data)))
    raw = data.test.images[:8]
    want = after.logits(raw)
    largest = np.abs(want).max()
    runs = {
        "onnx": target.run(target.write(after, tmp_path), raw),
        "torch": logits(dynamic(model, data), torch.from_numpy(raw.copy())).numpy(),
    }
    for runtime, got in runs.items():
        gap = np.abs(got - want)
        assert np.median(gap) <= 1e-4 * max(1.0, largest), runtime
        assert gap.max() <= 0.1 * largest, runtime
    for artifact, path in ((before, tmp_path / "float.netsuke"), (after, tmp_path / "small.netsuke")):
        artifact.save(path)
    assert (tmp_path / "small.netsuke").stat().st_size < (tmp_path / "float.netsuke").stat().st_size
    assert after.size_bytes < before.size_bytes / 2


RELOAD = """
import sys
import numpy as np
from netsuke.artifact import Artifact
raw = np.load("raw.npy")
for name in sys.argv[1:]:
    np.save(f"{name}.npy", Artifact.load(f"{name}.netsuke").logits(raw))
print(sorted(name for name in sys.modules if name == "torch" or name.startswith("netsuke.lab")))
"""


def test_every_architecture_reloads_without_torch(data: Dataset, tmp_path: Path) -> None:
    raw = data.test.images[:4]
    np.save(tmp_path / "raw.npy", raw)
    want: dict[str, np.ndarray] = {}
    for name in MODELS:
        model = stirred(build(name, data.image_shape, 4, seed=3, **small(name)[0]))
        for key, step in STEPS.items():
            artifact = carve(step(model, data, bits=5), data, recipe={}, seed=0)
            artifact.save(tmp_path / f"{name}-{key}.netsuke")
            want[f"{name}-{key}"] = artifact.logits(raw)
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, *want], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    for key, value in want.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{key}.npy"), value)


# --- what it does -----------------------------------------------------------------------------------


def test_accuracy_stays(trained: nn.Module, digits: Dataset) -> None:
    before, _ = accuracy(trained, digits.test)
    assert before > 0.9
    for step, bits, loss in ((weight_only, 8, 0.01), (weight_only, 4, 0.03), (dynamic, 8, 0.01)):
        assert accuracy(step(trained, digits, bits=bits), digits.test)[0] > before - loss, (step, bits)


def test_dynamic_runs_alike_everywhere(trained: nn.Module, digits: Dataset) -> None:
    """ReLU and max pooling leave no bit to the runtime, so every logit is the same, whatever the batch."""
    artifact = carve(dynamic(trained, digits), digits, recipe={}, seed=0)
    images = digits.test.images
    session = target.session(target.encode(artifact))
    got, want = target.predict(session, images), artifact.logits(images)
    np.testing.assert_allclose(got, want, atol=1e-4)
    np.testing.assert_array_equal(got.argmax(1), want.argmax(1))
    alone = np.concatenate([target.predict(session, image[None]) for image in images[:40]])
    np.testing.assert_allclose(alone, got[:40], atol=1e-4)


def test_layers_have_widths_of_their_own(trained: nn.Module, digits: Dataset) -> None:
    plain = carve(trained, digits, recipe={}, seed=0)
    names = [op.name for op in plain.graph.ops if op.kind in ("conv2d", "dense")]
    first, last = names[0], names[-1]
    mixed = weight_only(trained, digits, WeightOnly(bits=4, layers={"*": 3, first: 8, last: 32})).to_graph()[
        0
    ]
    kinds = {op.name: (op.kind, op.attrs.get("bits")) for op in mixed.ops if op.name in names}
    assert kinds[first] == ("wconv2d", 8)
    assert kinds[last] == ("dense", None)
    assert {kinds[name] for name in names[1:-1]} <= {("wconv2d", 3), ("wdense", 3)}


def test_the_model_stays_as_it_was(trained: nn.Module, digits: Dataset) -> None:
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    weight_only(trained, digits, bits=2)
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


def test_pruned_weights_stay_zero(trained: nn.Module, digits: Dataset) -> None:
    graph, tensors = carve(trained, digits, recipe={}, seed=0).graph, {}
    for name, array in carve(trained, digits, recipe={}, seed=0).tensors.items():
        small_ones = np.abs(array) < np.quantile(np.abs(array), 0.5) if name.endswith(".weight") else False
        tensors[name] = np.where(small_ones, 0, array).astype(np.float32)
    for bits in (8, 2):
        _, found = weight_only(FloatGraph(graph, tensors), digits, bits=bits).to_graph()
        for name, array in tensors.items():
            if name.endswith(".weight"):
                assert not found[name][array == 0].any()


@pytest.mark.parametrize("bits", range(2, 9))
def test_clipping_minimises_the_squared_error(bits: int) -> None:
    weight = np.random.default_rng(bits).standard_t(3, (6, 40)).astype(np.float32)
    errors = {}
    for clip in (True, False):
        whole, scale = quantized_weight(weight, bits, clip=clip)
        limit = (1 << (bits - 1)) - 1
        assert (whole.dtype, scale.dtype, scale.shape) == (np.int8, np.float32, (6,))
        assert np.abs(whole).max() <= limit
        errors[clip] = ((whole * scale[:, None] - weight) ** 2).sum(1)
        if not clip:
            np.testing.assert_allclose(scale, np.abs(weight).max(1) / limit, rtol=1e-6)
            assert (np.abs(whole * scale[:, None] - weight).max(1) <= scale * 0.5001).all()
    assert (errors[True] <= errors[False] + 1e-6).all()
    assert bits > 4 or errors[True].sum() < errors[False].sum()


def test_a_silent_layer_is_no_trouble(digits: Dataset) -> None:
    ops = (
        Op("normalize", "n", ("input",), {"scales": [1 / 16], "offsets": [0.0]}),
        Op("flatten", "f", ("n",)),
        Op("dense", "d", ("f",)),
    )
    tensors = {"d.weight": np.zeros((10, 64), np.float32), "d.bias": np.arange(10, dtype=np.float32)}
    silent = FloatGraph(Graph((1, 8, 8), ops), tensors)
    for step in STEPS.values():
        artifact = carve(step(silent, digits), digits, recipe={}, seed=0)
        assert (artifact.logits(digits.test.images[:2]) == np.arange(10)).all()


# --- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [WeightOnly, Dynamic])
def test_options_are_checked_before_anything_runs(options: Any) -> None:
    for changes, said in (
        ({"bits": 9}, "bits must be 2 to 8; got 9"),
        ({"bits": 1}, "bits must be 2 to 8; got 1"),
        ({"layers": {"fc": 16}}, "layers: 'fc' takes 2 to 8 bits, or 32 to stay in float; got 16"),
    ):
        with pytest.raises(OptionError) as caught:
            replace(options(), **changes)
        assert str(caught.value) == said


def test_a_misspelt_layer_names_the_nearest(trained: nn.Module, digits: Dataset) -> None:
    last = carve(trained, digits, recipe={}, seed=0).graph.ops[-1].name
    with pytest.raises(OptionError, match=f"no layer '{last}x'; did you mean '{last}'"):
        weight_only(trained, digits, layers={f"{last}x": 4})


@pytest.mark.parametrize("key", STEPS)
def test_training_a_finished_network_is_refused(key: str, trained: nn.Module, digits: Dataset) -> None:
    with pytest.raises(OptionError, match=r"nothing left to train: .* train the float model before"):
        train(STEPS[key](trained, digits), digits, Training(epochs=1))


def test_once_is_enough(trained: nn.Module, digits: Dataset) -> None:
    with pytest.raises(OptionError, match="no float layer left to quantise"):
        dynamic(weight_only(trained, digits), digits)
    half = weight_only(trained, digits, layers={"*": 32, carve_last(trained, digits): 4})
    kinds = {op.kind for op in dynamic(half, digits).to_graph()[0].ops}
    assert {"dconv2d", "wdense"} <= kinds, "what is left in float can follow"


def carve_last(model: nn.Module, data: Dataset) -> str:
    return carve(model, data, recipe={}, seed=0).graph.output


@pytest.mark.parametrize(("key", "kind"), [("weight_only", "wconv2d"), ("dynamic", "dconv2d")])
def test_tflite_takes_them_and_c_says_what_it_takes(
    key: str, kind: str, trained: nn.Module, digits: Dataset, tmp_path: Path
) -> None:
    artifact: Artifact = carve(STEPS[key](trained, digits), digits, recipe={}, seed=0)
    path = TARGETS["tflite"].write(artifact, tmp_path)
    images = digits.test.images[:50]
    assert np.abs(TARGETS["tflite"].run(path, images) - artifact.logits(images)).max() < 1e-3
    with pytest.raises(UnsupportedOp, match="c takes integer graphs: quantise the model first"):
        TARGETS["c"].write(artifact, tmp_path)
    with pytest.raises(UnsupportedOp, match=f"cannot train '{kind}'"):
        FloatGraph(artifact.graph, artifact.tensors)
