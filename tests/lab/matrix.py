"""Every technique as the matrix test applies it to a network, and what each of them claims.

Sizes have three figures. `size_bytes`, stored and read in place, falls by narrower, shared or fewer weights;
`encoded_bytes` by entropy coding, and there alone by zeros; `file_bytes` is the whole file, its header of names and
shapes included. A technique is held to the figure that it claims.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import nn

from lab.sets import blobs
from netsuke import packing
from netsuke.artifact import Artifact
from netsuke.lab.lower import lower
from netsuke.lab.steps import (
    Training,
    distil,
    dynamic,
    encode,
    factorise,
    prune,
    quantize,
    share,
    weight_only,
)
from netsuke.measure.cost import macs, parameters
from netsuke.memory import ram_bytes
from netsuke.storage import Encoded

DATA = blobs((1, 20, 20), n=60)
SHORT = Training(epochs=1, batch=18)  # two steps
NO_BRANCH = "no layer can go: the network has no residual sum; structure 'channels' prunes it"


@dataclass(frozen=True, eq=False)
class Case:
    """A network after a technique: as it trains or runs in torch, and as its file holds it."""

    module: nn.Module
    artifact: Artifact
    path: Path

    @property
    def file_bytes(self) -> int:
        return self.path.stat().st_size

    @cached_property
    def encoded(self) -> Encoded:
        return self.artifact.encoded

    @property
    def macs(self) -> int:
        return sum(macs(self.artifact.graph, self.artifact.tensors).values())

    @property
    def ram_bytes(self) -> int:
        return ram_bytes(self.artifact.graph, self.artifact.tensors)

    @property
    def parameters(self) -> int:
        return parameters(self.artifact.graph, self.artifact.tensors)

    @property
    def payload_bytes(self) -> int:
        """The file without its header, whose length its first eight bytes tell."""
        with self.path.open("rb") as file:
            return self.file_bytes - 8 - int.from_bytes(file.read(8), "little")

    def weights(self) -> dict[str, np.ndarray]:
        roles = self.artifact.graph.roles()
        return {name: self.artifact.tensors[name] for name, (_, role) in roles.items() if role == "weight"}


# --- claims: what holds of a network beside the one it was made of -------------------------------------

Claim = Callable[[Case, Case], None]


def stored(case: Case, than: Case) -> None:
    """Fewer bytes, on a device and in the file."""
    assert case.artifact.size_bytes < than.artifact.size_bytes
    assert case.file_bytes < than.file_bytes


def fewer(case: Case, than: Case) -> None:
    """Channels or layers are gone: fewer of everything but working memory, which may be another layer's."""
    stored(case, than)
    assert case.parameters < than.parameters
    assert case.macs < than.macs
    assert case.ram_bytes <= than.ram_bytes


def factors(case: Case, than: Case) -> None:
    stored(case, than)
    assert case.parameters < than.parameters


def unchanged(case: Case, than: Case) -> None:
    """Other weights in the same places: it claims no bytes."""
    assert case.artifact.size_bytes == than.artifact.size_bytes
    assert case.macs == than.macs


def zeros(case: Case, than: Case) -> None:
    """Half of the weights are 0, and nothing else shows it.

    But for small layers in float: where at most 256 values are left, a codebook and indices take fewer bytes.
    """
    weights = np.concatenate([w.reshape(-1) for w in case.weights().values()])
    assert np.mean(weights == 0) >= 0.45  # N:M keeps the rest of a row that is no multiple of M
    assert (case.macs, case.ram_bytes, case.parameters) == (than.macs, than.ram_bytes, than.parameters)
    before, after = ({row.tensor: row for row in _rows(c)} for c in (than, case))
    assert all(row == before[name] for name, row in after.items() if not row.table_bytes)


def zeros_encoded(case: Case, than: Case) -> None:
    """Against the same network with all its weights, coded the same way."""
    assert case.encoded.size_bytes < than.encoded.size_bytes
    assert case.file_bytes < than.file_bytes
    assert (case.macs, case.ram_bytes) == (than.macs, than.ram_bytes)
    rows = {row.tensor: row for row in _rows(case)}  # a ReLU6 may have a table in one and none in the other
    for before in _rows(than):
        after = rows.get(before.tensor, before)
        if before.tensor.endswith(".weight") and not before.table_bytes and not after.table_bytes:
            assert after == before, (before, after)


def coded(case: Case, than: Case) -> None:
    """The same weights in fewer bytes; small networks may not repay the code of their decoder on a device.

    In the file it is the tensors that shrink: its header, which says where streams lie, grows by some hundred bytes.
    """
    artifact, encoded = case.artifact, case.encoded
    assert artifact.weight_hash == than.artifact.weight_hash
    assert artifact.size_bytes == than.artifact.size_bytes
    assert encoded.stream_bytes + encoded.plain_bytes < artifact.size_bytes
    assert case.payload_bytes < than.payload_bytes


def coded_best(case: Case, than: Case) -> None:
    """The choice counts the decoder, so it never costs bytes."""
    coded(case, than)
    assert case.encoded.size_bytes < than.encoded.size_bytes


def _rows(case: Case) -> list[packing.Stored]:
    return packing.stored(case.artifact.graph, case.artifact.tensors)


# --- the table ------------------------------------------------------------------------------------------

Of = Callable[[str], nn.Module]  # the network after another technique; "float" is the one that all start from


@dataclass(frozen=True)
class Technique:
    """`make` applies it; `claim` compares with the network after `than`; `runtime` also runs it in ONNX Runtime."""

    make: Callable[[Of], nn.Module]
    claim: Claim
    than: str = "float"
    runtime: bool = False


def _size(model: nn.Module) -> int:
    return packing.size_bytes(*lower(model, DATA.image_shape))


def budget(of: Of) -> int:
    """Bytes between those of 8 and of 2 bits."""
    return (_size(of("8 bits")) + _size(of("2 bits"))) // 2


def _within(case: Case, than: Case) -> None:
    stored(case, than)
    assert len({row.bits for row in _rows(case) if row.tensor.endswith(".weight")}) > 1, "widths differ"


TECHNIQUES: dict[str, Technique] = {
    "zeros": Technique(lambda of: prune(of("float"), DATA, amount=0.5), zeros),
    "2:4": Technique(lambda of: prune(of("float"), DATA, structure="2:4"), zeros),
    "soft zeros": Technique(lambda of: prune(of("float"), DATA, soft=True, training=SHORT), zeros),
    "channels": Technique(lambda of: prune(of("float"), DATA, structure="channels"), fewer),
    "soft channels": Technique(
        lambda of: prune(of("float"), DATA, structure="channels", soft=True, amount=0.3, training=SHORT), fewer
    ),
    "layers": Technique(lambda of: prune(of("float"), DATA, structure="layers"), fewer),
    "8 bits": Technique(lambda of: quantize(of("float"), DATA), stored),
    "4 bits": Technique(lambda of: quantize(of("float"), DATA, bits=4), stored, "8 bits"),
    "2 bits": Technique(lambda of: quantize(of("float"), DATA, bits=2), stored, "4 bits"),
    "1 bit": Technique(lambda of: quantize(of("float"), DATA, bits=1), stored, "2 bits"),
    "4 bits, trained": Technique(lambda of: quantize(of("float"), DATA, bits=4, training=SHORT), stored, "8 bits"),
    "4 bits, learned steps": Technique(
        lambda of: quantize(of("float"), DATA, bits=4, steps="learned", training=SHORT), stored, "8 bits"
    ),
    "mixed widths": Technique(lambda of: quantize(of("float"), DATA, max_bytes=budget(of)), _within, "8 bits"),
    "biases of a byte": Technique(lambda of: quantize(of("float"), DATA, bias_bits=8), stored),
    "equalised, corrected": Technique(
        lambda of: quantize(of("float"), DATA, equalise=True, bias_correction=True), stored
    ),
    "distilled": Technique(lambda of: distil(of("float"), DATA, teacher=of("float"), training=SHORT), unchanged),
    "factorised": Technique(lambda of: factorise(of("float"), DATA, energy=0.5), factors),
    "shared": Technique(lambda of: share(of("float"), DATA, conv=4, dense=4), stored),
    "shared, trained": Technique(lambda of: share(of("float"), DATA, conv=4, dense=4, training=SHORT), stored),
    **{
        f"{start}, {method}": Technique(
            lambda of, start=start, method=method: encode(of(start), DATA, method=method),  # type: ignore[misc]
            coded_best if method == "auto" else coded,
            start,
        )
        for start in ("shared", "4 bits")
        for method in ("huffman", "range", "auto")
    },
    "weights of 8 bits": Technique(lambda of: weight_only(of("float"), DATA), stored, runtime=True),
    "weights of 4 bits": Technique(
        lambda of: weight_only(of("float"), DATA, bits=4), stored, "weights of 8 bits", runtime=True
    ),
    "dynamic": Technique(lambda of: dynamic(of("float"), DATA), stored, runtime=True),
    **{
        f"{start}, 4 bits, auto": Technique(
            lambda of, start=start: encode(quantize(of(start), DATA, bits=4), DATA),  # type: ignore[misc]
            zeros_encoded,
            "4 bits, auto",
        )
        for start in ("zeros", "2:4", "soft zeros")
    },
    "zeros, shared, auto": Technique(
        lambda of: encode(share(of("zeros"), DATA, conv=4, dense=4), DATA), zeros_encoded, "shared, auto"
    ),
    "channels, distilled, 4 bits, auto": Technique(
        lambda of: encode(
            quantize(distil(of("channels"), DATA, teacher=of("float"), training=SHORT), DATA, bits=4), DATA
        ),
        fewer,
        "4 bits, auto",
    ),
}  # fmt: skip
