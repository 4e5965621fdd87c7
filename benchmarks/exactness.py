"""Are the exports exact? Every build of an artifact against the NumPy reference, logit by logit.

    python benchmarks/exactness.py --graphs 1000 *.netsuke --json found.json   # hours; may be stopped and started again
    python benchmarks/exactness.py --graphs 20 --first 340                     # the graphs 340 to 359 alone

Artifacts run on all test images of --data. The portable C by gcc and clang at five levels, its row by row entry, its
form with the caller's workspace, the native engine in each variant that this machine runs, both WebAssembly modules in
Node.js, and the exact ONNX file in ONNX Runtime must be equal. TFLite in LiteRT is measured, with and without the
XNNPACK delegate: the largest difference in steps of an int8 output (the largest logit over 127), and how often the
class is the same.

Random graphs are those of tests/graphs.py, each made from its number: `random_graph(340, extended=True)`, and odd ones
without the later ops, `random_graph(341)`. Six images each: black, white, noise, noise of 0 and 255, strokes. They meet
the same C compilers (by image and by row), variants (by clang and gcc), modules and ONNX. Every object file is compiled
under strict warnings and may need no symbol; one for a Cortex-M0 nothing but quotients of 32-bit integers. Every tenth
graph runs under the address and undefined-behaviour sanitizers. With aarch64-linux-gnu-gcc and qemu-aarch64 the
engine's NEON kernels run as well.

With --json, what is finished is kept in that file, in the form of a record, and not done again, unless the sources that
it is a result of have changed. Exits with 1 where something that must be equal is not, and names the graph: m340 is
number 340. Needs gcc, clang, wasm-ld, Node.js, arm-none-eabi-gcc and `pip install 'netsuke[onnx,tflite]' hypothesis`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))

import checks  # noqa: E402
from graphs import artifact_of, random_graph, random_images  # noqa: E402
from netsuke import data  # noqa: E402
from netsuke.artifact import Artifact  # noqa: E402
from netsuke.errors import MissingExtra, NetsukeError  # noqa: E402
from netsuke.measure.cost import macs  # noqa: E402
from programs import Case  # noqa: E402
from results import Pace, Results, code, part, table, told  # noqa: E402

Row = dict[str, Any]

BATCH = 20  # graphs whose files share their compilers and programs
TENTH = 10
NEEDED = {
    "gcc": "gcc", "clang": "clang", "wasm-ld": "lld", "node": "nodejs", "arm-none-eabi-gcc": "gcc-arm-none-eabi",
}  # fmt: skip
OVERHEAD = 300_000  # what starting a check costs, in multiply-accumulates an image


# --- artifacts ---------------------------------------------------------------------------------------


def run_artifacts(paths: Sequence[Path], images: np.ndarray, found: Results, only: str = "") -> None:
    """Every check that is not done yet, one after the other."""
    todo = []
    for path in paths:
        artifact, row = Artifact.load(path), found.artifact(path)
        none = np.zeros((0, len(artifact.classes)), np.int32)
        every = checks.of_artifact(Case("net", artifact, images, none))
        names = [n for n in every if only in n and not answered(n, row["checks"].get(n, {}))]
        work = sum(macs(artifact.graph, artifact.tensors).values()) + OVERHEAD
        todo.append((path, artifact, row, names, work))
    pace = Pace(sum(work * len(names) for *_, names, work in todo))
    for path, artifact, row, names, work in todo:
        if not names:
            continue
        say(f"{path.stem}: the reference on {len(images)} images")
        every = checks.of_artifact(Case("net", artifact, images, artifact.logits(images)))
        for name in names:
            start = monotonic()
            row["checks"][name] = attempted(every[name])
            row["checks"][name] |= {"seconds": round(monotonic() - start, 1), "code": code(part(name))}
            found.save()
            say(f"{path.stem}: {name}: {told(row['checks'][name])} · {pace.after(work)}")


def answered(name: str, row: Row) -> bool:
    """Whether there is a result, and of the code as it is now."""
    return row.get("code") == code(part(name)) and not {"absent", "broken"} & row.keys()


def attempted(check: Callable[[], Row]) -> Row:
    """The row of a check, or why there is none."""
    try:
        return check()
    except MissingExtra as error:
        return {"absent": str(error)}
    except (NetsukeError, subprocess.TimeoutExpired) as error:
        return {"broken": str(error)}


# --- graphs ------------------------------------------------------------------------------------------


def run_graphs(seeds: Sequence[int], jobs: int, found: Results, only: str = "") -> None:
    """Checks that graphs have not met yet, in batches, `jobs` of them side by side."""
    nowhere = Path(os.devnull)
    names = [*checks.of_graphs([], nowhere), *checks.sanitized([], nowhere)]
    left = {name: found.left(name, seeds) for name in names if only in name}
    groups: dict[tuple[str, ...], list[int]] = {}
    for seed in seeds:
        groups.setdefault(tuple(name for name in left if seed in left[name]), []).append(seed)
    groups.pop((), None)
    batches = [(g[i : i + BATCH], names) for names, g in groups.items() for i in range(0, len(g), BATCH)]
    pace = Pace(sum(len(batch) * len(names) for batch, names in batches))
    with ThreadPoolExecutor(jobs) as pool:
        for job in as_completed([pool.submit(run_batch, *batch) for batch in batches]):
            batch = job.result()
            found.add(batch)
            found.save()
            failures = [
                f"{name}: {text}" for name, row in batch["checks"].items() for text in row["failures"]
            ]
            for failure in failures:
                say(f"DIFFERS {failure}")
            span = f"{min(batch['graphs'])} to {max(batch['graphs'])}"
            rest = pace.after(len(batch["graphs"]) * len(batch["checks"]))
            say(f"graphs {span}: {len(batch['checks'])} checks, {len(failures)} failures · {rest}")


def run_batch(seeds: Sequence[int], names: Sequence[str]) -> Row:
    """Some checks of some graphs."""
    cases = [case_of(seed) for seed in seeds]
    tenth = [case for case, seed in zip(cases, seeds, strict=True) if seed % TENTH == 0]
    batch: Row = {
        "graphs": {seed: facts(case) for seed, case in zip(seeds, cases, strict=True)},
        "checks": {},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for some, every in (
            (cases, checks.of_graphs(cases, folder)),
            (tenth, checks.sanitized(tenth, folder)),
        ):
            for title in [title for title in names if title in every]:
                batch["checks"][title] = compared(some, every[title])
    return batch


def facts(case: Case) -> Row:
    """What a graph is made of; `alive` where its logits depend on the image."""
    return {
        "images": len(case.images),
        "alive": int((case.want != case.want[0]).any()),
        "ops": Counter(op.kind for op in case.artifact.graph.ops),
    }


def compared(cases: Sequence[Case], check: Callable[[], list[int]]) -> Row:
    """One check of a batch: its counts, and what failed by name."""
    try:
        wrong = check() if cases else []
    except (NetsukeError, subprocess.TimeoutExpired) as error:
        return {"graphs": 0, "images": 0, "differ": 0, "failures": [str(error)]}
    pairs = list(zip(cases, wrong, strict=True))
    failures = [f"{case.name}: {differ} of {len(case.images)} images" for case, differ in pairs if differ]
    images = sum(len(case.images) for case in cases)
    return {"graphs": len(cases), "images": images, "differ": sum(wrong), "failures": failures}


def case_of(seed: int) -> Case:
    """A graph and its six images, by its number."""
    artifact = artifact_of(
        random_graph(seed, extended=seed % 2 == 0)
    )  # every second has ops of the first targets only
    images = random_images(artifact.graph, 6, seed)  # black, white, noise
    images[4] = np.where(images[4] < 128, 0, 255)
    images[5] *= images[5] > 200  # sparse, as strokes are
    return Case(f"m{seed}", artifact, images, artifact.logits(images))


# --- what is said ------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifacts", nargs="*", type=Path, help=".netsuke files in the integer contract")
    parser.add_argument("--data", default="mnist", help="their test images: a name or a folder")
    parser.add_argument("--images", type=int, default=10_000, help="how many of them, at most")
    parser.add_argument("--graphs", type=int, default=0, help="how many random graphs")
    parser.add_argument("--first", type=int, default=0, help="the number of the first graph")
    parser.add_argument("--only", default="", help="the checks whose names hold this, as 'WASM' or 'gcc -O2'")
    parser.add_argument("--jobs", type=int, default=1, help="batches of graphs side by side")
    parser.add_argument("--json", type=Path, help="keep what is finished in this file, and go on from it")
    chosen = parser.parse_args()
    if not chosen.artifacts and not chosen.graphs:
        parser.error("name artifacts, or ask for --graphs N")
    if os.environ.get("OMP_NUM_THREADS") != "1":  # NumPy reads it as it loads, so start again
        os.environ["OMP_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    absent = [tool for tool in NEEDED if not shutil.which(tool)]
    if absent:
        parser.exit(2, f"no {absent[0]!r}: apt install {' '.join(NEEDED[tool] for tool in absent)}\n")
    names = [path.name for path in chosen.artifacts]
    command = " ".join(
        ["python benchmarks/exactness.py", f"--graphs {chosen.graphs}", *names, "--json found.json"]
    )
    try:
        found = Results(chosen.json, command)
        if chosen.artifacts:
            images = data.load(chosen.data).require("test").test.images[: chosen.images]
            run_artifacts(chosen.artifacts, images, found, chosen.only)
        run_graphs(range(chosen.first, chosen.first + chosen.graphs), chosen.jobs, found, chosen.only)
    except NetsukeError as error:
        parser.exit(2, f"{error}\n")
    print(table(found.document))
    failures = found.failures()
    if failures:
        parser.exit(1, "\n".join(["must be equal, and is not:", *failures, ""]))


if __name__ == "__main__":
    main()
