"""Integer graphs as int8 TFLite files: equal to the NumPy reference where it is proved, by LiteRT with XNNPACK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphs import artifact_of, integer_graphs, random_graph, random_images, small_artifact
from netsuke import zoo
from netsuke.artifact import Artifact
from netsuke.data import Dataset
from netsuke.export import TARGETS
from netsuke.export import tflite as target
from netsuke.export.rounding import stairs
from netsuke.export.tflite import scaling
from netsuke.graph import INPUT, Graph, Op

pytest.importorskip("ai_edge_litert", reason="needs LiteRT: pip install 'netsuke[tflite]'")

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
HALF = Op("halve", "half", (INPUT,))


def logits(artifact: Artifact, images: np.ndarray) -> np.ndarray:
    return target.runner(target.encode(artifact))(images)


def assert_equal_where_proved(artifact: Artifact, n: int = 6) -> None:
    images = random_images(artifact.graph, n)
    got, want = logits(artifact, images), artifact.logits(images)
    assert got.dtype == want.dtype == np.int32
    assert got.shape == want.shape
    if not target.unproved(artifact):
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(logits(artifact, images[2:3]), want[2:3])


@pytest.mark.slow
@pytest.mark.parametrize("extended", [False, True])
def test_random_graphs(extended):
    @QUICK
    @given(integer_graphs(extended))
    def check(pair):
        assert_equal_where_proved(artifact_of(pair))

    check()


@pytest.mark.parametrize("seed", range(20))
def test_a_few_graphs(seed):
    assert_equal_where_proved(artifact_of(random_graph(seed, extended=seed % 2 == 1)))


def test_every_pixel_is_halved():
    artifact = artifact_of((Graph((1, 16, 16), (HALF, Op("flatten", "flat", ("half",)))), {}))
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    np.testing.assert_array_equal(logits(artifact, images), artifact.logits(images))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("each", [False, True])
def test_tables(signed, each):
    rng = np.random.default_rng(0)
    first = rng.integers(-127, 128, (2, 128) if each else 128).astype(np.int32)
    second = rng.integers(-127 if signed else 0, 128, (2, 255) if each else 255).astype(np.int32)
    ops = (
        HALF,
        Op("lookup", "a", ("half",), {"signed": True}),
        Op("lookup", "b", ("a",), {"signed": signed}),
        Op("flatten", "flat", ("b",)),
    )
    artifact = artifact_of((Graph((2, 16, 16), ops), {"a.table": first, "b.table": second}))
    assert not target.unproved(artifact)
    assert_equal_where_proved(artifact, 3)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("multipliers", "shift"), [([181, 90], 8), ([255, 1], 7), ([1, 1], 1), ([300, 77], 9)]
)
def test_sums_of_every_pair(signed, multipliers, shift):
    """A map beside its transpose: all pairs of -127..127 and -127..127."""
    values = np.arange(255).astype(np.int32) - 127
    tables = {
        "a.table": np.stack([values[:128], values[127:]]),
        "b.table": np.stack([values[127:], values[:128]]),
    }
    ops = (
        HALF,
        Op("lookup", "a", ("half",), {"signed": True}),
        Op("lookup", "b", ("half",), {"signed": True}),
        Op("shuffle", "c", ("b",), {"groups": 2}),
        Op("qadd", "sum", ("a", "c"), {"multipliers": multipliers, "shift": shift, "signed": signed}),
        Op("flatten", "flat", ("sum",)),
    )
    artifact = artifact_of((Graph((2, 128, 128), ops), tables))
    images = np.repeat(np.arange(128, dtype=np.uint8)[None] * 2, 128, 0)[None, None].repeat(2, 1)
    images[0, 1] = images[0, 1].T
    assert not target.unproved(artifact)
    np.testing.assert_array_equal(logits(artifact, images), artifact.logits(images))


# --- rounding ---------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    m=st.integers(1, 1 << 13), s=st.integers(0, 16), reach=st.integers(1, 1 << 15), signed=st.booleans(),
    room=st.sampled_from([1, 18, 127]), seed=st.integers(0, 1000),
)  # fmt: skip
def test_what_is_proved_holds_for_every_sum(m, s, reach, signed, room, seed):
    """The arithmetic of LiteRT as it is written down, on a long run of sums."""
    bounds = np.array([-reach]), np.array([reach])
    ms, ss = np.array([m]), np.array([s])
    scale = scaling.weight_scales(
        bounds, ms, ss, np.float32(0.37), scaling.SIGNED, signed=signed, near=np.zeros(1, np.int64), room=room
    )
    acc = np.arange(-reach, reach + 1)
    if len(acc) > 5000:
        acc = np.random.default_rng(seed).integers(-reach, reach + 1, 5000)
    want = np.clip((acc * m + ((1 << s) >> 1)) >> s, -127 if signed else 0, 127)
    quick, _ = scaling.effective(np.float32(0.37), scale.values, scaling.SIGNED)
    got = np.clip(scaling.single(acc * scale.gain + scale.offsets, quick), -127 if signed else 0, 127)
    if scale.proved:
        np.testing.assert_array_equal(got, want)


def test_ties_above_and_below_zero_need_narrow_weights():
    bounds, one = (np.array([-100]), np.array([100])), np.array([1])
    given = bounds, one, one, np.float32(1), scaling.SIGNED  # acc / 2: every odd sum is a tie
    near = np.zeros(1, np.int64)
    wide = scaling.weight_scales(*given, signed=True, near=near)
    narrow = scaling.weight_scales(*given, signed=True, near=near, room=2)
    assert (wide.proved, narrow.proved) == (False, True)
    assert narrow.gain == 2
    assert scaling.weight_scales(*given, signed=False, near=near).proved


@settings(max_examples=200, deadline=None)
@given(st.integers(-(1 << 20), 1 << 20), st.floats(2.0**-20, 0.99))
def test_the_built_in_kernels_round_to_the_nearest(acc, scale):
    for once in (False, True):
        got = int(scaling.fixed(np.array([acc]), np.array([scale]), once=once)[0])
        assert abs(got - acc * scale) <= 1.001


def test_stairs_with_an_offset_are_the_same_levels():
    given = np.array([-500]), np.array([500]), np.array([37]), np.array([8])
    plain, moved = stairs(*given, signed=True), stairs(*given, signed=True, gain=5, offset=2)
    np.testing.assert_array_equal(plain.levels, moved.levels)
    np.testing.assert_array_equal(plain.sums * 5 + 2, moved.sums)


def test_layers_without_a_proof_are_spelled_or_stay_int8():
    """Halves with a sign, of 8-bit weights: ties on both sides of zero."""
    tensors = {
        "y.weight": np.full((1, 1, 1, 1), 127, np.int8), "y.bias": np.array([-64 * 127], np.int32),
        "y.multiplier": np.ones(1, np.int32), "y.shift": np.ones(1, np.int32),
    }  # fmt: skip
    attrs = {"stride": [1, 1], "padding": [0] * 4, "groups": 1, "bits": 8, "signed": True}
    ops = (HALF, Op("qconv2d", "y", ("half",), attrs), Op("flatten", "flat", ("y",)))
    artifact = artifact_of((Graph((1, 16, 16), ops), tensors))
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    assert target.unproved(artifact, exact=False) == ["y"]
    assert not target.unproved(artifact)
    np.testing.assert_array_equal(logits(artifact, images), artifact.logits(images))
    near = target.runner(target.encode(artifact, exact=False))(images)
    assert np.abs(near - artifact.logits(images)).max() <= 1


# --- the file ---------------------------------------------------------------------------------------


def test_the_file_is_int8_with_a_scale_a_channel():
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(target.encode(small_artifact()))
    tensors = model.subgraphs[0].tensors
    activations = [t for t in tensors if t.buffer == 0]
    int8 = [t for t in activations if t.type == schema.TensorType.INT8]
    assert len(int8) >= 5
    assert all(len(t.quantization.scale) == 1 and t.quantization.zeroPoint == [0] for t in int8)
    weights = [t for t in tensors if t.buffer and t.type == schema.TensorType.INT8 and len(t.shape) == 4]
    assert {len(t.quantization.scale) for t in weights} == {4, 6}
    assert model.metadata is None
    assert tensors[model.subgraphs[0].outputs[0]].quantization.scale == [pytest.approx(0.01)]


def test_the_built_in_kernels_take_the_file_too():
    artifact = small_artifact()
    images = random_images(artifact.graph, 20)
    got = target.runner(target.encode(artifact), delegates=False)(images)
    want = artifact.logits(images)
    assert (
        np.abs(got - want).max() <= 4 * np.abs(want).max() / 127
    )  # steps of int8 logits: its layers round as they do


def test_large_sums_do_not_overflow_the_built_in_kernels():
    attrs = {"multipliers": [1 << 12, 1 << 12], "shift": 1, "signed": False}
    ops = (HALF, Op("qadd", "sum", ("half", "half"), attrs), Op("flatten", "flat", ("sum",)))
    artifact = artifact_of((Graph((1, 16, 16), ops), {}))
    image = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    got = target.runner(target.encode(artifact), delegates=False)(image)
    np.testing.assert_array_equal(got, artifact.logits(image))


@pytest.mark.parametrize("name", zoo.names())
def test_shipped_models(name: str, mnist: Dataset, tmp_path: Path):
    artifact = Artifact.load(zoo.path(name))
    images = mnist.test.images[:2000]
    if artifact.graph.input_shape != mnist.image_shape:
        images = random_images(artifact.graph, 200)
    want = artifact.logits(images)
    got = TARGETS["tflite"].run(TARGETS["tflite"].write(artifact, tmp_path), images)
    assert np.abs(got - want).max() <= np.abs(want).max() / 127
    assert (got.argmax(1) == want.argmax(1)).mean() >= 0.999
