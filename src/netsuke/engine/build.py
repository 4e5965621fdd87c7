"""C to a shared library for this processor, kept in the user's cache.

A library is named by what it was made from: the text, the flags, and all that the compiler says of itself and of the
processor. It ends with the hash of its own bytes, so that a damaged file is made anew and never loaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np

from netsuke.cache import cache_folder
from netsuke.errors import ArtifactError, MissingExtra

TIMEOUT_S = 600
FLAGS = ("-std=gnu11", "-O3", "-shared", "-fPIC", "-fvisibility=hidden", "-w")
DIGEST = 32  # bytes of a hash at the end of a library


@dataclass(frozen=True)
class Compiler:
    """A compiler, the flags that aim it at this processor, and the macros that it then defines."""

    path: str
    flags: tuple[str, ...]
    macros: str

    def has(self, *names: str) -> bool:
        return all(f"#define {name} " in self.macros for name in names)


def compiler() -> Compiler:
    """$CC, or the first of cc, gcc and clang that answers. Raises MissingExtra where there is none."""
    if os.environ.get("NETSUKE_NATIVE") == "0":
        raise MissingExtra("native code is switched off: NETSUKE_NATIVE=0")
    named = os.environ.get("CC")
    for name in [named] if named else ("clang", "gcc", "cc"):
        path = shutil.which(name)
        found = _asked(path) if path else None
        if found:
            return found
    what = f"no C compiler {named!r} ($CC)" if named else "no C compiler"
    raise MissingExtra(f"{what}: install gcc or clang (apt install gcc)")


@cache
def _asked(path: str) -> Compiler | None:
    for flags in (("-march=native",), ("-mcpu=native",), ()):
        command = [path, *flags, "-dM", "-E", "-x", "c", os.devnull]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return None
        if done.returncode == 0 and "__VERSION__" in done.stdout:
            return Compiler(path, flags, done.stdout)
    return None


def python_flags() -> tuple[str, ...]:
    """What a file needs to call Python and NumPy; none where their headers are not installed."""
    folders = [Path(sysconfig.get_paths()["include"]), Path(np.get_include())]
    if not ((folders[0] / "Python.h").exists() and (folders[1] / "numpy" / "arrayobject.h").exists()):
        return ()
    return ("-DWITH_PYTHON", *(f"-I{folder}" for folder in folders))


def library(text: str, using: Compiler, extra: Sequence[str] = ()) -> Path:
    """The compiled text and where it lies: in the cache, or in a folder of this call alone where none can be kept.

    Raises ArtifactError with the compiler's first complaint.
    """
    made_of = "\0".join([text, using.path, using.macros, *FLAGS, *using.flags, *extra, _python()])
    target = cache_folder() / "engine" / f"{sha256(made_of.encode()).hexdigest()[:32]}.so"
    if _sound(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(suffix=".so", dir=target.parent)
        os.close(handle)
    except OSError:  # no cache can be kept
        target = Path(tempfile.mkdtemp(prefix="netsuke-")) / target.name
        name = str(target.with_suffix(".tmp"))
    temporary = Path(name)
    try:
        _compile(text, using, extra, temporary)
        with temporary.open("ab") as file:
            file.write(sha256(temporary.read_bytes()).digest())
        os.replace(
            temporary, target
        )  # several processes may compile at once: the last one wins, all are the same
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _python() -> str:
    return f"{sysconfig.get_config_var('SOABI')} numpy {np.__version__}"


def _sound(path: Path) -> bool:
    """Whether the file is whole: a shortened library would crash the process, not fail to load."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return len(content) > DIGEST and sha256(content[:-DIGEST]).digest() == content[-DIGEST:]


def _compile(text: str, using: Compiler, extra: Sequence[str], target: Path) -> None:
    command = [using.path, *FLAGS, *using.flags, *extra, "-x", "c", "-", "-o", str(target)]
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ArtifactError(f"{using.path} cannot compile the network: {error}") from error
    if done.returncode:
        complaint = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
        raise ArtifactError(f"{using.path} cannot compile the network: {complaint}")
