"""C to a WebAssembly module: clang and wasm-ld, without a libc."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from netsuke.errors import ArtifactError, MissingExtra

COMPILE = ("--target=wasm32", "-std=c99", "-ffreestanding", "-nostdlib")
LINK = (
    "--no-entry",
    "--export=image",
    "--export=logits",
    "--strip-all",
    "-O2",
    "--stack-first",
    "-zstack-size=8192",
)
INSTALL = "no {!r}: install clang and lld (on Debian: apt install clang lld), or name another one"


def linked(sources: Mapping[str, str], flags: Sequence[str], clang: str, linker: str) -> bytes:
    """The module of C files (name to text) that export `image` and `logits`; headers are only put beside them.

    Raises MissingExtra without a compiler or linker, ArtifactError with the first complaint of either.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in sources.items():
            (folder / file).write_text(text, encoding="ascii")
        objects = []
        for file in sources:
            if file.endswith(".c"):
                objects.append(file.removesuffix(".c") + ".o")
                _call([clang, *COMPILE, *flags, "-c", file, "-o", objects[-1]], folder)
        _call([linker, *LINK, *objects, "-o", "module.wasm"], folder)
        return (folder / "module.wasm").read_bytes()


def _call(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        raise MissingExtra(INSTALL.format(command[0])) from None
    if done.returncode:
        lines = done.stderr.splitlines() or [f"exit code {done.returncode}"]
        complaint = next((line for line in lines if "error" in line), lines[0])
        raise ArtifactError(f"{command[0]} cannot make a WebAssembly module: {complaint}")


def memory_bytes(module: bytes) -> int:
    """The memory that a module asks for: weights, working memory and stack, in pages of 64 KiB."""
    at = 8
    while at < len(module):
        section, at = module[at], at + 1
        size, at = _number(module, at)
        if section == 5:
            _, flags_at = _number(module, at)  # how many memories: one
            pages, _ = _number(module, flags_at + 1)
            return pages << 16
        at += size
    raise ArtifactError("the WebAssembly module has no memory")


def _number(data: bytes, at: int) -> tuple[int, int]:
    """An LEB128 number and the place after it."""
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
