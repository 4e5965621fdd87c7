"""The step that marks a network for entropy coding, from the module to the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from lab.sets import blobs
from netsuke.artifact import Artifact
from netsuke.errors import OptionError
from netsuke.lab.carve import carve
from netsuke.lab.models import build
from netsuke.lab.steps.encode import Encode, encode
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.share import share
from netsuke.measure.cost import cost

DATA = blobs((1, 12, 12))


def model_of(integer: bool) -> nn.Module:
    """Many small weights and few large ones, as training leaves them."""
    model = build("mlp", DATA.image_shape, 4, hidden=64)
    for p in model.parameters():
        p.data = p.data**3
    return quantize(model, DATA, bits=5) if integer else share(model, DATA, dense=4)


@pytest.mark.parametrize("method", ["huffman", "range", "auto"])
@pytest.mark.parametrize("integer", [False, True], ids=["codebooks", "integers"])
def test_the_file_holds_streams(method: str, integer: bool, tmp_path: Path) -> None:
    model = model_of(integer)
    marked = encode(model, DATA, method=method)
    assert not hasattr(model, "coding")
    plain, coded = (carve(m, DATA, recipe={}, seed=0) for m in (model, marked))
    assert coded.manifest["coding"] == method
    assert "coding" not in plain.manifest
    assert coded.weight_hash == plain.weight_hash
    assert coded.size_bytes == plain.size_bytes == plain.encoded_bytes
    assert coded.encoded_bytes < plain.size_bytes
    plain.save(tmp_path / "plain")
    coded.save(tmp_path / "coded")
    assert (tmp_path / "coded").stat().st_size < (tmp_path / "plain").stat().st_size
    got = Artifact.load(tmp_path / "coded")
    assert got.manifest == coded.manifest
    for name, array in plain.tensors.items():
        np.testing.assert_array_equal(got.tensors[name], array)
    figures = cost(got)
    parts = figures["encoding"]
    assert figures["encoded_bytes"] == coded.encoded_bytes
    assert figures["encoded_bytes"] == sum(parts[k] for k in ("stream_bytes", "plain_bytes", "decoder_bytes"))
    assert parts["stream_bytes"] == sum(row["size_bytes"] for row in parts["streams"])
    assert cost(plain)["encoded_bytes"] == plain.size_bytes


def test_unknown_methods() -> None:
    with pytest.raises(OptionError, match="no coding 'zip'"):
        Encode("zip")
    with pytest.raises(OptionError, match="no coding 'zip'"):
        encode(model_of(False), DATA, method="zip")
