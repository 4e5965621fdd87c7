"""`netsuke data` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def test_list(netsuke_cli: Any) -> None:
    done = netsuke_cli("data", "list", "--json")
    assert done.returncode == 0, done.stderr
    sets = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert sets["mnist"]["source_images"] == {"train": 60000, "test": 10000}
    assert sets["exam-digits"]["role"] == "validation"
    assert "fashion-mnist" in netsuke_cli("data", "list").stdout


def test_info_of_a_folder(netsuke_cli: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "1.png"), np.zeros((8, 8), np.uint8))
    done = netsuke_cli("data", "info", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == {"train": 2, "val": 0, "test": 0}
    assert "classes" in netsuke_cli("data", "info", tmp_path).stdout


def test_info_downloads_nothing(netsuke_cli: Any, tmp_path: Path) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path), "NETSUKE_DATA": ""}
    done = netsuke_cli("data", "info", "mnist", "--json", env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["on_disk"] == []
    assert list(tmp_path.iterdir()) == []


def test_fetch_without_an_address(netsuke_cli: Any, tmp_path: Path) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path), "NETSUKE_DATA": ""}
    done = netsuke_cli("data", "fetch", "exam-digits", "--json", env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert str(tmp_path / "netsuke" / "exam-digits" / "data.npz") in done.stderr


def test_unknown_name(netsuke_cli: Any) -> None:
    for verb in ("info", "fetch"):
        done = netsuke_cli("data", verb, "mnits")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_help_has_an_example(netsuke_cli: Any) -> None:
    for arguments in ((), ("list",), ("info",), ("fetch",)):
        done = netsuke_cli("data", *arguments, "-h")
        assert done.returncode == 0
        assert "Example: netsuke data" in done.stdout
