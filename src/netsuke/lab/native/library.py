"""`kernels.c`, compiled for this machine at first use and kept in the user's cache."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path

from netsuke.data.download import cache_folder

SOURCE = Path(__file__).with_name("kernels.c")
# The parts of -ffast-math that let loops become vectors. The flag itself, or -funsafe-math-optimizations, would have
# older gcc link a start-up file that flushes subnormals to zero in the whole process.
FAST = (
    "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffinite-math-only", "-fassociative-math",
    "-freciprocal-math", "-ffp-contract=fast",
)  # fmt: skip
FLAGS = ("-O3", "-march=native", *FAST, "-shared", "-fPIC")
WIDE = "-mprefer-vector-width=512"  # not known to every compiler


class Shape(ctypes.Structure):
    """A window over a map: sizes of the input, of the output, of the window."""

    _fields_ = [
        (name, ctypes.c_long)
        for name in (
            "channels", "height", "width", "batch", "outputs", "rows", "columns",
            "kernel_rows", "kernel_columns", "stride_rows", "stride_columns", "top", "left",
        )
    ]  # fmt: skip


class Norm(ctypes.Structure):
    """Of each channel: value = (sum + before) * scale + after, and what its gradient takes away."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("before", "scale", "after", "mean_part", "slope_part")),
        ("lo", ctypes.c_float),
    ]


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where there is no compiler, or NETSUKE_NATIVE=0 says to do without."""
    if os.environ.get("NETSUKE_NATIVE") == "0":
        return None
    compiler = os.environ.get("CC", "cc")
    try:
        found = _compiled(compiler)
        kernels = ctypes.CDLL(str(found))
    except (OSError, subprocess.SubprocessError):
        return None
    for count in (kernels.scratch, kernels.depthwise_scratch):
        count.restype, count.argtypes = ctypes.c_long, [ctypes.POINTER(Shape)]
    return kernels


def _compiled(compiler: str) -> Path:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=60).stdout
    key = sha256(SOURCE.read_bytes() + version + _processor().encode() + " ".join(FLAGS).encode()).hexdigest()
    target = cache_folder() / "native" / f"{key[:32]}.so"
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = target.parent
    except OSError:  # no cache can be kept: compile for this process alone
        folder = Path(tempfile.mkdtemp(prefix="netsuke-"))
    temporary = folder / f".{os.getpid()}.so"
    for flags in ((*FLAGS, WIDE), FLAGS):
        command = [compiler, *flags, str(SOURCE), "-o", str(temporary)]
        done = subprocess.run(command, capture_output=True, check=False, timeout=300)
        if done.returncode == 0:
            target = folder / target.name
            os.replace(temporary, target)  # several processes may compile at once
            return target
    raise OSError(f"{compiler} cannot compile {SOURCE.name}")


def _processor() -> str:
    """What -march=native depends on, so that a cache shared between machines serves each its own."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("flags", "model", "Features"))}))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
