"""Foreign ONNX classifiers: built node by node as PyTorch and Keras exports write them, against ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from graphs import artifact_of, float_graphs, random_images, small_artifact
from netsuke import import_onnx
from netsuke.artifact import Artifact
from netsuke.errors import ArtifactError, GraphError, MissingExtra, NetsukeError, OptionError, UnsupportedOp
from netsuke.export import onnx as target

Node = tuple[str, Sequence[str], str, dict[str, Any]]


class Net:
    """A model that grows node by node; `x` is the newest output."""

    def __init__(self, *shape: int, seed: int = 0, opset: int = 17, elem: int = TensorProto.FLOAT):
        self.rng, self.shape, self.opset, self.elem = np.random.default_rng(seed), shape, opset, elem
        self.nodes: list[Any] = []
        self.weights: dict[str, np.ndarray] = {}
        self.x = "in"

    def constant(self, value: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(value)
        return name

    def random(self, *shape: int, scale: float = 1.0) -> str:
        return self.constant(self.rng.normal(0, scale, shape).astype(np.float32))

    def add(self, kind: str, *more: str, x: str | None = None, **attrs: Any) -> str:
        self.nodes.append(helper.make_node(kind, [x or self.x, *more], [f"v{len(self.nodes)}"], **attrs))
        self.x = f"v{len(self.nodes) - 1}"
        return self.x

    def conv(self, out: int, inner: int, k: int = 3, *, bias: bool = True, **attrs: Any) -> str:
        weights = [self.random(out, inner, k, k, scale=(inner * k * k) ** -0.5)]
        return self.add("Conv", *weights, *([self.random(out)] if bias else []), **attrs)

    def bn(self, channels: int) -> str:
        positive = self.constant(self.rng.uniform(0.5, 2, channels).astype(np.float32))
        c = channels
        return self.add(
            "BatchNormalization", self.random(c), self.random(c), self.random(c), positive, epsilon=1e-3
        )

    def gemm(self, out: int, inner: int, **attrs: Any) -> str:
        return self.add(
            "Gemm", self.random(out, inner, scale=inner**-0.5), self.random(out), transB=1, **attrs
        )

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("in", self.elem, ["n", *self.shape])],
            [helper.make_empty_tensor_value_info(self.x)],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        output = onnx.shape_inference.infer_shapes(model).graph.output[0]
        if not output.type.tensor_type.HasField("shape"):  # a model that no one can run
            output = helper.make_tensor_value_info(self.x, TensorProto.FLOAT, ["n", "k"])
        graph.output[0].CopyFrom(output)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def save(self, folder: Path) -> Path:
        path = folder / "model.onnx"
        onnx.save(self.model(), str(path))
        return path


def check(net: Net, folder: Path, images: np.ndarray | None = None, **options: Any) -> Artifact:
    """Import, compare with ONNX Runtime on random images, send through a file."""
    path = net.save(folder)
    artifact = import_onnx.load(path, **options)
    if images is None:
        images = np.random.default_rng(1).integers(0, 256, (5, *artifact.graph.input_shape), np.uint8)
    scale = options.get("scale") or (1 if net.elem == TensorProto.UINT8 else 1 / 255)
    mean, std = (
        np.asarray(options.get(key, default), np.float32).reshape(-1, 1, 1)
        for key, default in (("mean", 0), ("std", 1))
    )
    x = (images * np.float32(scale) - mean) / std
    if len(net.shape) == 3 and net.shape != images.shape[1:]:
        x = x.transpose(0, 2, 3, 1)
    x = x.reshape(len(x), *net.shape).astype(helper.tensor_dtype_to_np_dtype(net.elem))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    want = np.concatenate([session.run(None, {"in": row[None]})[0].reshape(1, -1) for row in x])
    np.testing.assert_allclose(artifact.logits(images), want, atol=1e-4, rtol=1e-4)
    artifact.save(folder / "model.netsuke")
    assert Artifact.load(folder / "model.netsuke").manifest["input"] == artifact.manifest["input"]
    return artifact


def kinds(artifact: Artifact) -> list[str]:
    return [op.kind for op in artifact.graph.ops]


def test_a_residual_cnn_with_batch_norm(tmp_path):
    net = Net(3, 16, 14)
    net.conv(8, 3, bias=False, pads=[1, 1, 1, 1])
    net.bn(8)
    trunk = net.add("Relu")
    net.conv(8, 1, group=8, pads=[1, 1, 1, 1])
    net.bn(8)
    net.add("Clip", net.constant(np.float32(0)), net.constant(np.float32(6)))
    net.conv(8, 8, 1)
    net.bn(8)
    net.add("Add", trunk)
    net.add("Relu")
    net.add("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    net.add("GlobalAveragePool")
    net.add("Flatten")
    net.add("Dropout")
    net.gemm(10, 8)
    artifact = check(net, tmp_path, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4], classes=list("abcdefghij"))
    assert artifact.classes == tuple("abcdefghij")
    assert kinds(artifact).count("conv2d") == 3  # every batch norm went into its convolution
    assert artifact.manifest["input"] == {
        "channels": 3,
        "height": 16,
        "width": 14,
        "polarity": "bright-ink",
        "centring": "none",
        "scale": 1 / 255,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
    }


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
def test_the_final_softmax_goes(kind, tmp_path):
    net = Net(1, 6, 6)
    net.add("Flatten")
    net.gemm(4, 36)
    plain = check(net, tmp_path)
    net.add(kind, axis=-1)
    net.add("Identity")
    images = random_images(plain.graph, 4)
    got = import_onnx.load(net.save(tmp_path))
    np.testing.assert_array_equal(got.logits(images), plain.logits(images))


def test_a_hidden_softmax_is_refused(tmp_path):
    net = Net(1, 6, 6)
    net.add("Flatten")
    net.gemm(4, 36)
    net.add("Softmax")
    net.gemm(3, 4)
    with pytest.raises(
        UnsupportedOp, match=r"node 'v2' is Softmax elsewhere than at the end; import knows Add, "
    ):
        import_onnx.load(net.save(tmp_path))


def test_a_keras_cnn(tmp_path):
    """As tf2onnx writes it: N, H, W, C in and before the flatten, bias as Add, padding SAME."""
    net = Net(12, 9, 3)
    net.add("Transpose", perm=[0, 3, 1, 2])
    net.conv(5, 3, bias=False, auto_pad="SAME_UPPER", strides=[2, 2])
    net.add("Add", net.random(1, 5, 1, 1))
    net.add("Relu")
    net.bn(5)
    net.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_LOWER")
    net.add("Transpose", perm=[0, 2, 3, 1])
    net.add("Reshape", net.constant(np.array([-1, 3 * 3 * 5], np.int64)))
    net.add("MatMul", net.random(45, 7, scale=0.2))
    net.add("Add", net.random(7))
    net.add("Relu")
    net.bn(7)
    net.add("MatMul", net.random(7, 4))
    net.add("Add", net.random(4))
    artifact = check(net, tmp_path)
    assert kinds(artifact) == "normalize conv2d relu conv2d maxpool flatten dense relu dense".split()  # noqa: SIM905


@pytest.mark.parametrize("form", ["gap", "flatten"])
def test_channels_last_tail(form, tmp_path):
    net = Net(8, 8, 1)
    net.add("Reshape", net.constant(np.array([-1, 1, 8, 8], np.int64)))
    net.conv(6, 1)
    net.add("Tanh")
    net.add("Transpose", perm=[0, 2, 3, 1])
    net.add("Mul", net.random(6))
    if form == "gap":
        net.add("ReduceMean", axes=[1, 2], keepdims=0)
        net.gemm(3, 6)
    else:
        net.add("Flatten")
        net.add("Sub", net.random(216))
        net.gemm(3, 216)
    check(net, tmp_path)


def test_pytorch_view_by_computed_shape(tmp_path):
    """x.view(x.size(0), -1), as the older exporter writes it."""
    net = Net(2, 6, 5)
    net.conv(3, 2)
    x = net.add("Sigmoid")
    net.add("Shape")
    net.add("Gather", net.constant(np.array(0, np.int64)))
    net.add("Unsqueeze", net.constant(np.array([0], np.int64)))
    shape = net.add("Concat", net.constant(np.array([-1], np.int64)), axis=0)
    net.add("Reshape", shape, x=x)
    net.gemm(3, 36, alpha=0.5, beta=2.0)
    check(net, tmp_path)


def test_arithmetic_on_the_input_becomes_normalize(tmp_path):
    net = Net(3, 5, 5, elem=TensorProto.UINT8)
    net.add("Cast", to=TensorProto.FLOAT)
    net.add("Div", net.constant(np.float32(255)))
    net.add("Sub", net.random(1, 3, 1, 1))
    net.add("Mul", net.random(3, 1, 1))
    net.nodes.append(helper.make_node("Sub", [net.constant(np.float32(1)), net.x], ["turned"]))
    net.x = "turned"
    net.conv(4, 3)
    net.add("AveragePool", kernel_shape=[3, 2], strides=[1, 1])
    net.add("Flatten")
    net.gemm(2, 8)
    artifact = check(net, tmp_path)
    assert kinds(artifact) == ["normalize", "conv2d", "avgpool", "flatten", "dense"]
    assert artifact.manifest["input"]["scale"] == 1


@pytest.mark.parametrize("shape", [(49,), (7, 7), (1, 7, 7)])
def test_a_perceptron_from_any_form_of_the_image(shape, tmp_path):
    net = Net(*shape)
    if len(shape) > 1:
        net.add("Flatten")
    net.gemm(6, 49)
    net.add("Relu")
    net.bn(6)
    net.gemm(3, 6)
    artifact = check(net, tmp_path)
    assert artifact.graph.input_shape == (1, 7, 7)
    assert kinds(artifact) == ["normalize", "flatten", "dense", "relu", "dense"]  # batch norm in the last


def test_batch_norm_beside_a_shared_convolution_stays_a_layer(tmp_path):
    net = Net(1, 6, 6)
    first = net.conv(4, 1)
    net.bn(4)
    net.add("Add", first)
    net.add("Squeeze", net.constant(np.array([2, 3], np.int64)), x=net.add("GlobalAveragePool"))
    artifact = check(net, tmp_path)
    assert kinds(artifact).count("conv2d") == 2


def test_a_fully_convolutional_net(tmp_path):
    net = Net(1, 6, 6)
    net.conv(4, 1)
    net.add("Relu")
    net.conv(10, 4, 4)
    check(net, tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(float_graphs(extended=True), st.sampled_from([13, 17, 20]))
def test_our_own_float_export_comes_back(tmp_path_factory, pair, opset):
    artifact = artifact_of(pair)
    path = target.write(artifact, tmp_path_factory.mktemp("onnx"), opset=opset)
    images = random_images(artifact.graph, 3)
    got, want = import_onnx.load(path).logits(images), artifact.logits(images)
    thin = want[0].size == max(want.shape[1:])  # a map of one long axis may come back as a vector
    assert got.shape == want.shape or (thin and got.shape == (3, want[0].size))
    np.testing.assert_allclose(got.reshape(want.shape), want, atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the exporter is the older of two
def test_torch_export(tmp_path):
    """The exporter of torch itself, the one that needs no onnxscript."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'netsuke[lab]'")
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, groups=4, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(nn.Dropout(), nn.Linear(8, 10)),
    ).eval()
    path = tmp_path / "torch.onnx"
    torch.onnx.export(net, torch.zeros(1, 1, 14, 14), str(path), dynamo=False)
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 14, 14), np.uint8)
    with torch.no_grad():
        want = net((torch.from_numpy(images) / 255 - 0.1307) / 0.3081).numpy()
    got = import_onnx.load(path, mean=0.1307, std=0.3081).logits(images)
    np.testing.assert_allclose(got, want, atol=1e-4)


FOREIGN = {
    "mobilenet_v2": {"width": 0.25, "depth": 0.3, "head": 32},
    "mobilenet_v3_small": {"width": 0.25, "depth": 0.3, "head": 32},
    "shufflenet_v1": {"width": 0.25, "depth": 0.3},
    "shufflenet_v2": {"width": 0.25, "depth": 0.3, "head": 32},
    "efficientnet_b0": {"width": 0.25, "depth": 0.3, "head": 32},
    "ghostnet": {"width": 0.25, "depth": 0.3, "head": 32},
    "squeezenet": {"width": 0.125},
    "separable": {"width": 8, "attention": "cbam", "act": "leaky"},
}


@pytest.mark.filterwarnings("ignore")  # of an exporter that will go one day
@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("name", FOREIGN)
def test_networks_that_torch_exported(name, opset, tmp_path):
    """Split, Gather, Clip and HardSwish as torch writes them, not as we do."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'netsuke[lab]'")
    from netsuke.lab.models import build

    class Shuffle(torch.nn.Module):  # as torchvision has it; the layer of torch itself is not exported
        def __init__(self, groups):
            super().__init__()
            self.groups = groups

        def forward(self, x):
            n, channels, high, wide = x.shape
            x = x.view(n, self.groups, channels // self.groups, high, wide).transpose(1, 2).contiguous()
            return x.view(n, channels, high, wide)

    net = build(name, (1, 29, 26), 5, **FOREIGN[name]).eval()
    for parent in list(net.modules()):
        for key, child in parent.named_children():
            if isinstance(child, torch.nn.ChannelShuffle):
                setattr(parent, key, Shuffle(child.groups))
    path = tmp_path / "torch.onnx"
    torch.onnx.export(net, torch.zeros(1, 1, 29, 26), str(path), dynamo=False, opset_version=opset)
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 29, 26), np.uint8)
    with torch.no_grad():
        want = net(torch.from_numpy(images) / 255).numpy()
    artifact = import_onnx.load(path)
    np.testing.assert_allclose(artifact.logits(images), want, atol=1e-4)
    if name == "mobilenet_v3_small":
        assert {"hardswish", "hardsigmoid", "mul"} <= set(kinds(artifact))
    if name == "efficientnet_b0":
        assert "silu" in kinds(artifact)
        assert kinds(artifact).count("mul") == kinds(artifact).count("globalavgpool") - 1


def test_hard_swish_of_four_nodes(tmp_path):
    """x * relu6(x + 3) / 6, as opsets before 14 have it."""
    net = Net(2, 6, 6)
    x = net.conv(4, 2)
    net.add("Add", net.constant(np.float32(3)))
    net.add("Clip", net.constant(np.float32(0)), net.constant(np.float32(6)))
    net.nodes.append(helper.make_node("Mul", [x, net.x], ["product"]))
    net.x = "product"
    net.add("Div", net.constant(np.float32(6)))
    net.conv(3, 4, 4)
    artifact = check(net, tmp_path)
    assert kinds(artifact) == ["normalize", "conv2d", "hardswish", "conv2d", "flatten"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_value_times_its_sigmoid(shared, tmp_path):
    net = Net(2, 6, 6)
    x = net.conv(4, 2)
    gate = net.add("Sigmoid")
    product = net.add("Mul", x)  # the gate first
    if shared:
        net.add("Add", gate, x=product)
    net.add("GlobalAveragePool")
    net.add("Flatten")
    net.gemm(3, 4)
    artifact = check(net, tmp_path)
    assert "silu" in kinds(artifact)
    assert ("sigmoid" in kinds(artifact)) == shared


def test_two_swishes_at_once_keep_their_names_apart(tmp_path):
    net = Net(2, 6, 6)
    a, b = net.conv(4, 2), net.conv(4, 2, x="in")
    gates = [net.add("Sigmoid", x=a), net.add("Sigmoid", x=b)]
    products = [net.add("Mul", g, x=x) for g, x in zip(gates, (a, b), strict=True)]
    net.add("Concat", products[0], x=products[1], axis=1)
    net.conv(3, 8, 4)
    assert kinds(check(net, tmp_path)).count("silu") == 2


@pytest.mark.parametrize("pool", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("front", [False, True])
def test_squeeze_and_excitation_by_convolutions(pool, front, tmp_path):
    net = Net(3, 7, 5)
    x = net.conv(6, 3)
    net.add(pool)
    net.conv(2, 6, 1)
    net.add("Relu")
    net.conv(6, 2, 1)
    net.bn(6)
    net.add("HardSigmoid", alpha=1 / 6)
    net.nodes.append(helper.make_node("Mul", [net.x, x] if front else [x, net.x], ["gated"]))
    net.x = "gated"
    net.add("ReduceMax", axes=[2, 3], keepdims=0)
    net.gemm(3, 6)
    artifact = check(net, tmp_path)
    assert kinds(artifact).count("dense") == 3


def test_a_gate_of_channels_last(tmp_path):
    net = Net(6, 7, 3)
    net.add("Transpose", perm=[0, 3, 1, 2])
    net.conv(4, 3)
    x = net.add("Transpose", perm=[0, 2, 3, 1])
    gate = net.add("ReduceMean", axes=[1, 2], keepdims=1)
    net.add("Mul", gate, x=x)
    pixels = net.add("ReduceMax", axes=[3], keepdims=1)
    y = net.add("Mul", pixels, x=net.nodes[-2].output[0])
    net.add("Concat", y, x=x, axis=-1)
    net.add("Slice", *(net.constant(np.array([v], np.int64)) for v in (1, 2**62, -1)))
    net.add("Flatten")
    net.gemm(3, 7 * 4 * 5)
    check(net, tmp_path)


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_parts_and_shuffles(opset, tmp_path):
    """A unit of ShuffleNetV2: split, work on one part, join, shuffle with rows and columns in one axis."""
    net = Net(2, 6, 5, opset=opset)
    net.conv(6, 2, pads=[1, 1, 1, 1])
    more = [net.constant(np.array([2, 4], np.int64))] if opset >= 13 else []
    attrs = {"split": [2, 4]} if opset < 13 else {}
    net.nodes.append(helper.make_node("Split", [net.x, *more], ["left", "right"], axis=1, **attrs))
    net.add("PRelu", net.random(4, 1, 1), x="right")
    net.add("Concat", "left", axis=1)
    net.add("Reshape", net.constant(np.array([0, 3, 2, 30], np.int64)))
    net.add("Transpose", perm=[0, 2, 1, 3])
    net.add("Reshape", net.constant(np.array([-1, 6, 6, 5], np.int64)))
    net.nodes.append(helper.make_node("Split", [net.x, *([net.constant(np.array([3, 3], np.int64))]
                     if opset >= 13 else [])], ["first", "second"], axis=1))  # fmt: skip
    net.add("LeakyRelu", x="second", alpha=0.3)  # nothing reads the first
    net.conv(3, 3, 3, auto_pad="VALID")
    net.add("Flatten")
    net.gemm(2, 3 * 4 * 3)
    artifact = check(net, tmp_path)
    assert kinds(artifact).count("slice") == 3
    assert "shuffle" in kinds(artifact)


def test_pools_that_pad_and_round_up(tmp_path):
    net = Net(2, 9, 8)
    net.conv(4, 2, pads=[1, 1, 1, 1])
    net.add("MaxPool", kernel_shape=[3, 2], strides=[2, 3], ceil_mode=1)
    net.add("AveragePool", kernel_shape=[3, 3], strides=[1, 2], pads=[1, 0, 1, 1], count_include_pad=1)
    net.add("ReduceMean", axes=[1])
    net.add("Flatten")
    net.gemm(2, 4)
    check(net, tmp_path)


def test_products_that_are_no_gates_are_refused(tmp_path):
    net = Net(4, 6, 4)
    x = net.conv(4, 4, 1)
    net.add("ReduceMax", axes=[1, 2], keepdims=1)
    with pytest.raises(UnsupportedOp, match="ReduceMax over other axes"):
        import_onnx.load(net.save(tmp_path))
    net.nodes.pop()
    net.x = x
    net.add("GlobalAveragePool")
    net.add("Reshape", net.constant(np.array([-1, 1, 1, 4], np.int64)))  # a gate of columns
    net.add("Mul", x, x=net.x)
    net.conv(2, 4, (6, 4)[1])
    with pytest.raises(UnsupportedOp, match=r"of two computed values \[4, 6, 4\] and \[1, 1, 4\]"):
        import_onnx.load(net.save(tmp_path))


# --- refusals ---------------------------------------------------------------------------------------


def refused(net: Net, folder: Path) -> str:
    with pytest.raises(NetsukeError) as caught:
        import_onnx.load(net.save(folder))
    text = str(caught.value)
    assert str(folder) in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("kind", "attrs", "text"),
    [
        ("Erf", {}, "node 'v0' is Erf; import knows Add, AveragePool, BatchNormalization"),
        ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, "MaxPool with dilations [2, 2]"),
        ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, "with ceil_mode=1"),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1}, "with ceil_mode=1"),
        ("MaxPool", {"kernel_shape": [9, 9]}, "9x9 window on a 6x6 map"),
        (
            "AveragePool",
            {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]},
            "does not count its padding [0, 0, 1, 1]",
        ),
        ("HardSigmoid", {}, "with alpha 0.2 and beta 0.5; only 1/6 and 1/2 are known"),
        ("Concat", {"axis": 2}, "Concat along axis 2 of a value of the shape [2, 6, 6]; only channels"),
        ("ReduceMax", {"axes": [2]}, "over other axes than rows and columns, or the channels with keepdims"),
        ("ReduceMean", {"axes": [1], "keepdims": 0}, "ReduceMean over other axes than rows and columns"),
        ("Transpose", {"perm": [0, 1, 3, 2]}, "Transpose by [0, 1, 3, 2]"),
        ("Cast", {"to": TensorProto.INT32}, "Cast to another type than float"),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [0, 1]}, "whose attributes or weights do not fit"),
    ],
)
def test_unknown_nodes_are_named(kind, attrs, text, tmp_path):
    net = Net(2, 6, 6)
    net.add(kind, **attrs)
    assert text in refused(net, tmp_path)


def test_more_refusals(tmp_path):
    net = Net(2, 6, 6)
    net.add("Conv", net.random(4, 2, 3, 3), dilations=[2, 2])
    assert "Conv with dilations [2, 2]; only 1 is known" in refused(net, tmp_path)
    net = Net(2, 6, 6)
    net.add("Conv", net.random(4, 3, 3, 3))
    assert "weight must be float32 [4, 2, 3, 3], is float32 [4, 3, 3, 3]" in refused(net, tmp_path)
    net = Net(2, 6, 6)
    net.add("Mul", net.random(6, 6))
    assert "a constant [6, 6] that is not one number a channel" in refused(net, tmp_path)
    net = Net(2, 6, 6)
    net.add("Clip", net.constant(np.float32(-1)), net.constant(np.float32(1)))
    assert "Clip to -1.0..1.0" in refused(net, tmp_path)
    net = Net(2, 6, 6)
    net.add("Relu")
    assert "the last op must give one logit a class" in refused(net, tmp_path)
    net = Net(48)
    net.gemm(3, 48)
    assert "a vector of 48, which is no square image" in refused(net, tmp_path)
    net = Net(2, 6, 6)
    net.add("Reshape", net.constant(np.array([-1, 6, 2, 6], np.int64)))
    assert "from [2, 6, 6] to [6, 2, 6]; import knows flattening" in refused(net, tmp_path)


def test_a_sound_model_of_the_wrong_form(tmp_path):
    net = Net(1, 4, 4)
    net.add("Flatten")
    net.gemm(3, 16)
    model = net.model()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, str(tmp_path / "a.onnx"))
    with pytest.raises(GraphError, match=r"the shape \[1, height, 4\] after the batch; needs fixed sizes"):
        import_onnx.load(tmp_path / "a.onnx")
    model = net.model()
    model.graph.output.append(
        model.graph.output[0].__class__.FromString(model.graph.output[0].SerializeToString())
    )
    model.graph.output[1].name = "v0"
    onnx.save(model, str(tmp_path / "a.onnx"))
    with pytest.raises(ArtifactError, match="has 2 outputs; needs exactly one"):
        import_onnx.load(tmp_path / "a.onnx")
    path = net.save(tmp_path)
    with pytest.raises(OptionError, match="gives 3 logits; got 2 class names"):
        import_onnx.load(path, classes=["a", "b"])
    with pytest.raises(OptionError, match="the class name 'a' stands twice"):
        import_onnx.load(path, classes=["a", "b", "a"])
    with pytest.raises(OptionError, match="std must be one number, or 1"):
        import_onnx.load(path, std=[1.0, 2.0])
    with pytest.raises(OptionError, match="must not be 0"):
        import_onnx.load(path, std=0.0)


def test_files_that_are_no_models(tmp_path, monkeypatch):
    data = target.encode(small_artifact(integer=False))
    path = tmp_path / "bad.onnx"
    for content in (b"", b"not a model", b"\x00" * 100, data[: len(data) // 2], b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"bad\.onnx: is not a sound ONNX file: ") as caught:
            import_onnx.load(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ArtifactError, match="does not exist"):
        import_onnx.load(tmp_path / "none.onnx")
    with pytest.raises(ArtifactError, match="is not a file"):
        import_onnx.load(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"pip install 'netsuke\[onnx\]'"):
        import_onnx.load(path)


def test_damaged_files_never_crash(tmp_path):
    data = bytearray(target.encode(small_artifact(integer=False)))
    rng, path = np.random.default_rng(0), tmp_path / "bad.onnx"
    lines: list[str] = []
    for _ in range(300):
        damaged = data.copy()
        for place in rng.integers(0, len(data), 4):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            import_onnx.load(path)
        except NetsukeError as error:
            lines.append(str(error))
    assert len(lines) > 50
    assert not any("\n" in line for line in lines)


def test_import_verb(netsuke_cli, tmp_path):
    net = Net(3, 6, 6)
    net.conv(4, 3)
    net.add("Flatten")
    net.gemm(2, 64)
    net.save(tmp_path)
    args = ("import", "model.onnx", "--classes", "cat, dog", "--mean", "0.5,0.4,0.3", "--std", "0.2")
    done = netsuke_cli(*args, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["artifact"] == "model.netsuke"
    assert document["ops"] == ["normalize", "conv2d", "flatten", "dense"]
    artifact = Artifact.load(tmp_path / "model.netsuke")
    assert artifact.classes == ("cat", "dog")
    assert artifact.manifest["input"]["mean"] == [0.5, 0.4, 0.3]
    assert artifact.manifest["input"]["std"] == 0.2
    done = netsuke_cli(*args, "-o", "again.netsuke", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3x6x6" in done.stdout
    assert (tmp_path / "again.netsuke").read_bytes() == (tmp_path / "model.netsuke").read_bytes()


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("none.onnx",), "none.onnx: does not exist"),
        (("bad.onnx",), "bad.onnx: is not a sound ONNX file"),
        (
            ("bad.onnx", "--mean", "dark"),
            "--mean must be a number, or numbers separated by commas; got 'dark'",
        ),
    ],
)
def test_import_verb_refuses_in_one_line(args, text, netsuke_cli, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"bad")
    done = netsuke_cli("import", *args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["bad.onnx"]
