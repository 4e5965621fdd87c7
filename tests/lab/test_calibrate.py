"""Calibrators, on distributions whose best range is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from netsuke.errors import OptionError
from netsuke.lab.calibrate import (
    BINS,
    CALIBRATORS,
    KL_BINS,
    Calibration,
    Histogram,
    least_divergence,
    least_squares,
    measure,
)
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.modules import FloatGraph


def _reach(calibrator: str, values: Tensor, batches: int = 7, percentile: float = 99.9) -> float:
    observer = CALIBRATORS[calibrator](percentile)
    for part in values.abs().chunk(batches):
        observer.add(part)
    return observer.reach()


def _draw(kind: str, n: int = 1_000_000) -> Tensor:
    rng = np.random.default_rng(3)
    draws = {"gauss": rng.normal(size=n), "laplace": rng.laplace(size=n), "uniform": rng.uniform(-1, 1, n)}
    return torch.from_numpy(draws[kind].astype(np.float32))


def test_the_simple_ones() -> None:
    values = _draw("gauss")
    assert _reach("minmax", values) == values.abs().max()
    assert _reach("percentile", values, batches=1) == pytest.approx(3.29, rel=0.02)  # of |normal|, 99.9 %
    assert _reach("percentile", values, percentile=100) == values.abs().max()


@pytest.mark.parametrize(("kind", "known"), [("gauss", 3.92), ("laplace", 9.89)])
def test_the_least_squared_error_of_eight_bits(kind: str, known: float) -> None:
    """The best clipping in closed form, of Banner et al., Post Training 4-bit Quantization, 2019."""
    values = _draw(kind)
    assert values.abs().max() > known * 1.1
    assert _reach("mse", values) == pytest.approx(known, rel=0.04)


@pytest.mark.parametrize("calibrator", ["mse", "kl"])
def test_what_is_uniform_is_not_cut(calibrator: str) -> None:
    assert _reach(calibrator, _draw("uniform")) == pytest.approx(1, rel=0.03)
    halves = torch.relu(_draw("uniform"))  # the same behind a ReLU
    assert _reach(calibrator, halves) == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("calibrator", ["mse", "kl"])
def test_a_rare_outlier_is_cut(calibrator: str) -> None:
    values = torch.cat([_draw("gauss"), torch.tensor([14.0])])
    assert 3 < _reach(calibrator, values) < 6
    assert _reach("minmax", values) == 14


def test_divergence_keeps_the_levels_apart() -> None:
    """Two heaps beyond each other: neither may be cut away, though the far one is small."""
    heaps = torch.cat([_draw("gauss") * 0.1 + 1, _draw("gauss", 50_000) * 0.1 + 4])
    assert _reach("kl", heaps) > 4


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.floats(0, 2.0**10, width=32, allow_subnormal=False), min_size=1, max_size=5),
        min_size=1,
        max_size=5,
    )
)
def test_a_histogram_grows_and_loses_nothing(batches: list[list[float]]) -> None:
    histogram = Histogram(least_squares)
    first = next((i for i, part in enumerate(batches) if max(part) > 0), len(batches))
    for part in batches:
        histogram.add(torch.tensor(part))
    everything = np.array([v for part in batches[first:] for v in part], np.float32)
    assert histogram.counts.sum() == len(everything)
    assert len(histogram.counts) == BINS
    if len(everything):
        assert everything.max() <= histogram.top
        want, _ = np.histogram(everything, BINS, (0, histogram.top))
        # A value on an edge may fall to either side.
        assert np.abs(np.cumsum(want - histogram.counts)).max() <= len(everything)
        mean = (histogram.counts @ (np.arange(BINS) + 0.5)) * histogram.top / BINS / len(everything)
        assert abs(mean - everything.mean(dtype=np.float64)) <= 1.01 * histogram.top / BINS


@pytest.mark.parametrize("choose", [least_squares, least_divergence])
def test_empty_and_single_bins(choose) -> None:  # type: ignore[no-untyped-def]
    counts = np.zeros(BINS)
    counts[-1] = 5
    assert choose(counts, 2.0) == pytest.approx(2, rel=1 / KL_BINS)
    only_first = np.zeros(BINS)
    only_first[0] = 5
    assert 0 < choose(only_first, 2.0) <= 2


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_a_network_that_is_silent(calibrator: str) -> None:
    assert _reach(calibrator, torch.zeros(50)) == 0


def test_means_of_channels() -> None:
    torch.manual_seed(0)
    model = build("convnet", (1, 8, 8), 4, width=0.25).eval()
    graph, tensors = lower(model, (1, 8, 8))
    twin, images = FloatGraph(graph, tensors), torch.rand(20, 1, 8, 8)
    names = {op.name for op in graph.ops if op.kind in ("conv2d", "dense")}
    reaches, means = measure(twin, images.split(7), names, names, Calibration("minmax"))
    with torch.no_grad():
        values = twin.activations(images)
    assert set(means) == set(reaches) == names
    for name in names:
        torch.testing.assert_close(means[name], values[name].transpose(0, 1).flatten(1).mean(1))
        assert reaches[name] == values[name].abs().max()


@pytest.mark.parametrize(
    ("options", "word"), [({"calibrator": "max"}, "minmax"), ({"percentile": 49.0}, "50..100")], ids=str
)
def test_errors(options: dict, word: str) -> None:
    with pytest.raises(OptionError, match=word):
        Calibration(**options)
