"""The coders: exact round trips, what they save, and what a hostile stream meets."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke import coding
from netsuke.coding import Source, Unit, arithmetic, huffman
from netsuke.errors import ArtifactError, OptionError

BYTES = {
    "huffman": (huffman.encode, huffman.decode),
    "sparse": (huffman.encode_sparse, huffman.decode_sparse),
}


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Bytes from all alike to all different, dense and sparse."""
    count, seed = draw(st.integers(1, 400)), draw(st.integers(0, 1000))
    kinds, share = draw(st.integers(1, 255)), draw(st.sampled_from([0.0, 0.01, 0.3, 1.0]))
    rng = np.random.default_rng(seed)
    skewed = np.minimum(rng.geometric(draw(st.sampled_from([0.02, 0.3, 0.9])), count), kinds)
    return (skewed * (rng.random(count) < share)).astype(np.uint8)


@pytest.mark.parametrize("method", BYTES)
@given(values=arrays())
def test_bytes_come_back(method: str, values: np.ndarray) -> None:
    encode, decode = BYTES[method]
    stream = encode(values)
    if stream is None:
        assert (method, values.any()) == ("sparse", False)
        return
    np.testing.assert_array_equal(decode(stream, len(values)), values)
    with pytest.raises(ArtifactError):
        decode(stream + b"\0", len(values))
    with pytest.raises(ArtifactError):
        decode(stream[:-1], len(values))


INT31 = st.integers(-(2**31) + 1, 2**31 - 1)


@given(st.lists(st.lists(st.integers(-8, 8) | st.just(0) | INT31, max_size=60), min_size=1, max_size=4))
def test_integers_come_back(units: list[list[int]]) -> None:
    stream, sizes = arithmetic.encode(np.array(unit, np.int64) for unit in units)
    assert sum(sizes) == len(stream)
    got = arithmetic.decode(stream, [len(unit) for unit in units])
    assert [unit.tolist() for unit in got] == units
    if any(units):
        with pytest.raises(ArtifactError):
            arithmetic.decode(stream[:-1], [len(unit) for unit in units])
        with pytest.raises(ArtifactError):
            arithmetic.decode(stream + b"\0", [len(unit) for unit in units])


def test_carries_run_back_through_the_stream() -> None:
    """Long runs of the likely bit, then unlikely ones: the coder's low end crosses bytes of 255."""
    rng = np.random.default_rng(0)
    for seed in range(40):
        values = np.where(rng.random(3000) < 0.002 * seed, rng.integers(-70, 71, 3000), 0)
        stream, _ = arithmetic.encode([values])
        np.testing.assert_array_equal(arithmetic.decode(stream, [3000])[0], values)


def test_one_bit_is_lost_in_at_most_a_hundred() -> None:
    """The range coder stays near the entropy of what it is given, tables and all."""
    rng = np.random.default_rng(1)
    for share in (0.03, 0.2, 1.0):
        values = np.rint(rng.laplace(0, 3, 20000)).astype(int) * (rng.random(20000) < share)
        _, counts = np.unique(values, return_counts=True)
        entropy = -(counts * np.log2(counts / len(values))).sum() / 8
        assert len(arithmetic.encode([values])[0]) < 1.02 * entropy + 20


@given(arrays())
def test_huffman_is_within_a_bit_of_the_entropy(values: np.ndarray) -> None:
    table = huffman.Table.of(values)
    _, counts = np.unique(values, return_counts=True)
    entropy = -(counts * np.log2(counts / len(values))).sum()
    rank = {symbol: i for i, symbol in enumerate(table.symbols.tolist())}
    bits = sum(int(table.lengths[rank[v]]) for v in values.tolist())
    assert entropy - 1e-6 <= bits <= entropy + len(values)
    assert max(table.lengths) <= huffman.LONGEST


def test_rare_bytes_get_codes_of_fifteen_bits_at_most() -> None:
    counts = [1, 1]
    while len(counts) < 20:  # Fibonacci's numbers make the deepest tree
        counts.append(counts[-1] + counts[-2])
    values = np.repeat(np.arange(20, dtype=np.uint8), counts)
    stream = huffman.encode(values)
    assert stream is not None
    assert stream[0] <= huffman.LONGEST < max(huffman._lengths(counts))
    np.testing.assert_array_equal(huffman.decode(stream, len(values)), values)


def test_by_hand() -> None:
    """a: 0, b: 10, c: 11; L = 2, one code of one bit and two of two."""
    stream = huffman.encode(np.frombuffer(b"aabacaab", np.uint8))
    assert stream == bytes([2, 1, 2]) + b"abc" + bytes([0b00100110, 0b01000000])
    sparse = huffman.encode_sparse(np.array([0, 0, 7, 0, 0, 7, 0, 0], np.uint8))
    assert sparse == bytes([1, 1, 2, 1, 1, 7, 0b00000000])  # gap 2, value 7, gap 2, value 7, gap 2


# --- what is chosen -----------------------------------------------------------------------------------


def source(name: str, values: np.ndarray, bits: int = 8, kind: str = "w") -> Source:
    return Source(name, values.reshape(-1), (values.size * bits + 7) // 8, kind)


def drawn() -> list[Source]:
    rng = np.random.default_rng(2)
    pruned = rng.integers(-15, 16, 9000) * (rng.random(9000) < 0.08)
    return [
        source("pruned", pruned, 5, "5"),
        source("skewed", rng.choice([-3, 0, 1, 9], 4000, p=[0.05, 0.8, 0.1, 0.05]), 5, "5"),
        source("noise", rng.integers(-128, 128, 3000)),
        source("bias", rng.integers(-3000, 3000, 40), 16, "bias"),
        source("nothing", np.zeros(0, np.int64)),
    ]


def size(coded: coding.Coded, sources: list[Source]) -> int:
    plain = sum(s.plain_bytes for s in sources if s.name not in coded.tensors)
    return plain + coded.stream_bytes + coded.decoder_bytes


@pytest.mark.parametrize("method", coding.METHODS)
def test_units_come_back_and_shrink(method: str) -> None:
    sources = drawn()
    coded = coding.encode(sources, method)
    got = coding.decode(coded.units, {s.name: s.values.size for s in sources})
    assert set(got) == coded.tensors
    for s in sources:
        if s.name in got:
            np.testing.assert_array_equal(got[s.name], s.values)
    if method:
        assert {"pruned", "skewed"} <= coded.tensors
        assert "noise" not in coded.tensors  # noise cannot shrink
        assert size(coded, sources) < size(coding.encode(sources, ""), sources)
    else:
        assert not coded.units


def test_auto_is_the_smallest_with_its_decoder() -> None:
    sources = drawn()
    sizes = {method: size(coding.encode(sources, method), sources) for method in coding.METHODS}
    assert sizes["auto"] == min(sizes.values())
    few = [source("few", np.array([0, 0, 0, 1]))]
    assert not coding.encode(few, "auto").units  # three bytes saved do not pay for a decoder


def test_pruned_layers_take_gaps() -> None:
    coded = coding.encode(drawn(), "huffman")
    assert next(unit.method for unit in coded.units if "pruned" in unit.tensors) == "sparse"
    assert coding.decoder_bytes({"huffman", "sparse"}) == coding.DECODER_BYTES["sparse"]


def test_unknown_methods_are_named() -> None:
    with pytest.raises(OptionError, match="no coding 'zip'; there are huffman, range, auto"):
        coding.encode([], "zip")


# --- hostile streams ----------------------------------------------------------------------------------

TABLE = bytes([2, 1, 2]) + b"abc"


@pytest.mark.parametrize(
    ("method", "stream", "count", "says"),
    [
        ("huffman", b"", 3, "table is cut short"),
        ("huffman", bytes([0]), 3, "table is cut short"),
        ("huffman", bytes([16] + [1] * 40), 3, "cut short or too long"),
        ("huffman", bytes([2, 255, 255]) + bytes(600), 3, "cut short or too long"),
        ("huffman", bytes([2, 1, 1]) + b"abc", 1, "not that of a code"),
        ("huffman", bytes([2, 1, 3]) + b"abcd", 1, "not that of a code"),
        ("huffman", bytes([2, 1, 2]) + b"aac", 1, "a symbol twice"),
        ("huffman", TABLE + b"\0", 1 << 60, "cannot hold"),
        ("huffman", TABLE + b"\xff", 5, "does not end with its last value"),
        ("huffman", TABLE + b"\xff\xff\xff", 24, "ends before its last value"),
        ("huffman", TABLE + b"\0\0", 3, "does not end with its last value"),
        ("sparse", TABLE, 3, "table is cut short"),
        ("sparse", TABLE + TABLE, 1 << 60, "cannot hold"),
        ("sparse", TABLE + TABLE + b"\0", 3, "runs past its last value"),
        ("sparse", TABLE + TABLE + b"\0", 1500, "ends before its last value"),
        ("range", b"", 0, "cannot hold"),
        ("range", b"abc", 1, "cannot hold"),
        ("range", b"\0\0\0\0", 1 << 60, "cannot hold"),
        ("range", b"\0\0\0\0", 4000, "does not end"),
        ("range", b"\xff" * 40, 40, "does not end"),
    ],
)
def test_hostile_streams(method: str, stream: bytes, count: int, says: str) -> None:
    with pytest.raises(ArtifactError, match=says):
        coding.decode([Unit(method, ("a",), stream)], {"a": count})


def test_one_stream_for_all_that_is_range_coded() -> None:
    stream, _ = arithmetic.encode([np.array([1, 2]), np.array([3])])
    first, second = Unit("range", ("a",), stream), Unit("range", ("b",), b"")
    got = coding.decode([first, second], {"a": 2, "b": 1})
    assert (got["a"].tolist(), got["b"].tolist()) == ([1, 2], [3])
    with pytest.raises(ArtifactError, match="share the stream of the first"):
        coding.decode([first, Unit("range", ("b",), b"x")], {"a": 2, "b": 1})


@given(
    method=st.sampled_from(["huffman", "sparse", "range"]),
    values=arrays(),
    at=st.integers(0, 10_000),
    to=st.binary(max_size=3),
    count=st.integers(0, 2000),
)
@settings(max_examples=300)
def test_damaged_streams_decode_or_are_refused(
    method: str, values: np.ndarray, at: int, to: bytes, count: int
) -> None:
    stream = arithmetic.encode([values])[0] if method == "range" else BYTES[method][0](values)
    if stream is None:
        return
    at %= len(stream)
    damaged = stream[:at] + to + stream[at + 1 :]
    for wanted in (len(values), count):
        try:
            got = coding.decode([Unit(method, ("a",), damaged)], {"a": wanted})
        except ArtifactError:
            continue
        assert got["a"].size == wanted


@pytest.mark.parametrize("method", ["huffman", "sparse", "range"])
def test_time_and_memory_are_bounded_by_the_stream(method: str) -> None:
    """The most that a stream may claim: zeros and nothing else."""
    head = {"huffman": bytes([1, 2, 0, 1]), "sparse": bytes([1, 2, 255, 254, 1, 1, 0]), "range": b""}[method]
    stream = head + bytes(100)
    start = time.process_time()
    tracemalloc.start()
    for count in (800, 204_800, 1024 * len(stream), 1 << 40):
        try:
            got = coding.decode([Unit(method, ("a",), stream)], {"a": count})
        except ArtifactError:
            continue
        assert got["a"].size == count < 1 << 40
    assert time.process_time() - start < 10
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()


def test_speed_of_a_large_network() -> None:
    """431 080 weights, a tenth of them left: well under two seconds of one core."""
    rng = np.random.default_rng(0)
    values = rng.integers(-15, 16, 431_080) * (rng.random(431_080) < 0.1)
    for method in ("huffman", "range"):
        coded = coding.encode([source("a", values, 5)], method)
        start = time.process_time()
        got = coding.decode(coded.units, {"a": values.size})
        assert time.process_time() - start < 2
        np.testing.assert_array_equal(got["a"], values)
