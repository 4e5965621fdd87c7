"""The normaliser: accuracy behind it, its time in Python, and what its C takes on a Cortex-M4 in QEMU.

python benchmarks/normaliser.py            exam-digits and screen-digits with digit-small; needs gcc-arm-none-eabi and
                                           qemu-system-arm for the last part
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np

from netsuke import data, image, zoo
from netsuke.artifact import Artifact
from netsuke.bench.device import firmware
from netsuke.engine import Engine
from netsuke.export import c

MAIN = """\
#include "board.h"
#include "model.h"
%s
static int32_t work[MODEL_NORMALISE_WORK(160, 160)];
static uint8_t out[MODEL_INPUT_BYTES];
static void print(uint32_t value)
{
    char digits[11];
    int n = 10;
    digits[n] = 0;
    do {
        digits[--n] = (char)('0' + value %% 10);
        value /= 10;
    } while (value);
    board_print(digits + n);
    board_print("\\n");
}
int main(void)
{
    uint32_t begin;
    board_start();
%s
    board_exit(0);
    return 0;
}
"""


def accuracy(artifact: Artifact) -> None:
    engine = Engine(artifact)
    for name in ("exam-digits", "screen-digits"):
        test = data.load(name).test
        inputs = np.stack([image.normalize(x[0]) for x in test.images])
        right = (engine.run(inputs[:, None]).argmax(1) == test.labels).mean()
        times = []
        for x in test.images[:500, 0]:
            begin = perf_counter()
            image.normalize(x)
            times.append(perf_counter() - begin)
        low, middle = np.min(times) * 1e3, np.median(times) * 1e3
        print(
            f"{name}: {right:.2%} of {len(test.labels)}; {middle:.3f} ms a crop in Python (lowest {low:.3f}, n = 500)"
        )


def pages() -> dict[str, np.ndarray]:
    """One digit of MNIST on paper."""
    digit = data.load("mnist").test.images[3, 0]
    paper = 235 - cv2.resize(digit, (64, 64)) * 0.7
    light = 0.8 - 0.2 * np.linspace(-1, 1, 64)
    return {
        "28 x 28": 255 - digit,
        "64 x 64": paper.round().astype(np.uint8),
        "64 x 64 in shadow": (paper * light).round().astype(np.uint8),
        "160 x 160": cv2.resize(255 - digit, (160, 160)),
    }


def instructions(artifact: Artifact, level: str) -> None:
    found, arrays, calls = pages(), "", ""
    for k, page in enumerate(found.values()):
        high, wide = page.shape
        arrays += f"static const uint8_t page{k}[] = {{{', '.join(map(str, page.ravel()))}}};\n"
        calls += (
            f"    begin = board_clock();\n    model_normalise(page{k}, {wide}, {high}, {wide}, out, work);\n"
        )
        calls += "    print(board_scaled((board_clock() - begin) & CLOCK_MASK));\n"
    with tempfile.TemporaryDirectory() as name:
        folder, board = Path(name), firmware()
        path = c.write(artifact, folder, "model", normaliser=True)
        (folder / "main.c").write_text(MAIN % (arrays, calls))
        flags = ["-mcpu=cortex-m4", "-mthumb", "-ffreestanding", "-std=gnu99", level, "-DCLOCK_HZ=25000000"]
        sources = [folder / "main.c", board / "boards" / "cortex-m.c", path]
        link = [
            "-nostartfiles",
            "-nostdlib",
            "-T",
            "boards/mps2-an386.ld",
            "-Wl,--defsym=STACK=0x1000",
            "-lgcc",
        ]
        command = ["arm-none-eabi-gcc", *flags, f"-I{board}", f"-I{folder}", *map(str, sources), *link]
        subprocess.run([*command, "-o", str(folder / "a.elf")], cwd=board, check=True)
        run = [
            "qemu-system-arm",
            "-M",
            "mps2-an386",
            "-display",
            "none",
            "-serial",
            "none",
            "-monitor",
            "none",
        ]
        run += [
            "-semihosting-config",
            "enable=on,target=native",
            "-icount",
            "shift=0",
            "-kernel",
            folder / "a.elf",
        ]
        done = subprocess.run(run, capture_output=True, text=True, check=True, timeout=120)
    counts = re.findall(r"\d+", done.stdout + done.stderr)
    for what, count in zip(found, counts, strict=True):
        print(f"Cortex-M4 {level}, {what}: {int(count):,} instructions")


def main() -> None:
    artifact = Artifact.load(zoo.path("digit-small"))
    accuracy(artifact)
    for level in ("-O2", "-Os"):
        instructions(artifact, level)


if __name__ == "__main__":
    main()
