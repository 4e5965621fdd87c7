"""The normaliser: Python, C and WebAssembly give the golden vectors, and each other's answer for any image."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.artifact import Artifact
from netsuke.errors import OptionError
from netsuke.export import c, wasm
from netsuke.graph import Graph, Op
from netsuke.image import find_ink, fit

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "normaliser.npz")
NAMES = sorted({key.rpartition("/")[0] for key in GOLDEN.files})
SHAPES = {"mass": (28, 20), "box": (8, 8)}
STRICT = ["-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror"]
Normalise = Callable[[np.ndarray], tuple[int, np.ndarray, tuple[int, ...]]]


def model(centring: str = "mass", planes: int = 1, **contract: object) -> Artifact:
    """A dense layer on images of the sides that go with a centring."""
    side, box = SHAPES[centring]
    layers = (
        Op("halve", "half", ("input",)),
        Op("flatten", "flat", ("half",)),
        Op("qlogits", "out", ("flat",), {"bits": 8, "scale": 0.01}),
    )
    weights = {
        "out.weight": np.random.default_rng(0).integers(-7, 8, (10, planes * side * side), np.int8),
        "out.bias": np.zeros(10, np.int32),
    }
    manifest = {"classes": list("0123456789"), "input": {"centring": centring, "box": box, **contract}}
    return Artifact(Graph((planes, side, side), layers), weights, manifest)


def expected(image: np.ndarray, centring: str) -> tuple[int, np.ndarray, tuple[int, ...]]:
    size, box = SHAPES[centring]
    ink = find_ink(image)
    if ink is None:
        return 0, np.zeros((size, size), np.uint8), (0, 0, 0, 0)
    return 1, fit(ink.pixels, size=size, box=box, centring=centring), ink.box


def called(library: Path, name: str, side: int, planes: int = 1) -> Normalise:
    """NAME_normalise with a workspace of exactly the bytes that the header promises, and a guard behind it."""
    call = getattr(ctypes.CDLL(str(library)), f"{name}_normalise")
    call.argtypes = (ctypes.c_void_p, *[ctypes.c_int32] * 3, ctypes.c_void_p, ctypes.c_void_p)

    def normalise(image: np.ndarray) -> tuple[int, np.ndarray, tuple[int, ...]]:
        high, wide = image.shape
        page = np.full((high, wide + 3), 77, np.uint8)  # a stride that is not the width
        page[:, :wide] = image
        pixels = min(wide * high, 240 * 240)
        words = 80 + (3 * pixels + 2 * max(pixels, side * side)) // 4
        work = np.full(words + 16, 0x5A5A5A5A, np.int32)
        out = np.full((planes, side, side), 99, np.uint8)
        found = call(page.ctypes.data, wide, high, wide + 3, out.ctypes.data, work.ctypes.data)
        assert (work[words:] == 0x5A5A5A5A).all()
        assert (out == out[0]).all()
        return found, out[0], tuple(work[:4].tolist())

    return normalise


@pytest.fixture(scope="module", params=[("gcc", "-O2"), ("gcc", "-Os"), ("clang", "-O3")], ids=" ".join)
def compiled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Normalise]:
    compiler, level = request.param
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}: apt install {compiler}")
    folder = tmp_path_factory.mktemp("normaliser")
    functions = {}
    for centring, (side, _) in SHAPES.items():
        path = c.write(model(centring), folder, centring, normaliser=True)
        c.compiled(path, path.with_suffix(".so"), compiler, [*STRICT, level, "-shared", "-fPIC"])
        functions[centring] = called(path.with_suffix(".so"), centring, side)
    return functions


def same(got: tuple[int, np.ndarray, tuple[int, ...]], want: tuple[int, np.ndarray, tuple[int, ...]]) -> None:
    np.testing.assert_array_equal(got[1], want[1])
    assert got[0] == want[0]
    assert got[2] == want[2]


def golden(name: str, centring: str) -> tuple[int, np.ndarray, tuple[int, ...]]:
    box = tuple(GOLDEN[f"{name}/ink"].tolist())
    return int(box[2] > 0), GOLDEN[f"{name}/{centring}"], box


@pytest.mark.parametrize("centring", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_python_gives_the_golden_vectors(name: str, centring: str) -> None:
    same(expected(GOLDEN[f"{name}/image"], centring), golden(name, centring))


@pytest.mark.parametrize("centring", SHAPES)
def test_c_gives_the_golden_vectors(compiled: dict[str, Normalise], centring: str) -> None:
    for name in NAMES:
        same(compiled[centring](GOLDEN[f"{name}/image"]), golden(name, centring))


@pytest.mark.skipif(
    not all(map(shutil.which, ("clang", "wasm-ld", "node"))), reason="needs clang, lld and nodejs"
)
@pytest.mark.parametrize("centring", SHAPES)
def test_wasm_gives_the_golden_vectors(centring: str, tmp_path: Path) -> None:
    script = wasm.write(model(centring), tmp_path, "m", normaliser="yes")
    side = SHAPES[centring][0]
    for simd in (False, True):
        with wasm.Node(script, wasm.module(script, simd)) as node:
            for name in NAMES:
                found = node.normalise(GOLDEN[f"{name}/image"])
                pixels, box = found or (np.zeros(side * side, np.uint8), [0, 0, 0, 0])
                same((int(found is not None), pixels.reshape(side, side), tuple(box)), golden(name, centring))


def test_golden_vectors_hold_both_papers_and_all_ways() -> None:
    """Blank and inked, shrunk and enlarged, level and surface."""
    boxes = {name: GOLDEN[f"{name}/ink"] for name in NAMES}
    assert {bool(box[2]) for box in boxes.values()} == {True, False}
    assert max(GOLDEN["large/image"].shape) > 240
    assert max(boxes["tiny"][2:]) < 19
    assert not np.array_equal(GOLDEN["shadow/mass"], GOLDEN["figure 5/mass"])


@st.composite
def pictures(draw: st.DrawFn) -> np.ndarray:
    """Strokes on shaded paper with noise, and plain noise, of any size and polarity."""
    high, wide, seed = draw(st.integers(1, 90)), draw(st.integers(1, 90)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    if rng.random() < 0.25:
        noise = rng.integers(0, 256, (high, wide), np.uint8)
        return (
            np.where(noise < rng.integers(1, 255), 0, 255).astype(np.uint8) if rng.random() < 0.5 else noise
        )
    y, x = np.mgrid[:high, :wide]
    page = np.full((high, wide), rng.uniform(120, 255))
    page *= 1 - rng.uniform(0, 0.8) * (rng.uniform(0, 1) * x / wide + rng.uniform(0, 1) * (y / high) ** 2) / 2
    for _ in range(rng.integers(0, 6)):
        a, b = rng.uniform(0, 1, (2, 2)) * [wide, high]
        t = (((x - a[0]) * (b - a)[0] + (y - a[1]) * (b - a)[1]) / max(((b - a) ** 2).sum(), 1)).clip(0, 1)
        away = np.hypot(x - a[0] - t * (b - a)[0], y - a[1] - t * (b - a)[1])
        page *= 1 - rng.uniform(0.1, 1) * (rng.uniform(1, 6) - away).clip(0, 1)
    for side in range(4):  # lines of a form, along the border or a little inside
        if rng.random() < 0.15:
            inside = rng.integers(0, 6)
            np.rot90(page, side)[inside : inside + rng.integers(1, 7), rng.integers(0, 9) :] *= 0.4
    page += rng.normal(0, rng.choice([0, 1, 6]), page.shape)
    out = page.clip(0, 255).round().astype(np.uint8)
    if rng.random() < 0.15:
        out = np.repeat(np.repeat(out, rng.integers(2, 9), 0), rng.integers(2, 9), 1)
    return 255 - out if rng.random() < 0.4 else out


def test_any_image(compiled: dict[str, Normalise]) -> None:
    @settings(max_examples=150, deadline=None)
    @given(pictures())
    def check(image: np.ndarray) -> None:
        for centring, function in compiled.items():
            same(function(image), expected(image, centring))

    check()


def test_digits_of_exams_and_screens(compiled: dict[str, Normalise]) -> None:
    from netsuke import data

    for name in ("exam-digits", "screen-digits"):
        if "test" not in data.on_disk(name):
            pytest.skip(f"needs {name}: set NETSUKE_DATA to a folder that holds {name}/")
        for image in data.load(name).test.images[::4, 0]:
            same(compiled["mass"](image), expected(image, "mass"))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler: apt install gcc")
    return tmp_path


def test_three_planes_and_sizes_out_of_range(here: Path) -> None:
    path = c.write(model(planes=3), here, "rgb", normaliser=True)
    c.compiled(path, here / "rgb.so", "cc", ["-shared", "-fPIC"])
    image = GOLDEN["figure 3/image"]
    same(called(here / "rgb.so", "rgb", 28, planes=3)(image), golden("figure 3", "mass"))
    function = called(here / "rgb.so", "rgb", 28, planes=3)
    for shape in ((0, 5), (5, 0), (1, 16384)):
        found, out, _ = function(np.zeros(shape, np.uint8))
        assert found == -1
        assert not out.any()


MAIN = """\
#include <stdio.h>
#include "mass.h"
int main(void)
{
    static uint8_t grey[1024 * 1024];
    int width, height, sum = 0;
    while (scanf("%d %d", &width, &height) == 2) {
        getchar();
        if (fread(grey, 1, (size_t)(width * height), stdin) != (size_t)(width * height)) {
            return 1;
        }
        {
            uint8_t exact[1 << 16], out[MASS_INPUT_BYTES]; /* so that a step past the image is seen */
            int32_t work[MASS_NORMALISE_WORK(1024, 1024)];
            const int small = width * height <= 1 << 16;
            for (int i = 0; small && i < width * height; i++) {
                exact[(1 << 16) - width * height + i] = grey[i];
            }
            sum += mass_normalise(small ? exact + (1 << 16) - width * height : grey, width, height, width, out, work);
        }
    }
    printf("%d", sum);
    return 0;
}
"""


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_clean_under_sanitizers(compiler: str, tmp_path: Path) -> None:
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    probe, program = tmp_path / "probe.c", tmp_path / "program"
    probe.write_text("int main(void) { return 0; }\n")
    if (
        not shutil.which(compiler)
        or subprocess.run([compiler, *flags, str(probe), "-o", str(program)], capture_output=True).returncode
    ):
        pytest.skip(f"needs {compiler} with its sanitizers: apt install libasan8 libubsan1 libclang-rt-dev")
    path = c.write(model(), tmp_path, "mass", normaliser=True)
    (tmp_path / "main.c").write_text(MAIN)
    files = [str(tmp_path / "main.c"), str(path), "-o", str(program)]
    subprocess.run([compiler, *flags, *files], check=True)
    rng = np.random.default_rng(1)
    images = [GOLDEN[f"{name}/image"] for name in NAMES]
    images += [rng.integers(0, 256, rng.integers(1, 40, 2), np.uint8) for _ in range(60)]
    told = b"".join(b"%d %d\n%b" % (i.shape[1], i.shape[0], i.tobytes()) for i in images)
    done = subprocess.run([str(program)], input=told, capture_output=True, check=False)
    assert (done.returncode, done.stderr[:2000]) == (0, b"")
    assert int(done.stdout) == sum(find_ink(image) is not None for image in images)


# Products and quotients of whole numbers of 32 bits and fewer, and what saves registers.
HELPERS = "|".join(
    [
        r"__aeabi_u?idiv(mod)?",
        r"__u?(div|mod|mul|divmod)[shq]i[34]",
        r"__(u|us)?mul\w*[hs]i3",
        r"__\w+_(saves|restores)__",
        r"__do_\w+",
        r"_GLOBAL_OFFSET_TABLE_",
    ]
)


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        ("gcc", []),
        ("arm-none-eabi-gcc", ["-mcpu=cortex-m0", "-mthumb"]),
        ("arm-none-eabi-gcc", ["-mcpu=cortex-m4", "-mthumb"]),
        ("riscv64-unknown-elf-gcc", ["-march=rv32iac", "-mabi=ilp32"]),
        ("avr-gcc", ["-mmcu=atmega328p"]),
    ],
)
@pytest.mark.parametrize("level", ["-Os", "-O2", "-O3"])
def test_calls_no_library(compiler: str, flags: list[str], level: str, tmp_path: Path) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}")
    path = c.write(model(), tmp_path, "m", normaliser=True, confidence=True)
    made = tmp_path / "m.o"
    c.compiled(path, made, compiler, ["-c", "-ffreestanding", level, *flags, *STRICT])
    nm = "nm" if compiler == "gcc" else compiler.removesuffix("gcc") + "nm"
    undefined = subprocess.run([nm, "-u", str(made)], capture_output=True, text=True, check=True).stdout
    wrong = [s for s in re.findall(r"U (\w+)", undefined) if not re.fullmatch(HELPERS, s)]
    assert wrong == []


def test_models_without_centred_ink_are_refused(tmp_path: Path) -> None:
    plain = model(centring="mass")
    whole = Artifact(plain.graph, plain.tensors, {"classes": plain.classes})
    with pytest.raises(OptionError, match="takes whole images"):
        c.write(whole, tmp_path, normaliser=True)
    with pytest.raises(OptionError, match="box of 1 to its side; got 28x28, 40"):
        c.write(model(box=40), tmp_path, normaliser=True)
    with pytest.raises(OptionError, match="normaliser is yes or no; got 'maybe'"):
        c.write(plain, tmp_path, normaliser="maybe")
    assert not list(tmp_path.iterdir())
