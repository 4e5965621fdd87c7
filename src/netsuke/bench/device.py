"""A model on a microcontroller: the firmware of `examples/firmware`, built for a board and run in its emulator.

An installed package has its sources in `firmware/` beside this file; a checkout in `examples/`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netsuke.artifact import Artifact
from netsuke.errors import ArtifactError, MissingExtra, NetsukeError, OptionError
from netsuke.export.c.source import check_supported
from netsuke.measure.cost import macs

HERE = Path(__file__).parent / "firmware"
CHECKOUT = Path(__file__).parents[3] / "examples" / "firmware"
IMAGES = 3
AVR_STACK = 272  # bytes that the Makefile keeps for it
LIMIT = 120  # seconds that the Makefile gives the emulator
ARM = ("arm-none-eabi-gcc", "qemu-system-arm", "gcc-arm-none-eabi qemu-system-arm")
RISCV = ("riscv64-unknown-elf-gcc", "qemu-system-riscv32", "gcc-riscv64-unknown-elf qemu-system-misc")
AVR = ("avr-gcc", "simavr", "gcc-avr avr-libc simavr")


@dataclass(frozen=True)
class Device:
    """A core, the board that has it (a name of the Makefile), its memory in bytes and what builds and emulates it.

    `clock_hz` is a typical clock, where the emulator counts cycles and not instructions.
    """

    core: str
    board: str
    flash: int
    ram: int
    tools: tuple[str, str, str]  # compiler, emulator, packages
    clock_hz: int | None = None


DEVICES = {
    "cortex-m0": Device("Cortex-M0", "microbit", 256 << 10, 16 << 10, ARM),
    "cortex-m3": Device("Cortex-M3", "mps2-an385", 4 << 20, 4 << 20, ARM),
    "cortex-m4": Device("Cortex-M4", "mps2-an386", 4 << 20, 4 << 20, ARM),
    "cortex-m55": Device("Cortex-M55", "mps3-an547", 512 << 10, 512 << 10, ARM),
    "rv32imac": Device("RV32IMAC", "rv32imac", 512 << 10, 512 << 10, RISCV),
    "rv32iac": Device("RV32IAC, no multiplier", "rv32iac", 512 << 10, 512 << 10, RISCV),
    "atmega328p": Device("ATmega328p", "atmega328p", 32 << 10, 2 << 10, AVR, 16_000_000),
}


def device(name: str) -> tuple[str, Device]:
    """A device by its name or its board's, and that name. Raises OptionError with those known."""
    for known, found in DEVICES.items():
        if name in (known, found.board):
            return known, found
    names = (key if key == d.board else f"{key} ({d.board})" for key, d in DEVICES.items())
    raise OptionError(f"unknown device {name!r}; choose from {', '.join(names)}")


def firmware() -> Path:
    """The folder of the firmware's sources."""
    return HERE if HERE.is_dir() else CHECKOUT


def emulated(artifact: Artifact, name: str) -> dict[str, Any]:
    """What the model takes on a device, a row of `netsuke bench --device --json`.

    Three drawn digits are classified row by row, their logits compared with the reference's. Raises OptionError for a
    device that is not there, UnsupportedOp for a float graph, MissingExtra where a tool is not installed, and
    ArtifactError where the memory of the device does not suffice, or the logits differ.
    """
    name, target = device(name)
    check_supported(artifact.graph)
    for tool, packages in (("make", "make"), *((tool, target.tools[2]) for tool in target.tools[:2])):
        if not shutil.which(tool):
            raise MissingExtra(f"{name} needs {tool}: apt install {packages}")
    if artifact.size_bytes > target.flash:
        there = f"{artifact.size_bytes:,} bytes of constants alone, of {target.flash:,} bytes of flash"
        raise ArtifactError(f"it does not fit {name}: the model has {there}")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "firmware"
        shutil.copytree(firmware(), place, ignore=shutil.ignore_patterns("build", "__pycache__"))
        artifact.save(place / "model.netsuke")
        printed = _made(place, name, target)
    return _row(artifact, name, target, {key: int(value) for key, value in printed})


def _made(place: Path, name: str, target: Device) -> list[tuple[str, str]]:
    """The figures that `make run` prints."""
    command = ["make", "-s", f"BOARD={target.board}", "MODEL=model.netsuke", f"IMAGES={IMAGES}"]
    command += [f"PYTHON={shlex.quote(sys.executable)}", "run"]
    english = {**os.environ, "LC_ALL": "C"}  # what the linker complains of is read
    done = subprocess.run(command, cwd=place, env=english, capture_output=True, text=True, check=False)
    printed = re.findall(r"^(\w+) (\d+)$", done.stdout, re.MULTILINE)
    if done.returncode:
        raise _failure(name, target, dict(printed), done.stdout + done.stderr)
    return printed


def _failure(name: str, target: Device, printed: dict[str, str], output: str) -> NetsukeError:
    """Why `make` failed, in one line."""
    memory = (("flash", "FLASH|text", target.flash), ("RAM", "RAM|data", target.ram))
    needs = [(kind, there, _need(output, region, there)) for kind, region, there in memory]
    over = [f"{need:,} bytes of {kind}, of {there:,}" for kind, there, need in needs if need]
    if over:
        return ArtifactError(f"it does not fit {name}: the program needs {' and '.join(over)}")
    if int(printed.get("wrong_logits", 0)):
        return ArtifactError(f"{name} gives {printed['wrong_logits']} wrong logits; please report this")
    if "model_flash_bytes" in printed and "stack_bytes" not in printed and "fault" not in output:
        return ArtifactError(f"{name} cannot run it: no end within {LIMIT} seconds in the emulator")
    lines = [line.strip() for line in output.splitlines() if line.strip() and "make: ***" not in line]
    complaint = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no answer")
    return ArtifactError(f"{name} cannot run it: {complaint[:300]}")


def _need(output: str, region: str, there: int) -> int:
    """The bytes that a program needs of a memory region by the linker's complaint, 0 where there is none.

    ld tells by how much a region overflows, or, for AVR, the address after it, in which RAM starts at 0x800100.
    """
    over = re.findall(rf"region `(?:{region})' overflowed by (\d+) bytes", output)
    ends = re.findall(rf"address 0x(\w+) of \S+ section \S+ is not within region `(?:{region})'", output)
    needs = [there + int(much) for much in over]
    needs += [end - 0x800100 + AVR_STACK if end >= 0x800100 else end for end in (int(e, 16) for e in ends)]
    return max(needs, default=0)


def _row(artifact: Artifact, name: str, target: Device, got: dict[str, int]) -> dict[str, Any]:
    products = sum(macs(artifact.graph, artifact.tensors).values())
    row: dict[str, Any] = {"device": name, "core": target.core, "board": target.board}
    row |= {"images": IMAGES, "macs": products}
    for unit in ("instructions", "cycles"):
        work = got.get(f"{unit}_an_image")
        row[f"{unit}_an_image"] = work
        row[f"{unit}_a_mac"] = work / products if work and products else None
    cycles = row["cycles_an_image"]
    real = cycles is not None and target.clock_hz is not None
    if got["stack_bytes"] + got["model_ram_bytes"] > target.ram:
        raise ArtifactError(
            f"it does not fit {name}: {got['model_ram_bytes']:,} bytes of workspace and {got['stack_bytes']:,} of "
            f"stack, of {target.ram:,} bytes of RAM"
        )
    return row | {
        "clock_hz": target.clock_hz,
        "latency_ms": cycles / target.clock_hz * 1e3 if real else None,
        "flash_bytes": got["model_flash_bytes"],
        "firmware_flash_bytes": got["firmware_flash_bytes"],
        "ram_bytes": got["model_ram_bytes"],
        "stack_bytes": got["stack_bytes"],
        "device_flash_bytes": target.flash,
        "device_ram_bytes": target.ram,
    }
