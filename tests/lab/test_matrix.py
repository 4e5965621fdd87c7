"""Every network by every technique: it applies, lowers, reloads without torch, answers the same, keeps its claim."""

from __future__ import annotations

import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lab.matrix import DATA, NO_BRANCH, TECHNIQUES, Case, budget
from lab.test_models import small, stirred
from netsuke.errors import OptionError
from netsuke.lab.carve import carve
from netsuke.lab.inference import logits
from netsuke.lab.models import MODELS, build

IMAGES = DATA.test.images[:6]
DEEP = ("resnet18", "resnet34", *(name for name in MODELS if name.startswith("vgg")))
WIDTHS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": 48},
    "lenet5_caffe": {"width": 0.25},
    "separable": {"width": 48},
    **{name: {"width": 0.0625} for name in DEEP},
}

# Pairs that cannot be, each with the reason that its step gives.
REFUSED: dict[tuple[str, str], str] = {
    (name, "layers"): NO_BRANCH
    for name in (
        "mlp", "lenet5", "lenet5_caffe", "lenet_300_100", "convnet", "alexnet", "vgg11", "vgg13", "vgg16", "vgg11_bn",
        "vgg13_bn", "vgg16_bn", "squeezenet", "mobilenet_v1", "shufflenet_v2",
    )
}  # fmt: skip

# Loads every file and writes what it answers, by the NumPy kernels; by ONNX Runtime too for "N:onnx".
RELOAD = """
import sys
sys.modules["torch"] = None  # importing it is an error from here on
import numpy as np
from netsuke.artifact import Artifact
from netsuke.export import onnx
raw, found = np.load("raw.npy"), {}
for argument in sys.argv[1:]:
    number, _, runtime = argument.partition(":")
    artifact = Artifact.load(f"{number}.netsuke")
    found[number] = artifact.logits(raw)
    if runtime:
        found[argument] = onnx.predict(onnx.session(onnx.encode(artifact)), raw)
np.savez("found.npz", **found)
print([m for m in sys.modules if m.startswith("netsuke.lab")])
"""


class Row:
    """One network after every technique, each made once; what a step raises waits for the pair's own test."""

    def __init__(self, name: str, folder: Path):
        self.name, self.folder = name, folder
        options = WIDTHS.get(name, small(name)[0])
        self.modules: dict[str, nn.Module] = {
            "float": stirred(build(name, DATA.image_shape, len(DATA.classes), seed=3, **options))
        }
        self.errors: dict[str, Exception] = {}
        self.cases = {"float": self._saved("float")}
        for technique in TECHNIQUES:
            try:
                self.cases[technique] = self._saved(technique)
            except Exception as error:
                self.errors[technique] = error

    def module(self, technique: str) -> nn.Module:
        if technique not in self.modules:
            self.modules[technique] = TECHNIQUES[technique].make(self.module)
        return self.modules[technique]

    def _saved(self, technique: str) -> Case:
        module = self.module(technique)
        artifact, path = carve(module, DATA, recipe={}, seed=0), self.folder / f"{len(self.modules)}.netsuke"
        artifact.save(path)
        return Case(module, artifact, path)

    @cached_property
    def reloaded(self) -> dict[str, np.ndarray]:
        """What a process without torch answers: by technique, and "TECHNIQUE:onnx" where that was asked for."""
        np.save(self.folder / "raw.npy", IMAGES)
        runtimes = [name for name in self.cases if name in TECHNIQUES and TECHNIQUES[name].runtime]
        arguments = {self.cases[name].path.stem: name for name in self.cases}
        arguments |= {f"{self.cases[name].path.stem}:onnx": f"{name}:onnx" for name in runtimes}
        done = subprocess.run(
            [sys.executable, "-c", RELOAD, *arguments], cwd=self.folder, capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout == "[]\n", "it loads nothing of the lab"
        with np.load(self.folder / "found.npz") as found:
            return {arguments[key]: found[key] for key in found}


@pytest.fixture(scope="module", params=MODELS)
def row(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Row:
    return Row(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_pair(row: Row, technique: str) -> None:
    reason = REFUSED.get((row.name, technique))
    if reason:
        error = row.errors[technique]
        assert isinstance(error, OptionError)
        assert str(error) == reason
        return
    if technique in row.errors:
        raise row.errors[technique]
    case = row.cases[technique]
    want = case.artifact.logits(IMAGES)
    np.testing.assert_array_equal(row.reloaded[technique], want)
    assert_answers(logits(case.module, torch.from_numpy(IMAGES.copy())).double().numpy(), case)
    if TECHNIQUES[technique].runtime:
        assert_answers(row.reloaded[f"{technique}:onnx"], case)
    TECHNIQUES[technique].claim(case, row.cases[TECHNIQUES[technique].than])


def assert_answers(got: np.ndarray, case: Case) -> None:
    """Logits by torch or another runtime: integers exactly, floats within 1e-4 of the largest.

    A dynamic layer rounds what arrives: where another runtime's last bit takes a value over a half, the logits of that
    image move by a step.
    """
    graph, want = case.artifact.graph, case.artifact.logits(IMAGES)
    if graph.integer:
        np.testing.assert_array_equal(np.rint(got / graph.ops[-1].attrs.get("scale", 1.0)), want)
        return
    gap, largest = np.abs(got - want), max(1.0, np.abs(want).max())
    if any(op.kind.startswith("dconv") or op.kind == "ddense" for op in graph.ops):
        assert np.median(gap) <= 1e-4 * largest
        assert gap.max() <= 0.1 * largest
    else:
        assert gap.max() <= 1e-4 * largest


def test_mixed_widths_keep_the_budget(row: Row) -> None:
    assert row.cases["mixed widths"].artifact.size_bytes <= budget(row.module)
