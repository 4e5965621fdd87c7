"""How emitted C is compiled where it is checked: strict flags, and the vector units that this machine has."""

from __future__ import annotations

import re
from pathlib import Path

from netsuke.export.c.fast import Source

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror"]
SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# The fast kernels: what aims a compiler at a variant, and what the processor must have to run it.
FLAGS = {
    "avx512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vnni"),
    "avx2": ("-mavx2",),
    "portable": (),
}
NEEDS: dict[str, set[str]] = {
    "avx512": {"avx512bw", "avx512vl", "avx512_vnni"},
    "avx2": {"avx2"},
    "portable": set(),
}


def runs_here(variant: str) -> bool:
    """Whether this machine's processor runs a variant of the fast kernels."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return NEEDS[variant] <= set(re.findall(r"\w+", line))


def numbered(source: Source, number: int) -> str:
    """The body with names of its own, `run_g3` for the number 3, so that many lie in one file."""
    return re.sub(r"\b(run|[a-z0-9]+_\d+)\(", rf"\g<1>_g{number}(", source.body)
