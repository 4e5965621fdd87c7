"""`netsuke train`, `evaluate` and `reject` on data with images of no class."""

from __future__ import annotations

import json

import pytest

from lab.handwriting import needed
from netsuke.artifact import Artifact


@pytest.mark.slow
def test_from_training_to_a_promise(netsuke_cli, tmp_path):
    needed()
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    data = ("--data", "handwriting:1200")

    def run(*args: str):
        return netsuke_cli(*args, cwd=tmp_path, env=env, timeout=280)

    network = (
        "--model",
        "separable",
        "--option",
        "width=16,depth=2",
        "--epochs",
        "10",
        "--batch",
        "32",
        "--lr",
        "0.01",
    )
    done = run("train", *data, *network, "-o", "a.netsuke", "--json")
    assert done.returncode == 0, done.stderr
    assert "making 1,200 images" in done.stderr
    assert json.loads(done.stdout)["n"] == 10_000  # MNIST's test half
    model = Artifact.load(tmp_path / "a.netsuke")
    assert model.manifest["data"] == "handwriting:1200"
    assert model.manifest["input"]["centring"] == "mass"
    assert set(model.manifest["reject"]) == {"temperature", "threshold", "unsure", "curve"}

    seen = json.loads(run("evaluate", "a.netsuke", *data, "--split", "val", "--json").stdout)
    told = seen["rejection"]
    assert told["kept"]["n"] == seen["n"]
    assert told["kept"]["n"] + told["accepted"]["n"] == 300
    assert told["accepted"]["share"] <= 0.005

    plain = run("reject", "a.netsuke", *data, "--error", "0.7", "--accept", "0.2")
    assert plain.returncode == 0, plain.stderr
    assert "nothing written" in plain.stderr
    for word in ("calibration error", "AUROC", "promise", "Accuracy against coverage"):
        assert word in plain.stdout
    done = run("reject", "a.netsuke", *data, "--accept", "0.2", "-o", "a.netsuke", "--json")
    document = json.loads(done.stdout)
    assert document["at_threshold"]["accepted"]["share"] <= 0.2
    assert document["ece"] <= document["ece_before"] + 0.02
    again = Artifact.load(tmp_path / "a.netsuke")
    assert again.manifest["reject"]["threshold"] == document["threshold"]
    assert again.weight_hash == model.weight_hash
    small = run("compress", "a.netsuke", *data, "--bits", "8", "-o", "b.netsuke", "--json")
    assert small.returncode == 0, small.stderr
    assert "reject" in Artifact.load(tmp_path / "b.netsuke").manifest


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--data", "digits"), "has no images of no class"),
        (("--data", "handwriting:1"), "40 to 280000"),
        (("--data", "digits", "-o", "x.onnx"), "name a .netsuke file"),
    ],
)
def test_what_cannot_be_fitted(netsuke_cli, tmp_path, args, says):
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'netsuke[lab]'")
    from graphs import small_artifact

    small_artifact().save(tmp_path / "m.netsuke")
    done = netsuke_cli("reject", "m.netsuke", *args, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr or "takes" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
