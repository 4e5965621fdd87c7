"""The WebAssembly export beside ONNX Runtime Web, in one process of Node.js, turn by turn.

    npm install --prefix ort onnxruntime-web && python benchmarks/wasm.py --ort ort/node_modules
    python benchmarks/wasm.py --ort ort/node_modules a.netsuke b.netsuke --verify mnist --json found.json

Each model answers single images (batch 1, one thread): by netsuke's SIMD and scalar modules, and by ONNX Runtime Web
from the exact integer ONNX file and from a float file of the same layers. `ratio` is the median over rounds of the
better of ONNX Runtime's two medians over ours in the same round, with the 5th and 95th percentile. Logits of the three
integer forms must be equal on the images that are timed and, with --verify, on all test images of that data.
Needs clang, wasm-ld, Node.js and `pip install 'netsuke[onnx]'`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from netsuke import data, zoo
from netsuke.artifact import Artifact
from netsuke.errors import NetsukeError
from netsuke.export import onnx, wasm
from netsuke.graph import Graph, Op
from netsuke.measure.latency import hardware

SIMD, SCALAR, INTEGER, FLOAT = "netsuke simd", "netsuke scalar", "ort-web int8", "ort-web float"
PLAIN = {
    "qconv2d": "conv2d",
    "qdense": "dense",
    "qlogits": "dense",
    "qadd": "add",
    "sumpool": "globalavgpool",
}


def floats(artifact: Artifact) -> Artifact:
    """A float network of the same layers and shapes; its logits mean nothing, its time does."""
    graph, ops, tensors, names = artifact.graph, [], {}, {"input": "input"}
    for op in graph.ops:
        inputs, attrs = tuple(names[name] for name in op.inputs), dict(op.attrs)
        names[op.name] = op.name
        if op.kind == "halve":
            channels = graph.input_shape[0]
            ops.append(
                Op(
                    "normalize",
                    op.name,
                    inputs,
                    {"scales": [1 / 255] * channels, "offsets": [0.0] * channels},
                )
            )
            continue
        for key in ("bits", "signed", "scale", "multipliers", "shift"):
            attrs.pop(key, None)
        ops.append(Op(PLAIN.get(op.kind, op.kind), op.name, inputs, attrs))
        weight = artifact.tensors.get(op.tensor("weight"))
        if weight is not None:
            size = weight[0].size * np.abs(weight.astype(np.float32)).mean()
            tensors[op.tensor("weight")] = (weight / size).astype(np.float32)
            tensors[op.tensor("bias")] = np.full(len(weight), 0.1, np.float32)
        if op.attrs.get("signed") is False and op.kind in ("qconv2d", "qdense", "qadd"):
            names[op.name] = f"{op.name}_relu"
            ops.append(Op("relu", f"{op.name}_relu", (op.name,)))
    return Artifact(Graph(graph.input_shape, tuple(ops)), tensors, artifact.manifest)


def measure(path: Path, ort: Path, rounds: int, calls: int, verify: str | None) -> dict[str, Any]:
    """The row of one model."""
    artifact = Artifact.load(path)
    shape = artifact.graph.input_shape
    images = np.random.default_rng(0).integers(0, 256, (64, *shape), np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = wasm.write(artifact, folder, "model")
        files = {
            SIMD: wasm.module(script, True),
            SCALAR: wasm.module(script, False),
            INTEGER: onnx.write(artifact, folder, "integer"),
            FLOAT: onnx.write(floats(artifact), folder, "float"),
        }
        (folder / "images").write_bytes(images.tobytes())
        job = {"ort": str(ort.resolve()), "script": str(script), "rounds": rounds, "calls": calls}
        job |= {"images": str(folder / "images"), "models": {key: str(file) for key, file in files.items()}}
        command = ["node", str(Path(__file__).with_suffix(".mjs")), json.dumps(job), json.dumps(shape)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NetsukeError(f"node failed; is onnxruntime-web in {ort}? {done.stderr.strip()[-300:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        want = artifact.logits(images).ravel().tolist()
        wrong = [key for key in (SIMD, SCALAR, INTEGER) if found["logits"][key] != want]
        if wrong:
            raise NetsukeError(f"{path}: the logits of {', '.join(wrong)} differ from the reference")
        verified = verified_on(artifact, script, verify) if verify else {}
        ort_wasm = ort / "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm"
        sizes = {key: size(file) for key, file in files.items()} | {"ort-web runtime": size(ort_wasm)}
    return {"model": path.stem, "bytes": artifact.size_bytes, "onnxruntime_web": found["version"], "sizes": sizes,
            **verified, **figures(found["us"]), "load_ms": found["load_ms"]}  # fmt: skip


def verified_on(artifact: Artifact, script: Path, name: str) -> dict[str, Any]:
    """How right the model is on the test images, after both modules have given the reference's logits on all."""
    test = data.load(name).require("test").test
    want = artifact.logits(test.images)
    for simd in (True, False):
        if not np.array_equal(wasm.run(script, test.images, simd=simd), want):
            raise NetsukeError(f"logits differ from the reference on {name}, simd={simd}")
    accuracy = float((want.argmax(1) == test.labels).mean())
    return {"equal_logits_on": name, "images": len(want), "accuracy": accuracy}


def size(file: Path) -> dict[str, int]:
    content = file.read_bytes()
    return {"bytes": len(content), "gzip_bytes": len(gzip.compress(content, 9))}


def figures(us: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Latencies, and ratios to the better of ONNX Runtime Web's two."""
    medians = {name: np.array([np.median(times) for times in rounds]) for name, rounds in us.items()}
    better = np.minimum(medians[INTEGER], medians[FLOAT])
    ratio = {}
    for name in (SIMD, SCALAR):
        low, middle, high = np.percentile(better / medians[name], (5, 50, 95))
        ratio[name] = {"median": middle, "p5": low, "p95": high, "n": len(better)}
    latency = {}
    for name, rounds in us.items():
        low, middle, high = np.percentile(np.concatenate(rounds), (5, 50, 95))
        latency[name] = {"median": middle, "p5": low, "p95": high, "n": sum(map(len, rounds))}
    return {"latency_us": latency, "ratio": ratio}


def table(found: dict[str, Any]) -> str:
    lines = [
        f"{found['hardware']}; load {found['load_1min']}; Node.js {found['node']}; microseconds, median (p5–p95)",
        "",
        "| model | accuracy | module, gzipped (scalar) | simd | scalar | ORT Web int8 | ORT Web float | times faster |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["results"]:
        times = {k: f"{v['median']:.1f} ({v['p5']:.1f}–{v['p95']:.1f})" for k, v in row["latency_us"].items()}
        ratio, sizes = row["ratio"][SIMD], row["sizes"]
        accuracy = f"{row['accuracy']:.2%}" if "accuracy" in row else ""
        lines.append(
            f"| {row['model']} | {accuracy} | {sizes[SIMD]['gzip_bytes']:,} ({sizes[SCALAR]['gzip_bytes']:,}) | "
            f"{times[SIMD]} | {times[SCALAR]} | {times[INTEGER]} | {times[FLOAT]} | "
            f"{ratio['median']:.2f} ({ratio['p5']:.2f}–{ratio['p95']:.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path, help="integer artifacts; default: the shipped one")
    parser.add_argument("--ort", type=Path, required=True, help="the node_modules that holds onnxruntime-web")
    parser.add_argument("--rounds", type=int, default=40, help="turns of every form")
    parser.add_argument("--calls", type=int, default=50, help="images of a turn")
    parser.add_argument("--verify", help="compare logits on all test images of this data")
    parser.add_argument("--json", type=Path, help="keep what was found in this file")
    chosen = parser.parse_args()
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    found: dict[str, Any] = {"hardware": hardware(), "load_1min": round(os.getloadavg()[0], 2), "node": node}
    found["results"] = []
    for path in chosen.models or [zoo.path("digit-small")]:
        print(path, file=sys.stderr, flush=True)
        try:
            found["results"].append(measure(path, chosen.ort, chosen.rounds, chosen.calls, chosen.verify))
        except NetsukeError as error:
            parser.exit(2, f"{error}\n")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
