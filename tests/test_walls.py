"""The walls of the design: torch stays in `netsuke.lab`, and nothing imports leftwards."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

import netsuke

ROOT = Path(netsuke.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# What each part may import of netsuke; itself is always allowed. `lab` is the workshop: it may take all but the shell.
CORE = {"errors", "files", "graph", "kernels", "memory", "packing"}
ALLOWED = {
    "errors": set(),
    "files": set(),
    "cache": set(),
    "settings": {"errors"},
    "recipes": {"errors", "settings"},
    "graph": {"errors"},
    "kernels": {"errors", "graph"},
    "memory": {"errors", "graph"},
    "packing": {"errors", "graph"},
    "coding": {"errors"},
    "storage": {"errors", "graph", "packing", "coding"},
    "data": {"cache", "errors", "files", "image"},  # files: what is made is written whole or not at all
    "image": {"errors"},
    "artifact": CORE | {"storage", "coding"},
    "engine": CORE | {"artifact", "cache", "export"},
    "confidence": {"errors", "graph"},
    "export": CORE | {"artifact", "coding", "confidence", "measure"},
    "import_onnx": CORE | {"artifact"},
    "measure": CORE | {"artifact", "data", "engine", "image"},
    "bench": CORE | {"artifact", "engine", "export", "measure"},
    "reader": CORE | {"artifact", "engine", "image", "zoo"},
    "lab": CORE
    | {"artifact", "coding", "data", "engine", "export", "image", "measure", "reader", "settings"},
}
SHELL = {
    "cli",
    "__main__",
    "__init__",
    "zoo",
}  # the doors of the package: they may open any part, from inside a function


def _part(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def _for_types_only(node: ast.AST) -> bool:
    """`if TYPE_CHECKING:`, which never runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Every module a file imports, and whether it does so the moment it is itself imported."""
    package = ".".join(["netsuke", *file.relative_to(ROOT).parent.parts])

    def walk(node: ast.AST, eager: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, eager) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = resolve_name("." * child.level + (child.module or ""), package)
                yield from ((f"{base}.{alias.name}", eager) for alias in child.names)
            else:
                later = isinstance(child, ast.FunctionDef | ast.Lambda) or _for_types_only(child)
                yield from walk(child, eager and not later)

    yield from walk(ast.parse(file.read_text()), True)


def _inside(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_only_lab_imports_torch(file):
    if _part(file) == "lab":
        return
    for module, eager in _imports(file):
        assert not _inside(module, "torch"), f"{file} imports torch; only netsuke.lab may"
        if _inside(module, "netsuke.lab"):
            assert _part(file) in SHELL, f"{file} imports {module}; only the command line may"
            assert not eager, f"{file} imports {module} at the top: move it into the function"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_flow_one_way(file):
    part = _part(file)
    if part in SHELL:
        return
    assert part in ALLOWED, f"say in ALLOWED what netsuke.{part} may import"
    for module, _ in _imports(file):
        names = module.split(".")
        if names[0] == "netsuke" and len(names) > 1 and not names[1].startswith("__"):
            assert names[1] in ALLOWED[part] | {part}, f"{file} imports {module}, which lies downstream of it"


def _loads_torch(program: str, *args: str, cwd: Path) -> tuple[int, bool]:
    """Exit status of the program and whether torch was loaded when it ended."""
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('TORCH' if 'torch' in sys.modules else 'LIGHT', file=sys.stderr))\n"
        f"sys.argv[1:] = {list(args)!r}\n{program}"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=cwd, env=os.environ, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr.rstrip().endswith("TORCH")


def test_the_probe_sees_torch(tmp_path):
    pytest.importorskip("torch", reason="needs torch: pip install 'netsuke[lab]'")
    assert _loads_torch("import torch", cwd=tmp_path) == (0, True)


def test_import_is_light(tmp_path):
    assert _loads_torch("import netsuke", cwd=tmp_path) == (0, False)


MAIN = "from netsuke.cli import main; main()"


@pytest.mark.parametrize("args", [("-h",), ("--version",), ("train", "-h"), ("shrink", "-h")])
def test_help_is_light(args, tmp_path):
    assert _loads_torch(MAIN, *args, cwd=tmp_path) == (0, False)


def test_reading_is_light(tmp_path):
    import cv2
    import numpy as np

    paper = np.full((120, 100), 235, np.uint8)
    cv2.line(paper, (55, 20), (48, 100), 40, 9)
    cv2.imwrite(str(tmp_path / "one.png"), paper)
    assert _loads_torch(MAIN, "read", "one.png", "--json", cwd=tmp_path) == (0, False)
