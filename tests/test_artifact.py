"""The artifact file: exact round trips, the safetensors promise, and what a hostile file meets."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from graphs import (
    Pair,
    artifact_of,
    float_graphs,
    integer_graphs,
    map_artifact,
    random_images,
    rounded_graphs,
    small_artifact,
)
from netsuke import kernels
from netsuke.artifact import Artifact
from netsuke.coding import arithmetic
from netsuke.errors import ArtifactError
from netsuke.graph import Graph, Op


def float_artifact() -> Artifact:
    rng = np.random.default_rng(0)
    conv = {"stride": [1, 1], "padding": [1, 1, 1, 1], "groups": 1}
    graph = Graph(
        (1, 6, 6),
        (
            Op("normalize", "in", ("input",), {"scales": [1 / 255], "offsets": [-0.5]}),
            Op("conv2d", "conv", ("in",), conv),
            Op("relu", "relu", ("conv",)),
            Op("maxpool", "pool", ("relu",), {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0]}),
            Op("flatten", "flat", ("pool",)),
            Op("dense", "out", ("flat",)),
        ),
    )
    shapes = {"conv.weight": (2, 1, 3, 3), "conv.bias": (2,), "out.weight": (3, 18), "out.bias": (3,)}
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return Artifact(graph, tensors, {"classes": ["a", "b", "c"], "seed": 0, "recipe": {"model": "tiny"}})


def integer_artifact(
    bits: int = 4, *, residual: bool = False, bias: tuple[int, ...] = (-3, 500, 0, 7)
) -> Artifact:
    rng = np.random.default_rng(bits)
    limit = (1 << (bits - 1)) - 1 if bits > 1 else 1

    def weights(*shape: int) -> np.ndarray:
        drawn = rng.integers(-limit, limit + 1, shape)
        return (np.where(drawn > 0, 1, -1) if bits == 1 else drawn).astype(np.int8)

    conv = {"stride": [2, 2], "padding": [1, 1, 1, 1], "groups": 1, "bits": bits, "signed": False}
    ops = [Op("halve", "in", ("input",)), Op("qconv2d", "conv", ("in",), conv)]
    if residual:
        ops.append(Op("qadd", "sum", ("conv", "conv"), {"multipliers": [3, 5], "shift": 3, "signed": False}))
    ops += [
        Op("sumpool", "pool", (ops[-1].name,)),
        Op("qlogits", "out", ("pool",), {"bits": bits, "scale": 0.01}),
    ]
    tensors = {
        "conv.weight": weights(4, 1, 3, 3),
        "conv.bias": np.array(bias, np.int32),
        "conv.multiplier": np.array([900, 100, 1, 255], np.int32),
        "conv.shift": np.array([12, 12, 9, 12], np.int32),
        "out.weight": weights(3, 4),
        "out.bias": np.array([5, 70000, 1], np.int32),
    }
    return Artifact(Graph((1, 8, 8), tuple(ops)), tensors, {"classes": ["zero", "eins", "二"]})


def shared_artifact() -> Artifact:
    """A float one whose last layer has three values, one of them -0.0."""
    artifact = float_artifact()
    weight = artifact.tensors["out.weight"]
    artifact.tensors["out.weight"] = np.array([-0.5, -0.0, 2.25], np.float32)[
        np.digitize(weight, [-0.4, 0.4])
    ]
    return artifact


def coded_artifact(method: str = "range", *, integer: bool = True) -> Artifact:
    """A wide last layer that is mostly zeros, of integers or of three shared values."""
    drawn = np.random.default_rng(5).choice([0, 0, 0, 0, 0, 0, 0, 1, -1], (3, 900)).astype(np.int8)
    if integer:
        ops = (
            Op("halve", "in", ("input",)),
            Op("flatten", "flat", ("in",)),
            Op("qlogits", "out", ("flat",), {"bits": 4, "scale": 1.0}),
        )
        tensors = {"out.weight": drawn, "out.bias": np.array([1234567, -1934567, 1777777], np.int32)}
    else:
        normalize = Op("normalize", "in", ("input",), {"scales": [1 / 255], "offsets": [0]})
        ops = (normalize, Op("flatten", "flat", ("in",)), Op("dense", "out", ("flat",)))
        tensors = {"out.weight": drawn * np.float32(0.25), "out.bias": np.zeros(3, np.float32)}
    return Artifact(Graph((1, 30, 30), ops), tensors, {"classes": ["a", "b", "c"], "coding": method})


ARTIFACTS = {
    "range": coded_artifact,
    "huffman": lambda: coded_artifact("huffman"),
    "coded indices": lambda: coded_artifact("range", integer=False),
    "huffman indices": lambda: coded_artifact("huffman", integer=False),
    "auto": lambda: coded_artifact("auto"),
    "codebook": shared_artifact,
    "float": float_artifact,
    "int4": integer_artifact,
    "binary": lambda: integer_artifact(1, residual=True),
    "int8": lambda: integer_artifact(8),
    "exponent": lambda: integer_artifact(bias=(-48, 512, 0, 16)),
}


@pytest.fixture(params=ARTIFACTS)
def artifact(request: pytest.FixtureRequest) -> Artifact:
    return ARTIFACTS[request.param]()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    integer_artifact().save(tmp_path / "good.netsuke")
    return tmp_path / "good.netsuke"


def draw(artifact: Artifact, n: int = 5) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, *artifact.graph.input_shape)).astype(np.uint8)


# --- what is promised -------------------------------------------------------------------------------


def test_round_trip_is_exact(artifact: Artifact, tmp_path: Path) -> None:
    artifact.save(tmp_path / "a.netsuke")
    got = Artifact.load(tmp_path / "a.netsuke")
    assert got.graph.to_json() == artifact.graph.to_json()
    assert got.manifest == artifact.manifest
    assert got.classes == tuple(artifact.manifest["classes"])
    assert set(got.tensors) == set(artifact.tensors)
    for name, array in artifact.tensors.items():
        assert got.tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(got.tensors[name], array)
    assert (got.weight_hash, got.size_bytes) == (artifact.weight_hash, artifact.size_bytes)
    np.testing.assert_array_equal(got.logits(draw(got)), artifact.logits(draw(got)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.netsuke"]


@given(
    st.one_of(
        integer_graphs(extended=True), float_graphs(extended=True), rounded_graphs("w"), rounded_graphs("d")
    )
)
@settings(max_examples=60)
def test_any_graph_comes_back(pair: Pair) -> None:
    artifact = artifact_of(pair)
    with TemporaryDirectory() as folder:
        artifact.save(Path(folder) / "a")
        got = Artifact.load(Path(folder) / "a")
    assert got.weight_hash == artifact.weight_hash
    np.testing.assert_array_equal(got.logits(draw(got, 2)), artifact.logits(draw(got, 2)))


def test_saving_twice_gives_equal_bytes(artifact: Artifact, tmp_path: Path) -> None:
    artifact.save(tmp_path / "a")
    Artifact.load(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_safetensors_library_reads_it(artifact: Artifact, tmp_path: Path) -> None:
    artifact.save(tmp_path / "a.netsuke")
    with safe_open(tmp_path / "a.netsuke", "np") as file:
        assert list(file.metadata()) == ["netsuke"]
        manifest = json.loads(file.metadata()["netsuke"])
        coded = {name for unit in manifest.get("coded", []) for name in unit["tensors"]}
        beside = {"conv.bias.exponent", "out.weight.codebook", "coded.0"}
        assert set(file.keys()) - beside == set(artifact.tensors) - coded
        stored = {name: file.get_tensor(name) for name in set(artifact.tensors) - coded}
    assert manifest["schema"] == 2
    assert manifest["graph"] == artifact.graph.to_json()
    assert manifest["weight_hash"] == artifact.weight_hash
    assert coded <= set(manifest["packed"])
    packed = [stored[name] for name in set(manifest["packed"]) - coded]
    assert all(array.dtype == np.uint8 and array.ndim == 1 for array in packed)


def test_stored_widths(tmp_path: Path) -> None:
    integer_artifact(4).save(tmp_path / "4")
    integer_artifact(8).save(tmp_path / "8")
    with safe_open(tmp_path / "4", "np") as four, safe_open(tmp_path / "8", "np") as eight:
        names = {
            "conv.bias": "int16",
            "conv.multiplier": "uint16",
            "conv.shift": "uint8",
            "out.bias": "uint32",
        }
        for name, dtype in names.items():
            assert four.get_tensor(name).dtype == dtype
        assert four.get_tensor("conv.weight").shape == (18,)  # 36 weights of four bits
        assert eight.get_tensor("conv.weight").dtype == np.int8


@pytest.mark.parametrize("channels", [0, 2])
@pytest.mark.parametrize("signed", [False, True])
def test_tables_are_stored_in_bytes(channels: int, signed: bool, tmp_path: Path) -> None:
    rows = (channels,) if channels else ()
    table = np.random.default_rng(0).integers(-127 if signed else 0, 128, (*rows, 128)).astype(np.int32)
    ops = (
        Op("halve", "in", ("input",)),
        Op("lookup", "t", ("in",), {"signed": signed}),
        Op("sumpool", "out", ("t",)),
    )
    artifact = Artifact(Graph((2, 3, 3), ops), {"t.table": table}, {"classes": ["a", "b"]})
    assert artifact.size_bytes == table.size
    artifact.save(tmp_path / "a")
    with safe_open(tmp_path / "a", "np") as file:
        assert file.get_tensor("t.table").dtype == (np.int8 if signed else np.uint8)
    got = Artifact.load(tmp_path / "a")
    assert got.tensors["t.table"].dtype == np.int32
    np.testing.assert_array_equal(got.tensors["t.table"], table)
    np.testing.assert_array_equal(got.logits(draw(got)), artifact.logits(draw(got)))


def test_biases_are_stored_without_their_last_zeros(tmp_path: Path) -> None:
    plain, short = integer_artifact(), ARTIFACTS["exponent"]()
    short.save(tmp_path / "a")
    with safe_open(tmp_path / "a", "np") as file:
        assert file.get_tensor("conv.bias").tolist() == [-3, 32, 0, 1]
        assert file.get_tensor("conv.bias.exponent").tolist() == [4]
        assert "out.bias.exponent" not in file.keys()  # noqa: SIM118
    assert short.size_bytes == plain.size_bytes - 4 + 1


def test_codebooks_on_disk(tmp_path: Path) -> None:
    artifact = shared_artifact()
    artifact.save(tmp_path / "a")
    with safe_open(tmp_path / "a", "np") as file:
        assert file.get_tensor("out.weight.codebook").tolist() == [-0.5, 0.0, 2.25]
        assert file.get_tensor("out.weight").shape == (14,)  # 54 indices of two bits
        assert file.get_tensor("conv.weight").dtype == np.float32
    assert artifact.size_bytes == float_artifact().size_bytes - 4 * 54 + 14 + 12
    got = Artifact.load(tmp_path / "a").tensors["out.weight"]
    assert got.tobytes() == artifact.tensors["out.weight"].tobytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda h, m, b: h["out.weight.codebook"].update(shape=[3, 1]), "must hold 1 to 256 floats"),
        (lambda h, m, b: h["out.weight.codebook"].update(dtype="U32"), "must hold 1 to 256 floats"),
        (lambda h, m, b: b"\xff" * len(b), "points past its codebook of 3 values"),
        (lambda h, m, b: m["packed"].clear(), "packed must name"),
        (lambda h, m, b: m["packed"].update({"out.weight": [1 << 40, 4]}), "cannot hold"),
        (lambda h, m, b: m["packed"].update({"out.weight": [3, 3]}), "9 weights of 2 bits take 3 bytes"),
        (lambda h, m, b: m.update(schema=1), "'out.weight.codebook' belongs to no op"),
        (
            lambda h, m, b: h.update({"conv.bias.codebook": h.pop("out.weight.codebook")}),
            "'conv.bias.codebook' belongs to no op",
        ),
    ],
)
def test_hostile_codebook(change: Any, says: str, tmp_path: Path) -> None:
    shared_artifact().save(tmp_path / "a")
    rewrite(tmp_path / "a", change)
    refused(tmp_path / "a", says)


@pytest.mark.parametrize("method", ["huffman", "range", "auto"])
@pytest.mark.parametrize("integer", [False, True])
def test_coded_files_are_smaller(method: str, integer: bool, tmp_path: Path) -> None:
    artifact = coded_artifact(method, integer=integer)
    plain = artifact.with_manifest(coding="")
    artifact.save(tmp_path / "a")
    plain.save(tmp_path / "b")
    saved = (tmp_path / "b").stat().st_size - (tmp_path / "a").stat().st_size
    # The file has no decoder in it, but says in its manifest what is coded.
    assert saved > plain.size_bytes - artifact.encoded_bytes + artifact.encoded.decoder_bytes - 400
    assert artifact.encoded_bytes < artifact.size_bytes == plain.size_bytes == plain.encoded_bytes
    with safe_open(tmp_path / "a", "np") as file:
        assert file.get_tensor("coded.0").size == artifact.encoded.stream_bytes


def test_auto_leaves_alone_what_does_not_pay(tmp_path: Path) -> None:
    artifact = integer_artifact().with_manifest(coding="auto")
    assert artifact.encoded_bytes == artifact.size_bytes
    artifact.save(tmp_path / "a")
    assert Artifact.load(tmp_path / "a").manifest == artifact.manifest


@pytest.mark.parametrize("coding", ["zip", 3, None, ["range"]])
def test_unknown_coding(coding: Any, tmp_path: Path) -> None:
    artifact = integer_artifact().with_manifest(coding=coding)
    with pytest.raises(ArtifactError, match="no coding"):
        artifact.save(tmp_path / "a")
    integer_artifact().save(tmp_path / "b")
    rewrite(tmp_path / "b", lambda h, m, b: m.update(coding=coding))
    refused(tmp_path / "b", "no coding")


@pytest.mark.parametrize("method", ["huffman", "range"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda h, m, b: m.update(coded={}), "coded must be a list of units"),
        (lambda h, m, b: m.update(coded=[3]), "unit 0 must have method, tensors and signed"),
        (lambda h, m, b: m["coded"][0].update(method="zip"), "unit 0 is by no method"),
        (lambda h, m, b: m["coded"][0].update(method=["range"]), "unit 0 is by no method"),
        (lambda h, m, b: m["coded"][0].update(signed=1), "unit 0 is by no method"),
        (lambda h, m, b: m["coded"][0].update(tensors=[]), "must name tensors of the graph"),
        (lambda h, m, b: m["coded"][0].update(tensors=["x"]), "must name tensors of the graph"),
        (lambda h, m, b: m["coded"][0].update(tensors=["out.weight"] * 2), "must name tensors of the graph"),
        (lambda h, m, b: m["coded"].append(dict(m["coded"][0])), "each once"),
        (lambda h, m, b: m["coded"][0]["tensors"].append("out.bias"), "'out.bias' belongs to no op"),
        (lambda h, m, b: h["coded.0"].update(dtype="I8"), "unit 0 has no stream"),
        (lambda h, m, b: m.pop("coded") and None, "'out.weight' is missing"),
        (lambda h, m, b: m.update(schema=1), "'out.weight' is missing"),
        (lambda h, m, b: m["packed"].clear(), "packed must name"),
        (lambda h, m, b: m["packed"].update({"out.weight": [1 << 40, 1 << 40]}), "cannot hold"),
        (lambda h, m, b: m["packed"].update({"out.weight": [3, 800]}), "its last value"),
        (lambda h, m, b: m["packed"].update({"out.weight": [3, 1900]}), "stream"),
        (lambda h, m, b: m["packed"].update({"out.weight": [900, 3]}), "weight must be int8"),
        (lambda h, m, b: m["packed"].update({"out.weight": [-1]}), "cannot hold"),
    ],
)
def test_hostile_coding(method: str, change: Any, says: str, tmp_path: Path) -> None:
    coded_artifact(method).save(tmp_path / "a")
    rewrite(tmp_path / "a", change)
    refused(tmp_path / "a", says)


def test_coded_integers_that_fit_no_weight(tmp_path: Path) -> None:
    """A stream of large numbers for a weight of a byte, and of indices past the codebook."""
    for artifact, says in (
        (coded_artifact(), "holds no integers of a byte"),
        (coded_artifact(integer=False), "points past its codebook of 3 values"),
    ):
        artifact.save(tmp_path / "a")
        stream, _ = arithmetic.encode([np.arange(2700) + (1000 if artifact.graph.integer else 3)])

        def change(
            header: dict[str, Any], manifest: dict[str, Any], body: bytes, stream: bytes = stream
        ) -> bytes:
            begin, end = header["coded.0"]["data_offsets"]
            longer = len(stream) - (end - begin)
            header["coded.0"]["shape"] = [len(stream)]
            for name in set(header) - {"__metadata__"}:
                header[name]["data_offsets"] = [
                    at + longer * (at >= end) for at in header[name]["data_offsets"]
                ]
            return body[:begin] + stream + body[end:]

        rewrite(tmp_path / "a", change)
        refused(tmp_path / "a", says)


def test_files_of_schema_1_load(tmp_path: Path) -> None:
    integer_artifact().save(tmp_path / "a")
    rewrite(tmp_path / "a", lambda h, m, b: m.update(schema=1))
    assert Artifact.load(tmp_path / "a").weight_hash == integer_artifact().weight_hash
    ARTIFACTS["exponent"]().save(tmp_path / "a")
    rewrite(tmp_path / "a", lambda h, m, b: m.update(schema=1))
    refused(tmp_path / "a", "'conv.bias.exponent' belongs to no op")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shape": [1, 1]}, "one byte from 1 to 30"),
        ({"dtype": "I8"}, "one byte from 1 to 30"),
        (31, "one byte from 1 to 30"),
        (0, "one byte from 1 to 30"),
        (5, "do not match its weight_hash"),
        (30, "'conv.bias' must hold int32 values"),
    ],
)
def test_hostile_exponent(change: Any, says: str, tmp_path: Path) -> None:
    def alter(header: dict[str, Any], manifest: dict[str, Any], body: bytes) -> bytes:
        row = header["conv.bias.exponent"]
        if isinstance(change, dict):
            row.update(change)
            return body
        at = row["data_offsets"][0]
        return body[:at] + bytes([change]) + body[at + 1 :]

    ARTIFACTS["exponent"]().save(tmp_path / "a")
    rewrite(tmp_path / "a", alter)
    refused(tmp_path / "a", says)


def test_weight_hash_covers_graph_and_weights() -> None:
    one, other = integer_artifact(), integer_artifact()
    assert one.weight_hash == other.weight_hash
    other.tensors["out.bias"][2] += 1
    moved = Artifact(Graph((1, 8, 10), one.graph.ops), one.tensors, one.manifest)
    assert len({one.weight_hash, other.weight_hash, moved.weight_hash}) == 3
    assert one.with_manifest(seed=3).weight_hash == one.weight_hash


def test_with_manifest_leaves_the_original() -> None:
    artifact = integer_artifact()
    assert artifact.with_manifest(seed=3).manifest == {**artifact.manifest, "seed": 3}
    assert "seed" not in artifact.manifest


def test_strided_weights_are_stored_right(tmp_path: Path) -> None:
    artifact = float_artifact()
    artifact.tensors["out.weight"] = np.asfortranarray(artifact.tensors["out.weight"])
    artifact.save(tmp_path / "a")
    np.testing.assert_array_equal(
        Artifact.load(tmp_path / "a").tensors["out.weight"], artifact.tensors["out.weight"]
    )


# --- saving that fails ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a.with_manifest(classes=["a"]), "1 classes"),
        (lambda a: a.with_manifest(classes="abc"), "classes"),
        (lambda a: a.with_manifest(seed=np.int64(1)), "int64"),
        (lambda a: a.with_manifest(accuracy=float("nan")), "cannot be saved"),
        (lambda a: Artifact(a.graph, {**a.tensors, "x": np.zeros(1)}, a.manifest), "'x'"),
        (lambda a: Artifact(a.graph, {**a.tensors, "out.bias": np.zeros(3)}, a.manifest), "bias"),
    ],
)
def test_save_refuses_what_load_would(change: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=says):
        change(integer_artifact()).save(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_save_where_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a", tmp_path / "folder", tmp_path / ("n" * 300), tmp_path / "a\0b"):
        with pytest.raises(ArtifactError, match="cannot be written"):
            integer_artifact().save(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_save_makes_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "one" / "a.netsuke"
    integer_artifact().save(path)
    assert [f.name for f in path.parent.iterdir()] == ["a.netsuke"]
    assert Artifact.load(path)


@pytest.mark.skipif(
    os.geteuid() == 0, reason="the superuser may write to read-only folders: run as a normal user"
)
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ArtifactError, match="cannot be written"):
        integer_artifact().save(tmp_path / "a")
    tmp_path.chmod(0o700)
    assert not list(tmp_path.iterdir())


def test_full_disk_leaves_the_old_file(file: Path) -> None:
    """A limit on the file size makes the write itself fail, half-way, as a full disk does."""
    code = (
        "import resource, sys\n"
        "from netsuke.artifact import Artifact, ArtifactError\n"
        "a = Artifact.load(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))\n"
        "try: a.with_manifest(seed=1).save(sys.argv[1])\n"
        "except ArtifactError as error: print(error)"
    )
    before = file.read_bytes()
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout
    assert done.stdout.count("\n") == 1
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


# --- hostile files ----------------------------------------------------------------------------------


def split(data: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Header, manifest and tensor bytes of a file."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["netsuke"]), data[8 + length :]


def join(header: dict[str, Any], manifest: object, body: bytes) -> bytes:
    text = json.dumps({**header, "__metadata__": {"netsuke": json.dumps(manifest)}}).encode()
    return len(text).to_bytes(8, "little") + text + body


def rewrite(path: Path, change: Any) -> None:
    header, manifest, body = split(path.read_bytes())
    body = change(header, manifest, body) or body
    path.write_bytes(join(header, manifest, body))


def refused(path: Path, says: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        Artifact.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.isprintable()
    assert says in text.removeprefix(f"{path}: ")


CHANGES: dict[str, tuple[Any, str]] = {
    "huge shape": (
        lambda h, m, b: h["out.bias"].update(shape=[1 << 40, 1 << 40]),
        "bytes that its shape needs",
    ),
    "endless shape": (lambda h, m, b: h["out.bias"].update(shape=[10**4000]), "no proper shape"),
    "many axes": (lambda h, m, b: h["out.bias"].update(shape=[1] * 1000), "no proper shape"),
    "negative": (lambda h, m, b: h["out.bias"].update(shape=[-3]), "no proper shape"),
    "huge offsets": (
        lambda h, m, b: h["out.bias"].update(data_offsets=[0, 1 << 45]),
        "bytes that its shape needs",
    ),
    "overlap": (lambda h, m, b: h["conv.bias"].update(data_offsets=[0, 8]), "overlap"),
    "trailing bytes": (lambda h, m, b: b + b"x", "follow the header"),
    "short body": (lambda h, m, b: b[:-1], "follow the header"),
    "beyond int32": (lambda h, m, b: b"\xff" * 12 + b[12:], "'out.bias' must hold int32 values"),
    "unknown dtype": (lambda h, m, b: h["conv.bias"].update(dtype="F64"), "F64"),
    "extra field": (lambda h, m, b: h["conv.bias"].update(x=1), "'conv.bias'"),
    "missing tensor": (lambda h, m, b: m["graph"]["ops"][1].update(name="b"), "'b.bias' is missing"),
    "extra tensor": (
        lambda h, m, b: h.update(x={"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}),
        "'x' belongs",
    ),
    "packed huge": (lambda h, m, b: m["packed"].update({"out.weight": [1 << 40, 4]}), "cannot hold"),
    "packed short": (lambda h, m, b: m["packed"].update({"out.weight": [3, 3]}), "weights of 4 bits"),
    "packed unnamed": (lambda h, m, b: m["packed"].clear(), "packed must name"),
    "schema": (lambda h, m, b: m.update(schema=3), "schema 3; this version of netsuke reads 1 to 2"),
    "schema true": (lambda h, m, b: m.update(schema=True), "schema True"),
    "no schema": (lambda h, m, b: m.pop("schema") and None, "schema None"),
    "no hash": (lambda h, m, b: m.pop("weight_hash") and None, "lacks weight_hash"),
    "other hash": (lambda h, m, b: m.update(weight_hash="0" * 64), "do not match its weight_hash"),
    "damaged weight": (lambda h, m, b: bytes([b[0] ^ 1]) + b[1:], "do not match its weight_hash"),
    "classes": (lambda h, m, b: m.update(classes=["a", "b"]), "names 2 classes; the graph gives 3 logits"),
    "class numbers": (lambda h, m, b: m.update(classes=[0, 1, 2]), "classes, a list of names"),
    "unknown op": (lambda h, m, b: m["graph"]["ops"][0].update(kind="exec"), "unknown op 'exec'"),
    "escape codes": (
        lambda h, m, b: m["graph"]["ops"][0].update(inputs=["\x1b[2J\n"]),
        "takes 1 earlier output",
    ),
    "surrogate": (lambda h, m, b: m.update(note="\ud800"), "strict JSON"),
    "NaN": (lambda h, m, b: m.update(note=float("nan")), "NaN is not a number"),
    "manifest list": (lambda h, m, b: h["conv.shift"].clear(), "'conv.shift'"),
    "huge map": (lambda h, m, b: m["graph"].update(input_shape=[1, 65536, 65536]), "over the limit"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_hostile_header(name: str, file: Path) -> None:
    change, says = CHANGES[name]
    rewrite(file, change)
    refused(file, says)


def raw(text: str) -> bytes:
    return len(text.encode()).to_bytes(8, "little") + text.encode()


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a safetensors file"),
    "short": (b"\x10\0\0", "not a safetensors file"),
    "endless header": (b"\xff" * 8 + b"{}", "not a safetensors file"),
    "pickle": (pickle.dumps({"weights": np.zeros(30)}), "not a safetensors file"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a safetensors file"),
    "no manifest": (raw('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), "has no manifest"),
    "list": (raw("[1]"), "not a JSON object"),
    "not JSON": (raw("{'a': 1}"), "strict JSON"),
    "not UTF-8": ((4).to_bytes(8, "little") + b'{"\xff"', "strict JSON"),
    "a key twice": (raw('{"a":1,"a":1}'), "a key stands twice"),
    "a manifest key twice": (
        raw('{"__metadata__":{"netsuke":"{\\"a\\":1,\\"a\\":2}"}}'),
        "a key stands twice",
    ),
    "infinite": (raw('{"a":1e999}'), "strict JSON"),
    "long number": (raw('{"a":%s}' % ("1" * 100_000)), "strict JSON"),
    "deep": (raw('{"a":' + "[" * 200_000 + "]" * 200_000 + "}"), "nested too deeply"),
    "a manifest of null": (raw('{"__metadata__":{"netsuke":"null"}}'), "not a JSON object"),
    "no manifest text": (raw('{"__metadata__":{"netsuke":1}}'), "has no manifest"),
}


@pytest.mark.parametrize("name", FILES)
def test_hostile_file(name: str, tmp_path: Path) -> None:
    data, says = FILES[name]
    (tmp_path / "a").write_bytes(data)
    refused(tmp_path / "a", says)


def test_not_a_file(tmp_path: Path) -> None:
    refused(tmp_path, "is not a file")
    refused(tmp_path / "missing", "does not exist")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is not a file")


def test_truncation_at_every_byte(file: Path) -> None:
    data = file.read_bytes()
    for length in range(len(data)):
        file.write_bytes(data[:length])
        refused(file, "")


def test_weights_that_are_nan(tmp_path: Path) -> None:
    artifact = float_artifact()
    artifact.save(tmp_path / "a")
    artifact.tensors["out.bias"][1] = np.nan
    with pytest.raises(ArtifactError, match="NaN"):
        artifact.save(tmp_path / "b")
    wrong = np.array([0, np.nan, 0], "<f4").tobytes()

    def change(header: dict[str, Any], manifest: dict[str, Any], body: bytes) -> bytes:
        begin, end = header["out.bias"]["data_offsets"]
        manifest["weight_hash"] = artifact.weight_hash  # a forger computes it
        return body[:begin] + wrong + body[end:]

    rewrite(tmp_path / "a", change)
    refused(tmp_path / "a", "NaN")


# --- ten thousand mutated files ---------------------------------------------------------------------

ODD = [
    None,
    True,
    -1,
    0,
    1,
    7,
    2**31,
    2**48 - 1,
    2**64,
    1e300,
    0.5,
    "",
    "x",
    "input",
    "F32",
    "I32",
    [],
    {},
    [1 << 40] * 3,
]


def mutate_json(rng: random.Random, value: Any) -> None:
    """Replace, drop, copy or nudge one random node of a JSON tree, in place."""
    node = value
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.85:
            node = node[key]
            continue
        kind = rng.randrange(4)
        if kind == 0:
            node[key] = rng.choice(ODD)
        elif kind == 1:
            del node[key]
        elif kind == 2:
            node[key] = node[rng.choice(keys)]
        elif isinstance(node[key], int):
            node[key] += rng.choice([-1, 1, 1000])
        return


def mutate(rng: random.Random, data: bytes) -> bytes:
    kind = rng.randrange(5)
    at = rng.randrange(len(data)) if rng.random() < 0.8 else rng.randrange(16)
    if kind == 0:
        changed = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if kind == 1:
        return data[:at] + data[at + rng.choice([1, 4, len(data)]) :]
    if kind == 2:
        return data[:at] + rng.randbytes(rng.choice([1, 4, 100])) + data[at:]
    header, manifest, body = split(data)
    del header["__metadata__"]
    for _ in range(rng.choice([1, 1, 2, 4])):
        mutate_json(rng, header if kind == 3 else manifest)
    return join(header, manifest, body)


def load_or_refuse(path: Path) -> bool:
    """True where the file loads; then it must also run."""
    try:
        artifact = Artifact.load(path)
    except ArtifactError:
        return False
    if np.prod(artifact.graph.input_shape) < 10_000:
        with np.errstate(over="ignore"):  # a flipped exponent bit makes a large weight, and a valid one
            logits = kernels.run(artifact.graph, artifact.tensors, draw(artifact, 1))
        assert logits.shape == (1, len(artifact.classes))
    return True


@pytest.mark.parametrize("forged", [False, True], ids=["as found", "with a forged hash"])
def test_fuzz(forged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if forged:  # a forger computes the right hash; then the other checks stand alone
        monkeypatch.setattr(Artifact, "weight_hash", property(lambda self: "forged"))
    rng, path, seeds = random.Random(int(forged)), tmp_path / "a", []
    for name in ("float", "int4", "binary", "exponent", "codebook", "range", "huffman indices"):
        ARTIFACTS[name]().save(path)
        seeds.append(path.read_bytes())
    loaded = 0
    for case in range(5000):
        data = mutate(rng, rng.choice(seeds))
        path.write_bytes(data)
        if case % 20 == 0:
            tracemalloc.start()
        loaded += load_or_refuse(path)
        if tracemalloc.is_tracing():
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 50 * len(data) + (1 << 20)
    assert 0 < loaded < 2500  # neither a loader that refuses all nor one that takes all


@pytest.mark.parametrize("integer", [True, False])
def test_a_map_has_no_classes(integer: bool, tmp_path: Path) -> None:
    made = map_artifact(integer=integer).with_manifest(task="find", stride=2)
    made.save(tmp_path / "map.netsuke")
    back = Artifact.load(tmp_path / "map.netsuke")
    assert (back.manifest, back.shape) == ({"task": "find", "stride": 2}, (5, 6, 5))
    images = random_images(back.graph, 3)
    np.testing.assert_array_equal(back.logits(images), made.logits(images))
    with pytest.raises(ArtifactError, match=r"the model gives a map \[5, 6, 5\], not one logit a class"):
        _ = back.classes
    with pytest.raises(
        ArtifactError, match="the graph gives a map, not one logit a class; leave classes out"
    ):
        made.with_manifest(classes=list("abcde")).save(tmp_path / "bad.netsuke")
    with pytest.raises(ArtifactError, match="its manifest needs classes"):
        Artifact(small_artifact().graph, small_artifact().tensors, {}).save(tmp_path / "bad.netsuke")
