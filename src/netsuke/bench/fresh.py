"""How long a contender takes to load, and what memory it holds, in a process of its own.

`python -m netsuke.bench.fresh ARTIFACT NAME` prints one line of JSON. Loading goes from the artifact in memory to the
first answer, imports of the runtime and compilation included; `added_bytes` is the memory that came with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from netsuke.artifact import Artifact
from netsuke.bench.contenders import EXPORTS, contender, resident_bytes

TIMEOUT = 120.0


def fresh(path: Path, name: str) -> dict[str, Any]:
    """`load_ms`, `rss_bytes` and `added_bytes` of a contender, or an empty dict where its process failed."""
    command = [sys.executable, "-m", __name__, str(path), name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found
    except (subprocess.SubprocessError, ValueError, IndexError):
        return {}


def measured(path: Path, name: str) -> dict[str, Any]:
    """The figures, of this process; those of a module in Node.js are Node's own."""
    artifact = Artifact.load(path)
    image = np.zeros((1, *artifact.graph.input_shape), np.uint8)
    before = resident_bytes()
    with tempfile.TemporaryDirectory() as folder:
        if name in EXPORTS and name != "c":
            from netsuke.export import wasm

            script = wasm.write(artifact, folder, "model")
            with wasm.Node(script, wasm.module(script, name == "wasm-simd")) as node:
                node.run(image)
                return {key: node.started[key] for key in ("load_ms", "rss_bytes", "added_bytes")}
        start = perf_counter()
        answers = contender(name, artifact, Path(folder))
        answers.run(image)
        taken = perf_counter() - start
        after = resident_bytes()
        answers.close()
    return {"load_ms": taken * 1e3, "rss_bytes": after, "added_bytes": after - before}


if __name__ == "__main__":
    print(json.dumps(measured(Path(sys.argv[1]), sys.argv[2])))
