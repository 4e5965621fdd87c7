"""What a layer bears: the figures against networks changed by hand, what is chosen from them, what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lab.sets import blobs
from lab.test_models import CASES, Options, stirred
from netsuke.data import Dataset
from netsuke.data.dataset import empty_like
from netsuke.errors import DataError, OptionError
from netsuke.lab.channels import Channels
from netsuke.lab.inference import logits
from netsuke.lab.lower import lower
from netsuke.lab.mixed import rounded_weight
from netsuke.lab.models import build
from netsuke.lab.modules import FloatGraph
from netsuke.lab.removal import remove
from netsuke.lab.sensitivity import Row, Sensitivity, ratios_from, sample, sensitivity, widths_from
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Training, train
from netsuke.lab.steps.weightonly import weight_only


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> nn.Module:
    model = build("convnet", digits.image_shape, 10, width=0.25, norm=True, dropout=0.0)
    return train(model, digits, Training(epochs=4, batch=32, lr=4e-3))


def judged(model: nn.Module, data: Dataset) -> tuple[float, float]:
    """Accuracy and loss on all validation images."""
    out = logits(model, torch.from_numpy(data.val.images.copy()))
    labels = torch.from_numpy(data.val.labels)
    return float((out.argmax(1) == labels).float().mean()), float(F.cross_entropy(out, labels))


def by_hand(model: nn.Module, data: Dataset, row: Row) -> FloatGraph:
    """The whole network with the change that a row tells of."""
    graph, arrays = lower(model, data.image_shape)
    op = next(op for op in graph.ops if op.name == row.layer)
    name = op.tensor("weight")
    weight = torch.from_numpy(arrays[name])
    if row.technique == "bits":
        scales = 1 if op.name == graph.output else len(weight)
        arrays[name] = rounded_weight(weight, int(row.level), scales).numpy()
    elif row.technique == "unstructured":
        limit = np.sort(np.abs(arrays[name]), axis=None)[round(row.level * weight.numel()) - 1]
        arrays[name] = np.where(np.abs(arrays[name]) <= limit, 0, arrays[name]).astype(np.float32)
    else:
        channels = Channels(graph, arrays)
        norms = weight.abs().flatten(1).sum(1)
        weakest = norms.argsort()[: round(row.level * len(norms))].tolist()
        return FloatGraph(*remove(graph, arrays, {int(channels.at[op.name][k]) for k in weakest}))
    return FloatGraph(graph, arrays)


def test_figures_are_those_of_networks_changed_by_hand(trained: nn.Module, digits: Dataset) -> None:
    found = sensitivity(trained, digits, widths=(4, 1), ratios=(0.5,))
    assert (found.accuracy, found.loss) == pytest.approx(judged(trained, digits), abs=1e-5)
    assert (found.split, found.n) == ("val", len(digits.val))
    assert {row.technique for row in found.rows} == {"bits", "unstructured", "channels"}
    for row in found.rows:
        assert (row.accuracy, row.loss) == pytest.approx(
            judged(by_hand(trained, digits, row), digits), abs=1e-4
        ), row
        assert row.baseline == found.accuracy
    assert min(row.accuracy for row in found.rows) < found.accuracy - 0.05, "some change shows"


def test_rows_tell_what_a_weight_takes(trained: nn.Module, digits: Dataset) -> None:
    found = sensitivity(trained, digits, widths=(8, 3), ratios=(0.5,), images=50)
    for row in found.rows:
        if row.technique == "bits":
            assert row.bytes == -(-row.parameters * int(row.level) // 8)
        elif row.technique == "unstructured":
            assert row.bytes == 4 * row.parameters, "zeros take bytes, too"
        else:
            assert row.bytes == 2 * row.parameters, "half of the channels"
    assert list(found.of("bits")) == list(dict.fromkeys(row.layer for row in found.rows))
    assert json.loads(json.dumps(found.to_json()))["rows"][0]["layer"] == found.rows[0].layer


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_architecture(name: str, options: Options) -> None:
    data = blobs((1, 28, 28), n=40)
    model = stirred(build(name, data.image_shape, 4, seed=3, **options))
    graph, _ = lower(model, data.image_shape)
    found = sensitivity(model, data, widths=(2,), ratios=(0.5,), images=6)
    assert list(found.of("bits")) == [op.name for op in graph.ops if op.kind in ("conv2d", "dense")]
    assert found.of("channels")
    assert all(np.isfinite([row.loss, row.accuracy]).all() for row in found.rows)
    assert any(row.kind == "depthwise" for row in found.rows) == any(
        part in name for part in ("mobilenet", "shufflenet", "efficientnet", "ghostnet", "separable")
    )


def test_deterministic_and_the_model_untouched(trained: nn.Module, digits: Dataset) -> None:
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    done: list[float] = []
    ask: dict[str, Any] = {"widths": (3,), "ratios": (0.5,), "images": 40, "seed": 5}
    first = sensitivity(trained, digits, **ask, progress=lambda share, info, resumed: done.append(share))
    assert sum(done) == pytest.approx(1)
    assert first == sensitivity(trained, digits, **ask)
    assert first != sensitivity(trained, digits, **{**ask, "seed": 6})
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


def test_test_images_are_never_looked_at(trained: nn.Module, digits: Dataset) -> None:
    none = empty_like(digits.test.images)
    ask: dict[str, Any] = {"widths": (3,), "ratios": (), "images": 40}
    assert sensitivity(trained, digits, **ask) == sensitivity(trained, replace(digits, test=none), **ask)
    assert sensitivity(trained, replace(digits, val=none), **ask).split == "train"
    with pytest.raises(DataError, match="no train images"):
        sensitivity(trained, replace(digits, val=none, train=none), **ask)


def test_a_sample_is_drawn_without_repetition(digits: Dataset) -> None:
    marked = replace(digits, val=replace(digits.val, labels=np.arange(len(digits.val))))
    _, drawn = sample(marked, 50, seed=1)
    assert len(set(drawn.labels.tolist())) == 50
    _, everything = sample(marked, 10**6, seed=1)
    assert everything.labels.tolist() == marked.val.labels.tolist()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"widths": (9,)}, "widths must be 1 to 8 bits; got 9"),
        ({"ratios": (1.0,)}, "ratios are shares removed, above 0 and below 1; got 1"),
        ({"ratios": (0.0,)}, "ratios are shares removed, above 0 and below 1; got 0"),
        ({"widths": (), "ratios": ()}, "needs widths or ratios"),
        ({"images": 0}, "images must be at least 1; got 0"),
        ({"seed": -1}, "seed must be 0 to 4294967295; got -1"),
    ],
)
def test_options(changes: dict[str, Any], said: str, trained: nn.Module, digits: Dataset) -> None:
    with pytest.raises(OptionError, match=said):
        sensitivity(trained, digits, **changes)


def test_quantised_models_are_refused(trained: nn.Module, digits: Dataset) -> None:
    for small in (quantize(trained, digits), weight_only(trained, digits)):
        with pytest.raises(OptionError, match="takes float models; this one is quantised"):
            sensitivity(small, digits)


# --- what is chosen from them -----------------------------------------------------------------------


def table(technique: str, falls: dict[str, dict[float, float]]) -> Sensitivity:
    rows = [
        Row(layer, "dense", 100, 100, technique, level, 0.9 - fall, 0.1, 0.9)
        for layer, levels in falls.items()
        for level, fall in levels.items()
    ]
    return Sensitivity(tuple(rows), 0.9, 0.1, "val", 100, 0)


def test_the_largest_ratio_up_to_which_all_are_bearable() -> None:
    found = table(
        "unstructured",
        {
            "even": {0.5: 0.0, 0.7: 0.01, 0.9: 0.2},
            "lucky": {0.5: 0.0, 0.7: 0.05, 0.9: 0.0},  # one lucky draw beyond a bad one does not count
            "tender": {0.5: 0.3, 0.7: 0.4, 0.9: 0.5},
            "odd[0]": {0.9: -0.01},
        },
    )
    assert ratios_from(found, 0.01) == {"even": 0.7, "lucky": 0.5, "tender": 0.0, "odd[[]0]": 0.9}
    assert ratios_from(found, 0.01, "channels") == {}


def test_the_narrowest_width_down_to_which_all_are_bearable() -> None:
    found = table("bits", {"even": {8: 0.0, 4: 0.01, 2: 0.2}, "tender": {8: 0.02, 4: 0.0, 2: 0.0}})
    assert widths_from(found, 0.01) == {"even": 4, "tender": 8}


@given(
    st.dictionaries(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), st.integers(-100, 500), min_size=1),
    st.lists(st.integers(0, 500), min_size=2, max_size=2),
)
def test_allowing_more_never_prunes_less(falls: dict[float, int], allowed: Sequence[int]) -> None:
    """Falls and what is allowed in thousandths."""
    low, high = sorted(allowed)
    found = table("unstructured", {"layer": {level: fall / 1000 for level, fall in falls.items()}})
    chosen = ratios_from(found, low / 1000)["layer"]
    assert chosen <= ratios_from(found, high / 1000)["layer"]
    assert all(fall <= low for level, fall in falls.items() if level <= chosen)
    tried = sorted(falls)
    beyond = [level for level in tried if level > chosen]
    assert not beyond or falls[beyond[0]] > low


def test_what_is_chosen_is_taken_by_the_steps(trained: nn.Module, digits: Dataset) -> None:
    found = sensitivity(trained, digits, widths=(8, 6, 4, 2), ratios=(0.3, 0.6), images=100)
    widths = widths_from(found, 0.02)
    graph, _ = weight_only(trained, digits, layers=widths).to_graph()
    assert {op.name: op.attrs["bits"] for op in graph.ops if "bits" in op.attrs} == widths
    from netsuke.lab.steps.prune import prune

    ratios = ratios_from(found, 0.05)
    _, arrays = lower(prune(trained, digits, layers=ratios, scope="layer"), digits.image_shape)
    for layer, ratio in ratios.items():
        weight = arrays[f"{layer}.weight"]
        assert (weight == 0).mean() == pytest.approx(ratio, abs=1 / weight.size)
