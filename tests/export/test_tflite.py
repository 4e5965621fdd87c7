"""TFLite files against the NumPy reference, by LiteRT."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from graphs import artifact_of, float_graphs, random_graph, random_images, rounded_graphs, small_artifact
from netsuke.artifact import Artifact
from netsuke.errors import ArtifactError, GraphError, MissingExtra, UnsupportedOp
from netsuke.export import TARGETS
from netsuke.export import tflite as target
from netsuke.export.tflite import EMIT
from netsuke.graph import OPS, Graph, Op

pytest.importorskip("ai_edge_litert", reason="needs LiteRT: pip install 'netsuke[tflite]'")

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def assert_agrees(artifact: Artifact, n: int = 5) -> list[str]:
    """Logits within 1e-4 of the reference, for many images and for one; the operators of the file."""
    data = target.encode(artifact)
    images = random_images(artifact.graph, n)
    run, want = target.runner(data), artifact.logits(images)
    got = run(images)
    assert got.dtype == want.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(run(images[-1:]), want[-1:], atol=1e-4, rtol=1e-4)
    return operators(data)


def operators(data: bytes) -> list[str]:
    from ai_edge_litert import schema_py_generated as schema

    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if name[0] != "_"}
    model = schema.ModelT.InitFromPackedBuf(data)
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


@QUICK
@given(float_graphs())
def test_random_graphs_agree(pair):
    assert_agrees(artifact_of(pair))


class Chain:
    """A float graph of 2x6x5 images that grows op by op; `end` gives three logits of the newest output."""

    def __init__(self, shape: tuple[int, int, int] = (2, 6, 5), seed: int = 0):
        self.shape, self.rng = shape, np.random.default_rng(seed)
        self.tensors: dict[str, np.ndarray] = {}
        scales = {"scales": [1 / 64] * shape[0], "offsets": [-1.5 - i for i in range(shape[0])]}
        self.ops = [Op("normalize", "x", ("input",), scales)]

    def add(
        self, kind: str, *inputs: str, weights: dict[str, tuple[int, ...]] | None = None, **attrs: Any
    ) -> str:
        name = f"{kind}{len(self.ops)}"
        self.ops.append(Op(kind, name, inputs or (self.ops[-1].name,), attrs))
        for role, shape in (weights or {}).items():
            self.tensors[f"{name}.{role}"] = self.rng.normal(0, 0.5, shape).astype(np.float32)
        return name

    def conv(self, out: int, depth: int, kernel: tuple[int, int] = (1, 1), **attrs: Any) -> str:
        given = {"stride": [1, 1], "padding": [0, 0, 0, 0], "groups": 1} | attrs
        return self.add("conv2d", weights={"weight": (out, depth, *kernel), "bias": (out,)}, **given)

    def end(self) -> Artifact:
        types = Graph(self.shape, (*self.ops, Op("flatten", "end", (self.ops[-1].name,)))).types(self.tensors)
        if len(types[self.ops[-1].name].shape) == 3:
            self.add("flatten")
        self.add("dense", weights={"weight": (3, types["end"].shape[0]), "bias": (3,)})
        return artifact_of((Graph(self.shape, tuple(self.ops)), self.tensors))


CURVES: dict[str, dict[str, Any]] = {
    "relu": {}, "relu6": {}, "silu": {}, "hardswish": {}, "hardsigmoid": {}, "sigmoid": {}, "tanh": {},
    "leakyrelu": {"slope": 0.1}, "channelmean": {}, "channelmax": {}, "globalavgpool": {},
    "prelu": {"weights": {"slope": (2,)}}, "slice": {"start": 1, "stop": 2},
}  # fmt: skip


@pytest.mark.parametrize("kind", CURVES)
def test_on_a_map_and_on_what_it_leaves(kind):
    chain = Chain()
    chain.add(kind, **CURVES[kind])
    assert_agrees(chain.end())


@pytest.mark.parametrize("kind", [k for k in CURVES if not k.startswith(("channel", "global"))])
def test_on_a_vector(kind):
    chain = Chain()
    chain.add("globalavgpool")
    chain.add(kind, **CURVES[kind])
    assert_agrees(chain.end())


@pytest.mark.parametrize("gate", ["channels", "pixels", "all"])
def test_gates(gate):
    chain = Chain()
    if gate != "all":
        chain.add("globalavgpool" if gate == "channels" else "channelmean")
    chain.add("sigmoid")
    chain.add("mul", "x", chain.ops[-1].name)
    chain.add("relu")  # joins the product
    assert "RELU" not in assert_agrees(chain.end())


def test_concatenation_shuffle_and_flatten():
    chain = Chain()
    wide = chain.conv(4, 2)
    chain.add("concat", "x", wide, "x")
    chain.add("shuffle", groups=4)
    chain.add("flatten")
    chain.add("tanh")  # not a dense layer: the map itself must be turned
    assert_agrees(chain.end())


def test_vectors_join():
    chain = Chain()
    means = chain.add("globalavgpool")
    flat = chain.add("flatten", "x")
    chain.add("concat", means, flat)
    assert_agrees(chain.end())


def test_every_op_is_known():
    assert set(EMIT) == set(OPS)


@pytest.mark.parametrize("letter", ["w", "d"])
def test_layers_of_integer_weights_agree(letter):
    @QUICK
    @given(rounded_graphs(letter))
    def check(pair):
        assert_agrees(artifact_of(pair))

    check()


@pytest.mark.parametrize(("bits", "share"), [(8, 1.0), (4, 0.5)])
def test_narrow_weights_are_stored_by_two_a_byte(bits, share):
    rng = np.random.default_rng(0)
    limit = (1 << (bits - 1)) - 1
    tensors = {
        "y.weight": rng.integers(-limit, limit + 1, (10, 4096)).astype(np.int8),
        "y.scale": np.full(10, 0.01, np.float32),
        "y.bias": np.zeros(10, np.float32),
    }
    ops = (
        Op("normalize", "x", ("input",), {"scales": [1 / 255], "offsets": [0.0]}),
        Op("flatten", "f", ("x",)),
        Op("wdense", "y", ("f",), {"bits": bits}),
    )
    artifact = artifact_of((Graph((1, 64, 64), ops), tensors))
    assert len(target.encode(artifact)) < 40960 * share + 2500
    assert_agrees(artifact)


@pytest.mark.parametrize(
    ("padding", "stride", "same"),
    [([1, 1, 1, 1], [1, 1], True), ([0, 0, 1, 1], [2, 2], False), ([0, 1, 1, 1], [2, 2], True),
     ([1, 1, 1, 1], [2, 2], False), ([2, 0, 0, 1], [1, 3], False), ([0, 0, 0, 0], [2, 1], False)],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["conv2d", "depthwise", "maxpool", "avgpool"])
def test_padding_is_a_mode_where_it_can_be(kind, padding, stride, same):
    chain = Chain()
    if kind == "conv2d":
        chain.conv(3, 2, (3, 3), stride=stride, padding=padding)
    elif kind == "depthwise":
        chain.conv(4, 1, (3, 3), stride=stride, padding=padding, groups=2)
    else:
        chain.add(kind, kernel=[3, 3], stride=stride, padding=padding)
    kinds = assert_agrees(chain.end())
    # An average counts the zeros around the map, which SAME would not.
    assert ("PAD" in kinds or "PADV2" in kinds) == (any(padding) and (kind == "avgpool" or not same))


def test_the_form_of_convolutions():
    chain = Chain((4, 8, 8))
    chain.conv(8, 1, (3, 3), groups=4)  # two outputs an input
    chain.add("relu")
    chain.conv(6, 4, (3, 3), groups=2)
    chain.add("relu6")
    chain.conv(5, 6)
    got = assert_agrees(chain.end())
    assert got == [
        "CAST",
        "MUL",
        "ADD",
        "DEPTHWISE_CONV_2D",
        "CONV_2D",
        "CONV_2D",
        "RESHAPE",
        "FULLY_CONNECTED",
    ]


def test_a_relu_that_does_not_read_alone_stands_alone():
    chain = Chain()
    conv = chain.conv(2, 2)
    relu = chain.add("relu")
    chain.add("add", conv, relu)
    assert "RELU" in assert_agrees(chain.end())


def test_raw_pixels_as_logits():
    artifact = artifact_of((Graph((2, 3, 2), (Op("flatten", "f", ("input",)),)), {}))
    images = random_images(artifact.graph, 4)
    np.testing.assert_array_equal(target.runner(target.encode(artifact))(images), artifact.logits(images))


@pytest.mark.parametrize("name", ["lenet5", "convnet", "separable"])
def test_models_agree(name):
    pytest.importorskip("torch", reason="needs torch: pip install 'netsuke[lab]'")
    from netsuke.lab.lower import lower
    from netsuke.lab.models import build

    assert_agrees(artifact_of(lower(build(name, (1, 28, 28), 10), (1, 28, 28))))


def test_the_file_and_the_target(tmp_path: Path):
    artifact = small_artifact(integer=False)
    path = TARGETS["tflite"].write(artifact, tmp_path / "new", "tiny")
    assert [file.name for file in path.parent.iterdir()] == ["tiny.tflite"]
    images = random_images(artifact.graph, 300)  # more than one batch
    np.testing.assert_allclose(TARGETS["tflite"].run(path, images), artifact.logits(images), atol=1e-4)
    assert TARGETS["tflite"].run(path, images[:0]).shape == (0, 3)
    with pytest.raises(
        GraphError, match=re.escape("needs uint8 images [n, 1, 12, 10]; got uint8 [1, 1, 10, 12]")
    ):
        target.run(path, np.zeros((1, 1, 10, 12), np.uint8))


def test_input_and_output_are_named_and_constants_aligned():
    from ai_edge_litert.interpreter import Interpreter

    data = target.encode(artifact_of(random_graph(7, integer=False)))
    signature = Interpreter(model_content=data).get_signature_list()["serving_default"]
    assert signature == {"inputs": ["image"], "outputs": ["logits"]}
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(data)
    for i in range(1, model.BuffersLength()):
        assert data.find(model.Buffers(i).DataAsNumpy().tobytes()) >= 0
        table = model.Buffers(i)._tab
        assert table.Vector(table.Offset(4)) % 16 == 0


def test_an_unknown_op_is_named(monkeypatch):
    monkeypatch.delitem(EMIT, "maxpool")
    with pytest.raises(UnsupportedOp, match=r"tflite cannot emit 'maxpool'; it knows add, avgpool"):
        target.encode(small_artifact(integer=False))


def test_what_is_no_tflite_file(tmp_path: Path):
    path = tmp_path / "bad.tflite"
    path.write_bytes(b"not a model")
    with pytest.raises(ArtifactError, match=r"LiteRT cannot load .*bad\.tflite"):
        target.run(path, np.zeros((1, 1, 2, 2), np.uint8))
    with pytest.raises(ArtifactError, match="cannot be written"):
        target.write(small_artifact(integer=False), path)


def test_without_litert_the_extra_is_named(monkeypatch):
    for module in ("ai_edge_litert", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"pip install 'netsuke\[tflite\]'"):
        target.encode(small_artifact(integer=False))
    with pytest.raises(MissingExtra, match=r"pip install 'netsuke\[tflite\]'"):
        target.runner(b"")


def test_import_is_light():
    heavy = "{'ai_edge_litert', 'flatbuffers', 'openvino'}"
    script = f"import sys, netsuke.export.tflite, netsuke.engine; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_verb(netsuke_cli, tmp_path: Path):
    small_artifact(integer=False).save(tmp_path / "a.netsuke")
    done = netsuke_cli("export", "a.netsuke", "--to", "tflite,onnx", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"a.tflite", "a.onnx"}
