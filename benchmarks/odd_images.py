"""Every odd image gives an answer or one clear line: counts of both, of crashes, and the memory that one takes.

    python benchmarks/odd_images.py [--count 10000] [--first 0] [--json FILE]

Each file of odd_files.py is read as `netsuke read` reads it, page by page, in a process of its own that is started
anew where it dies. Memory is how far the process's peak (Linux), while one file is read, lies above what it held before
the first.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

SLOW = 120.0  # seconds of work without an answer that count as a hang
STILL = 900.0  # and seconds of the clock, of which a busy machine may need more
PAGES = 5  # of a file that are read


def read(reader: Any, data: bytes) -> tuple[str, str]:
    """("answer" | "error" | "wrong", what it said). Wrong is any exception but a one-line DataError."""
    from netsuke.errors import DataError
    from netsuke.image import paged

    try:
        texts = []
        for number in range(1, min(PAGES, paged.count(data)) + 1):
            pixels = paged.page(data, number)
            texts.append(reader.read(pixels).text)
            if hasattr(reader, "read_all"):
                texts += [found.text for found in reader.read_all(pixels)]
    except DataError as error:
        return ("error" if str(error) and "\n" not in str(error) else "wrong"), str(error)
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {error}"
    return "answer", " ".join(filter(None, texts))


def peak(reset: bool = False) -> int:
    """Bytes of the process's largest resident size since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) << 10


def worked(pid: int) -> float:
    """Seconds of CPU that a process has had; 0 where that cannot be known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answer(pipe: Any, process: Any) -> Any:
    """What comes through the pipe. Raises TimeoutError for a hang, EOFError where the process has died."""
    clock, cpu = time.monotonic(), worked(process.pid)
    while not pipe.poll(1.0):
        if time.monotonic() - clock > STILL or worked(process.pid) - cpu > SLOW:
            raise TimeoutError
    return pipe.recv()


def serve(pipe: Any) -> None:
    """Answers (seed) with (kind, outcome, said, bytes, seconds of CPU)."""
    from netsuke.reader import Reader
    from odd_files import odd

    reader = Reader(backend="packaged")
    linux = sys.platform == "linux"
    read(reader, odd(0)[1])  # loads what loads late
    before = peak(reset=True) if linux else 0
    while True:
        kind, data = odd(pipe.recv())
        if linux:
            peak(reset=True)
        start = time.process_time()
        outcome, said = read(reader, data)
        spent = time.process_time() - start
        pipe.send((kind, outcome, said, peak() - before if linux else 0, spent))


def run(seeds: range, progress: bool = False) -> dict[str, Any]:
    """Counts by kind, the peaks, and every failure with its seed."""
    from odd_files import KINDS

    counts: dict[str, Counter[str]] = defaultdict(Counter)
    most: dict[str, int] = defaultdict(int)
    slowest: dict[str, float] = defaultdict(float)
    failures: list[dict[str, Any]] = []
    process: Any = None
    start = time.monotonic()
    for done, seed in enumerate(seeds):
        if process is None:
            pipe, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
        try:
            pipe.send(seed)
            kind, outcome, said, grown, spent = answer(pipe, process)
        except (EOFError, BrokenPipeError, ConnectionResetError, TimeoutError) as end:
            kind = list(KINDS)[seed % len(KINDS)]
            outcome = said = "hang" if isinstance(end, TimeoutError) else "crash"
            grown = spent = 0
            process.kill()
            process = None
        counts[kind][outcome] += 1
        most[kind], slowest[kind] = max(most[kind], grown), max(slowest[kind], spent)
        if outcome not in ("answer", "error"):
            failures.append({"seed": seed, "kind": kind, "outcome": outcome, "said": said[:200]})
        if progress and (done + 1) % 500 == 0:
            print(
                f"{done + 1} of {len(seeds)}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True
            )
    if process is not None:
        process.kill()
    total: Counter[str] = sum(counts.values(), Counter())
    return {
        "n": len(seeds),
        "answers": total["answer"],
        "errors": total["error"],
        "crashes": total["crash"] + total["hang"],
        "wrong": total["wrong"],
        "peak_bytes": max(most.values(), default=0),
        "cpu_s": max(slowest.values(), default=0.0),
        "kinds": {k: {**counts[k], "peak_bytes": most[k], "cpu_s": slowest[k]} for k in KINDS if k in counts},
        "failures": failures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--json", type=Path, help="write the counts here")
    chosen = parser.parse_args()
    found = run(range(chosen.first, chosen.first + chosen.count), progress=True)
    print(f"{'kind':18} answers errors crashes  wrong  MiB at most  most CPU s")
    for kind, c in found["kinds"].items():
        bad = c.get("crash", 0) + c.get("hang", 0)
        print(
            f"{kind:18} {c.get('answer', 0):7} {c.get('error', 0):6} {bad:7} {c.get('wrong', 0):6} "
            f"{c['peak_bytes'] / 2**20:12.0f} {c['cpu_s']:10.2f}"
        )
    print(
        f"{found['n']} files: {found['answers']} answers, {found['errors']} clear errors, {found['crashes']} crashes, "
        f"{found['wrong']} wrong; {found['peak_bytes'] / 2**20:.0f} MiB at most"
    )
    for failure in found["failures"][:20]:
        print(f"  seed {failure['seed']} ({failure['kind']}): {failure['outcome']}: {failure['said']}")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(bool(found["failures"]))


if __name__ == "__main__":
    main()
