"""Emitted C with weights that stay entropy coded, and without multiplications: the same logits, by real compilers."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphs import artifact_of, integer_graphs, random_graph, random_images, small_artifact
from netsuke.artifact import Artifact
from netsuke.errors import OptionError
from netsuke.export import c
from netsuke.export.c import coded
from netsuke.graph import Graph, Op

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror"]
OPTIONS: list[dict[str, Any]] = [
    {"multiply": "shifts"},
    {"weights": "coded"},
    {"weights": "coded-dense"},
    {"weights": "coded", "multiply": "shifts", "workspace": "caller"},
]
COMPILERS = {
    "gcc": ["gcc"],
    "clang": ["clang"],
    "gcc-arm-none-eabi": ["arm-none-eabi-gcc", "-mcpu=cortex-m0", "-mthumb", "-ffreestanding"],
    "gcc-riscv64-unknown-elf": ["riscv64-unknown-elf-gcc", "-march=rv32i", "-mabi=ilp32", "-ffreestanding"],
    "gcc-avr": ["avr-gcc", "-mmcu=atmega2560", "-ffreestanding"],
}


def name_of(options: dict[str, Any]) -> str:
    return "-".join(options.values())


each_option = pytest.mark.parametrize("options", OPTIONS, ids=name_of)


def need(package: str) -> list[str]:
    if not shutil.which(COMPILERS[package][0]):
        pytest.skip(f"needs {COMPILERS[package][0]}: apt install {package}")
    return COMPILERS[package]


@contextmanager
def free_tables() -> Iterator[None]:
    """Graphs of tests are small: what is coded would be larger for its tables and its decoder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coded.Unit, "table_bytes", -100_000)
        yield


@pytest.fixture
def tables_are_free() -> Iterator[None]:
    with free_tables():
        yield


def pruned(pair: tuple, seed: int) -> Artifact:
    """An artifact of a graph with most weights of two graphs in three set to 0, as gaps need them."""
    graph, tensors = pair
    rng = np.random.default_rng(seed)
    for op in graph.ops:
        weight = tensors.get(op.tensor("weight"))
        if weight is not None and op.attrs["bits"] > 1:
            weight[rng.random(weight.shape) < (0, 0.5, 0.9)[seed % 3]] = 0
    return artifact_of(pair)


def written(artifact: Artifact, folder: Path, name: str, options: dict[str, Any]) -> Path | None:
    """NAME.c, or None where a graph has no weights that may be coded so."""
    try:
        return c.write(artifact, folder, name, **options)
    except OptionError:
        return None


def batch(folder: Path, options: dict[str, Any], count: int) -> list[tuple[Artifact, Path]]:
    artifacts = [pruned(random_graph(seed, extended=seed % 2 == 1), seed) for seed in range(count)]
    paths = [(a, written(a, folder, f"m{i}", options)) for i, a in enumerate(artifacts)]
    found = [(a, path) for a, path in paths if path]
    assert len(found) >= count // 2
    return found


@pytest.mark.usefixtures("tables_are_free")
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pair=integer_graphs(extended=True), options=st.sampled_from(OPTIONS), seed=st.integers(0, 2))
def test_any_graph_equals_the_reference(pair: tuple, options: dict, seed: int, tmp_path: Path) -> None:
    artifact = pruned(pair, seed)
    images = random_images(artifact.graph, 4, seed=2)
    path = written(artifact, tmp_path, "model", options)
    if path:
        np.testing.assert_array_equal(c.run(path, images, flags=["-O1"]), artifact.logits(images))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Files of every choice of options, by their names."""
    folder = tmp_path_factory.mktemp("few")
    with free_tables():
        found = {name_of(options): batch(folder / name_of(options), options, 6) for options in OPTIONS}
    return {name: [path for _, path in pairs] for name, pairs in found.items()}


@pytest.mark.parametrize("package", COMPILERS)
@pytest.mark.parametrize("level", ["-Os", "-O2"])
def test_compiles_without_a_warning(
    few: dict[str, list[Path]], package: str, level: str, tmp_path: Path
) -> None:
    """And the objects of this machine's compilers need no library; those of RV32I no multiplication either."""
    compiler = need(package)
    nm = compiler[0].removesuffix("gcc") + "nm" if compiler[0].endswith("-gcc") else "nm"
    for options, paths in few.items():
        subprocess.run([*compiler, *STRICT, level, "-c", *map(str, paths)], check=True, cwd=tmp_path)
        objects = [f"{path.stem}.o" for path in paths]
        listed = subprocess.run(
            [nm, "-u", *objects], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        called = set(re.findall(r" U (\w+)", listed.stdout))
        if package in ("gcc", "clang"):
            assert called == set()
        assert not {"memcpy", "memset"} & called
        if package == "gcc-riscv64-unknown-elf" and "shifts" in options:
            assert "__mulsi3" not in called


@pytest.mark.usefixtures("tables_are_free")
@each_option
@pytest.mark.parametrize("package", ["gcc", "clang"])
def test_self_tests_are_clean_under_sanitizers(options: dict, package: str, tmp_path: Path) -> None:
    compiler = need(package)
    probe, program = tmp_path / "probe.c", tmp_path / "program"
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    probe.write_text("int main(void) { return 0; }\n")
    if subprocess.run([*compiler, *flags, str(probe), "-o", str(program)], capture_output=True).returncode:
        runtime = {"gcc": "libasan8 and libubsan1", "clang": "libclang-rt-dev"}[package]
        pytest.skip(f"{package} lacks its sanitizers: apt install {runtime}")
    paths = [path for _, path in batch(tmp_path, options, 6)]
    caller = options.get("workspace") == "caller"
    spaces = "".join(f"static {p.stem}_workspace w_{p.stem};\n" for p in paths) if caller else ""
    calls = " + ".join(f"{p.stem}_self_test({f'&w_{p.stem}' if caller else ''})" for p in paths)
    includes = "".join(f'#include "{p.stem}.h"\n' for p in paths)
    (tmp_path / "main.c").write_text(f"{includes}{spaces}int main(void) {{ return {calls}; }}\n")
    flags += [f"-D{p.stem.upper()}_SELF_TEST" for p in paths]
    sources = [str(tmp_path / "main.c"), *map(str, paths)]
    subprocess.run([*compiler, *flags, *sources, "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[:2000]) == (0, "")


def test_choices_are_checked(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no weights 'zip'; choose from packed, coded, coded-dense"):
        c.write(small_artifact(), tmp_path, weights="zip")
    with pytest.raises(OptionError, match="no multiply 'never'; choose from instruction, shifts"):
        c.write(small_artifact(), tmp_path, multiply="never")


# --- no multiplications -----------------------------------------------------------------------------


def test_shifts_multiply_nowhere(tmp_path: Path) -> None:
    """Not in any function that they share; stages multiply places with constants."""
    for _, path in batch(tmp_path, {"multiply": "shifts"}, 24):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        assert "PAIRS" not in text
        products = re.findall(r"[\w)\]] \* \(?[\w(].*", text.split("SELF_TEST")[0])
        assert [p for p in products if not re.match(r"[\w)\]] \* \d", p)] == []


def test_places_of_any_row_are_found_without_a_product(tmp_path: Path) -> None:
    """A ring of rows of 486 bytes: gcc -Os would call __mulsi3 to find one."""
    compiler = need("gcc-riscv64-unknown-elf")
    rng = np.random.default_rng(0)
    conv = {"stride": [1, 1], "padding": [1, 1, 1, 1], "groups": 1, "bits": 4, "signed": False}
    ops = [Op("halve", "h", ("input",)), Op("qconv2d", "a", ("h",), conv), Op("qconv2d", "b", ("a",), conv)]
    tensors = {}
    for name, shape in {"a": (54, 1, 3, 3), "b": (4, 54, 3, 3)}.items():
        tensors[f"{name}.weight"] = rng.integers(-7, 8, shape, np.int8)
        tensors |= {f"{name}.{role}": np.full(shape[0], v, np.int32) for role, v in
                    {"bias": 3, "multiplier": 40, "shift": 12}.items()}  # fmt: skip
    graph = Graph((1, 9, 9), (*ops, Op("sumpool", "s", ("b",))))
    path = c.write(artifact_of((graph, tensors)), tmp_path, multiply="shifts")
    assert ", 486)" in path.read_text()
    subprocess.run([*compiler, *STRICT, "-Os", "-c", str(path)], check=True, cwd=tmp_path)
    listed = subprocess.run(
        ["riscv64-unknown-elf-nm", "-u", "model.o"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "__mulsi3" not in listed.stdout


# --- entropy coded weights --------------------------------------------------------------------------


def dense(weight: np.ndarray, shape: tuple[int, int, int], bits: int = 8) -> Artifact:
    ops = (Op("halve", "h", ("input",)), Op("flatten", "f", ("h",)),
           Op("qlogits", "out", ("f",), {"bits": bits, "scale": 0.01}))  # fmt: skip
    tensors = {"out.weight": weight.astype(np.int8), "out.bias": np.zeros(len(weight), np.int32)}
    return artifact_of((Graph(shape, ops), tensors))


@pytest.mark.parametrize("kind", ["an only value", "codes of 15 bits", "every value", "gaps"])
@pytest.mark.parametrize("outputs", [3, 4, 6])
def test_codes_of_every_shape(kind: str, outputs: int, tmp_path: Path) -> None:
    need("gcc")
    rng = np.random.default_rng(0)
    count = outputs * 3000
    values = {
        "an only value": np.full(count, -5),
        "codes of 15 bits": np.minimum(rng.geometric(0.5, count), 30) - 9,
        "every value": np.where(rng.random(count) < 0.8, 3, rng.integers(-127, 128, count)),
        "gaps": rng.integers(-127, 128, count) * (rng.random(count) < 0.04),
    }[kind]
    artifact = dense(values.reshape(outputs, -1), (1, 50, 60))
    path = c.write(artifact, tmp_path, weights="coded")
    text = path.read_text()
    assert ("gaps0_steps" in text) == (kind == "gaps")
    if kind == "codes of 15 bits":
        longest = re.search(r"values0_steps\[(\d+)\]", text)
        assert longest
        assert int(longest[1]) > 22
    images = random_images(artifact.graph, 4)
    np.testing.assert_array_equal(c.run(path, images), artifact.logits(images))


def test_figures_of_coded_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    conv = {"stride": [1, 1], "padding": [0, 0, 0, 0], "groups": 1, "bits": 4, "signed": False}
    ops = (Op("halve", "h", ("input",)), Op("qconv2d", "c", ("h",), conv), Op("flatten", "f", ("c",)),
           Op("qlogits", "out", ("f",), {"bits": 4, "scale": 0.01}))  # fmt: skip
    weights = {"c": (20, 3, 3, 3), "out": (10, 20 * 8 * 8)}
    tensors = {f"{k}.weight": (rng.integers(-7, 8, s) * (rng.random(s) < 0.1)).astype(np.int8)
               for k, s in weights.items()}  # fmt: skip
    tensors |= {"c.bias": np.full(20, 3, np.int32), "out.bias": np.zeros(10, np.int32),
                "c.multiplier": np.full(20, 90, np.int32), "c.shift": np.full(20, 12, np.int32)}  # fmt: skip
    artifact = artifact_of((Graph((3, 10, 10), ops), tensors))
    plain = c.figures(c.write(artifact, tmp_path, "plain"))
    for choice, block in (("coded", 270), ("coded-dense", 0)):
        path = c.write(artifact, tmp_path, "m", weights=choice)
        figures, text, head = c.figures(path), path.read_text(), path.with_suffix(".h").read_text()
        arrays = re.findall(
            r"^static const u?int(\d+)_t \w+\[(\d+)\] (?:FLASH )?=", text.split("SELF_TEST")[0], re.M
        )
        operands = 1  # the shift
        assert figures["FLASH_BYTES"] == sum(int(b) // 8 * int(n) for b, n in arrays) + operands
        assert figures["FLASH_BYTES"] < plain["FLASH_BYTES"] / 2
        assert figures.get("WEIGHT_RAM_BYTES", 0) == block
        assert ("m_load(void)" in head) == ("loaded" in text) == (block > 0)
        assert (
            figures["RAM_BYTES"] >= 20 * 8 * 8 * 4 // 2 + 20 * 8 * 8
        )  # four outputs' weights beside the map
        assert re.search(
            r"Weights entropy coded: \d+ bytes of streams and tables in place of \d+ packed", head
        )
        total = re.search(r"\n   total .* (\d+)\n", head)
        assert total
        assert int(total[1]) == figures["FLASH_BYTES"]
        images = random_images(artifact.graph, 6)
        np.testing.assert_array_equal(c.run(path, images), artifact.logits(images))


def test_load_restores_the_block(tmp_path: Path) -> None:
    need("gcc")
    rng = np.random.default_rng(0)
    conv = {"stride": [1, 1], "padding": [0, 0, 0, 0], "groups": 1, "bits": 8, "signed": False}
    ops = (Op("halve", "h", ("input",)), Op("qconv2d", "c", ("h",), conv), Op("sumpool", "s", ("c",)))
    tensors = {"c.weight": (rng.integers(-3, 4, (40, 3, 5, 5))).astype(np.int8), "c.bias": np.full(40, 3, np.int32),
               "c.multiplier": np.full(40, 90, np.int32), "c.shift": np.full(40, 12, np.int32)}  # fmt: skip
    artifact = artifact_of((Graph((3, 10, 10), ops), tensors))
    path = c.write(artifact, tmp_path, "m", weights="coded")
    path.write_text(path.read_text() + "\nvoid m_lose(void) { weights[0] ^= 85; weights[2999] ^= 85; }\n")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", str(path), "-o", str(tmp_path / "m.so")], check=True)
    loaded = ctypes.CDLL(str(tmp_path / "m.so"))
    image, got = random_images(artifact.graph, 3)[2:], np.zeros((1, 40), np.int32)

    def run() -> bool:
        loaded.m_run(ctypes.c_void_p(image.ctypes.data), ctypes.c_void_p(got.ctypes.data))
        return bool((got == artifact.logits(image)).all())

    assert run()
    loaded.m_lose()
    assert not run()
    loaded.m_load()
    assert run()


def test_what_does_not_shrink_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    artifact = dense(rng.integers(-7, 8, (4, 100)), (1, 10, 10), bits=4)
    with pytest.raises(OptionError, match=r"coding does not pay: 200 bytes packed, .*; leave weights=packed"):
        c.write(artifact, tmp_path, weights="coded")
    artifact = dense(rng.choice([-1, 1], (4, 100)), (1, 10, 10), bits=1)
    with pytest.raises(OptionError, match=r"coding does not pay: no weights of more than a bit"):
        c.write(artifact, tmp_path, weights="coded")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sparse", [False, True])
def test_decoder_takes_what_is_counted(sparse: bool, tmp_path: Path) -> None:
    compiler = need("gcc-arm-none-eabi")
    rng = np.random.default_rng(0)
    values = np.clip(rng.normal(0, 2, (4, 3000)).round(), -7, 7) * (
        rng.random((4, 3000)) < (0.1 if sparse else 1)
    )
    path = c.write(dense(values, (1, 50, 60), bits=4), tmp_path, weights="coded")
    subprocess.run([*compiler, "-std=c99", "-Os", "-c", str(path)], check=True, cwd=tmp_path)
    listed = subprocess.run(
        ["arm-none-eabi-nm", "-S", "model.o"], cwd=tmp_path, capture_output=True, text=True
    )
    sizes = re.findall(r"^\w+ (\w+) [tT] (?:symbol|decode0|begin_coded|model_load)$", listed.stdout, re.M)
    taken = sum(int(size, 16) for size in sizes)
    assert 0.6 * coded.DECODER_BYTES[sparse] < taken <= coded.DECODER_BYTES[sparse]
