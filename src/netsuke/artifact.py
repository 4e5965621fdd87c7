"""Artifact: graph, weights and manifest in one inert file.

The file is valid safetensors; `docs/artifact.md` specifies it. Loading parses JSON and copies bytes, nothing
else, and every size that the file claims is checked against the file's own length before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from netsuke import kernels, packing, storage
from netsuke.coding import check
from netsuke.errors import ArtifactError, GraphError, OptionError
from netsuke.files import write_whole
from netsuke.graph import Graph
from netsuke.storage import is_shape

SCHEMA = 2  # what `save` writes; 1, which is read too, has none of exponents, codebooks, coding
MAX_HEADER = 100_000_000  # the limit of the safetensors format itself
REQUIRED = ("schema", "graph", "packed", "weight_hash")
COMPUTED = (*REQUIRED, "coded")  # written by `save`, checked and dropped by `load`
DTYPES = {"F32": "<f4", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4"}


@dataclass(frozen=True, eq=False)
class Artifact:
    """A finished classifier, or a network that gives a map of logits.

    `tensors` holds float32 arrays for float ops; int8 weights and int32 biases, multipliers and shifts for
    integer ones. `manifest` is JSON: `classes`, which a map has none of, and whatever else tells where the model came
    from.
    """

    graph: Graph
    tensors: dict[str, np.ndarray]
    manifest: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits. Raises ArtifactError where they are a map."""
        shape = self.shape if "classes" not in self.manifest else ()
        if len(shape) == 3:
            raise ArtifactError(f"the model gives a map {list(shape)}, not one logit a class")
        return tuple(self.manifest["classes"])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the logits of one image: (classes,), or that of a map, (O, H, W)."""
        return self.graph.types(self.tensors)[self.graph.output].shape

    @property
    def size_bytes(self) -> int:
        """Everything a device must store to run the model; see `packing.size_bytes`."""
        return packing.size_bytes(self.graph, self.tensors)

    @property
    def coding(self) -> str:
        """How the file's weights are entropy coded: "", or a method of `netsuke.coding`."""
        return check(self.manifest.get("coding", ""))

    @property
    def encoded(self) -> storage.Encoded:
        """What a device stores with that coding: streams, what is left uncoded, and the decoder."""
        return storage.encoded(self.graph, self.tensors, self.coding)

    @property
    def encoded_bytes(self) -> int:
        """The sum of `encoded`; without coding, `size_bytes`."""
        return self.encoded.size_bytes

    @property
    def weight_hash(self) -> str:
        """SHA-256 of the graph's canonical JSON and of every tensor, as hex."""
        digest = hashlib.sha256(_canonical(self.graph.to_json()))
        for name in sorted(self.tensors):
            array = self.tensors[name]
            digest.update(_canonical([name, array.dtype.name, list(array.shape)]))
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits of raw uint8 images [n, C, H, W] by the NumPy reference: float32 or int32 [n, *self.shape]."""
        return kernels.run(self.graph, self.tensors, images)

    def with_manifest(self, **changes: Any) -> Artifact:
        """A copy whose manifest has `changes` set; graph and weights are shared."""
        return replace(self, manifest={**self.manifest, **changes})

    def save(self, path: str | Path) -> None:
        """Write the file in one step: afterwards `path` holds the whole artifact, or what it held before.

        Makes the folder. Raises ArtifactError where graph, weights and manifest do not fit, or it cannot write.
        """
        from safetensors.numpy import save

        path = Path(path)
        try:
            _check(self.graph, self.tensors, self.manifest)
            stored, fields = storage.encode(self.graph, self.tensors, self.coding)
            manifest = {
                **self.manifest,
                "schema": SCHEMA,
                "graph": self.graph.to_json(),
                **fields,
                "weight_hash": self.weight_hash,
            }
            data = save(stored, metadata={"netsuke": _canonical(manifest).decode()})
        except (GraphError, ArtifactError, OptionError, TypeError, ValueError, RecursionError) as error:
            _fail(path, f"cannot be saved: {error}")
        _write(path, data)

    @staticmethod
    def load(path: str | Path) -> Artifact:
        """Read and verify a file; raises ArtifactError, naming it, on anything but what `save` writes."""
        path = Path(path)
        try:
            if not path.is_file():  # also keeps a pipe or a device from blocking
                raise ArtifactError("is not a file" if path.exists() else "does not exist")
            with path.open("rb") as file:
                stored, manifest = _read(file)
            graph = Graph.from_json(manifest["graph"])
            tensors = storage.decode(graph, stored, manifest)
            free = {key: value for key, value in manifest.items() if key not in COMPUTED}
            _check(graph, tensors, free)
            artifact = Artifact(graph, tensors, free)
            _ = artifact.coding  # known, or an error
            if artifact.weight_hash != manifest["weight_hash"]:
                raise ArtifactError("its graph or weights do not match its weight_hash; the file is damaged")
        except (ArtifactError, GraphError, OptionError) as error:
            _fail(path, str(error))
        except RecursionError:
            _fail(path, "its JSON is nested too deeply")
        except MemoryError:
            _fail(path, "does not fit into memory")
        except (
            OSError,
            ValueError,
        ) as error:  # ValueError: malformed JSON, a broken UTF-8 sequence, a bad path
            _fail(path, f"cannot be read: {getattr(error, 'strerror', None) or error}")
        return artifact


def _fail(path: Path, text: str) -> NoReturn:
    """One printable line, whatever a hostile file put into its names."""
    line = " ".join(f"{path}: {text}".split())
    raise ArtifactError("".join(c if c.isprintable() else "?" for c in line)[:500]) from None


def _canonical(value: object) -> bytes:
    """The one JSON text of a value; raises ValueError on NaN, infinity or an unpaired surrogate."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _check(graph: Graph, tensors: Mapping[str, np.ndarray], manifest: Mapping[str, Any]) -> None:
    """Raise GraphError or ArtifactError where graph, weights and class names do not fit together."""
    types = graph.types(tensors)
    extra = set(tensors) - set(graph.roles())
    if extra:
        raise ArtifactError(f"no op uses the tensor {min(extra)!r}")
    classes, (count, *sides) = manifest.get("classes"), types[graph.output].shape
    if sides:
        if classes is not None:
            raise ArtifactError(
                "the graph gives a map, not one logit a class; leave classes out of its manifest"
            )
        return
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        raise ArtifactError("its manifest needs classes, a list of names")
    if not all(name.isprintable() for name in classes):  # they reach terminals and C comments
        raise ArtifactError("its class names hold control characters")
    if len(classes) != count:
        raise ArtifactError(f"its manifest names {len(classes)} classes; the graph gives {count} logits")


# --- the safetensors container ----------------------------------------------------------------------


def _read(file: BinaryIO) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Stored tensors and manifest of an open file, all sizes checked against its length."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise ArtifactError("is not a safetensors file, or is cut short")
    header = _json(file.read(length), "header")
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get("netsuke"), str):
        raise ArtifactError("is not a netsuke artifact: it has no manifest")
    manifest = _json(metadata["netsuke"].encode(), "manifest")
    schema = manifest.get("schema")
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        raise ArtifactError(f"has schema {str(schema)[:40]}; this version of netsuke reads 1 to {SCHEMA}")
    missing = [key for key in REQUIRED if key not in manifest]
    if missing:
        raise ArtifactError(f"its manifest lacks {', '.join(missing)}")
    _check_layout(header, size - 8 - length)
    data = file.read()
    return {
        name: np.frombuffer(data, DTYPES[row["dtype"]], prod(row["shape"]), row["data_offsets"][0]).reshape(
            row["shape"]
        )
        for name, row in header.items()
    }, manifest


def _check_layout(header: Mapping[str, Any], size: int) -> None:
    """Raise ArtifactError unless the tensors fill the `size` bytes after the header exactly."""
    spans = []
    for name, row in header.items():
        if not isinstance(row, dict) or set(row) != {"dtype", "shape", "data_offsets"}:
            raise ArtifactError(f"the tensor {name!r} needs dtype, shape and data_offsets")
        dtype, shape, span = row["dtype"], row["shape"], row["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise ArtifactError(
                f"the tensor {name!r} has dtype {str(dtype)[:40]}; artifacts hold {', '.join(DTYPES)}"
            )
        if not is_shape(shape) or not is_shape(span) or len(span) != 2:
            raise ArtifactError(f"the tensor {name!r} has no proper shape or data_offsets")
        if span[1] - span[0] != prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
            raise ArtifactError(f"the tensor {name!r} does not take the bytes that its shape needs")
        spans.append(span)
    end = 0
    for span in sorted(spans):
        if span[0] != end:
            raise ArtifactError("its tensors overlap or leave a gap")
        end = span[1]
    if end != size:
        raise ArtifactError(f"its tensors take {end} bytes, but {size} follow the header")


def _json(data: bytes, what: str) -> dict[str, Any]:
    """A strict JSON object: UTF-8, finite numbers, no key twice."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) != len(items):
            raise ValueError("a key stands twice")
        return result

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a number")

    try:
        value = json.loads(data.decode(), object_pairs_hook=pairs, parse_constant=constant)
        _canonical(value)  # what JSON can spell but not write back: 1e999, an unpaired surrogate
    except ValueError as error:
        raise ArtifactError(f"its {what} is not strict JSON: {error}") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"its {what} is not a JSON object")
    return value


def _write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except (OSError, ValueError) as error:
        _fail(path, f"cannot be written: {getattr(error, 'strerror', None) or error}")
