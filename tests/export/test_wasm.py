"""WebAssembly: scalar and SIMD modules equal the reference in Node.js, on random graphs and in a browser."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from graphs import artifact_of, integer_graphs, map_artifact, random_graph, random_images, small_artifact
from netsuke import zoo
from netsuke.artifact import Artifact
from netsuke.errors import ArtifactError, GraphError, MissingExtra, OptionError, UnsupportedOp
from netsuke.export import TARGETS, wasm
from netsuke.export.wasm import simd
from netsuke.graph import Graph, Op

missing = [tool for tool in ("clang", "wasm-ld", "node") if not shutil.which(tool)]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"install {' and '.join(missing)}")
BUILDS = [False, True]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wasm.write(small_artifact(), tmp_path_factory.mktemp("wasm"), "tiny")


def agrees(artifact: Artifact, folder: Path, images: np.ndarray) -> None:
    path = wasm.write(artifact, folder)
    want = artifact.logits(images)
    for build in BUILDS:
        got = wasm.run(path, images, simd=build)
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, want, err_msg=f"simd={build}")


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pair=integer_graphs(extended=True))
def test_random_graphs(pair: tuple, tmp_path: Path) -> None:
    artifact = artifact_of(pair)
    agrees(artifact, tmp_path, random_images(artifact.graph, 5))


def test_fixed_graphs_hold_every_op(tmp_path: Path) -> None:
    """Kernels that random graphs of a quick run may miss: all kinds, by a few seeds that hold them."""
    left, seed = set(simd.EMIT), 0
    while left and seed < 400:
        graph, tensors = random_graph(seed, extended=True)
        seed += 1
        kinds = {op.kind for op in graph.ops} & left
        if kinds:
            left -= kinds
            artifact = artifact_of((graph, tensors))
            agrees(artifact, tmp_path / str(seed), random_images(graph, 4, seed))
    assert not left


@pytest.mark.parametrize("bits", [8, 3])
@pytest.mark.parametrize(("channels", "kernel"), [(20, 3), (5, 5), (8, 2)])
def test_depthwise_in_16_and_32_bits(bits: int, channels: int, kernel: int, tmp_path: Path) -> None:
    """Narrow weights take the kernel that sums in int16, wide ones at their limit the other."""
    limit = (1 << (bits - 1)) - 1
    weight = np.random.default_rng(0).choice([-limit, limit], (channels, 1, kernel, kernel)).astype(np.int8)
    attrs = {"stride": [1, 1], "padding": [0, 0, 0, 0], "bits": bits, "signed": True}
    ops = (
        Op("halve", "h", ("input",)),
        Op("qconv2d", "a", ("h",), {**attrs, "groups": channels}),
        Op("sumpool", "s", ("a",), {"scale": 1.0}),
    )
    tensors = {
        "a.weight": weight,
        "a.bias": np.arange(channels, dtype=np.int32) * 100,
        "a.multiplier": np.full(channels, 90, np.int32),
        "a.shift": np.arange(channels, dtype=np.int32) % 3 + 15,
    }
    artifact = artifact_of((Graph((channels, 9, 7), ops), tensors))
    narrow = "depthwise(" not in simd.source(artifact).split("void run(void)")[1]
    assert narrow == (bits == 3)
    agrees(artifact, tmp_path, random_images(artifact.graph, 6))


@pytest.mark.parametrize("shifts", [[17] * 6, [17, 16, 15, 17, 16, 15]])
def test_dense_layer_of_sums(shifts: list[int], tmp_path: Path) -> None:
    """As in squeeze-and-excitation: sums of a map, then a dense layer with one shift for all, or one each."""
    rng = np.random.default_rng(0)
    ops = (
        Op("halve", "h", ("input",)),
        Op("sumpool", "s", ("h",)),
        Op("qdense", "d", ("s",), {"bits": 4, "signed": True}),
    )
    tensors = {
        "d.weight": rng.integers(-7, 8, (6, 4), np.int8),
        "d.bias": rng.integers(-900, 900, 6).astype(np.int32),
        "d.multiplier": np.full(6, 900, np.int32),
        "d.shift": np.array(shifts, np.int32),
    }
    artifact = artifact_of((Graph((4, 9, 7), ops), tensors))
    images = random_images(artifact.graph, 6)
    assert len(np.unique(artifact.logits(images))) > 9
    agrees(artifact, tmp_path, images)


@pytest.mark.slow
def test_shipped_model_on_mnist(mnist: object, tmp_path: Path) -> None:
    artifact = Artifact.load(zoo.path("digit-small"))
    images = mnist.test.images[:1000]  # type: ignore[attr-defined]  # benchmarks/wasm.py takes all
    path = wasm.write(artifact, tmp_path, "digit")
    want = artifact.logits(images)
    np.testing.assert_array_equal(wasm.run(path, images, simd=True), want)
    np.testing.assert_array_equal(wasm.run(path, images[:100], simd=False), want[:100])
    for module in (path.with_suffix(".wasm"), path.with_suffix(".simd.wasm")):
        assert len(gzip.compress(module.read_bytes(), 9)) <= 24_000


def test_files(written: Path) -> None:
    assert sorted(file.name for file in written.parent.iterdir()) == [
        "tiny.d.ts", "tiny.js", "tiny.simd.wasm", "tiny.wasm",
    ]  # fmt: skip
    assert wasm.facts(written)["shape"] == [1, 12, 10]
    for suffix in (".wasm", ".simd.wasm"):
        data = written.with_suffix(suffix).read_bytes()
        assert wasm.memory_bytes(data) % 65536 == 0
        text = f"const m = new WebAssembly.Module(Buffer.from('{data.hex()}', 'hex'));"
        shown = js(
            f"{text} [WebAssembly.Module.imports(m), WebAssembly.Module.exports(m).map((e) => e.name)]"
        )
        imports, exports = json.loads(shown)
        assert imports == []
        assert set(exports) <= {"memory", "image", "logits", "init", "run"}


def js(expression: str, *, module: bool = False) -> str:
    """What Node.js makes of statements and a last expression, as JSON."""
    *before, last = expression.split("; ") if not module else expression.split(";\n")
    code = ";\n".join([*before, f"console.log(JSON.stringify({last.strip()}))"])
    command = ["node", "--input-type=module", "-e", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_script_classifies_where_its_user_loads_it(written: Path, tmp_path: Path) -> None:
    artifact = small_artifact()
    script = written.rename(written.with_suffix(".mjs"))  # an ES module for every version of Node.js
    try:
        image = random_images(artifact.graph, 3)[2]
        want = artifact.logits(image[None])[0]
        code = f"""
import {{ readFileSync }} from "node:fs";
import {{ hasSimd, load }} from {json.dumps(script.as_uri())};
const image = Uint8Array.from({image.ravel().tolist()});
const bytes = readFileSync({json.dumps(str(script.with_suffix(".wasm")))});
const models = [await load(), await load(undefined, {{ simd: false }}), await load(bytes)];
const all = models.map((m) => m.classify(image)).map((c) => [c.class, c.index, c.confidence, [...c.logits]]);
const two = [...models[0].run(Uint8Array.from([...image, ...image]))];
const wrong = (() => {{ try {{ models[0].run(image.slice(1)) }} catch (e) {{ return e.message }} }})();
({{ all, two, wrong, simd: hasSimd(), classes: models[0].classes, shape: models[0].inputShape }})"""
        got = json.loads(js(code, module=True))
    finally:
        script.rename(written)
    assert got["simd"] is True
    terms = np.exp((want - want.max()) * artifact.graph.ops[-1].attrs["scale"])
    for name, index, confidence, logits in got["all"]:
        assert (name, index, logits) == (artifact.classes[want.argmax()], want.argmax(), want.tolist())
        assert confidence == pytest.approx(1 / terms.sum())
    assert got["two"] == want.tolist() * 2
    assert got["wrong"] == "needs a Uint8Array of 1 x 12 x 10 = 120 bytes an image"
    assert (got["classes"], got["shape"]) == (list(artifact.classes), [1, 12, 10])


BROWSER = next(
    (found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))), None
)


@pytest.mark.skipif(BROWSER is None, reason="install chromium")
@pytest.mark.slow
def test_in_a_browser(written: Path, tmp_path: Path) -> None:
    artifact = small_artifact()
    images = random_images(artifact.graph, 4)
    for file in written.parent.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "index.html").write_text(f"""<!doctype html><body><script type="module">
import {{ load }} from "./tiny.js";
const images = Uint8Array.from({images.ravel().tolist()});
const all = [];
for (const simd of [true, false]) all.push([...(await load(undefined, {{ simd }})).run(images)]);
document.body.textContent = "got " + JSON.stringify(all);
</script>""")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}/index.html"
        assert BROWSER
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
        home = f"--user-data-dir={tmp_path / 'home'}"
        done = subprocess.run([BROWSER, *flags, home, address], capture_output=True, text=True, timeout=120)
    finally:
        server.shutdown()
    text = done.stdout.partition("got ")[2].partition("<")[0]
    assert json.loads(text) == [artifact.logits(images).ravel().tolist()] * 2


def test_without_simd(tmp_path: Path) -> None:
    artifact = small_artifact()
    path = TARGETS["wasm"].write(artifact, tmp_path, "7-plain", simd=False)
    assert {file.name.partition(".")[2] for file in tmp_path.iterdir()} == {"d.ts", "js", "wasm"}
    assert path.name == "model_7_plain.js"
    images = random_images(artifact.graph, 3)
    np.testing.assert_array_equal(TARGETS["wasm"].run(path, images), artifact.logits(images))
    with pytest.raises(OptionError, match="written without a SIMD module"):
        wasm.run(path, images, simd=True)
    assert wasm.run(path, images[:0]).shape == (0, 3)


def test_names_what_is_missing_or_wrong(written: Path, tmp_path: Path) -> None:
    artifact = small_artifact()
    images = random_images(artifact.graph, 1)
    with pytest.raises(MissingExtra, match="no 'no-clang': install clang and lld"):
        wasm.write(artifact, tmp_path / "a", clang="no-clang")
    with pytest.raises(MissingExtra, match="no 'no-ld': install clang and lld"):
        wasm.write(artifact, tmp_path / "a", linker="no-ld")
    assert not (tmp_path / "a").exists()
    with pytest.raises(MissingExtra, match=r"no 'no-node': install Node\.js"):
        wasm.run(written, images, node="no-node")
    with pytest.raises(GraphError, match=r"needs uint8 images \[n, 1, 12, 10\]; got uint8 \[1, 1, 10, 12\]"):
        wasm.run(written, images.reshape(1, 1, 10, 12))
    with pytest.raises(UnsupportedOp, match=r"takes integer graphs: quantise the model first.*--bits 8"):
        wasm.write(small_artifact(integer=False), tmp_path / "a")
    broken = tmp_path / "tiny.js"
    shutil.copy(written, broken)
    broken.with_suffix(".simd.wasm").write_bytes(b"nonsense")
    with pytest.raises(ArtifactError, match=r"node cannot run tiny\.simd\.wasm: .*CompileError"):
        wasm.run(broken, images)
    broken.write_text("nonsense")
    with pytest.raises(ArtifactError, match="cannot be read as a script written by netsuke"):
        wasm.run(broken, images)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written"):
        wasm.write(artifact, tmp_path / "file" / "out")


def test_a_map_in_node(tmp_path: Path) -> None:
    artifact = map_artifact()
    images = random_images(artifact.graph, 3)
    agrees(artifact, tmp_path, images)
    script = tmp_path / "model.js"
    assert wasm.run(script, images[:0]).shape == (0, 5, 6, 5)
    as_module = script.rename(script.with_suffix(".mjs"))
    code = f"""
import {{ load }} from {json.dumps(as_module.as_uri())};
const model = await load();
const said = (() => {{ try {{ model.classify(new Uint8Array(120)) }} catch (e) {{ return e.message }} }})();
({{ said, shape: model.outputShape, scale: model.scale, classes: model.classes }})"""
    got = json.loads(js(code, module=True))
    assert got == {
        "said": "this model gives a map 5 x 6 x 5, not one logit a class",
        "shape": [5, 6, 5],
        "scale": artifact.graph.ops[-1].attrs["scale"],
        "classes": [],
    }
