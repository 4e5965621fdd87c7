"""What a run on bad input owes its user: exit code 2, one line that says why, nothing half-written."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Assert that a run ended as bad input must."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("netsuke: ")
    for word in words:
        assert word in lines[0], lines[0]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below, with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def heeds_ctrl_c() -> None:
    """For a child process: where the tests run in the background, the shell has it ignore the signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
