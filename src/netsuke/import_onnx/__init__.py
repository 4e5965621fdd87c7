"""A foreign ONNX classifier as an Artifact: `netsuke import model.onnx`.

Batch normalisation and constant arithmetic fold into the layer before them, the final softmax and dropout go, and
the pixel scaling that the model was trained with becomes the graph's `normalize`. Layouts N, C, H, W and, as Keras
exports write it, N, H, W, C.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netsuke.artifact import Artifact
from netsuke.errors import NetsukeError, OptionError
from netsuke.import_onnx.file import read
from netsuke.import_onnx.integers import quantised
from netsuke.import_onnx.walk import Mean, Walk

__all__ = ["load"]


def load(
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    scale: float | None = None,
    mean: Mean = 0.0,
    std: Mean = 1.0,
) -> Artifact:
    """Read an ONNX network with one image input and one output of logits, one a class or a map of them.

    A pixel p of 0..255 enters the model as (p * scale - mean) / std, `mean` and `std` one number or one a channel;
    `scale` is 1/255, or 1 for a model that takes uint8. `classes` default to "0", "1", … .
    Raises ArtifactError where the file is not sound ONNX, UnsupportedOp for a node that no op stands for,
    OptionError for options that do not fit the model, MissingExtra without onnx.
    """
    model, weights = read(Path(path))
    try:
        walk = Walk(model, weights, scale, mean, std)
        graph, tensors = walk.run()
        imported: dict[str, Any] = {"from": Path(path).name, "format": "onnx"}
        if walk.ranges:
            graph, tensors, imported["approximated"] = quantised(graph, tensors, walk.ranges, walk.steps)
        shape = graph.types(tensors)[graph.output].shape
    except NetsukeError as error:
        raise type(error)(" ".join(f"{path}: {error}".split())[:500]) from None
    area, count = len(shape) == 3, shape[0]
    names = [str(i) for i in range(count)] if classes is None else list(classes)
    if area and classes is not None:
        raise OptionError(f"{path} gives a map {list(shape)}, which has no classes; leave their names out")
    if len(names) != count:
        raise OptionError(f"{path} gives {count} logits; got {len(names)} class names")
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise OptionError(f"the class name {twice[0]!r} stands twice")
    channels, height, width = graph.input_shape
    contract = {
        "channels": channels,
        "height": height,
        "width": width,
        "polarity": "bright-ink",  # what raw images are here; the file itself cannot say
        "centring": "none",
        "scale": walk.scale,
        "mean": _listed(mean),
        "std": _listed(std),
    }
    manifest = {"input": contract, "imported": imported}
    return Artifact(graph, tensors, manifest if area else {"classes": names, **manifest})


def _listed(value: Mean) -> list[float] | float:
    return float(value) if isinstance(value, int | float) else [float(v) for v in value]
