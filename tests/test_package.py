"""The wheel and the sdist: built, looked into, and used as a stranger would, without any extra."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import netsuke

REPO = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (REPO / "pyproject.toml").exists(), reason="runs from a checkout or an unpacked sdist"
)


def _run(*args: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(a) for a in args],
        cwd=cwd,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it."""
    pytest.importorskip("hatchling", reason="needs hatchling: pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("dist")
    done = _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, REPO, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """The scripts folder of a fresh environment that holds the wheel and its base dependencies, nothing more."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    done = _run(
        sys.executable, "-m", "pip", "--python", scripts / "python", "install", "-q", built[1], cwd=folder
    )
    if "connection broken" in done.stderr and not os.environ.get("CI"):
        pytest.skip("needs the package registry, which does not answer")
    assert done.returncode == 0, done.stderr
    return scripts


def test_wheel_holds_the_package_alone(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
    info = f"netsuke-{netsuke.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"netsuke", info}
    source = REPO / "src" / "netsuke"
    shipped = {
        f"netsuke/{path.relative_to(source).as_posix()}"
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped |= {f"netsuke/recipes/{path.name}" for path in REPO.glob("recipes/*.toml")}
    example = REPO / "examples" / "firmware"
    sources = [
        *example.glob("boards/*"),
        *(example / name for name in ("Makefile", "main.c", "board.h", "prepare.py")),
    ]
    shipped |= {f"netsuke/bench/firmware/{path.relative_to(example).as_posix()}" for path in sources}
    assert {name for name in names if name.startswith("netsuke/")} == shipped
    assert f"{info}/licenses/LICENSE" in names


def test_sdist_can_be_worked_on(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}
    assert {"pyproject.toml", "LICENSE", "README.md", "README.zh-CN.md", "CHANGELOG.md", "Makefile"} <= names
    assert "tests/test_package.py" in names
    assert "src/netsuke/graph/__init__.py" in names
    models = {path.relative_to(REPO).as_posix() for path in REPO.glob("src/netsuke/zoo/*.netsuke")}
    assert models <= names
    assert not [
        name for name in names if name.startswith((".venv", "demo/", "runs/")) or "__pycache__" in name
    ]


def test_versions_agree(built):
    assert built[1].name.startswith(f"netsuke-{netsuke.__version__}-")


def test_base_install_imports_without_torch(installed, tmp_path):
    done = _run(
        installed / "python", "-c", "import netsuke, sys; print('torch' in sys.modules)", cwd=tmp_path
    )
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


@pytest.mark.parametrize("verb", [(), ("shrink",), ("train",), ("read",), ("data",)])
def test_base_install_answers_help(installed, verb, tmp_path):
    done = _run(installed / "netsuke", *verb, "-h", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_base_install_lists_the_recipes(installed, tmp_path):
    done = _run(installed / "netsuke", "compress", "--list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in REPO.glob("recipes/*.toml")} <= set(done.stdout.split())


def test_base_install_says_what_training_needs(installed, tmp_path):
    args = ("train", "--model", "lenet5", "--data", "digits", "-o", "out.netsuke")
    done = _run(installed / "netsuke", *args, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "netsuke[lab]" in done.stderr
    assert not (tmp_path / "out.netsuke").exists()


def test_base_install_reads(installed, tmp_path):
    drawing = (
        "import cv2, numpy as np; p = np.full((120, 100), 235, np.uint8); "
        "cv2.line(p, (55, 20), (48, 100), 40, 9); cv2.imwrite('one.png', p)"
    )
    assert _run(installed / "python", "-c", drawing, cwd=tmp_path).returncode == 0
    done = _run(installed / "netsuke", "read", "one.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1" in done.stdout
