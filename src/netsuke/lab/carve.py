"""A trained module becomes an artifact: lowered, with the manifest that says where it came from."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import netsuke
from netsuke.artifact import Artifact
from netsuke.data import Dataset, Split
from netsuke.engine import Engine
from netsuke.lab.lower import lower
from netsuke.measure import rejection
from netsuke.measure.accuracy import scaled

# How a photo becomes the input (netsuke.image): MNIST's digits are centred by mass in a 20-pixel box,
# those of UCI and USPS fill their field; images of a folder are only resized.
_CENTRING: dict[str, dict[str, Any]] = {
    "handwriting": {"centring": "mass", "box": 20},
    "mnist": {"centring": "mass", "box": 20},
    "emnist-digits": {"centring": "mass", "box": 20},
    "usps": {"centring": "box", "box": 16},
    "digits": {"centring": "box", "box": 8},
    "optdigits": {"centring": "box", "box": 8},
}


# A network trained with outliers, before its temperature is known: silent where no logit is above 0.
_UNTRIED = {"temperature": 1.0, "threshold": 0.5, "unsure": 0.25}


def carve(
    model: nn.Module, data: Dataset, *, recipe: dict[str, Any], seed: int, calibrated: bool = True
) -> Artifact:
    """Lower a module trained on `data`; `recipe` (plain JSON) and `seed` say how it was made.

    Of data with outliers it learns, on the validation images, when to stay silent: the manifest's `reject`.
    """
    graph, tensors = lower(model.cpu(), data.image_shape)
    channels, height, width = data.image_shape
    manifest = {
        "classes": list(data.classes),
        "input": {
            "channels": channels,
            "height": height,
            "width": width,
            "polarity": "as-trained" if data.name.endswith("/") else "bright-ink",  # a folder's name ends so
            **_CENTRING.get(data.family, {"centring": "none"}),
        },
        "recipe": recipe,
        "seed": seed,
        "data": data.name,
        "data_hash": data.hash,
        "versions": versions(),
        "commit": commit(),
    }
    if coding := getattr(model, "coding", ""):  # what the step `encode` chose
        manifest["coding"] = coding
    artifact = Artifact(graph, tensors, manifest)
    if data.outliers:
        artifact = artifact.with_manifest(reject=_reject(artifact, data.val) if calibrated else _UNTRIED)
    return artifact


def _reject(artifact: Artifact, val: Split) -> dict[str, Any]:
    classes = len(artifact.classes)
    if not val.outliers(classes) or val.labels.min() == classes:
        return _UNTRIED
    logits = Engine(artifact, backend="packaged").run(val.images)
    return rejection.reject(scaled(artifact, logits), val.labels)


def versions() -> dict[str, str]:
    return {
        "netsuke": netsuke.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


@cache
def commit() -> str:
    """The commit of the source tree in use, "-dirty" behind it if files differ; "" for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():  # else a repository around the environment would be taken for ours
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--match=", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
