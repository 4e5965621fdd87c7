"""The native engine beside the packaged runtimes: one image and 256 of them, one core, in one interleaved run.

    python benchmarks/engines.py                        # nets a, b and c, about two minutes
    python benchmarks/engines.py --json found.json      # keeps every figure there

The networks are those of peers.py, untrained, since no clock sees what weights are worth: a conv32-conv64-dense128,
b LeNet-5, c separable of 7 k weights. Each in float and in 8 bits: by our own quantiser for `native` and for the exact
ONNX file, by ONNX Runtime's `quantize_static` (QDQ, a scale a channel) for ONNX Runtime and OpenVINO, the forms that
these are made for. Everything is called from Python, so the figures hold what a call costs.

The engines of a network take turns, a short block each. Latency is the median over rounds of a block's median, by the
wall; a batch counts seconds of the processor, for it may be interrupted. `faster` is how many times as fast `native`
is in the same round, median over rounds, its quartiles beside it. `peak` is what the vector unit does on registers
alone, measured in turn with the rest.
Needs `pip install 'netsuke[lab,onnx,tflite,openvino]'` and a C compiler.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from netsuke.artifact import Artifact
from netsuke.engine import Engine, build
from netsuke.engine.native import variant
from netsuke.errors import MissingExtra, NetsukeError
from netsuke.export import onnx
from netsuke.export.c.fast import PRELUDE, VARIANTS
from netsuke.measure.cost import macs, parameters
from netsuke.measure.latency import BATCH, hardware
from peers import NETS, Run, built, versions

NATIVE = "native int8"
WARMUP = 3  # calls at the start of a block, whose caches are another engine's

PEAK = """
#if defined(__AVX512F__)
#define HELD "+v"
#elif defined(__x86_64__)
#define HELD "+x"
#else
#define HELD "+w"
#endif
EXPORT long peak(long rounds, int32_t *out)
{{
    bytes x = splat_byte(out[0] & 3), w = splat_byte(out[1] & 3);
    {start}
    for (long r = 0; r < rounds; r++) {{
        {products}
    }}
    {end}
    return rounds * {count} * LANES * 4;
}}
"""
CHAINS = 20  # more than a product takes cycles, times those that start in one


def peak() -> Callable[[], float]:
    """Multiply-accumulates a second, in G, of products on registers alone.

    Each product reads a register that the compiler must take for a new one, so none is computed once for all.
    """
    using = build.compiler()
    unit = VARIANTS[variant(using)]
    sums = [f"a{i}" for i in range(min(CHAINS, unit.registers - 4))]
    held = "" if unit.name == "portable" else '__asm__ volatile("" : HELD(x), HELD({name}));'
    code = PEAK.format(
        count=len(sums),
        start=" ".join(f"sums {name} = splat({i});" for i, name in enumerate(sums)),
        products=" ".join(f"{name} = dot({name}, x, w); {held.format(name=name)}" for name in sums),
        end=" ".join(f"store_sums(out, add({name}, load_sums(out)));" for name in sums),
    )
    function = ctypes.CDLL(str(build.library(PRELUDE + unit.header + code, using))).peak
    function.argtypes, function.restype = (ctypes.c_long, ctypes.c_void_p), ctypes.c_long
    out = np.zeros(64, np.int32)

    def measured() -> float:
        start = process_time()
        done = function(400_000, out.ctypes.data)
        return float(done / (process_time() - start) / 1e9)

    return measured


def quantised_by_onnxruntime(artifact: Artifact) -> bytes:
    """The float ONNX file in 8 bits as ONNX Runtime's guide has it: quantize_static, QDQ, a scale a channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    images = np.random.default_rng(0).integers(0, 256, (100, *artifact.graph.input_shape), np.uint8)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feed = iter([{"image": images[i : i + 1]} for i in range(len(images))])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feed, None)

    with tempfile.TemporaryDirectory() as name:
        start, plain, done = (Path(name) / f"{part}.onnx" for part in ("start", "plain", "done"))
        start.write_bytes(onnx.encode(artifact))
        quant_pre_process(str(start), str(plain), skip_symbolic_shape=True)
        quantize_static(
            str(plain), str(done), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        return done.read_bytes()


def openvino(file: bytes, shape: tuple[int, ...], precision: str) -> Run:
    """OpenVINO, compiled for one image and for BATCH of them, its input tensors written in place."""
    try:
        from openvino import Core
    except ImportError:
        raise MissingExtra("this needs OpenVINO: pip install 'netsuke[openvino]'") from None
    options = {
        "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }  # fmt: skip
    core, requests = Core(), {}
    for n in (1, BATCH):
        model = core.read_model(BytesIO(file))
        model.reshape([n, *shape])
        request = core.compile_model(model, "CPU", options).create_infer_request()
        requests[n] = request, request.get_input_tensor().data

    def run(images: np.ndarray) -> np.ndarray:
        request, pixels = requests[len(images)]
        pixels[...] = images
        request.infer()
        logits: np.ndarray = request.get_output_tensor().data.copy()
        return logits

    return run


def engines(forms: dict[str, Artifact]) -> tuple[dict[str, Run], dict[str, str]]:
    """Every engine of one network, by name, and why others are absent."""
    real, whole = forms["float"], forms["int8"]
    shape = real.graph.input_shape
    coded: bytes | None = None

    def file() -> bytes:
        nonlocal coded
        coded = coded or quantised_by_onnxruntime(real)
        return coded

    def session(data: bytes) -> Run:
        made = onnx.session(data)
        return lambda images: onnx.predict(made, images)

    makers: dict[str, Callable[[], Run]] = {
        NATIVE: lambda: Engine(whole, backend="native").run,
        "onnxruntime float": lambda: Engine(real, backend="onnxruntime").run,
        "onnxruntime int8": lambda: session(file()),
        "onnxruntime int8, exact": lambda: Engine(whole, backend="onnxruntime").run,
        "openvino float": lambda: openvino(onnx.encode(real), shape, "f32"),
        "openvino bf16": lambda: openvino(onnx.encode(real), shape, "bf16"),
        "openvino int8": lambda: openvino(file(), shape, "f32"),
        "litert float": lambda: Engine(real, backend="litert").run,
        "litert int8": lambda: Engine(whole, backend="litert").run,
    }
    runs, absent = {}, {}
    for name, make in makers.items():
        try:
            runs[name] = make()
        except (NetsukeError, ImportError, RuntimeError) as error:
            absent[name] = str(error).strip().splitlines()[-1]
    return runs, absent


def turns(names: list[str], rounds: int) -> Iterator[list[str]]:
    """The names of a round; the first of a round is the second of the one before."""
    for i in range(rounds):
        first = i % len(names)
        yield names[first:] + names[:first]


def block(run: Run, inputs: list[np.ndarray], seconds: float) -> np.ndarray:
    """Microseconds of each call, for about `seconds` after the warm-up."""
    for i in range(WARMUP):
        run(inputs[i])
    times: list[float] = []
    start = perf_counter()
    while len(times) < 10 or perf_counter() - start < seconds:
        image = inputs[len(times) % len(inputs)]
        begin = perf_counter()
        run(image)
        times.append(perf_counter() - begin)
    return np.array(times) * 1e6


def batched(run: Run, images: np.ndarray) -> float:
    """Microseconds of processor time an image."""
    run(images)
    start = process_time()
    for _ in range(3):
        run(images)
    return (process_time() - start) / 3 / len(images) * 1e6


def measure(
    net: str, forms: dict[str, Artifact], rounds: int, seconds: float, limit: Callable[[], float]
) -> dict:
    """Figures of one network: a row an engine, the peak beside them, and who is absent."""
    runs, absent = engines(forms)
    images = np.random.default_rng(2).integers(0, 256, (BATCH, *forms["float"].graph.input_shape), np.uint8)
    singles = [np.ascontiguousarray(images[i : i + 1]) for i in range(64)]
    for run in runs.values():
        run(images), run(singles[0])
    calls: dict[str, list[np.ndarray]] = {name: [] for name in runs}
    batches: dict[str, list[float]] = {name: [] for name in runs}
    peaks = []
    for names in turns(list(runs), rounds):
        peaks.append(limit())
        for name in names:
            calls[name].append(block(runs[name], singles, seconds))
    for names in turns(list(runs), rounds):
        for name in names:
            batches[name].append(batched(runs[name], images))
    whole = forms["int8"]
    work = sum(macs(whole.graph, whole.tensors).values())
    top = float(np.median(peaks))
    rows = [_row(name, calls, batches, work, top) for name in runs]
    return {
        "net": net, "parameters": parameters(whole.graph, whole.tensors), "macs": work, "peak_gmacs": top,
        "rows": rows, "absent": absent, "rounds": rounds,
    }  # fmt: skip


def _row(
    name: str, calls: dict[str, list[np.ndarray]], batches: dict[str, list[float]], work: int, top: float
) -> dict[str, Any]:
    middle = {key: np.array([np.median(part) for part in parts]) for key, parts in calls.items()}
    one, many = middle[name], np.array(batches[name])
    ratios, batch_ratios = one / middle[NATIVE], many / np.array(batches[NATIVE])
    latency, per_image = float(np.median(one)), float(np.median(many))
    return {
        "engine": name,
        "latency_us": latency, "min_us": float(min(part.min() for part in calls[name])),
        "n": sum(map(len, calls[name])),
        "faster": float(np.median(ratios)), "faster_quartiles": [float(q) for q in np.percentile(ratios, [25, 75])],
        "gmacs": work / latency / 1e3, "share_of_peak": work / latency / 1e3 / top,
        "batch_us": per_image, "images_per_cpu_s": 1e6 / per_image,
        "batch_faster": float(np.median(batch_ratios)),
        "batch_faster_quartiles": [float(q) for q in np.percentile(batch_ratios, [25, 75])],
        "batch_gmacs": work / per_image / 1e3, "batch_share_of_peak": work / per_image / 1e3 / top,
    }  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """Markdown: a row an engine and network, and by how much `native` beats the best of the others."""
    lines = [
        f"{found['hardware']}; load {found['load_1min']}; "
        + ", ".join(f"{name} {number}" for name, number in found["versions"].items()),
        "",
        "| net | engine | µs, one image | native is faster by | GMAC/s | of the peak | "
        "images/CPU-s at 256 | native is faster by | GMAC/s | of the peak |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    best = []
    for net in found["nets"]:
        for row in net["rows"]:
            (low, high), (few, many) = row["faster_quartiles"], row["batch_faster_quartiles"]
            lines.append(
                f"| {net['net']} | {row['engine']} | {row['latency_us']:.1f} | "
                f"{row['faster']:.1f} ({low:.1f}–{high:.1f}) | "
                f"{row['gmacs']:.0f} | {row['share_of_peak']:.0%} | {row['images_per_cpu_s']:,.0f} | "
                f"{row['batch_faster']:.1f} ({few:.1f}–{many:.1f}) | {row['batch_gmacs']:.0f} | "
                f"{row['batch_share_of_peak']:.0%} |"
            )
        others = [row for row in net["rows"] if row["engine"] != NATIVE]
        if others:
            one, many = (min(others, key=lambda row, key=key: row[key]) for key in ("faster", "batch_faster"))
            best.append(
                f"{net['net']}: {one['faster']:.1f} times as fast as {one['engine']} at one image, "
                f"{many['batch_faster']:.1f} times as fast as {many['engine']} at {BATCH}; "
                f"peak {net['peak_gmacs']:.0f} GMAC/s"
            )
        best += [f"{net['net']}, absent: {name}: {reason}" for name, reason in net["absent"].items()]
    return "\n".join([*lines, "", *best])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", default="a,b,c", help="which of a, b and c, separated by commas")
    parser.add_argument("--rounds", type=int, default=20, help="turns of every engine")
    parser.add_argument("--seconds", type=float, default=0.03, help="how long a turn of single images takes")
    parser.add_argument("--json", type=Path, help="keep every figure in this file")
    chosen = parser.parse_args()
    nets = [net for net in chosen.nets.split(",") if net]
    unknown = sorted(set(nets) - set(NETS))
    if unknown or chosen.rounds < 1:
        parser.error(
            f"no net {unknown[0]!r}; there are {', '.join(NETS)}"
            if unknown
            else "--rounds must be at least 1"
        )
    if os.environ.get("OMP_NUM_THREADS") != "1":  # NumPy reads it as it loads, so start again
        os.environ["OMP_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    found: dict[str, Any] = {
        "hardware": hardware(), "load_1min": round(os.getloadavg()[0], 2), "versions": versions(), "threads": 1,
        "nets": [],
    }  # fmt: skip
    try:
        limit = peak()
        for net in nets:
            print(net, file=sys.stderr, flush=True)
            found["nets"].append(measure(net, built(net), chosen.rounds, chosen.seconds, limit))
    except NetsukeError as error:
        parser.exit(2, f"{error}\n")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
