"""Checkpoints: the state of a run in one file, written in one step, read back only by the run it belongs to."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from netsuke.files import write_whole


def write(path: Path, state: dict[str, Any]) -> None:
    """`state` of tensors and plain values, with its "identity"; a kill leaves the former file or the new one."""
    buffer = io.BytesIO()  # so that a full disk is an OSError with a name, as everywhere else
    torch.save(state, buffer)
    write_whole(path, buffer.getbuffer())


def read(path: Path, identity: str) -> dict[str, Any] | None:
    """The state written under that identity; None where there is none, or another's, or a damaged file."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True)
    except Exception:
        return None  # torch raises many kinds for a damaged file; starting over is right for all of them
    return state if isinstance(state, dict) and state.get("identity") == identity else None
