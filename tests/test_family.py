"""Training that goes on from what ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netsuke import zoo
from netsuke.artifact import Artifact
from netsuke.engine import Engine

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_blended_weights_lie_between_those_before_and_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'netsuke[lab]'")
    import family_gpu

    torch.manual_seed(0)
    before, behind = (family_gpu.NETS["base"][0]() for _ in range(2))
    own = [part.detach().clone() for part in behind.parameters()]
    tiles = torch.rand(500, 1, 28, 28)
    family_gpu.blended(behind, before, tiles, 0.25)
    for found, a, b in zip(behind.parameters(), before.parameters(), own, strict=True):
        assert torch.allclose(found, a + 0.25 * (b - a), atol=1e-6)
    with torch.no_grad():
        alike = behind.eval()(tiles), behind.train()(tiles)
    assert np.corrcoef(alike[0].ravel(), alike[1].ravel())[0, 1] > 0.97


def test_thawed_weights_say_what_their_artifact_says(mnist: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'netsuke[lab]'")
    import family_gpu

    model = Artifact.load(zoo.path("digit-base"))
    images = mnist.val.images[:400]
    shown = torch.from_numpy(images).float() / 255
    net = family_gpu.NETS["base"][0]()
    family_gpu.thawed(net, model, shown[:128])
    scale = model.graph.ops[-1].attrs["scale"]
    wanted = Engine(model, backend="numpy").run(images) * scale
    for training in (False, True):  # with norms of their own, and of the batch
        with torch.no_grad():
            found = net.train(training)(shown).numpy()
        assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.98
        assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.97
