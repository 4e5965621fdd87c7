"""The decoders in C: the same values as in Python, no library, no overrun, and the size that is counted."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from netsuke import coding
from netsuke.artifact import Artifact
from netsuke.coding import arithmetic, huffman
from netsuke.zoo import path

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror"]
ARM = "arm-none-eabi-gcc"
PARTS = {
    "range": ("range", []),
    "huffman": ("huffman", ["-DNETSUKE_NO_SPARSE"]),
    "sparse": ("huffman", []),
}

# Reads "method count, a line of the stream's bytes, counts of units" and prints the values.
MAIN = """
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv)
{
    static netsuke_range d;
    const size_t size = (size_t)atol(argv[2]);
    uint8_t *stream = malloc(size ? size : 1);
    int unit;
    if (fread(stream, 1, size, stdin) != size) return 1;
    if (argv[1][0] == 'r') {
        netsuke_range_start(&d, stream);
        for (unit = 3; unit < argc; unit++) {
            long i;
            netsuke_range_unit(&d);
            for (i = atol(argv[unit]); i > 0; i--) printf("%ld\\n", (long)netsuke_range_value(&d));
        }
        if (d.next != stream + size) return 2;
    } else {
        const uint32_t count = (uint32_t)atol(argv[3]);
        uint8_t *out = malloc(count);
        uint32_t i;
        (argv[1][0] == 's' ? netsuke_huffman_sparse : netsuke_huffman)(stream, out, count);
        for (i = 0; i < count; i++) printf("%d\\n", out[i]);
        free(out);
    }
    free(stream);
    return 0;
}
"""


@pytest.fixture(scope="module", params=["gcc", "clang"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All decoders with a main; under sanitizers where the compiler has them."""
    if not shutil.which(request.param):
        pytest.skip(f"needs {request.param}: apt install {request.param}")
    folder = tmp_path_factory.mktemp("decoders")
    text = coding.decoder_source("range") + coding.decoder_source("huffman") + MAIN
    (folder / "all.c").write_text(text)
    build = [request.param, "-std=c99", "-O1", str(folder / "all.c"), "-o", str(folder / "all")]
    sanitized = [*build, "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    if subprocess.run(sanitized, capture_output=True, check=False).returncode:
        subprocess.run(build, check=True)
    return folder / "all"


def run(program: Path, method: str, stream: bytes, *counts: int) -> list[int]:
    command = [str(program), method, str(len(stream)), *map(str, counts)]
    done = subprocess.run(command, input=stream, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[:2000]
    return list(map(int, done.stdout.split()))


def test_range_decoder(program: Path) -> None:
    rng = np.random.default_rng(0)
    units = [
        rng.integers(-7, 8, 500),
        rng.integers(-15, 16, 3000) * (rng.random(3000) < 0.05),
        np.array([2**31 - 1, -(2**31) + 1, 0, 1 << 20, -1]),
        np.zeros(4000, np.int64),
        np.rint(rng.normal(0, 4000, 60)).astype(int),
    ]
    stream, _ = arithmetic.encode(units)
    got = run(program, "range", stream, *map(len, units))
    assert got == np.concatenate(units).tolist()


@pytest.mark.parametrize("share", [1.0, 0.3, 0.02])
def test_huffman_decoders(program: Path, share: float) -> None:
    rng = np.random.default_rng(1)
    for kinds in (1, 2, 15, 250):
        values = (rng.geometric(1 / (1 + kinds / 8), 2000) % (kinds + 1) * (rng.random(2000) < share)).astype(
            np.uint8
        )
        stream, sparse = huffman.encode(values), huffman.encode_sparse(values)
        assert stream is not None
        assert sparse is not None
        assert run(program, "huffman", stream, 2000) == values.tolist()
        assert run(program, "sparse", sparse, 2000) == values.tolist()


@pytest.mark.parametrize("method", ["huffman", "range"])
def test_weights_of_the_zoo(program: Path, method: str) -> None:
    artifact = Artifact.load(path("digit-small")).with_manifest(coding=method)
    units = artifact.encoded.units
    assert units
    counts = {name: array.size for name, array in artifact.tensors.items()}
    want = coding.decode(units, counts)
    if method == "range":
        got = run(program, method, units[0].stream, *(sum(counts[n] for n in u.tensors) for u in units))
        assert got == np.concatenate([want[name] for unit in units for name in unit.tensors]).tolist()
    else:
        for unit in units:
            got = run(program, unit.method, unit.stream, sum(counts[name] for name in unit.tensors))
            assert got == np.concatenate([want[n].astype(np.uint8) for n in unit.tensors]).tolist()


@pytest.mark.parametrize("name", ["range", "huffman"])
def test_strict_and_free_of_libraries(name: str, tmp_path: Path) -> None:
    if not shutil.which("gcc"):
        pytest.skip("needs gcc: apt install gcc")
    text = coding.decoder_source(name)
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    assert not re.search(r"\b(float|double|long|int64_t|uint64_t|malloc|memcpy|memset)\b|[^/]/[^/]|%", code)
    assert re.findall(r"#include (\S+)", code) == ["<stdint.h>"]
    (tmp_path / "a.c").write_text(text)
    for level in ("-Os", "-O1", "-O2"):
        command = ["gcc", *STRICT, level, "-ffreestanding", "-c", "a.c", "-o", "a.o"]
        subprocess.run(command, check=True, cwd=tmp_path)
    symbols = subprocess.run(["nm", "-u", "a.o"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert symbols.stdout.split() in ([], ["memset"])  # -O2 may make a call of the zeros of a gap


@pytest.mark.parametrize("method", PARTS)
def test_decoder_bytes_are_those_of_a_compiler(method: str, tmp_path: Path) -> None:
    """Within a tenth of what is counted, for whichever version of gcc is here."""
    if not shutil.which(ARM):
        pytest.skip(f"needs {ARM}: apt install gcc-arm-none-eabi")
    name, flags = PARTS[method]
    (tmp_path / "a.c").write_text(coding.decoder_source(name))
    sizes = []
    for core in ("cortex-m0", "cortex-m3", "cortex-m4"):
        options = ["-Os", "-mthumb", f"-mcpu={core}", "-ffreestanding", *STRICT, *flags]
        subprocess.run([ARM, *options, "-c", "a.c", "-o", "a.o"], check=True, cwd=tmp_path)
        table = subprocess.run(
            ["arm-none-eabi-size", "a.o"], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        text, data, bss = map(int, table.stdout.splitlines()[1].split()[:3])
        assert data + bss == 0
        sizes.append(text)
    assert max(sizes) == pytest.approx(coding.DECODER_BYTES[method], rel=0.1)
