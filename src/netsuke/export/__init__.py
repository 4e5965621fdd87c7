"""Export targets: each writes an artifact into a folder, and runs what it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from netsuke.artifact import Artifact


@dataclass(frozen=True)
class Target:
    """A module with `write` and `run`, imported at the first use: a target may need a package of its own."""

    module: str

    def write(self, artifact: Artifact, folder: str | Path, name: str | None = None, **options: Any) -> Path:
        """Write the artifact into `folder` as files called `name`; the path of the main one."""
        return import_module(self.module).write(artifact, folder, name, **options)

    @property
    def options(self) -> dict[str, Any]:
        """What `write` takes beyond artifact, folder and name: the type of each by its name."""
        write = import_module(self.module).write
        types, parameters = get_type_hints(write), signature(write).parameters.values()
        return {p.name: types[p.name] for p in parameters if p.kind is Parameter.KEYWORD_ONLY}

    def unproved(self, artifact: Artifact, **options: Any) -> list[str]:
        """The ops whose rounding by the target's runtime is not proved equal; `options` are those of `write`."""
        unproved = getattr(import_module(self.module), "unproved", None)
        return unproved(artifact, **options) if unproved else []

    def run(self, path: str | Path, images: np.ndarray, **options: Any) -> np.ndarray:
        """Logits [n, classes] of raw uint8 images [n, C, H, W] by the written file."""
        return import_module(self.module).run(path, images, **options)


TARGETS = {
    "c": Target("netsuke.export.c"),
    "onnx": Target("netsuke.export.onnx"),
    "tflite": Target("netsuke.export.tflite"),
    "wasm": Target("netsuke.export.wasm"),
}
