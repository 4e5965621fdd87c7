"""The firmware of examples/: every board in its emulator, and random graphs by the SMLAD kernels of a Cortex-M4."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import netsuke
from graphs import artifact_of, random_graph, small_artifact
from netsuke.export import c

ROOT = Path(__file__).parents[2]
FIRMWARE = ROOT / "examples" / "firmware"
TOOLS = {
    "microbit": ("arm-none-eabi-gcc", "qemu-system-arm"),
    "mps2-an385": ("arm-none-eabi-gcc", "qemu-system-arm"),
    "mps2-an386": ("arm-none-eabi-gcc", "qemu-system-arm"),
    "mps3-an547": ("arm-none-eabi-gcc", "qemu-system-arm"),
    "rv32imac": ("riscv64-unknown-elf-gcc", "qemu-system-riscv32"),
    "rv32iac": ("riscv64-unknown-elf-gcc", "qemu-system-riscv32"),
    "atmega328p": ("avr-gcc", "simavr"),
}
PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
    "qemu-system-riscv32": "qemu-system-misc",
    "avr-gcc": "gcc-avr avr-libc",
    "simavr": "simavr",
    "make": "make",
}


def need(*tools: str) -> None:
    for tool in tools:
        if not shutil.which(tool):
            pytest.skip(f"needs {tool}: apt install {PACKAGES[tool]}")


def make(folder: Path, board: str, model: Path, options: str = "") -> dict[str, int]:
    """Build and run in a copy of the example, so that two runs do not meet; the figures that it prints."""
    shutil.copytree(FIRMWARE, folder, ignore=shutil.ignore_patterns("build"))
    source = f"{ROOT / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        ["make", "-s", f"BOARD={board}", f"MODEL={model}", f"SET={options}", f"PYTHON={sys.executable}",
         "run"],
        cwd=folder, env={**os.environ, "PYTHONPATH": source}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return {key: int(value) for key, value in re.findall(r"(\w+) (\d+)", done.stdout)}


@pytest.mark.parametrize("board", TOOLS)
def test_board_gives_the_logits_of_the_reference(board: str, tmp_path: Path) -> None:
    need("make", *TOOLS[board])
    artifact = small_artifact()
    artifact.save(tmp_path / "small.netsuke")
    got = make(tmp_path / "firmware", board, tmp_path / "small.netsuke")
    assert got["wrong_logits"] == 0
    work = got["cycles_an_image" if board == "atmega328p" else "instructions_an_image"]
    assert 10_000 < work < 10_000_000
    assert 50 < got["stack_bytes"] < 1000
    assert got["model_flash_bytes"] > artifact.size_bytes
    path = c.write(artifact, tmp_path, "m")
    assert got["model_ram_bytes"] == c.figures(path)["RAM_BYTES"]


def test_another_model_or_level_is_built_anew(tmp_path: Path) -> None:
    """Though its file be older than what was built of the last one."""
    need("make", *TOOLS["mps2-an386"])
    folder = tmp_path / "firmware"
    shutil.copytree(FIRMWARE, folder, ignore=shutil.ignore_patterns("build"))
    artifacts = {"a": small_artifact(), "b": artifact_of(random_graph(1))}
    for name, artifact in artifacts.items():
        artifact.save(tmp_path / name)
        os.utime(tmp_path / name, (0, 0))

    def built(name: str, level: str) -> tuple[bytes, ...]:
        command = ["make", "-s", "BOARD=mps2-an386", f"MODEL={tmp_path / name}", f"OPT={level}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        subprocess.run([*command, f"PYTHON={sys.executable}"], cwd=folder, env=environment, check=True)
        return tuple((folder / "build" / "mps2-an386" / file).read_bytes() for file in ("model.c", "model.o"))

    first, other, smaller, again = (
        built(*how) for how in (("a", "-O2"), ("b", "-O2"), ("b", "-Os"), ("a", "-O2"))
    )
    assert first[0] != other[0]
    assert other[0] == smaller[0]
    assert other[1] != smaller[1]
    assert again == first


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    need("make")
    shutil.copytree(FIRMWARE, tmp_path / "firmware", ignore=shutil.ignore_patterns("build"))
    done = subprocess.run(
        ["make", "-s", "MODEL=none.netsuke"],
        cwd=tmp_path / "firmware",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"no none.netsuke in {tmp_path / 'firmware'}" in done.stdout


def both(board: str, options: str, folder: Path) -> tuple[dict[str, int], dict[str, int]]:
    """The figures of the zoo's network without and with options of the export."""
    need("make", *TOOLS[board])
    model = Path(netsuke.__file__).parent / "zoo" / "digit-small.netsuke"
    return make(folder / "plain", board, model), make(folder / "other", board, model, options)


def test_shifts_beat_multiplying_in_software(tmp_path: Path) -> None:
    """On an RV32 without a multiplier, where the other build calls __mulsi3."""
    plain, shifts = both("rv32iac", "multiply=shifts", tmp_path)
    assert plain["wrong_logits"] == shifts["wrong_logits"] == 0
    assert shifts["instructions_an_image"] < plain["instructions_an_image"] / 2


@pytest.mark.parametrize("board", ["mps2-an385", "rv32imac"])
def test_coded_weights_on_a_board(board: str, tmp_path: Path) -> None:
    plain, coded = both(board, "weights=coded", tmp_path)
    assert coded["wrong_logits"] == 0
    assert coded["model_flash_bytes"] < plain["model_flash_bytes"]
    assert coded["model_ram_bytes"] > plain["model_ram_bytes"]


MAIN = """\
#include "board.h"
%s
int main(void)
{
    int wrong = 0;
    board_start();
%s
    board_exit(wrong);
    return wrong;
}
"""


@pytest.mark.parametrize("level", ["-O2", "-Os"])
def test_random_graphs_on_a_cortex_m4(level: str, tmp_path: Path) -> None:
    """Self-tests of many graphs in one program: the kernels with two products a step, against the reference."""
    need(*TOOLS["mps2-an386"])
    # Weights of 8, 4, 2 and 1 bits have such kernels; about half the layers of random graphs have one of these.
    names = []
    for seed in range(24):
        artifact = artifact_of(random_graph(seed, extended=seed % 2 == 1))
        names.append(c.write(artifact, tmp_path, f"m{seed}").stem)
    includes = "\n".join(f'#include "{name}.h"' for name in names)
    calls = "\n".join(f"    wrong += {name}_self_test();" for name in names)
    (tmp_path / "main.c").write_text(MAIN % (includes, calls))
    flags = [
        "-mcpu=cortex-m4",
        "-mthumb",
        "-ffreestanding",
        "-std=gnu99",
        level,
        "-Wall",
        "-Wextra",
        "-Werror",
    ]
    flags += [
        "-DCLOCK_HZ=25000000",
        f"-I{FIRMWARE}",
        f"-I{tmp_path}",
        *(f"-D{n.upper()}_SELF_TEST" for n in names),
    ]
    sources = [
        tmp_path / "main.c",
        FIRMWARE / "boards" / "cortex-m.c",
        *(tmp_path / f"{name}.c" for name in names),
    ]
    link = ["-nostartfiles", "-nostdlib", "-T", "boards/mps2-an386.ld", "-Wl,--defsym=STACK=0x4000", "-lgcc"]
    elf = tmp_path / "all.elf"
    subprocess.run(
        ["arm-none-eabi-gcc", *flags, *map(str, sources), *link, "-o", str(elf)], cwd=FIRMWARE, check=True
    )
    run = ["qemu-system-arm", "-M", "mps2-an386", "-display", "none", "-serial", "none", "-monitor", "none"]
    run += ["-semihosting-config", "enable=on,target=native", "-kernel", str(elf)]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{done.returncode} logits are wrong: {done.stdout}"


# Products and quotients of whole numbers of 32 bits and fewer, and what saves registers: no float, no 64 bits, no libc.
HELPERS = {
    *(f"__{name}si3" for name in ("mul", "div", "mod", "udiv", "umod")),
    *(f"__aeabi_{name}" for name in ("idiv", "idivmod", "uidiv", "uidivmod")),
    *("__gnu_thumb1_case_uqi", "__gnu_thumb1_case_sqi"),
    *(f"__{name}3" for name in ("mulhisi", "mulshisi", "muluhisi", "umulhisi", "usmulhisi", "mulohisi")),
    *(f"__{name}" for name in ("divmodhi4", "udivmodhi4", "divmodsi4", "udivmodsi4")),
    *("__prologue_saves__", "__epilogue_restores__", "__do_copy_data", "__do_clear_bss"),
}


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        ("arm-none-eabi-gcc", ["-mcpu=cortex-m0", "-mthumb"]),
        ("arm-none-eabi-gcc", ["-mcpu=cortex-m4", "-mthumb"]),
        ("arm-none-eabi-gcc", ["-mcpu=cortex-m55", "-mthumb"]),
        ("riscv64-unknown-elf-gcc", ["-march=rv32imac", "-mabi=ilp32"]),
        ("riscv64-unknown-elf-gcc", ["-march=rv32iac", "-mabi=ilp32"]),
        ("avr-gcc", ["-mmcu=atmega328p"]),
    ],
)
@pytest.mark.parametrize("level", ["-Os", "-O2"])
def test_objects_call_no_library(compiler: str, flags: list[str], level: str, tmp_path: Path) -> None:
    need(compiler)
    for seed in range(4):
        c.write(artifact_of(random_graph(seed, extended=True)), tmp_path, f"m{seed}")
        strict = [
            "-std=c99",
            "-ffreestanding",
            level,
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Wconversion",
            "-Werror",
        ]
        subprocess.run([compiler, *flags, *strict, "-c", f"m{seed}.c"], cwd=tmp_path, check=True)
    nm = compiler.removesuffix("gcc") + "nm"
    objects = [f"m{seed}.o" for seed in range(4)]
    listed = subprocess.run([nm, "-u", *objects], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = set(re.findall(r"U (\w+)", listed.stdout))
    assert found <= HELPERS
