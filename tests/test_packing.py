from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import integer_graphs
from netsuke import packing
from netsuke.errors import ArtifactError
from netsuke.graph import Graph, Op


@given(bits=st.integers(1, 8), count=st.integers(0, 70), seed=st.integers(0, 1000))
def test_round_trip(bits: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    limit = (1 << (bits - 1)) - 1
    weights = rng.choice([-1, 1], count) if bits == 1 else rng.integers(-limit, limit + 1, count)
    stream = packing.pack(weights.astype(np.int8), bits)
    assert stream.dtype == np.uint8
    assert stream.shape == ((count * bits + 7) // 8,)
    np.testing.assert_array_equal(packing.unpack(stream, bits, (count,)), weights)


@pytest.mark.parametrize("bits", range(1, 9))
def test_stream_by_hand(bits: int) -> None:
    """Against one long Python integer: value k in the bits from k * bits on."""
    weights = [1, -1, -1, 1, 1, 1, -1]
    number = sum(((w > 0) if bits == 1 else w % (1 << bits)) << (k * bits) for k, w in enumerate(weights))
    stream = packing.pack(np.array(weights, np.int8), bits)
    assert stream.tobytes() == number.to_bytes((7 * bits + 7) // 8, "little")


def test_unpack_keeps_the_shape_and_refuses_another_length() -> None:
    stream = packing.pack(np.arange(-3, 3, dtype=np.int8), 4)
    assert packing.unpack(stream, 4, (2, 3)).tolist() == [[-3, -2, -1], [0, 1, 2]]
    with pytest.raises(ArtifactError, match="6 weights of 4 bits take 3 bytes, not 4"):
        packing.unpack(np.zeros(4, np.uint8), 4, (2, 3))
    with pytest.raises(ArtifactError):
        packing.unpack(stream.astype(np.int16), 4, (2, 3))


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ([0, 255], "uint8"),
        ([0, 256], "uint16"),
        ([65536], "uint32"),
        ([-1, 127], "int8"),
        ([-1, 128], "int16"),
        ([-129], "int16"),
        ([-32769], "int32"),
        ([], "uint8"),
    ],
)
def test_storage_dtype_is_the_narrowest(values: list[int], name: str) -> None:
    assert packing.storage_dtype(np.array(values, np.int32)).name == name


@given(
    bias=st.lists(st.integers(-(2**31) + 1, 2**31 - 1) | st.integers(-300, 300), max_size=9),
    shift=st.integers(0, 24),
)
def test_shortened_biases_come_back_and_are_never_larger(bias: list[int], shift: int) -> None:
    whole = np.array([b >> shift << shift for b in bias], np.int64)
    short, exponent = packing.shortened(whole.astype(np.int32))
    assert (short.astype(np.int64) << exponent).tolist() == whole.tolist()
    plain = whole.astype(packing.storage_dtype(whole)).nbytes
    assert short.nbytes + (exponent > 0) == plain if not exponent else short.nbytes + 1 < plain


@pytest.mark.parametrize(
    ("bias", "dtype", "exponent"),
    [
        ([-1, 127], "int8", 0),
        ([-64, 32], "int8", 0),  # one byte already
        ([-1024, 1016], "int8", 3),
        ([-1024, 1017], "int16", 0),
        ([-1024, 1024, 0], "int8", 10),
        ([128 << 20, 255 << 20], "uint8", 20),
        ([40001 << 9, -(9 << 10)], "int32", 0),  # 17 bits and a sign stay
        ([20001 << 9, -(9 << 10)], "int16", 9),
        ([512], "uint16", 0),  # a byte saved, a byte for k
        ([1 << 30], "uint8", 30),
        ([0, 0], "uint8", 0),
        ([], "uint8", 0),
    ],
)
def test_shortened_by_hand(bias: list[int], dtype: str, exponent: int) -> None:
    short, k = packing.shortened(np.array(bias, np.int32))
    assert (short.dtype.name, k) == (dtype, exponent)


@given(
    values=st.lists(st.floats(-9, 9, width=32) | st.just(-0.0), min_size=1, max_size=5),
    count=st.integers(0, 200),
    seed=st.integers(0, 99),
)
def test_codebook_gives_every_weight_back(values: list[float], count: int, seed: int) -> None:
    weights = np.random.default_rng(seed).choice(np.array(values, np.float32), (2, count))
    book = packing.codebook(weights)
    if book:
        assert book.weights.tobytes() == weights.tobytes()  # -0.0 included
        assert (np.diff(book.values) >= 0).all()
        assert len(book.values) <= 1 << book.bits
        assert (weights.size * book.bits + 7) // 8 + book.values.nbytes < weights.nbytes
    else:
        kinds = len(set(weights.reshape(-1).view(np.int32).tolist()))
        assert (weights.size * packing.index_bits(kinds) + 7) // 8 + 4 * kinds >= weights.nbytes


def test_size_of_codebooks() -> None:
    graph = Graph((1, 40, 40), (Op("normalize", "n", ("input",), {"scales": [1], "offsets": [0]}),
                                Op("flatten", "f", ("n",)), Op("dense", "d", ("f",))))  # fmt: skip
    weight = np.arange(1600, dtype=np.float32).reshape(1, 1600)
    tensors = {"d.weight": weight % 5, "d.bias": np.zeros(1, np.float32)}
    assert packing.size_bytes(graph, tensors) == 1600 * 3 // 8 + 4 * 5 + 4
    tensors["d.weight"] = weight % 256
    assert packing.size_bytes(graph, tensors) == 1600 + 4 * 256 + 4
    tensors["d.weight"] = weight % 257  # one value too many
    assert packing.size_bytes(graph, tensors) == 4 * 1600 + 4
    tensors["d.weight"] = weight * 0  # one bit each still
    assert packing.size_bytes(graph, tensors) == 200 + 4 + 4


def test_size_by_hand() -> None:
    attrs = {"stride": [1, 1], "padding": [0, 0, 0, 0], "groups": 1, "bits": 3, "signed": False}
    graph = Graph((1, 4, 4), (Op("halve", "h", ("input",)), Op("qconv2d", "q", ("h",), attrs)))
    tensors = {
        "q.weight": np.ones((2, 1, 3, 3), np.int8),  # 18 x 3 bits: 7 bytes
        "q.bias": np.array([-1, 200], np.int32),  # two int16
        "q.multiplier": np.array([255, 0], np.int32),  # two uint8
        "q.shift": np.array([4, 4], np.int32),  # one uint8 for both
    }
    assert [row.size_bytes for row in packing.stored(graph, tensors)] == [7, 4, 2, 1]
    tensors["q.shift"][1] = 5
    assert packing.size_bytes(graph, tensors) == 7 + 4 + 2 + 2
    tensors["q.bias"][:] = -1 << 10, 100 << 10  # two int8 and the byte that says 10
    assert packing.size_bytes(graph, tensors) == 7 + 3 + 2 + 2


@given(pair=integer_graphs())
def test_size_counts_every_tensor(pair: tuple) -> None:
    graph, tensors = pair
    rows = packing.stored(graph, tensors)
    assert {row.tensor for row in rows} == set(tensors)
    assert packing.size_bytes(graph, tensors) == sum(row.size_bytes for row in rows)
