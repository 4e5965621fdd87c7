"""Shared fixtures: real data sets, the real command line, reproducible property tests."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch load: workers share the cores

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def _catalogued(name: str) -> Any:
    """A downloadable set, if it is already on disk: a test run never fetches megabytes unasked."""
    from netsuke import data

    if data.on_disk(name) != ("train", "test"):
        pytest.skip(
            f"needs {name}: set NETSUKE_DATA to a folder that holds {name}/, or `netsuke data fetch {name}`"
        )
    return data.load(name)


@pytest.fixture(scope="session")
def mnist() -> Any:
    """MNIST as a Dataset; skips where it is not on disk."""
    return _catalogued("mnist")


@pytest.fixture(scope="session")
def fashion_mnist() -> Any:
    """Fashion-MNIST as a Dataset; skips where it is not on disk."""
    return _catalogued("fashion-mnist")


@pytest.fixture(scope="session")
def digits() -> Any:
    """The embedded set, from scikit-learn."""
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'netsuke[lab]'")
    from netsuke import data

    return data.load("digits")


@pytest.fixture(scope="session")
def netsuke_cli() -> Cli:
    """`netsuke_cli("read", "a.png", cwd=..., env={...}) -> CompletedProcess`, in a process of its own."""

    def run(
        *args: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "netsuke", *map(str, args)],
            cwd=cwd,
            env=os.environ | (env or {}),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )

    return run
