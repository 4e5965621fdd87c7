"""What emitted C takes on a device: the sections of its object file."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from netsuke.errors import ArtifactError, MissingExtra
from netsuke.export.c import compiled, figures, of_caller

LEVEL = "-Os"
# The first whose compiler is installed is taken: device, compiler, flags, the tool that lists sections.
DEVICES = (
    ("cortex-m4", "arm-none-eabi-gcc", ("-mcpu=cortex-m4", "-mthumb"), "arm-none-eabi-size"),
    ("rv32imac", "riscv64-unknown-elf-gcc", ("-march=rv32imac", "-mabi=ilp32"), "riscv64-unknown-elf-size"),
    ("this machine", "cc", (), "size"),
)


def flash(path: str | Path) -> dict[str, Any] | None:
    """`flash_bytes` (text + rodata) and `ram_bytes` of NAME.c, and for which `device` at which `level`.

    The RAM is what is static, and the workspace where that is the caller's. None where there is no compiler. The stack,
    and a program around it, come on top.
    Raises ArtifactError where a compiler refuses the file.
    """
    for device, compiler, flags, size in DEVICES:
        try:
            taken = sections(Path(path), compiler, (*flags, LEVEL), size)
        except MissingExtra:
            continue
        if of_caller(Path(path)):
            taken["ram_bytes"] += figures(path)["RAM_BYTES"]
        return {"device": device, "level": LEVEL, **taken}
    return None


def sections(path: Path, compiler: str, flags: tuple[str, ...], size: str) -> dict[str, int]:
    """`flash_bytes` and `ram_bytes` of NAME.c compiled so; raises MissingExtra without the tools."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.o"
        compiled(path, made, compiler, ("-c", "-ffreestanding", *flags))
        try:
            done = subprocess.run([size, str(made)], capture_output=True, text=True, check=True)
        except OSError:
            raise MissingExtra(f"no {size!r}: install binutils for that device") from None
        except subprocess.CalledProcessError as error:
            raise ArtifactError(f"{size} cannot read the object file: {error.stderr.strip()[:200]}") from None
    text, data, bss = map(int, done.stdout.splitlines()[1].split()[:3])
    return {"flash_bytes": text + data, "ram_bytes": data + bss}
