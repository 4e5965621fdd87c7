"""ONNX files against the NumPy reference, by ONNX Runtime."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphs import (
    artifact_of,
    float_graphs,
    integer_graphs,
    random_graph,
    random_images,
    rounded_graphs,
    small_artifact,
)
from netsuke.artifact import Artifact
from netsuke.cli import export as cli
from netsuke.errors import ArtifactError, GraphError, OptionError
from netsuke.export import onnx as target
from netsuke.export.onnx import rounding_scales
from netsuke.graph import Graph, Op

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


OPSETS = st.sampled_from([13, 17, 20])


def predicted(artifact: Artifact, images: np.ndarray, opset: int = 17) -> np.ndarray:
    return target.predict(target.session(target.encode(artifact, opset=opset)), images)


def kinds(artifact: Artifact) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(target.encode(artifact)).graph.node]


@QUICK
@given(integer_graphs(extended=True), OPSETS)
def test_integer_is_bit_identical(pair, opset):
    artifact = artifact_of(pair)
    images = random_images(artifact.graph, 5)
    got, want = predicted(artifact, images, opset), artifact.logits(images)
    assert got.dtype == want.dtype == np.int32
    np.testing.assert_array_equal(got, want)


@QUICK
@given(float_graphs(extended=True), OPSETS)
def test_float_agrees(pair, opset):
    artifact = artifact_of(pair)
    images = random_images(artifact.graph, 5)
    got, want = predicted(artifact, images, opset), artifact.logits(images)
    assert got.dtype == want.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)


ROUNDED = st.sampled_from([13, 17, 18, 21])


@QUICK
@given(rounded_graphs("w"), ROUNDED)
def test_weight_only_agrees(pair, opset):
    artifact = artifact_of(pair)
    images = random_images(artifact.graph, 5)
    np.testing.assert_allclose(
        predicted(artifact, images, opset), artifact.logits(images), atol=1e-4, rtol=1e-4
    )


@QUICK
@given(rounded_graphs("d"), ROUNDED)
def test_dynamic_agrees(pair, opset):
    artifact = artifact_of(pair)
    images = random_images(artifact.graph, 5)
    images[3] //= 60  # its peak is another than its neighbours'
    np.testing.assert_allclose(
        predicted(artifact, images, opset), artifact.logits(images), atol=1e-5, rtol=1e-5
    )


def layered(kind: str, bits: int, width: int = 128) -> Artifact:
    """A dense layer of 64 inputs and `width` outputs, its weights floats or of so many bits."""
    rng = np.random.default_rng(bits)
    limit = (1 << (bits - 1)) - 1
    tensors = {
        "d.weight": rng.integers(-limit, limit + 1, (width, 64)),
        "d.bias": np.zeros(width, np.float32),
    }
    tensors["d.weight"] = tensors["d.weight"].astype(np.float32 if kind == "dense" else np.int8)
    if kind != "dense":
        tensors["d.scale"] = rng.uniform(0.001, 0.1, width).astype(np.float32)
    ops = (
        Op("normalize", "n", ("input",), {"scales": [1 / 255], "offsets": [-0.5]}),
        Op("flatten", "f", ("n",)),
        Op(kind, "d", ("f",), {} if kind == "dense" else {"bits": bits}),
    )
    return Artifact(Graph((1, 8, 8), ops), tensors, {"classes": [str(i) for i in range(width)]})


@pytest.mark.parametrize(("kind", "bits", "opset", "share"), [
    ("wdense", 8, None, 0.3), ("wdense", 4, None, 0.17), ("wdense", 2, None, 0.17), ("wdense", 4, 17, 0.3),
    ("ddense", 8, None, 0.32),
])  # fmt: skip
def test_integer_weights_make_small_files(kind, bits, opset, share):
    size = len(target.encode(layered(kind, bits), opset=opset))
    assert size < share * len(target.encode(layered("dense", bits)))


def test_depthwise_dynamic_layers_take_the_fast_operator():
    def depthwise(groups: int, weight: int) -> list[str]:
        attrs = {"stride": [1, 1], "padding": [0, 0, 0, 0], "groups": groups, "bits": 8}
        tensors = {"c.weight": np.full((4, 4 // groups, 33, 33), weight, np.int8)}
        tensors |= {"c.scale": np.ones(4, np.float32), "c.bias": np.zeros(4, np.float32)}
        normal = Op("normalize", "n", ("input",), {"scales": [1.0] * 4, "offsets": [0.0] * 4})
        ops = (normal, Op("dconv2d", "c", ("n",), attrs), Op("flatten", "f", ("c",)))
        return kinds(Artifact(Graph((4, 33, 33), ops), tensors, {"classes": list("abcd")}))

    assert "Conv" in depthwise(4, 1)
    assert "ConvInteger" in depthwise(4, 127)  # sums of 2**24, where float32 no longer counts by one
    assert "ConvInteger" in depthwise(1, 1)


def test_random_graphs_take_both_integer_roads():
    seen = {kind for seed in range(40) for kind in kinds(artifact_of(random_graph(seed)))}
    assert {"QLinearConv", "ConvInteger", "MatMulInteger", "MatMul", "BitShift"} <= seen


def convolution(m: int, s: int, *, signed: bool, weight: int = 1, bias: int = 0) -> Artifact:
    """One 1x1 convolution of a 16x16 image of which halve gives every value from 0 to 127, twice."""
    attrs = {
        "stride": [1, 1],
        "padding": [0, 0, 0, 0],
        "groups": 1,
        "bits": 8,
        "signed": signed,
    }
    graph = Graph(
        (1, 16, 16),
        (
            Op("halve", "h", ("input",)),
            Op("qconv2d", "c", ("h",), attrs),
            Op("flatten", "f", ("c",)),
        ),
    )
    tensors = {
        "c.weight": np.full((1, 1, 1, 1), weight, np.int8),
        "c.bias": np.array([bias], np.int32),
        "c.multiplier": np.array([m], np.int32),
        "c.shift": np.array([s], np.int32),
    }
    return Artifact(graph, tensors, {"classes": [str(i) for i in range(256)]})


EVERY = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bias", [0, -63, -64])
@pytest.mark.parametrize(("m", "s"), [(1, 1), (1, 2), (3, 1), (3, 3), (5, 4), (1 << 13, 14), (3 << 20, 22)])
def test_ties(m, s, bias, signed):
    artifact = convolution(m, s, signed=signed, bias=bias)
    sums = np.arange(128) + bias
    ties = (sums * m * 2) % (2 << s) == 1 << s
    assert ties.sum() >= 8  # half of these ties ONNX Runtime would round the other way
    np.testing.assert_array_equal(predicted(artifact, EVERY), artifact.logits(EVERY))


def test_ties_on_one_side_of_zero_use_the_fast_operator():
    assert "QLinearConv" in kinds(convolution(1, 1, signed=False))
    assert "QLinearConv" in kinds(convolution(1, 1, signed=True))
    # Ties above and below zero ask for a scale above and below m / 2**s at once.
    assert "ConvInteger" in kinds(convolution(1, 1, signed=True, bias=-64))


def test_dense_sums_just_below_a_tie_round_down():
    """acc * m one part in 2**18 short of (j + 1/2) * 2**24, which float32 cannot tell from the tie itself."""
    weight, m = np.arange(1, 128), np.arange(60_000, 133_000)
    gap = ((1 << 23) - 127 * weight[:, None] * m) % (1 << 24)
    best = np.where(gap == 0, 1 << 24, gap).argmin(1)
    assert (gap[np.arange(127), best] < 64).sum() > 20
    ops = (
        Op("halve", "h", ("input",)),
        Op("flatten", "f", ("h",)),
        Op("qdense", "d", ("f",), {"bits": 8, "signed": False}),
    )
    tensors = {
        "d.weight": weight[:, None].astype(np.int8),
        "d.bias": np.zeros(127, np.int32),
        "d.multiplier": m[best].astype(np.int32),
        "d.shift": np.full(127, 24, np.int32),
    }
    artifact = Artifact(Graph((1, 1, 1), ops), tensors, {"classes": [str(i) for i in range(127)]})
    images = EVERY.reshape(256, 1, 1, 1)
    np.testing.assert_array_equal(predicted(artifact, images), artifact.logits(images))


def test_signed_sums_just_below_a_tie_round_down():
    """Beside the zero point of 128 float32 has 16 bits left for what lies behind the point; these sums need 20."""
    x, m = np.arange(1, 128)[:, None], np.arange(1, 60_000)
    gap = ((1 << 19) - x * m) % (1 << 20)
    best = np.where(gap == 0, 1 << 20, gap).argmin(1)
    assert (gap[np.arange(127), best] < 8).sum() > 20
    ops = (
        Op("halve", "h", ("input",)),
        Op("flatten", "f", ("h",)),
        Op("qdense", "d", ("f",), {"bits": 8, "signed": True}),
    )
    tensors = {
        "d.weight": np.ones((127, 1), np.int8),
        "d.bias": np.zeros(127, np.int32),
        "d.multiplier": m[best].astype(np.int32),
        "d.shift": np.full(127, 20, np.int32),
    }
    artifact = Artifact(Graph((1, 1, 1), ops), tensors, {"classes": [str(i) for i in range(127)]})
    images = EVERY.reshape(256, 1, 1, 1)
    np.testing.assert_array_equal(predicted(artifact, images), artifact.logits(images))


@pytest.mark.parametrize("signed", [False, True])
def test_products_just_below_a_tie_round_down(signed):
    """Each pixel times the gate that brings their product nearest to (j + 1/2) * 2**22 from below."""
    shift, x = 22, np.arange(128)
    products = np.multiply.outer(np.arange(300, 512), np.multiply.outer(x, x))
    gap = ((1 << (shift - 1)) - products) % (1 << shift)
    gap = np.where(gap == 0, 1 << shift, gap)
    best = gap.min((1, 2)).argmin()
    assert gap[best].min() < 8
    ops = (
        Op("halve", "h", ("input",)),
        Op("lookup", "g", ("h",), {"signed": False}),
        Op("qmul", "m", ("h", "g"), {"multiplier": 300 + int(best), "shift": shift, "signed": signed}),
        Op("flatten", "f", ("m",)),
    )
    tensors = {"g.table": gap[best].argmin(1).astype(np.int32)}
    artifact = Artifact(Graph((1, 16, 16), ops), tensors, {"classes": [str(i) for i in range(256)]})
    np.testing.assert_array_equal(predicted(artifact, EVERY), artifact.logits(EVERY))


def brute(m: int, s: int, first: int, last: int, signed: bool, scale: np.float32) -> bool:
    acc = np.arange(first, last + 1)
    low = -127 if signed else 0
    want = np.clip((acc * m + ((1 << s) >> 1)) >> s, low, 127)
    got = np.clip(np.rint(acc.astype(np.float32) * scale), low, 127)
    return bool((got == want).all())


@pytest.mark.parametrize("signed", [False, True])
def test_a_rounding_scale_is_exact_for_every_sum(signed):
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(200):
        s = int(rng.integers(0, 21))
        m = int(rng.integers(1, max(2, 1 << max(1, min(s, 16)))))
        last = int(rng.integers(1, 200_000))
        first = -int(rng.integers(0, last + 1))
        ends = (np.array([first]), np.array([last]), np.array([m]), np.array([s]))
        scale = rounding_scales(*ends, signed=signed)
        if scale is not None:
            found += 1
            assert brute(m, s, first, last, signed, scale[0]), (m, s, first, last)
    assert found > 60


def test_narrow_multipliers_always_have_a_rounding_scale():
    """The closed form in the docstring: 14 bits of shift, 8 of multiplier."""
    m = np.repeat(np.arange(1, 256), 15)
    s = np.tile(np.arange(15), 255)
    top = np.full(len(m), (1 << 24) - 1)
    top = np.minimum(top, (2**31 - 1 - (1 << s >> 1)) // m)
    assert rounding_scales(-top, top, m, s, signed=False) is not None


def test_write_and_run(tmp_path):
    artifact = small_artifact()
    path = target.write(artifact, tmp_path / "new", "digits")
    assert path == tmp_path / "new" / "digits.onnx"
    assert [p.name for p in path.parent.iterdir()] == ["digits.onnx"]
    images = random_images(artifact.graph, 300)
    np.testing.assert_array_equal(target.run(path, images), artifact.logits(images))
    assert target.run(path, images[:0]).shape == (0, 3)


def test_the_file_holds_nothing_but_the_model(tmp_path):
    model = onnx.load(target.write(small_artifact(), tmp_path))
    assert not model.doc_string
    assert not model.metadata_props
    assert not model.graph.value_info
    assert [(i.name, i.type.tensor_type.elem_type) for i in model.graph.input] == [("image", 2)]
    assert [o.name for o in model.graph.output] == ["logits"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("integer", [False, True])
def test_opsets(opset, integer):
    artifact = small_artifact(integer=integer)
    images = random_images(artifact.graph, 3)
    got = target.predict(target.session(target.encode(artifact, opset=opset)), images)
    np.testing.assert_allclose(got, artifact.logits(images), atol=0 if integer else 1e-4)


def test_refusals(tmp_path):
    artifact = small_artifact()
    with pytest.raises(OptionError, match="13 to 21; got 12"):
        target.encode(artifact, opset=12)
    path = target.write(artifact, tmp_path)
    with pytest.raises(GraphError, match=r"needs uint8 images \[n, 1, 12, 10\]"):
        target.run(path, np.zeros((1, 1, 12, 9), np.uint8))
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ArtifactError, match="ONNX Runtime cannot load"):
        target.run(tmp_path / "bad.onnx", np.zeros((1, 1, 12, 10), np.uint8))
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written"):
        target.write(artifact, tmp_path / "file")


def test_importing_the_exporter_loads_no_onnx():
    code = (
        "import sys, netsuke.export.onnx, netsuke.engine, netsuke.import_onnx;"
        "print(any(name in sys.modules for name in ('onnx', 'onnxruntime')))"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert got.stdout == "False\n"


# --- netsuke export ---------------------------------------------------------------------------------


def test_export_verb(netsuke_cli, tmp_path):
    small_artifact().save(tmp_path / "small.netsuke")
    images = tmp_path / "set"
    for label, shade in (("dark", 40), ("light", 220), ("mid", 120)):
        (images / label).mkdir(parents=True)
        for i in range(12):
            image = np.random.default_rng(i).integers(shade - 30, shade + 30, (12, 10)).astype(np.uint8)
            cv2.imwrite(str(images / label / f"{i}.png"), image)
    args = ("export", "small.netsuke", "--to", "onnx,c", "-o", "out", "--verify", "./set")
    done = netsuke_cli(*args, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["exports"]
    assert [row["target"] for row in rows] == ["onnx", "c"]
    assert all(row["verified"] and row["max_difference"] == 0 and row["n"] > 0 for row in rows)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["small.c", "small.h", "small.onnx"]
    assert rows[1]["flash_bytes"] > 0
    assert rows[0]["files"][0]["bytes"] == (tmp_path / "out/small.onnx").stat().st_size
    done = netsuke_cli(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "flash bytes" in done.stdout
    assert "largest difference" in done.stdout


def test_export_verb_notices_a_difference(monkeypatch, tmp_path):
    artifact = small_artifact()
    artifact.save(tmp_path / "small.netsuke")
    monkeypatch.setattr(cli, "test_images", lambda *given: random_images(artifact.graph, 4))
    monkeypatch.setattr(target, "run", lambda path, images: artifact.logits(images) + 1)
    with pytest.raises(typer.Exit) as caught:
        cli.export(tmp_path / "small.netsuke", to="onnx", out=tmp_path, verify="any")
    assert caught.value.exit_code == 1


def test_export_verb_refuses_an_unknown_target(netsuke_cli, tmp_path):
    small_artifact().save(tmp_path / "small.netsuke")
    done = netsuke_cli("export", "small.netsuke", "--to", "onnx,coreml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "netsuke: unknown target 'coreml'; choose from c, onnx, tflite, wasm\n"
    assert [p.name for p in tmp_path.iterdir()] == ["small.netsuke"]
