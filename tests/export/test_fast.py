"""Fast C kernels against the NumPy reference, on every vector unit that this machine runs."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import pytest

from builds import FLAGS, numbered, runs_here
from graphs import (
    Pair,
    random_graph,
    random_images,
    random_separable,
    random_squeezed,
    small_artifact,
)
from netsuke import kernels
from netsuke.errors import UnsupportedOp
from netsuke.export.c.fast import VARIANTS, Source, build
from netsuke.export.c.fast.layout import layout

variants = pytest.mark.parametrize(
    "variant",
    [
        pytest.param(name, marks=pytest.mark.skipif(not runs_here(name), reason=f"no {name} here"))
        for name in FLAGS
    ],
)
compilers = pytest.mark.parametrize(
    "compiler",
    [
        pytest.param(
            name, marks=pytest.mark.skipif(not shutil.which(name), reason=f"needs {name}: apt install {name}")
        )
        for name in ("gcc", "clang")
    ],
)


def compiled(
    sources: Sequence[Source], variant: str, compiler: str, folder: Path, *flags: str
) -> ctypes.CDLL:
    """A library with `run_g0`, `run_g1`, ..."""
    path = folder / "fast.c"
    path.write_text("\n".join([sources[0].prelude, *(numbered(s, i) for i, s in enumerate(sources))]))
    command = [compiler, "-std=gnu11", "-Wall", "-Werror", *FLAGS[variant], *flags, "-shared", "-fPIC"]
    subprocess.run([*command, str(path), "-o", str(path.with_suffix(".so"))], check=True)
    return ctypes.CDLL(str(path.with_suffix(".so")))


def aligned(size: int) -> np.ndarray:
    block = np.zeros(size + 64, np.uint8)
    return block[-block.ctypes.data % 64 :][:size]


def logits(library: ctypes.CDLL, number: int, source: Source, images: np.ndarray) -> np.ndarray:
    weights, work = aligned(len(source.weights)), aligned(source.work_bytes)
    weights[:] = np.frombuffer(source.weights, np.uint8)
    out = np.zeros((len(images), *source.shape), np.int32)
    run = library[f"run_g{number}"]
    run.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_long, ctypes.c_void_p]
    for _ in range(2):  # a workspace serves again and again
        pointers = [a.ctypes.data for a in (weights, images, out)]
        run(*pointers, len(images), work.ctypes.data)
    return out


def assert_exact(
    pairs: Sequence[Pair], variant: str, compiler: str, folder: Path, *flags: str, n: int = 27
) -> None:
    """The same logits as the reference, for one image and for more than a block of them."""
    sources = [build(*pair, VARIANTS[variant]) for pair in pairs]
    library = compiled(sources, variant, compiler, folder, *flags)
    for number, ((graph, tensors), source) in enumerate(zip(pairs, sources, strict=True)):
        images = random_images(graph, n, seed=number)
        want = kernels.run(graph, tensors, images)
        np.testing.assert_array_equal(logits(library, number, source, images), want, f"graph {number}")
        np.testing.assert_array_equal(
            logits(library, number, source, images[3:4]), want[3:4], f"graph {number}"
        )


@variants
@compilers
@pytest.mark.parametrize("extended", [False, True])
def test_random_graphs(variant, compiler, extended, tmp_path):
    start = 1000 * extended
    pairs = [random_graph(seed, extended=extended) for seed in range(start, start + 12)]
    assert_exact(pairs, variant, compiler, tmp_path, "-O1")


@variants
def test_dense_layers_in_the_middle(variant, tmp_path):
    """They belong to one image, not to the block of images whose last layers run together."""
    pairs = [random_squeezed(seed) for seed in (1, 2, 4, 7, 11)]
    for graph, tensors in pairs:
        assert len(np.unique(kernels.run(graph, tensors, random_images(graph, 9)), axis=0)) > 5
    assert_exact(pairs, variant, "gcc" if shutil.which("gcc") else "cc", tmp_path, "-O1")


@variants
@pytest.mark.parametrize("level", ["-O0", "-Os", "-O3"])
def test_small_network_at_every_level(variant, level, tmp_path):
    artifact = small_artifact()
    compiler = "gcc" if shutil.which("gcc") else "cc"
    assert_exact([(artifact.graph, artifact.tensors)], variant, compiler, tmp_path, level)


MAIN = """
#include <stdio.h>
#include <stdlib.h>
int posix_memalign(void **, size_t, size_t);
static void *aligned(size_t size) /* aligned_alloc takes whole multiples of 64 only */
{{
    void *p;
    return posix_memalign(&p, 64, size) ? NULL : p;
}}
static void *read_all(const char *name, long size) /* of its exact size, so that no byte beyond it is read unseen */
{{
    void *p = aligned(size);
    FILE *f = fopen(name, "rb");
    return p && f && fread(p, 1, size, f) == (size_t)size ? p : (exit(9), p);
}}
int main(int argc, char **argv)
{{
    int32_t *logits = malloc({n} * {classes} * 4);
    void *work = aligned({work});
    if (argc != 3 || !work || !logits) {{ return 8; }}
    for (long i = 0; i < {work}; i++) {{ ((char *)work)[i] = 0; }}
    run(read_all(argv[1], {weights}), read_all(argv[2], {images}), logits, {n}, work);
    for (int i = 0; i < {n} * {classes}; i++) {{ printf("%d\\n", logits[i]); }}
    return 0;
}}
"""


@variants
@pytest.mark.skipif(not shutil.which("clang"), reason="needs clang: apt install clang libclang-rt-14-dev")
@pytest.mark.parametrize(
    ("make", "seed"),
    [(random_graph, 1003), (random_graph, 1011), (random_squeezed, 1), (random_separable, 0)],
)
def test_sanitizers(variant, make, seed, tmp_path):
    graph, tensors = make(seed, extended=True) if make is random_graph else make(seed)
    source, images = build(graph, tensors, VARIANTS[variant]), random_images(graph, 26)
    weights = source.weights + bytes(-len(source.weights) % 64)
    main = MAIN.format(
        n=len(images), classes=prod(source.shape), work=-(-source.work_bytes // 64) * 64, weights=len(weights),
        images=images.nbytes,
    )  # fmt: skip
    (tmp_path / "main.c").write_text(source.text + main)
    (tmp_path / "weights").write_bytes(weights)
    (tmp_path / "images").write_bytes(images.tobytes())
    sanitize = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
    command = [
        "clang",
        "-std=gnu11",
        *FLAGS[variant],
        *sanitize,
        str(tmp_path / "main.c"),
        "-o",
        str(tmp_path / "main"),
    ]
    subprocess.run(command, check=True)
    done = subprocess.run(
        [str(tmp_path / "main"), str(tmp_path / "weights"), str(tmp_path / "images")],
        capture_output=True, text=True, check=False, env={"ASAN_OPTIONS": "detect_leaks=0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:2000]
    want = kernels.run(graph, tensors, images)
    np.testing.assert_array_equal(np.array(done.stdout.split(), int).reshape(want.shape), want)


def test_float_graphs_are_refused():
    artifact = small_artifact(integer=False)
    with pytest.raises(UnsupportedOp, match="take integer graphs: quantise the model first"):
        build(artifact.graph, artifact.tensors, VARIANTS["portable"])


# Seeds of graphs that lie in planes on AVX-512, and use all that there is for them.
ON_PLANES = (0, 2, 8, 9, 13, 24, 33, 37, 47, 49)


def on_planes(seed: int) -> bool:
    return any(m.planes for m in layout(*random_separable(seed), 30, planes=True).maps.values())


def test_separable_graphs_try_what_planes_have():
    assert all(map(on_planes, ON_PLANES))
    text = "\n".join(build(*random_separable(seed), VARIANTS["avx512"]).body for seed in ON_PLANES)
    words = "stem_|z0 + o|merged(|half_zip(|dot_signed(| kept(| averaged(|z1[0]|paired(|lanes2(|even1"
    for word in words.split("|"):
        assert word in text, word
    pair = random_separable(ON_PLANES[0])
    assert [name for name in VARIANTS if "stem_" in build(*pair, VARIANTS[name]).body] == ["avx512"]


@variants
@compilers
def test_separable_graphs(variant, compiler, tmp_path):
    pairs = [random_separable(seed) for seed in (ON_PLANES if variant == "avx512" else ON_PLANES[:6])]
    assert_exact(pairs, variant, compiler, tmp_path, "-O1")
