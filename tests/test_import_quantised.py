"""Files of ONNX Runtime's static quantiser, imported as integer graphs and compared with ONNX Runtime."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from netsuke import import_onnx
from netsuke.data import Dataset
from netsuke.errors import UnsupportedOp
from netsuke.export import c
from netsuke.graph import INT32_MAX
from netsuke.import_onnx.integers import requantiser

quantization = pytest.importorskip(
    "onnxruntime.quantization", reason="needs ONNX Runtime: pip install 'netsuke[onnx]'"
)
SHAPE = (2, 12, 12)


class Net:
    """A float classifier of 2x12x12 images that grows node by node."""

    def __init__(self, seed: int = 0):
        self.rng, self.nodes, self.weights, self.x = np.random.default_rng(seed), [], [], "image"

    def add(self, kind: str, inputs: Sequence[str] | None = None, **attrs: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs or [self.x]), [name], name=f"n{name}", **attrs))
        self.x = name
        return name

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        scale = np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.1
        self.weights.append(
            numpy_helper.from_array(self.rng.normal(0, scale, shape).astype(np.float32), name)
        )
        return name

    def conv(self, out: int, inner: int, k: int = 3, x: str | None = None, **attrs: Any) -> str:
        pads = {"pads": [k // 2] * 4}
        inputs = [x or self.x, self.weight(out, inner, k, k), self.weight(out)]
        return self.add("Conv", inputs, **{**pads, **attrs})

    def gemm(self, out: int, inner: int) -> str:
        return self.add("Gemm", [self.x, self.weight(out, inner), self.weight(out)], transB=1)

    def save(self, path: Path) -> Path:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", *SHAPE])],
            [helper.make_tensor_value_info(self.x, TensorProto.FLOAT, None)],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(onnx.shape_inference.infer_shapes(model), path)
        return path


def plain(net: Net) -> None:
    net.conv(8, 2)
    net.add("Relu")
    net.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    net.conv(8, 1, group=8)
    net.add("Relu")
    net.add("Flatten")
    net.gemm(16, 8 * 36)
    net.add("Relu")
    net.gemm(5, 16)


def residual(net: Net) -> None:
    net.conv(8, 2, strides=[2, 2])
    trunk = net.add("Relu")
    net.conv(8, 8)
    net.add("Relu")
    net.conv(8, 8)
    net.add("Add", [net.x, trunk])
    trunk = net.add("Relu")
    net.conv(8, 8)
    net.add("Add", [net.x, trunk])  # a sum with a sign
    net.add("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    net.add("GlobalAveragePool")
    net.add("Flatten")
    net.gemm(5, 8)


def curved(net: Net) -> None:
    left = net.conv(4, 2)
    net.add("LeakyRelu", alpha=0.1)
    right = net.add("Sigmoid", [left])
    net.add("Concat", [left, right], axis=1)
    net.add("Clip", [net.x, net_constant(net, 0.0), net_constant(net, 6.0)])
    net.add("Flatten")
    net.gemm(5, 8 * 144)


def net_constant(net: Net, value: float) -> str:
    name = f"c{len(net.weights)}"
    net.weights.append(numpy_helper.from_array(np.array(value, np.float32), name))
    return name


NETS = {"plain": plain, "residual": residual, "curved": curved}


def images(n: int = 300) -> np.ndarray:
    """Blots of every brightness, uint8 [n, C, H, W]."""
    rng = np.random.default_rng(1)
    return (rng.integers(0, 256, (n, *SHAPE)) * rng.random((n, 1, 1, 1))).astype(np.uint8)


def real(pixels: np.ndarray) -> np.ndarray:
    return (pixels / np.float32(255)).astype(np.float32)


class Reader(quantization.CalibrationDataReader):
    def __init__(self, pixels: np.ndarray, mean: float):
        self.batches = iter([{"image": real(pixels) - np.float32(mean)}])

    def get_next(self) -> Any:
        return next(self.batches, None)


def quantised(
    net: str, folder: Path, fmt: str, per_channel: bool, act: str = "QUInt8", mean: float = 0.0
) -> Path:
    grown = Net()
    NETS[net](grown)
    path = folder / "int8.onnx"
    quantization.quantize_static(
        grown.save(folder / "float.onnx"), path, Reader(images(100), mean), per_channel=per_channel,
        quant_format=quantization.QuantFormat[fmt], activation_type=quantization.QuantType[act],
        weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    return path


def answers(path: Path, pixels: np.ndarray, mean: float = 0.0) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: real(pixels) - np.float32(mean)})[0]


def assert_close(path: Path, mean: float = 0.0) -> Any:
    """Logits within a twentieth of their spread, as real numbers; the artifact."""
    artifact = import_onnx.load(path, mean=mean)
    assert artifact.graph.integer
    want, got = answers(path, images(), mean), artifact.logits(images())
    last = artifact.graph.ops[-1]
    error = got * last.attrs["scale"] - want
    assert np.sqrt((error**2).mean()) < 0.05 * want.std()
    return artifact


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("fmt", ["QDQ", "QOperator"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_networks(net, fmt, per_channel, tmp_path):
    artifact = assert_close(quantised(net, tmp_path, fmt, per_channel))
    notes = artifact.manifest["imported"]["approximated"]
    assert notes[0].startswith("activations of 256 levels became 0..127")


@pytest.mark.parametrize("net", ["plain", "residual"])
def test_signed_activations_and_pixels_about_zero(net, tmp_path):
    assert_close(quantised(net, tmp_path, "QDQ", True, act="QInt8"))
    artifact = assert_close(quantised(net, tmp_path, "QDQ", True, mean=0.4), mean=0.4)
    assert artifact.graph.ops[1].kind == "lookup"  # black is not 0: a table


def test_weights_stay_the_integers_they_were(tmp_path):
    path = quantised("plain", tmp_path, "QDQ", True)
    stored = [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]
    artifact = import_onnx.load(path)
    first = artifact.tensors[artifact.graph.ops[1].tensor("weight")]
    assert any(w.shape == first.shape and (w == first).all() for w in stored)


def test_the_relu_is_the_layers_own_clip(tmp_path):
    kinds = [op.kind for op in import_onnx.load(quantised("plain", tmp_path, "QDQ", True)).graph.ops]
    assert kinds == ["halve", "qconv2d", "maxpool", "qconv2d", "flatten", "qdense", "qlogits"]


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler: apt install gcc")
def test_the_import_as_c(tmp_path):
    artifact = import_onnx.load(quantised("residual", tmp_path, "QOperator", True))
    got = c.run(c.write(artifact, tmp_path), images())
    np.testing.assert_array_equal(got, artifact.logits(images()))


def test_weights_alone_give_a_float_graph(tmp_path):
    net = Net()
    net.add("Flatten")
    whole = np.random.default_rng(0).integers(-127, 128, (5, 288)).astype(np.int8)
    net.weights += [numpy_helper.from_array(whole, "q"), numpy_helper.from_array(np.float32(0.01), "s")]
    net.nodes.append(helper.make_node("DequantizeLinear", ["q", "s"], ["w"]))
    net.add("Gemm", [net.x, "w"], transB=1)
    path = net.save(tmp_path / "weights.onnx")
    artifact = import_onnx.load(path)
    assert not artifact.graph.integer
    np.testing.assert_allclose(artifact.logits(images(20)), answers(path, images(20)), atol=1e-4)


def test_what_is_rounded_at_run_time_is_refused(tmp_path):
    net = Net()
    plain(net)
    path = tmp_path / "dynamic.onnx"
    quantization.quantize_dynamic(net.save(tmp_path / "float.onnx"), path)
    with pytest.raises(UnsupportedOp, match="rounded at run time; import takes static quantisation"):
        import_onnx.load(path)


def test_a_range_that_is_missing_is_named(tmp_path):
    path = quantised("plain", tmp_path, "QDQ", True)
    model = onnx.load(path)
    quantise = [n for n in model.graph.node if n.op_type == "QuantizeLinear"][1]
    after = next(n for n in model.graph.node if n.input[0] == quantise.output[0])
    for node in model.graph.node:  # take the pair out
        for i, name in enumerate(node.input):
            if name == after.output[0]:
                node.input[i] = quantise.input[0]
    users = [n for n in model.graph.node if quantise.input[0] in n.input and n is not quantise]
    model.graph.node.remove(quantise)
    model.graph.node.remove(after)
    assert users
    pool = next(n for n in model.graph.node if n.op_type == "MaxPool")
    behind = next(n for n in model.graph.node if n.input[0] == pool.output[0])
    again = next(n for n in model.graph.node if n.input[0] == behind.output[0])
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == again.output[0]:
                node.input[i] = pool.output[0]
    model.graph.node.remove(behind)
    model.graph.node.remove(again)
    onnx.save(model, path)
    with pytest.raises(UnsupportedOp, match=r"conv2d '\w+' has no QuantizeLinear behind it"):
        import_onnx.load(path)


@pytest.mark.parametrize("kind", ["QInt16", "QUInt16"])
def test_wider_activations_are_refused(kind, tmp_path):
    with pytest.raises(UnsupportedOp, match="import knows"):
        import_onnx.load(quantised("plain", tmp_path, "QDQ", True, act=kind))


@settings(max_examples=200, deadline=None)
@given(st.floats(2.0**-18, 4.0), st.integers(1, 1 << 24))
def test_multipliers_are_near_and_fit(gain, bound):
    m, s = requantiser(np.array([gain]), np.array([bound]))
    assert bound * int(m[0]) + ((1 << int(s[0])) >> 1) <= INT32_MAX
    assert m[0] < 1 << 15
    if gain * bound < 500 and gain > 2.0**-15:  # sums that spread over the levels: int32 leaves digits enough
        assert abs(m[0] / 2.0 ** s[0] - gain) <= gain * 2.0**-14


@pytest.fixture(scope="module")
def trained(mnist: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeNet-5 after two epochs of MNIST, as torch exports it."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'netsuke[lab]'")
    from netsuke.lab.models import build
    from netsuke.lab.steps.train import Training, train

    model = train(build("lenet5", mnist.image_shape, 10), mnist, Training(epochs=2)).eval().cpu()
    path = tmp_path_factory.mktemp("trained") / "float.onnx"
    torch.onnx.export(
        model, torch.zeros(1, 1, 28, 28), path, dynamo=False, input_names=["image"],
        dynamic_axes={"image": {0: "n"}}, opset_version=17,
    )  # fmt: skip
    return path


@pytest.mark.slow
@pytest.mark.parametrize("fmt", ["QDQ", "QOperator"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_trained_network_gives_the_same_classes(fmt, per_channel, trained, mnist, tmp_path):
    path = tmp_path / "int8.onnx"
    quantization.quantize_static(
        trained, path, Reader(mnist.train.images[:500], 0.0), per_channel=per_channel,
        quant_format=quantization.QuantFormat[fmt], weight_type=quantization.QuantType.QInt8,
        activation_type=quantization.QuantType.QUInt8,
    )  # fmt: skip
    artifact, images = import_onnx.load(path), mnist.test.images
    got = artifact.logits(images)
    assert (got.argmax(1) == answers(path, images).argmax(1)).mean() >= 0.995
    if shutil.which("cc"):
        np.testing.assert_array_equal(c.run(c.write(artifact, tmp_path), images[:500]), got[:500])
