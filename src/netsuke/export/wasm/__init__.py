"""WebAssembly from an integer graph: NAME.js, NAME.d.ts and the modules NAME.wasm and NAME.simd.wasm.

The modules import nothing. The scalar one is the portable C of `export.c`, the other the kernels of `simd.c`; their
logits are equal. `docs/wasm.md` tells how to use the files.
"""

from __future__ import annotations

import json
import tempfile
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from netsuke.artifact import Artifact
from netsuke.errors import ArtifactError, GraphError, OptionError
from netsuke.export import c
from netsuke.export.c.header import Style, extras, identifier
from netsuke.export.c.prelude import FLASH
from netsuke.export.c.source import check_supported
from netsuke.export.placing import place
from netsuke.export.wasm import simd as vectors
from netsuke.export.wasm.build import linked, memory_bytes
from netsuke.export.wasm.node import Node

__all__ = ["Node", "facts", "memory_bytes", "module", "run", "write"]

SCALAR_FLAGS = ("-O2",)
SIMD_FLAGS = ("-O2", "-msimd128")
# The portable code is called by this; its own names stay inside the module.
ENTRY = """\
#include "model.h"
uint8_t image[MODEL_INPUT_BYTES];
int32_t logits[MODEL_SUMS];
__attribute__((export_name("run"))) void run(void)
{
    model_run(image, logits);
}
"""

# They run once an image, and not in its innermost loops: bytes count more than time.
SMALL = "#pragma clang attribute push(__attribute__((minsize)), apply_to = function)\n"
EXTRAS = {
    "confidence": """\
extern int32_t logits[];
__attribute__((export_name("confidence"))) int confidence(void)
{
    return model_confidence(logits);
}
""",
    "normaliser": """\
extern uint8_t __heap_base;
__attribute__((export_name("heap"))) uint8_t *heap(void)
{
    return &__heap_base;
}
__attribute__((export_name("work_bytes"))) int32_t work_bytes(int32_t width, int32_t height)
{
    return MODEL_NORMALISE_WORK(width, height) * 4;
}
extern uint8_t image[];
__attribute__((export_name("normalise")))
int normalise(const uint8_t *grey, int32_t width, int32_t height, int32_t *work)
{
    return model_normalise(grey, width, height, width, image, work);
}
""",
}


def write(
    artifact: Artifact,
    folder: str | Path,
    name: str | None = None,
    *,
    simd: bool = True,
    confidence: bool = False,
    normaliser: bool = False,
    clang: str = "clang",
    linker: str = "wasm-ld",
) -> Path:
    """Write NAME.js, NAME.d.ts, NAME.wasm and NAME.simd.wasm into `folder` and return the path of NAME.js.

    Without `simd` there is no SIMD module, and NAME.js loads the scalar one everywhere. NAME becomes an identifier.
    `confidence` and `normaliser` are those of the portable C.
    Raises UnsupportedOp for a float graph, OptionError where the model can have no such function, MissingExtra without
    clang or wasm-ld, ArtifactError where the folder cannot be written.
    """
    check_supported(artifact.graph, "wasm")
    name = identifier(name or str(artifact.manifest.get("name") or "model"))
    style = Style(confidence=confidence, normaliser=normaliser)
    more = {"extras.c": _extras(artifact, style)} if extras(style) else {}
    made = {f"{name}.wasm": linked(_portable(artifact) | more, SCALAR_FLAGS, clang, linker)}
    if simd:
        vectored = {"model.c": vectors.source(artifact)}
        made[f"{name}.simd.wasm"] = linked(vectored | more, SIMD_FLAGS, clang, linker)
    made[f"{name}.d.ts"] = _data("types.d.ts")
    made[f"{name}.js"] = _script(artifact, name, simd)
    for file, data in made.items():
        place(Path(folder) / file, data)
    return Path(folder) / f"{name}.js"


def run(path: str | Path, images: np.ndarray, *, simd: bool | None = None, node: str = "node") -> np.ndarray:
    """Logits int32 [n, classes], or maps [n, O, H, W], of raw uint8 images [n, C, H, W], in Node.js.

    NAME.js and its module run there.
    `simd` chooses the module; without it, the SIMD one runs where there is one.
    Raises MissingExtra without Node.js, ArtifactError where it refuses a file, GraphError for images of another shape.
    """
    path = Path(path)
    about = facts(path)
    if images.dtype != np.uint8 or images.shape[1:] != tuple(about["shape"]):
        want = ", ".join(map(str, about["shape"]))
        raise GraphError(f"needs uint8 images [n, {want}]; got {images.dtype} {list(images.shape)}")
    if not len(images):
        return np.zeros((0, *about["outputs"]), np.int32)
    with Node(path, module(path, simd), node) as process:
        return process.run(images)


def module(path: Path, simd: bool | None = None) -> Path:
    """The module beside NAME.js: with SIMD, without, or the better one that was written."""
    has = facts(path)["simd"]
    if simd and not has:
        raise OptionError(f"{path.name} was written without a SIMD module")
    return path.with_suffix(".simd.wasm" if (has if simd is None else simd) else ".wasm")


def facts(path: str | Path) -> dict[str, Any]:
    """What NAME.js says of its model: name, classes, shape [C, H, W], scale of the logits, whether there is SIMD.

    `outputs` is the shape of the logits of an image, [classes] or [O, H, W].
    """
    try:
        first = Path(path).read_text(encoding="utf-8").splitlines()[1]
        return json.loads(first.removeprefix("const MODEL = ").removesuffix(";"))
    except (OSError, UnicodeError, ValueError, IndexError) as error:
        raise ArtifactError(f"{path} cannot be read as a script written by netsuke: {error}") from None


def _portable(artifact: Artifact) -> dict[str, str]:
    """The files that the exporter of C writes, and the entry."""
    with tempfile.TemporaryDirectory() as folder:
        source = c.write(artifact, folder, "model")
        texts = {file.name: file.read_text(encoding="ascii") for file in (source, source.with_suffix(".h"))}
    return texts | {"entry.c": f"#define MODEL_SUMS {prod(artifact.shape)}\n{ENTRY}"}


def _extras(artifact: Artifact, style: Style) -> str:
    """What the portable C may have besides, and how the script calls it; beside either module."""
    parts = ["#include <stdint.h>\n", SMALL, FLASH, f"#define MODEL_CLASSES {prod(artifact.shape)}\n"]
    for module in extras(style):
        parts += [module.header(artifact, "model"), module.source(artifact, "model")]
        parts.append(EXTRAS[module.__name__.rpartition(".")[2]])
    return "\n".join([*parts, "#pragma clang attribute pop\n"])


def _script(artifact: Artifact, name: str, simd: bool) -> bytes:
    last = artifact.graph.ops[-1]
    about = {
        "name": name,
        "classes": artifact.classes if len(artifact.shape) == 1 else (),
        "outputs": artifact.shape,
        "shape": artifact.graph.input_shape,
        "scale": last.attrs.get("scale"),
        "simd": simd,
    }
    return (
        f"// Written by netsuke; docs/wasm.md tells how to use it.\nconst MODEL = {json.dumps(about)};\n".encode()
        + _data("loader.js")
    )


def _data(name: str) -> bytes:
    return files(__package__).joinpath(name).read_bytes()
