"""A share of benchmarks/odd_images.py: every odd, damaged or hostile file gives an answer or one clear line."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SEEDS = range(100_000, 100_300)  # others than the benchmark's 10 000
MOST = 1 << 30  # bytes that one file may take


@pytest.fixture
def odd_images(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("odd_images")


@pytest.fixture
def odd_files(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("odd_files")


def test_a_seed_makes_the_same_file(odd_files: ModuleType) -> None:
    for seed in range(len(odd_files.KINDS) - 1):  # all but the bomb
        assert odd_files.odd(seed) == odd_files.odd(seed)


@pytest.mark.slow
def test_odd_images_end_in_an_answer_or_one_clear_line(odd_images: ModuleType) -> None:
    found = odd_images.run(SEEDS)
    assert found["failures"] == []
    assert found["n"] == found["answers"] + found["errors"] == len(SEEDS)
    assert found["peak_bytes"] < MOST
    kinds = found["kinds"]
    for healthy in ("healthy", "tiny", "20 000 wide", "large", "16 bits", "alpha", "junk behind"):
        assert kinds[healthy].get("error", 0) == 0, healthy
    for damaged in ("truncated", "nothing", "another kind"):
        assert kinds[damaged].get("answer", 0) == 0, damaged


def test_what_is_neither_is_counted_as_such(odd_images: ModuleType, odd_files: ModuleType) -> None:
    class Reader:
        def read(self, pixels: object) -> None:
            raise ZeroDivisionError("oh")

    assert odd_images.read(Reader(), odd_files.odd(0)[1]) == ("wrong", "ZeroDivisionError: oh")
    assert odd_images.read(Reader(), b"")[0] == "error"
