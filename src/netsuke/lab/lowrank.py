"""Layers as products of smaller ones: what each method makes of a weight, and how much of it that keeps.

A layer is a convolution of one group; a dense layer is one of 1x1 on a map of one pixel. `kept` is the share of the
weight's squared norm, or of the output's variance, that the product keeps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

Ranks = tuple[int, ...]
SIDES = (0, 0, 0, 0)


@dataclass(frozen=True)
class Frame:
    """A convolution without its numbers: the weight's shape, stride, padding (top, left, bottom, right), groups."""

    shape: tuple[int, int, int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = SIDES
    groups: int = 1

    def size(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns that it gives for a map of so many."""
        (top, left, bottom, right), (_, _, high, wide) = self.padding, self.shape
        return (rows + top + bottom - high) // self.stride[0] + 1, (
            columns + left + right - wide
        ) // self.stride[1] + 1


@dataclass(frozen=True)
class Layer:
    """What is to be factorised: weight [O, I, rows, columns], bias [O], how it runs, the size of its input map.

    `mean` [O] and `covariance` [O, O] are those of its outputs on data, where they are known.
    """

    weight: np.ndarray
    bias: np.ndarray
    frame: Frame
    size: tuple[int, int] = (1, 1)
    mean: np.ndarray | None = None
    covariance: np.ndarray | None = None


class Factors(ABC):
    """One method on one layer: which ranks there are, what each keeps and how it runs, the weights it takes."""

    def __init__(self, layer: Layer):
        self.layer = layer
        self.weight = layer.weight.astype(np.float64)
        self.power = float((self.weight**2).sum()) or 1.0

    @abstractmethod
    def ranks(self) -> Iterator[Ranks]:
        """From the smallest; each keeps at least what the one before keeps."""
        ...

    @abstractmethod
    def kept(self, ranks: Ranks) -> float: ...

    @abstractmethod
    def frames(self, ranks: Ranks) -> list[Frame]: ...

    @abstractmethod
    def weights(self, ranks: Ranks) -> list[np.ndarray]: ...

    def bias(self, ranks: Ranks) -> np.ndarray:
        """Of the last of the layers; the others have none."""
        return self.layer.bias

    def cost(self, ranks: Ranks, of: str) -> int:
        return cost(self.frames(ranks), self.layer.size, of)


def cost(frames: list[Frame], size: tuple[int, int], of: str) -> int:
    """Parameters, bytes of float32 or MACs of convolutions in a row; every one stores a bias."""
    total = 0
    for frame in frames:
        size = frame.size(*size)
        total += prod(frame.shape) * prod(size) if of == "macs" else prod(frame.shape) + frame.shape[0]
    return total * (4 if of == "bytes" else 1)


class Matrix(Factors):
    """A method that is a singular value decomposition of the weight as a matrix [outer, inner]."""

    @abstractmethod
    def matrix(self) -> np.ndarray: ...

    @cached_property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Left vectors [outer, r], singular values, right vectors [r, inner]."""
        return np.linalg.svd(self.matrix(), full_matrices=False)

    @cached_property
    def shares(self) -> list[float]:
        powers = self.parts[1] ** 2
        return list(np.cumsum(powers) / (powers.sum() or 1.0))

    def ranks(self) -> Iterator[Ranks]:
        return ((r,) for r in range(1, len(self.parts[1]) + 1))

    def kept(self, ranks: Ranks) -> float:
        return self.shares[ranks[0] - 1]

    def halves(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """The two factors, the singular values shared between them so that both quantise well."""
        left, values, right = self.parts
        root = np.sqrt(values[:rank])
        return left[:, :rank] * root, right[:rank] * root[:, None]


class Channel(Matrix):
    """Fewer filters, then a 1x1 convolution; for a dense layer two dense ones.

    Zhang et al., Accelerating Very Deep Convolutional Networks, 2016: with the outputs' covariance it is their
    variance that is kept (their linear case), else the weight's squared norm.
    """

    def matrix(self) -> np.ndarray:
        return self.weight.reshape(len(self.weight), -1)

    @cached_property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.layer.covariance is None:
            return np.linalg.svd(self.matrix(), full_matrices=False)
        values, vectors = np.linalg.eigh(self.layer.covariance.astype(np.float64))
        order = np.argsort(values)[::-1]
        vectors = vectors[:, order]
        return vectors, np.sqrt(np.maximum(values[order], 0)), vectors.T @ self.matrix()

    def halves(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        if self.layer.covariance is None:
            return super().halves(rank)
        left, _, right = self.parts
        root = np.sqrt(np.maximum(np.linalg.norm(right[:rank], axis=1), 1e-12))
        return left[:, :rank] * root, right[:rank] / root[:, None]

    def frames(self, ranks: Ranks) -> list[Frame]:
        out, *rest = self.layer.frame.shape
        first = Frame(
            (ranks[0], rest[0], rest[1], rest[2]), self.layer.frame.stride, self.layer.frame.padding
        )
        return [first, Frame((out, ranks[0], 1, 1))]

    def weights(self, ranks: Ranks) -> list[np.ndarray]:
        left, right = self.halves(ranks[0])
        return [right.reshape(ranks[0], *self.weight.shape[1:]), left[:, :, None, None]]

    def bias(self, ranks: Ranks) -> np.ndarray:
        if self.layer.mean is None:
            return self.layer.bias
        basis = self.parts[0][:, : ranks[0]]
        return basis @ (basis.T @ (self.layer.bias - self.layer.mean)) + self.layer.mean


class Spatial(Matrix):
    """Columns, then rows: a kx1 convolution and a 1xk one.

    Jaderberg et al., Speeding up Convolutional Neural Networks with Low Rank Expansions, 2014, scheme 2.
    """

    def matrix(self) -> np.ndarray:
        out, inner, rows, columns = self.weight.shape
        return self.weight.transpose(0, 3, 1, 2).reshape(out * columns, inner * rows)

    def frames(self, ranks: Ranks) -> list[Frame]:
        (out, inner, rows, columns), stride = self.layer.frame.shape, self.layer.frame.stride
        top, left, bottom, right = self.layer.frame.padding
        return [
            Frame((ranks[0], inner, rows, 1), (stride[0], 1), (top, 0, bottom, 0)),
            Frame((out, ranks[0], 1, columns), (1, stride[1]), (0, left, 0, right)),
        ]

    def weights(self, ranks: Ranks) -> list[np.ndarray]:
        (out, inner, rows, columns), r = self.weight.shape, ranks[0]
        left, right = self.halves(r)
        return [
            right.reshape(r, inner, rows, 1),
            left.reshape(out, columns, r).transpose(0, 2, 1)[:, :, None, :],
        ]


class Tucker(Factors):
    """1x1 to fewer channels, the core, 1x1 to the outputs: ranks (outputs, inputs) of the core.

    Kim et al., Compression of Deep Convolutional Neural Networks, 2016. The higher-order SVD says what ranks keep;
    the weights are then refined by sweeps of HOOI (De Lathauwer et al., 2000). A side of full rank has no 1x1.
    """

    sweeps = 10

    @cached_property
    def bases(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(_basis(self.weight, axis, self.weight.shape[axis]) for axis in (0, 1))  # type: ignore

    @cached_property
    def shares(self) -> np.ndarray:
        """What the truncated core of the higher-order SVD keeps, by ranks less one [O, I]."""
        core = _core(self.weight, *self.bases)
        return (core**2).sum((2, 3)).cumsum(0).cumsum(1) / self.power

    def ranks(self) -> Iterator[Ranks]:
        """A path from (1, 1) that at each step takes the rank which keeps more for its parameters."""
        out, inner = self.shares.shape
        area = prod(self.weight.shape[2:])
        p = q = 1
        while True:
            yield p, q
            here = self.shares[p - 1, q - 1]
            steps = []
            if p < out:
                steps.append(((self.shares[p, q - 1] - here) / (q * area + out), (p + 1, q)))
            if q < inner:
                steps.append(((self.shares[p - 1, q] - here) / (p * area + inner), (p, q + 1)))
            if not steps:
                return
            p, q = max(steps)[1]

    def kept(self, ranks: Ranks) -> float:
        return float(self.shares[ranks[0] - 1, ranks[1] - 1])

    def frames(self, ranks: Ranks) -> list[Frame]:
        (p, q), frame = ranks, self.layer.frame
        out, inner, rows, columns = frame.shape
        first = [Frame((q, inner, 1, 1))] if q < inner else []
        last = [Frame((out, p, 1, 1))] if p < out else []
        return [*first, Frame((p, q, rows, columns), frame.stride, frame.padding), *last]

    def weights(self, ranks: Ranks) -> list[np.ndarray]:
        (p, q), (out, inner) = ranks, self.weight.shape[:2]
        a, b = self.bases[0][:, :p], self.bases[1][:, :q]
        for _ in range(self.sweeps if p < out and q < inner else 0):
            a = _basis(np.tensordot(b.T, self.weight, (1, 1)).transpose(1, 0, 2, 3), 0, p)
            b = _basis(np.tensordot(a.T, self.weight, (1, 0)), 1, q)
        if q == inner:
            b = np.eye(inner)
            a = self.bases[0][:, :p]  # the best there is when only one side is cut
        if p == out:
            a = np.eye(out)
        first = [b.T[:, :, None, None]] if q < inner else []
        last = [a[:, :, None, None]] if p < out else []
        return [*first, _core(self.weight, a, b), *last]


def _basis(weight: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """The strongest directions of one axis [n, rank]; of its Gram matrix, which is small."""
    flat = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    return np.linalg.eigh(flat @ flat.T)[1][:, ::-1][:, :rank]


def _core(weight: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("oiyx,op,iq->pqyx", weight, a, b, optimize=True)
