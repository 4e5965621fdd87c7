"""How long `netsuke -h` takes to answer, beside a bare interpreter: wall and CPU seconds, median of 10.

    python benchmarks/cli_start.py

The target is under 0.5 s. Children's CPU time is read from `getrusage`, so other work on the machine moves it little.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from statistics import median

RUNS = 10
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import netsuke": ["-c", "import netsuke"],
    "netsuke -h": ["-m", "netsuke", "-h"],
    "netsuke shrink -h": ["-m", "netsuke", "shrink", "-h"],
}


def cost(args: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one run, a failure is an error."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *args], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    print(f"{'median of ' + str(RUNS):20} wall s   CPU s")
    for name, args in COMMANDS.items():
        cost(args)  # writes the bytecode and warms the file cache
        walls, cpus = zip(*(cost(args) for _ in range(RUNS)), strict=True)
        print(f"{name:20} {median(walls):6.3f}  {median(cpus):6.3f}")


if __name__ == "__main__":
    main()
