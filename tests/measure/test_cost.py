"""Counts that can be made by hand, and that every metric says its unit, n and spread."""

from __future__ import annotations

import numpy as np
import pytest

from graphs import artifact_of, random_graph, random_images, small_artifact
from netsuke.artifact import Artifact
from netsuke.data import Split
from netsuke.graph import Graph, Op
from netsuke.measure import METRICS
from netsuke.measure.cost import cost, macs
from netsuke.measure.latency import BATCH, latency


def lenet() -> Artifact:
    """LeNet-5 in today's common form, whose figures are published: 61 706 parameters."""

    def conv(name: str, after: str, padding: int) -> Op:
        return Op("conv2d", name, (after,), {"stride": [1, 1], "padding": [padding] * 4, "groups": 1})

    def pool(name: str, after: str) -> Op:
        return Op("avgpool", name, (after,), {"kernel": [2, 2], "stride": [2, 2]})

    ops = [
        Op("normalize", "in", ("input",), {"scales": [1.0], "offsets": [0.0]}),
        conv("c1", "in", 2),
        pool("s2", "c1"),
        conv("c3", "s2", 0),
        pool("s4", "c3"),
        Op("flatten", "flat", ("s4",)),
        *(Op("dense", name, (after,)) for name, after in (("f5", "flat"), ("f6", "f5"), ("out", "f6"))),
    ]
    shapes = {"c1": (6, 1, 5, 5), "c3": (16, 6, 5, 5), "f5": (120, 400), "f6": (84, 120), "out": (10, 84)}
    rng = np.random.default_rng(0)  # no two weights alike: those that share values take fewer bytes
    tensors = {f"{name}.weight": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": np.ones(shape[0], np.float32) for name, shape in shapes.items()}
    return Artifact(Graph((1, 28, 28), tuple(ops)), tensors, {"classes": [str(i) for i in range(10)]})


def test_lenet5() -> None:
    got = cost(lenet())
    assert got["parameters"] == 61_706
    assert got["macs_by_op"] == {"c1": 117_600, "c3": 240_000, "f5": 48_000, "f6": 10_080, "out": 840}
    assert got["macs"] == 416_520
    assert got["size_bytes"] == 4 * 61_706


def test_shared_and_encoded_bytes() -> None:
    artifact = lenet()
    weight = artifact.tensors["f5.weight"]
    artifact.tensors["f5.weight"] = np.where(weight > 2, np.float32(0.5), np.float32(0))
    got = cost(artifact)
    row = next(row for row in got["storage"] if row["tensor"] == "f5.weight")
    assert row == {"tensor": "f5.weight", "count": 48_000, "bits": 1, "table_bytes": 8, "size_bytes": 6008}
    assert got["size_bytes"] == 4 * (61_706 - 48_000) + 6008
    assert got["encoded_bytes"] == got["size_bytes"]
    assert "encoding" not in got
    coded = cost(artifact.with_manifest(coding="range"))
    parts = coded["encoding"]
    assert coded["size_bytes"] == got["size_bytes"]
    assert parts["streams"][0]["tensors"] == ["f5.weight"]
    assert parts["plain_bytes"] == 4 * (61_706 - 48_000) + 8
    assert 500 < parts["stream_bytes"] < 1100  # 2.3 % of ones: 0.157 bits a weight
    assert coded["encoded_bytes"] == sum(parts[f"{k}_bytes"] for k in ("plain", "stream", "decoder"))
    assert METRICS["encoded_bytes"](artifact, None).value == got["encoded_bytes"]


def test_depthwise_macs() -> None:
    attrs = {"stride": [2, 2], "padding": [1, 1, 1, 1], "groups": 3, "bits": 2, "signed": False}
    graph = Graph(
        (3, 8, 8),
        (
            Op("halve", "in", ("input",)),
            Op("qconv2d", "dw", ("in",), attrs),
            Op("sumpool", "sum", ("dw",)),
            Op("qlogits", "out", ("sum",), {"bits": 8, "scale": 1.0}),
        ),
    )
    tensors = {
        "dw.weight": np.ones((3, 1, 3, 3), np.int8),
        "dw.bias": np.array([1, 2, 300], np.int32),
        "dw.multiplier": np.ones(3, np.int32),
        "dw.shift": np.array([4, 4, 4], np.int32),
        "out.weight": np.ones((2, 3), np.int8),
        "out.bias": np.zeros(2, np.int32),
    }
    assert macs(graph, tensors) == {"dw": 27 * 16, "out": 6}
    got = cost(Artifact(graph, tensors, {"classes": ["a", "b"]}))
    assert got["parameters"] == 27 + 3 + 6 + 2
    # 27 weights of 2 bits; biases of 2 bytes; multipliers of 1; one shared shift; 6 weights; 2 biases of 1
    assert [row["size_bytes"] for row in got["storage"]] == [7, 6, 3, 1, 6, 2]
    assert got["size_bytes"] == 25


@pytest.mark.parametrize("seed", range(5))
def test_storage_adds_up(seed: int) -> None:
    artifact = artifact_of(random_graph(seed))
    got = cost(artifact)
    assert sum(row["size_bytes"] for row in got["storage"]) == got["size_bytes"] == artifact.size_bytes
    assert {row["tensor"] for row in got["storage"]} == set(artifact.tensors)
    assert sum(got["macs_by_op"].values()) == got["macs"]


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_reports_unit_n_and_spread(metric: str) -> None:
    artifact = small_artifact()
    report = METRICS[metric](artifact, Split(random_images(artifact.graph, 7), np.arange(7) % 3))
    assert report.metric == metric
    assert report.unit
    assert report.n >= 1
    assert report.spread is not None
    assert report.spread >= 0
    assert report.to_json() == {
        "metric": metric,
        "value": report.value,
        "unit": report.unit,
        "n": report.n,
        "spread": report.spread,
    }


def test_latency_counts_what_it_ran() -> None:
    seen: list[int] = []

    def run(images: np.ndarray) -> np.ndarray:
        assert images.flags.c_contiguous
        seen.append(len(images))
        return np.zeros((len(images), 3))

    got = latency(run, np.zeros((5, 1, 4, 4), np.uint8), seconds=0.01, warmup=3)
    assert seen.count(1) == got["n"] + 3
    assert set(seen) == {1, BATCH}
    assert got["min_us"] <= got["latency_us"] <= got["p99_us"]
    assert got["images_per_s"] > 0
    assert got["hardware"].endswith("cores")
