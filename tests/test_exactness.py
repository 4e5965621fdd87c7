"""The benchmark that proves exports exact: it notices what is wrong, names it, and goes on where it stopped."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from builds import SANITIZE
from netsuke import zoo
from netsuke.errors import NetsukeError

FOLDER = Path(__file__).parents[1] / "benchmarks"
needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc: apt install gcc")
needs_clang = pytest.mark.skipif(
    not shutil.which("clang"), reason="needs clang: apt install clang libclang-rt-14-dev"
)


@pytest.fixture
def exactness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)  # it imports the files beside it
    return importlib.import_module("exactness")


@pytest.fixture
def results(exactness: ModuleType) -> ModuleType:
    return importlib.import_module("results")


@pytest.fixture
def programs(exactness: ModuleType) -> ModuleType:
    return importlib.import_module("programs")


@pytest.fixture
def cases(exactness: ModuleType) -> list[Any]:
    return [exactness.case_of(seed) for seed in (1, 6, 7)]


def one_logit_off(case: Any) -> Any:
    want = case.want.copy()
    want[3, 0] += 1
    return replace(case, want=want)


@needs_gcc
def test_a_wrong_logit_is_counted_for_its_graph(
    programs: ModuleType, cases: list[Any], tmp_path: Path
) -> None:
    sources = programs.written(cases, tmp_path)
    both = ("run", "rows")
    found = programs.portable(cases, sources, tmp_path, "gcc", ("-O1",), entries=both)
    assert found == {"run": [0, 0, 0], "rows": [0, 0, 0]}
    cases[1] = one_logit_off(cases[1])
    assert programs.portable(cases, sources, tmp_path, "gcc", ("-O1",), entries=both) == {
        "run": [0, 1, 0],
        "rows": [0, 1, 0],
    }
    assert programs.fast(cases, tmp_path, "gcc", "portable", ("-O1",)) == [0, 1, 0]


def first_in_run(path: Path, statement: str) -> None:
    """Put a statement at the start of NAME_run."""
    text = re.sub(r"(void \w+_run\(.*\)\n\{\n)", rf"\g<1>{statement}\n", path.read_text())
    assert statement in text
    path.write_text(text)


@needs_gcc
@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("*(volatile int *)4 = 1;", "at m6 the program ended with -11"),
        ("char unused;", r"m6\.c.*unused"),
        ("extern int puts(const char *); (void)puts((const char *)image);", "m6 needs puts of gcc -O0"),
    ],
)
def test_a_bad_file_is_named(
    statement: str, complaint: str, programs: ModuleType, cases: list[Any], tmp_path: Path
) -> None:
    sources = programs.written(cases, tmp_path)
    first_in_run(sources / "m6.c", statement)
    with pytest.raises(programs.Broken, match=complaint):
        programs.portable(cases, sources, tmp_path, "gcc", ("-O0",))


@needs_clang
@pytest.mark.parametrize(
    "statement",
    [
        "logits[0] = ((const volatile uint8_t *)image)[M6_INPUT_BYTES];",  # a byte too far
        "logits[0] = 2147483647; logits[0] += image[0] / 255 + 1;",
    ],
)
def test_sanitizers_are_heard(statement: str, programs: ModuleType, cases: list[Any], tmp_path: Path) -> None:
    sources = programs.written(cases, tmp_path)
    found = programs.portable(cases, sources, tmp_path, "clang", SANITIZE)
    assert found == {"run": [0, 0, 0]}
    first_in_run(sources / "m6.c", statement)
    with pytest.raises(programs.Broken, match=r"at m6 the program ended with -?\d+ .*overflow"):
        programs.portable(cases, sources, tmp_path, "clang", SANITIZE)


def only(exactness: ModuleType, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Take only some of the checks."""

    def some(of: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        return lambda *args: {name: check for name, check in of(*args).items() if name in names}

    for kind in ("of_artifact", "of_graphs", "sanitized"):
        monkeypatch.setattr(exactness.checks, kind, some(getattr(exactness.checks, kind)))


def test_it_goes_on_where_it_stopped(
    exactness: ModuleType, results: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'netsuke[onnx]'")
    only(exactness, monkeypatch, "ONNX Runtime")
    path, file = zoo.path("digit-small"), tmp_path / "found.json"
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 28, 28), np.uint8)
    found = results.Results(file, "python benchmarks/exactness.py")
    exactness.run_artifacts([path], images, found)
    exactness.run_graphs(range(30, 33), 1, found, "WASM")
    assert found.document["graphs"]["checks"] == {}
    exactness.run_graphs(range(30, 33), 1, found, "ONNX")
    assert found.failures() == []
    again = results.Results(file, "python benchmarks/exactness.py --graphs 4")
    assert again.document == json.loads(json.dumps(found.document))
    monkeypatch.setattr(exactness, "attempted", lambda check: pytest.fail("asked twice"))
    exactness.run_artifacts([path], images, again)
    exactness.run_graphs(range(30, 34), 1, again)
    graphs = again.document["graphs"]
    (row,) = graphs["checks"].values()
    assert (row["seeds"], row["graphs"], row["images"], row["differ"]) == ("30-33", 4, 24, 0)
    assert (graphs["seeds"], graphs["images"], graphs["ops"]["halve"]) == ("30-33", 24, 4)
    lines = results.table(again.document).splitlines()
    assert lines[2:] == [
        "| digit-small | 1 | 5 | 0 | absent | absent |",
        "| 4 random graphs | 1 | 24 | 0 |  |  |",
    ]
    for module in (exactness, results):
        monkeypatch.setattr(module, "code", lambda *parts: "other")
    assert results.Results(file, "").document["graphs"]["checks"] == {}
    with pytest.raises(pytest.fail.Exception, match="asked twice"):
        exactness.run_artifacts([path], images, again)


def test_failures_have_names(
    exactness: ModuleType, results: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'netsuke[onnx]'")
    only(exactness, monkeypatch, "ONNX Runtime", "WASM scalar")
    right = exactness.case_of

    def broken(case: object, *, simd: bool) -> None:
        raise NetsukeError("clang ended")

    monkeypatch.setattr(exactness.checks, "_wasm", broken)
    monkeypatch.setattr(
        exactness, "case_of", lambda seed: one_logit_off(right(seed)) if seed == 31 else right(seed)
    )
    found = results.Results(None, "")
    exactness.run_graphs(range(30, 33), 1, found)
    assert found.failures() == ["WASM scalar: clang ended", "ONNX Runtime: m31: 1 of 6 images"]


def test_numbers_in_a_few_words(results: ModuleType) -> None:
    for text in ("", "5", "0-19", "0-19, 40, 60-99"):
        assert results.spans(results.numbers(text)) == text


@pytest.mark.slow
@needs_gcc
@needs_clang
def test_every_check_of_a_graph(
    exactness: ModuleType, results: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exactness.checks, "LEVELS", (("-O1",),))
    absent = [tool for tool in exactness.NEEDED if not shutil.which(tool)]
    if absent:
        pytest.skip(f"needs {' and '.join(absent)}")
    found = results.Results(None, "")
    exactness.run_graphs([10], 1, found)
    batch = found.document["graphs"]
    assert found.failures() == []
    assert {(row["graphs"], row["differ"]) for row in batch["checks"].values()} == {(1, 0)}
    names = " ".join(batch["checks"])
    for part in ("C, gcc", "C, clang", "engine portable", "WASM SIMD", "ONNX", "sanitized, gcc"):
        assert part in names
