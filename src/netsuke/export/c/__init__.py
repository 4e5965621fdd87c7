"""Portable C99 from an integer graph: one NAME.h and one NAME.c, static memory, no libc, no float, no int64.

`docs/export-c.md` tells how to use the files. `kernels.py` is the definition that they meet, bit for bit.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from netsuke.artifact import Artifact
from netsuke.errors import ArtifactError, GraphError, MissingExtra, OptionError
from netsuke.export.c.header import Style, header, identifier
from netsuke.export.c.net import Net
from netsuke.export.c.source import check_supported, source
from netsuke.export.placing import place

STANDARD = ("-std=c99",)
CHOICES = {
    "workspace": ("static", "caller"),
    "weights": ("packed", "coded", "coded-dense"),
    "multiply": ("instruction", "shifts"),
}


def write(
    artifact: Artifact,
    folder: str | Path,
    name: str | None = None,
    *,
    workspace: str = "static",
    weights: str = "packed",
    multiply: str = "instruction",
    confidence: bool = False,
    normaliser: bool = False,
) -> Path:
    """Write NAME.h and NAME.c into `folder` and return the path of NAME.c.

    `name` becomes a C identifier; without one, the manifest's `name` is taken, or "model". `workspace` is "static",
    or "caller" where each function takes a pointer to its memory and so is re-entrant. `weights` is "packed", or
    entropy coded: "coded", or "coded-dense" for those of dense layers only. `multiply` is "instruction", or "shifts"
    for chips without a multiplier: products by shifting and adding. `confidence` adds NAME_confidence, `normaliser`
    NAME_normalise.
    Raises UnsupportedOp for a float graph, OptionError for another choice, a confidence of logits without a scale and a
    normaliser of a model that takes whole images, and ArtifactError where the folder cannot be written.
    """
    check_supported(artifact.graph)
    style = Style(workspace, weights, multiply, confidence, normaliser)
    for option, known in CHOICES.items():
        if (value := getattr(style, option)) not in known:
            raise OptionError(f"no {option} {value!r}; choose from {', '.join(known)}")
    name = identifier(name or str(artifact.manifest.get("name") or "model"))
    net = Net(artifact, name, style)
    texts = {f"{name}.h": header(artifact, name, style, net.layout, net.coded), f"{name}.c": source(net)}
    for file, text in texts.items():
        place(Path(folder) / file, text.encode("ascii"))
    return Path(folder) / f"{name}.c"


def run(
    path: str | Path, images: np.ndarray, *, compiler: str = "cc", flags: Sequence[str] = ("-O2",)
) -> np.ndarray:
    """Logits int32 [n, classes], or maps of them [n, O, H, W], of raw uint8 images [n, C, H, W] by NAME.c.

    It is compiled for this machine.
    Raises MissingExtra where there is no compiler, ArtifactError where it refuses the file, GraphError for
    images of another shape.
    """
    path = Path(path)
    macros = figures(path)
    shape = tuple(macros[f"INPUT_{side}"] for side in ("CHANNELS", "HEIGHT", "WIDTH"))
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        want = ", ".join(map(str, shape))
        raise GraphError(f"needs uint8 images [n, {want}]; got {images.dtype} {list(images.shape)}")
    images = np.ascontiguousarray(images)
    logits = np.zeros((len(images), *result_shape(macros)), np.int32)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / f"{path.stem}.so"
        compiled(path, library, compiler, ("-shared", "-fPIC", *flags))
        call = getattr(ctypes.CDLL(str(library)), f"{path.stem}_run")
        memory = ctypes.create_string_buffer(macros["RAM_BYTES"]) if of_caller(path) else None
        call.argtypes, call.restype = (ctypes.c_void_p,) * (3 if memory else 2), None
        for image, row in zip(images, logits, strict=True):
            call(*([memory] if memory else []), image.ctypes.data, row.ctypes.data)
    return logits


def of_caller(path: Path) -> bool:
    """Whether the functions take a workspace."""
    return f"{path.stem}_run({path.stem}_workspace" in path.with_suffix(".h").read_text(encoding="utf-8")


def figures(path: str | Path) -> dict[str, int]:
    """The macros of NAME.h beside NAME.c, without the NAME: FLASH_BYTES, RAM_BYTES, MACS, CLASSES or OUTPUT_…"""
    path = Path(path)
    try:
        text = path.with_suffix(".h").read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ArtifactError(
            f"{path.with_suffix('.h')} cannot be read; it must lie beside {path.name}"
        ) from error
    found = re.findall(rf"^#define {path.stem.upper()}_(\w+) (\d+)\b", text, re.MULTILINE)
    return {key: int(value) for key, value in found}


def result_shape(macros: dict[str, int]) -> tuple[int, ...]:
    """The shape of the logits of one image: (classes,), or (O, H, W) of a map."""
    if "CLASSES" in macros:
        return (macros["CLASSES"],)
    return tuple(macros[f"OUTPUT_{side}"] for side in ("CHANNELS", "HEIGHT", "WIDTH"))


def compiled(path: Path, target: Path, compiler: str, flags: Sequence[str]) -> None:
    """Compile NAME.c to `target`; raises MissingExtra or ArtifactError with the compiler's first complaint."""
    try:
        done = subprocess.run(
            [compiler, *STANDARD, *flags, str(path), "-o", str(target)],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise MissingExtra(
            f"no C compiler {compiler!r}: install gcc or clang, or name another one"
        ) from error
    if done.returncode:
        lines = done.stderr.splitlines() or [f"exit code {done.returncode}"]
        complaint = next((line for line in lines if "error" in line), lines[0])
        raise ArtifactError(f"{compiler} cannot compile {path.name}: {complaint}")
