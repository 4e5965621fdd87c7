"""Files that are whole, whatever stands at their name."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from netsuke.files import write_whole


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "own.csv", tmp_path / "link.csv"
    target.write_bytes(b"before")
    link.symlink_to(target)
    write_whole(link, b"after")
    assert link.is_symlink()
    assert target.read_bytes() == b"after"
    assert [path.name for path in target.parent.iterdir()] == ["own.csv"]


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="no /dev/stdout on this system")
def test_standard_output_is_written_to_by_its_name() -> None:
    code = "from pathlib import Path; from netsuke.files import write_whole; write_whole(Path('/dev/stdout'), b'rows')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)  # a pipe
    assert done.stdout == b"rows"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_whole(pipe, b"a table")
    reader.join(10)
    assert got == [b"a table"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
