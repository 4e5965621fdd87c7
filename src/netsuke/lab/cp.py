"""The CP decomposition, a tensor as a sum of products of vectors, one for each axis; and layers made of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from math import prod

import numpy as np

from netsuke.lab.lowrank import Factors, Frame, Layer, Ranks

SWEEPS = 60
RIDGE = 1e-9  # of the mean of the diagonal: columns that grow alike would make the system singular


def als(tensor: np.ndarray, rank: int, seed: int = 0) -> list[np.ndarray]:
    """Factors [n, rank], one an axis, whose products sum to about `tensor`, by alternating least squares.

    Starts from each axis's strongest directions, and random ones beyond them (Kolda & Bader, Tensor Decompositions
    and Applications, 2009); ends after 60 sweeps, or where a sweep gains less than a ten-thousandth. The factors
    of a product have equal norms.
    """
    rng = np.random.default_rng(seed)
    factors = [_start(tensor, axis, rank, rng) for axis in range(tensor.ndim)]
    power, before = float((tensor**2).sum()), 0.0
    if power == 0:
        return [np.zeros_like(f) for f in factors]
    for _ in range(SWEEPS):
        for axis in range(tensor.ndim):
            others = [f for i, f in enumerate(factors) if i != axis]
            gram = np.prod([f.T @ f for f in others], axis=0)
            target = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1) @ khatri_rao(others)
            ridge = RIDGE * np.trace(gram) / rank + 1e-300
            factors[axis] = np.linalg.solve(gram + ridge * np.eye(rank), target.T).T
            if axis < tensor.ndim - 1:
                factors[axis] /= np.maximum(np.linalg.norm(factors[axis], axis=0), 1e-150)
        # |T - X|^2 = |T|^2 - 2 <T, X> + |X|^2, all of which the last axis has at hand.
        inner, own = float((target * factors[-1]).sum()), float((gram * (factors[-1].T @ factors[-1])).sum())
        kept = 1 - (power - 2 * inner + own) / power
        if kept - before < 1e-4 * max(1 - kept, 1e-9):
            break
        before = kept
    return _balanced(factors)


def khatri_rao(factors: list[np.ndarray]) -> np.ndarray:
    """The column-wise Kronecker product [product of n, rank], the last axis running fastest."""
    result = factors[0]
    for factor in factors[1:]:
        result = (result[:, None] * factor[None]).reshape(-1, result.shape[1])
    return result


def rebuilt(factors: list[np.ndarray]) -> np.ndarray:
    """The tensor that the factors stand for."""
    flat = factors[0] @ khatri_rao(factors[1:]).T
    return flat.reshape([len(f) for f in factors])


def _start(tensor: np.ndarray, axis: int, rank: int, rng: np.random.Generator) -> np.ndarray:
    flat = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
    strongest = np.linalg.eigh(flat @ flat.T)[1][:, ::-1][:, :rank]
    more = rng.standard_normal((len(flat), rank - strongest.shape[1])) / np.sqrt(len(flat))
    return np.concatenate([strongest, more], 1)


def _balanced(factors: list[np.ndarray]) -> list[np.ndarray]:
    norms = [np.maximum(np.linalg.norm(f, axis=0), 1e-150) for f in factors]
    mean = np.exp(np.mean(np.log(norms), axis=0))
    return [f / norm * mean for f, norm in zip(factors, norms, strict=True)]


class Depthwise(Factors):
    """1x1 to r channels, a depthwise kxk, 1x1 to the outputs: a CP decomposition with the window as one axis.

    By alternating least squares (Lebedev et al., 2015), run when first asked for; the ranks are spread by factors
    of about 1.3 up to where nothing is saved.
    """

    def __init__(self, layer: Layer):
        super().__init__(layer)
        self.found: dict[int, list[np.ndarray]] = {}

    def tensor(self) -> np.ndarray:
        return self.weight.reshape(*self.weight.shape[:2], -1)

    def ranks(self) -> Iterator[Ranks]:
        most = prod(self.weight.shape) // (sum(self.weight.shape[:2]) + 1)
        spread = accumulate(range(100), lambda r, _: max(r + 1, round(r * 1.3)), initial=1)
        return ((r,) for r in spread if r <= most)

    def factors(self, rank: int) -> list[np.ndarray]:
        if rank not in self.found:
            self.found[rank] = als(self.tensor(), rank)
        return self.found[rank]

    def kept(self, ranks: Ranks) -> float:
        error = self.tensor() - rebuilt(self.factors(ranks[0]))
        return 1 - float((error**2).sum()) / self.power

    def frames(self, ranks: Ranks) -> list[Frame]:
        (out, inner, rows, columns), r = self.layer.frame.shape, ranks[0]
        middle = Frame((r, 1, rows, columns), self.layer.frame.stride, self.layer.frame.padding, r)
        return [Frame((r, inner, 1, 1)), middle, Frame((out, r, 1, 1))]

    def weights(self, ranks: Ranks) -> list[np.ndarray]:
        a, b, c = self.factors(ranks[0])
        window = c.T.reshape(ranks[0], 1, *self.weight.shape[2:])
        return [b.T[:, :, None, None], window, a[:, :, None, None]]


class CP(Depthwise):
    """As `Depthwise`, with a kx1 and a 1xk: the CP decomposition of all four axes (Lebedev et al., 2015)."""

    def tensor(self) -> np.ndarray:
        return self.weight

    def frames(self, ranks: Ranks) -> list[Frame]:
        (out, inner, rows, columns), r = self.layer.frame.shape, ranks[0]
        stride, (top, left, bottom, right) = self.layer.frame.stride, self.layer.frame.padding
        down = Frame((r, 1, rows, 1), (stride[0], 1), (top, 0, bottom, 0), r)
        across = Frame((r, 1, 1, columns), (1, stride[1]), (0, left, 0, right), r)
        return [Frame((r, inner, 1, 1)), down, across, Frame((out, r, 1, 1))]

    def weights(self, ranks: Ranks) -> list[np.ndarray]:
        a, b, rows, columns = self.factors(ranks[0])
        return [
            b.T[:, :, None, None],
            rows.T[:, None, :, None],
            columns.T[:, None, None, :],
            a[:, :, None, None],
        ]
