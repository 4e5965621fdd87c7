"""The emitted C against the reference, under strict compilers, and under sanitizers."""

from __future__ import annotations

import ctypes
import re
import secrets
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from builds import SANITIZE, STRICT
from graphs import artifact_of, integer_graphs, random_graph, random_images, small_artifact
from netsuke import kernels, packing
from netsuke.artifact import Artifact
from netsuke.errors import ArtifactError, GraphError, MissingExtra, OptionError, UnsupportedOp
from netsuke.export import TARGETS, c
from netsuke.graph import Graph, Op
from netsuke.memory import ram_bytes

BATCH = range(24)

needs_cc = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler: apt install gcc")


@pytest.fixture(params=["gcc", "clang"])
def compiler(request: pytest.FixtureRequest) -> str:
    if not shutil.which(request.param):
        pytest.skip(f"needs {request.param}: apt install {request.param}")
    return str(request.param)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Artifact, Path]]:
    """Many random graphs, written into one folder."""
    folder = tmp_path_factory.mktemp("c")
    artifacts = [artifact_of(random_graph(seed)) for seed in BATCH]
    return [(artifact, c.write(artifact, folder, f"m{i}")) for i, artifact in enumerate(artifacts)]


def compile_all(compiler: str, flags: list[str], paths: list[Path], target: Path) -> None:
    done = subprocess.run(
        [compiler, *flags, *map(str, paths), "-o", str(target)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:2000]


def test_batch_equals_the_reference(
    batch: list[tuple[Artifact, Path]], compiler: str, tmp_path: Path
) -> None:
    library = tmp_path / "all.so"
    compile_all(compiler, [*STRICT, "-O2", "-shared", "-fPIC"], [path for _, path in batch], library)
    loaded = ctypes.CDLL(str(library))
    for artifact, path in batch:
        images = random_images(artifact.graph, 5, seed=1)
        want = artifact.logits(images)
        got = np.full_like(want, -1)
        call = getattr(loaded, f"{path.stem}_run")
        for image, row in zip(images, got, strict=True):
            call(ctypes.c_void_p(image.ctypes.data), ctypes.c_void_p(row.ctypes.data))
        np.testing.assert_array_equal(got, want, err_msg=f"seed {path.stem[1:]}")


@needs_cc
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pair=integer_graphs())
def test_any_graph_equals_the_reference(pair: tuple, tmp_path: Path) -> None:
    graph, tensors = pair
    images = random_images(graph, 4, seed=2)
    path = c.write(artifact_of(pair), tmp_path)
    np.testing.assert_array_equal(c.run(path, images, flags=["-O1"]), kernels.run(graph, tensors, images))


@needs_cc
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pair=integer_graphs(extended=True))
def test_rows_one_by_one_equal_the_whole_image(pair: tuple, tmp_path: Path) -> None:
    """Every second image is given row by row; each is complete with its last row and not before."""
    artifact = artifact_of(pair)
    images = random_images(artifact.graph, 4, seed=2)
    library = tmp_path / f"{secrets.token_hex(4)}.so"  # a library of the same name would not be loaded anew
    path = c.write(artifact, tmp_path)
    compile_all("cc", ["-O1", "-shared", "-fPIC"], [path], library)
    loaded = ctypes.CDLL(str(library))
    want = artifact.logits(images)
    got = np.full_like(want, -1)
    for i, (image, row) in enumerate(zip(images, got, strict=True)):
        out = ctypes.c_void_p(row.ctypes.data)
        if i % 2:
            loaded.model_run(ctypes.c_void_p(image.ctypes.data), out)
            continue
        lines = np.ascontiguousarray(image.transpose(1, 0, 2))  # a row of every plane at a time
        done = [loaded.model_push_row(ctypes.c_void_p(line.ctypes.data), out) for line in lines]
        assert done == [0] * (len(lines) - 1) + [1]
    np.testing.assert_array_equal(got, want)


@needs_cc
def test_start_forgets_the_rows_so_far(tmp_path: Path) -> None:
    artifact = small_artifact()
    images = random_images(artifact.graph, 3)
    library = tmp_path / "start.so"
    compile_all("cc", ["-O1", "-shared", "-fPIC"], [c.write(artifact, tmp_path)], library)
    loaded = ctypes.CDLL(str(library))
    got = np.zeros(3, np.int32)
    for line in images[0][0, :5]:
        loaded.model_push_row(ctypes.c_void_p(line.ctypes.data), ctypes.c_void_p(got.ctypes.data))
    loaded.model_start()
    for line in images[2][0]:
        loaded.model_push_row(ctypes.c_void_p(line.ctypes.data), ctypes.c_void_p(got.ctypes.data))
    np.testing.assert_array_equal(got, artifact.logits(images)[2])


@needs_cc
def test_two_workspaces_take_turns(tmp_path: Path) -> None:
    artifact = small_artifact()
    images = random_images(artifact.graph, 4)
    path = c.write(artifact, tmp_path, workspace="caller")
    np.testing.assert_array_equal(c.run(path, images), artifact.logits(images))
    library = tmp_path / "two.so"
    compile_all("cc", [*STRICT, "-O2", "-shared", "-fPIC"], [path], library)
    loaded = ctypes.CDLL(str(library))
    spaces = [ctypes.create_string_buffer(c.figures(path)["RAM_BYTES"]) for _ in range(2)]
    got = np.zeros((2, 3), np.int32)
    for space in spaces:
        loaded.model_start(space)
    for y in range(12):
        for i, space in enumerate(spaces):
            line = np.ascontiguousarray(images[2 + i, 0, y])
            loaded.model_push_row(
                space, ctypes.c_void_p(line.ctypes.data), ctypes.c_void_p(got[i].ctypes.data)
            )
    np.testing.assert_array_equal(got, artifact.logits(images)[2:])


def test_workspace_is_checked(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no workspace 'heap'; choose from static, caller"):
        c.write(small_artifact(), tmp_path, workspace="heap")


@needs_cc
def test_sum_of_vectors_in_two_orders(tmp_path: Path) -> None:
    """A flattened map lies pixel by pixel, a dense layer does not: their sum may not overwrite the dense one."""
    rng = np.random.default_rng(0)
    conv = {"stride": [2, 2], "padding": [0, 0, 0, 0], "groups": 1, "bits": 8, "signed": True}
    both = {"multipliers": [60, 70], "shift": 7, "signed": True}
    ops = (
        Op("halve", "h", ("input",)),
        Op("qconv2d", "q", ("h",), conv),
        Op("flatten", "f", ("q",)),
        Op("qdense", "d", ("f",), {"bits": 8, "signed": True}),
        Op("qadd", "a", ("d", "f"), both),
        Op("qadd", "b", ("a", "f"), both),
    )
    tensors = {}
    for name, shape in {"q": (4, 1, 2, 2), "d": (24, 24)}.items():
        tensors[f"{name}.weight"] = rng.integers(-99, 100, shape, np.int8)
        tensors |= {f"{name}.{role}": np.full(shape[0], v, np.int32) for role, v in
                    {"bias": 3, "multiplier": 40, "shift": 12}.items()}  # fmt: skip
    artifact = artifact_of((Graph((1, 4, 6), ops), tensors))
    images = random_images(artifact.graph, 9)
    np.testing.assert_array_equal(c.run(c.write(artifact, tmp_path), images), artifact.logits(images))


@pytest.mark.parametrize("level", ["-O0", "-O3"])
def test_compiles_without_a_warning(
    batch: list[tuple[Artifact, Path]], compiler: str, level: str, tmp_path: Path
) -> None:
    paths = [path for _, path in batch[:8]]
    flags = [*STRICT, level, "-shared", "-fPIC", *(f"-D{path.stem.upper()}_SELF_TEST" for path in paths)]
    compile_all(compiler, flags, paths, tmp_path / "all.so")


def test_self_tests_are_clean_under_sanitizers(
    batch: list[tuple[Artifact, Path]], compiler: str, tmp_path: Path
) -> None:
    probe, program = tmp_path / "probe.c", tmp_path / "program"
    probe.write_text("int main(void) { return 0; }\n")
    if subprocess.run([compiler, *SANITIZE, str(probe), "-o", str(program)], capture_output=True).returncode:
        package = {"gcc": "libasan8 and libubsan1", "clang": "libclang-rt-dev"}[compiler]
        pytest.skip(f"{compiler} lacks its sanitizers: apt install {package}")
    paths = [path for _, path in batch[:12]]
    main = "".join(f'#include "{path.stem}.h"\n' for path in paths)
    calls = " + ".join(f"{path.stem}_self_test()" for path in paths)
    (tmp_path / "main.c").write_text(f"{main}int main(void) {{ return {calls}; }}\n")
    flags = [*SANITIZE, f"-I{paths[0].parent}", *(f"-D{path.stem.upper()}_SELF_TEST" for path in paths)]
    compile_all(compiler, flags, [tmp_path / "main.c", *paths], program)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[:2000]) == (0, "")


@needs_cc
def test_self_test_counts_wrong_logits(tmp_path: Path) -> None:
    path = c.write(small_artifact(), tmp_path)
    text = path.read_text()
    first = re.search(r"test_logits\[\d+\]\[\d+\] = \{\{\s+(-?\d+)", text)
    assert first
    path.write_text(f"{text[: first.start(1)]}{int(first[1]) + 1}{text[first.end(1) :]}")
    library = tmp_path / "self.so"
    compile_all("cc", ["-DMODEL_SELF_TEST", "-shared", "-fPIC"], [path], library)
    assert ctypes.CDLL(str(library)).model_self_test() == 1


@pytest.mark.parametrize("level", ["-Os", "-O2", "-O3"])
def test_needs_no_library(
    batch: list[tuple[Artifact, Path]], compiler: str, level: str, tmp_path: Path
) -> None:
    """Compilers turn loops into calls of memcpy and memset; ours give them none to turn."""
    identity = {"kernel": [1, 1], "stride": [1, 1], "padding": [0, 0, 0, 0]}
    ops = [
        Op("halve", "h", ("input",)),
        Op("maxpool", "a", ("h",), identity),
        Op("maxpool", "b", ("a",), identity),
    ]
    copies = Graph((2, 8, 8), (*ops, Op("sumpool", "s", ("b",))))
    paths = [c.write(artifact_of((copies, {})), tmp_path, "copies"), *(path for _, path in batch[:8])]
    subprocess.run([compiler, "-std=c99", level, "-c", *map(str, paths)], check=True, cwd=tmp_path)
    objects = [str(tmp_path / f"{path.stem}.o") for path in paths]
    symbols = subprocess.run(["nm", "-u", *objects], capture_output=True, text=True, check=True).stdout
    assert [line for line in symbols.split() if not line.endswith(".o:")] == []


def test_uses_no_float_no_wide_integer_no_other_header(batch: list[tuple[Artifact, Path]]) -> None:
    for _, path in batch:
        text = path.read_text() + path.with_suffix(".h").read_text()
        code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
        assert not re.search(r"\b(float|double|long|int64_t|uint64_t|malloc|memcpy|memset)\b", code)
        assert set(re.findall(r"#include (\S+)", code)) == {
            "<stdint.h>",
            "<avr/pgmspace.h>",
            f'"{path.stem}.h"',
        }


def test_figures_are_what_is_emitted(batch: list[tuple[Artifact, Path]], tmp_path: Path) -> None:
    for artifact, path in batch:
        figures = c.figures(path)
        assert figures["FLASH_BYTES"] == packing.size_bytes(artifact.graph, artifact.tensors)
        assert figures["FLASH_BYTES"] == constant_bytes(path.read_text()) + operand_bytes(artifact)
        assert figures["RAM_BYTES"] == ram_bytes(artifact.graph, artifact.tensors)
        assert c.result_shape(figures) == artifact.shape
        assert figures["INPUT_BYTES"] == np.prod(artifact.graph.input_shape)


@needs_cc
def test_biases_without_their_last_zeros(tmp_path: Path) -> None:
    artifact = small_artifact()
    for name, bias in artifact.tensors.items():
        if name.endswith(".bias"):
            bias[:] = np.resize([-5, 9, 2, 0, 1, -3], bias.size) << 7
    path = c.write(artifact, tmp_path)
    text = path.read_text()
    assert len(re.findall(r"\w+_bias, 7, ", text)) == 4
    assert (
        c.figures(path)["FLASH_BYTES"]
        == constant_bytes(text) + operand_bytes(artifact)
        == artifact.size_bytes
    )
    images = random_images(artifact.graph, 6)
    np.testing.assert_array_equal(c.run(path, images), artifact.logits(images))


def constant_bytes(text: str) -> int:
    """The bytes of all arrays."""
    code = text[: text.index("_SELF_TEST\n")]
    arrays = re.findall(r"^static const u?int(\d+)_t \w+\[(\d+)\] FLASH =", code, re.MULTILINE)
    return sum(int(bits) // 8 * int(count) for bits, count in arrays)


def operand_bytes(artifact: Artifact) -> int:
    """A shift that a layer shares, and the zero bits left out of biases, stand in the code itself."""
    total = 0
    for name, (_, role) in artifact.graph.roles().items():
        array = artifact.tensors[name]
        if role == "shift" and (array == array.flat[0]).all():
            total += packing.storage_dtype(array).itemsize
        if role == "bias":
            total += packing.shortened(array)[1] > 0
    return total


def test_header_lists_every_layer(tmp_path: Path) -> None:
    artifact = small_artifact()
    text = c.write(artifact, tmp_path).with_suffix(".h").read_text()
    table = re.search(r"op +output.*?\n(.*?)\n   total", text, re.DOTALL)
    assert table
    assert [line.split()[0] for line in table[1].splitlines()] == [op.kind for op in artifact.graph.ops]
    assert text.isascii()


@needs_cc
@pytest.mark.parametrize("name", ["7 segment-digits", "ziffern_é", "", "*/", "int"])
def test_any_name_gives_a_valid_identifier(name: str, tmp_path: Path) -> None:
    artifact = small_artifact()
    graph = artifact.graph
    renamed = Graph(
        graph.input_shape,
        tuple(Op(op.kind, f"*/ {op.name} /*\n??/", tuple(f"*/ {i} /*\n??/" if i != "input" else i for i in op.inputs),
                 op.attrs) for op in graph.ops),
    )  # fmt: skip
    tensors = {k.replace(op := k.split(".")[0], f"*/ {op} /*\n??/"): v for k, v in artifact.tensors.items()}
    hostile = Artifact(renamed, tensors, {"classes": ["*/ int evil; /*", "é\n", "\\"]})
    path = c.write(hostile, tmp_path, name)
    assert re.fullmatch(r"[A-Za-z]\w*\.c", path.name, re.ASCII)
    images = random_images(graph, 3)
    got = c.run(path, images, flags=STRICT[1:])
    np.testing.assert_array_equal(got, artifact.logits(images))


@needs_cc
def test_target_table_runs_it(tmp_path: Path) -> None:
    artifact = small_artifact()
    images = random_images(artifact.graph, 8)
    path = TARGETS["c"].write(artifact, tmp_path, "tiny")
    assert path == tmp_path / "tiny.c"
    np.testing.assert_array_equal(TARGETS["c"].run(path, images), artifact.logits(images))


def test_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    first, second = (c.write(small_artifact(), tmp_path / side) for side in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["model.c", "model.h"]


def test_float_graph_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOp, match=r"takes integer graphs: quantise the model first.*--bits 8"):
        c.write(small_artifact(integer=False), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written"):
        c.write(small_artifact(), tmp_path / "file" / "out")


@needs_cc
def test_run_names_what_is_wrong(tmp_path: Path) -> None:
    artifact = small_artifact()
    images = random_images(artifact.graph, 1)
    path = c.write(artifact, tmp_path)
    with pytest.raises(MissingExtra, match="no C compiler 'no-such-cc'"):
        c.run(path, images, compiler="no-such-cc")
    with pytest.raises(GraphError, match=r"needs uint8 images \[n, 1, 12, 10\]; got uint8 \[1, 1, 10, 12\]"):
        c.run(path, images.reshape(1, 1, 10, 12))
    path.write_text("nonsense")
    with pytest.raises(ArtifactError, match=r"cc cannot compile model\.c: .*error"):
        c.run(path, images)
    path.with_suffix(".h").unlink()
    with pytest.raises(ArtifactError, match=r"model\.h cannot be read"):
        c.run(path, images)
