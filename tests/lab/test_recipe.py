"""Recipes: checked in full, run step by step, rolled back, resumed after a kill to the same result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lab.sets import blobs
from netsuke import recipes
from netsuke.artifact import Artifact
from netsuke.data import Dataset
from netsuke.data.dataset import empty_like
from netsuke.errors import DataError, NetsukeError, OptionError
from netsuke.lab.carve import carve
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.recipe import check, parsed, read, run, snapshot
from netsuke.lab.recipe.document import COMMON, TOP
from netsuke.lab.steps import STEPS
from netsuke.lab.steps.prune import prune
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Training, train

SMALL = {"name": "convnet", "options": {"width": 0.1}, "train": {"epochs": 4, "batch": 16, "lr": 8e-3}}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return blobs((1, 12, 12))


@pytest.fixture(scope="module")
def model(data: Dataset) -> nn.Module:
    fresh = build("convnet", data.image_shape, len(data.classes), width=0.1, dropout=0.0)
    return train(fresh, data, Training(epochs=6, batch=16, lr=8e-3))


def recipe(*steps: dict[str, Any], **top: Any) -> Any:
    return parsed({"step": list(steps), **top}, "x.toml")


# --- what is refused before anything runs -----------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no steps": ({}, r"x.toml: needs one \[\[step\]\] table at least"),
    "steps no list": ({"step": {"step": "prune"}}, r"x.toml: needs one \[\[step\]\] table"),
    "top key": (
        {"tittle": "a", "step": [{"step": "prune"}]},
        "x.toml: no key 'tittle'; did you mean 'title'",
    ),
    "loss": (
        {"allowed_loss": 2, "step": [{"step": "prune"}]},
        "x.toml: allowed_loss must be a share of 1.*got 2",
    ),
    "model name": (
        {"model": {"name": "convnt"}, "step": [{"step": "prune"}]},
        "x.toml: no model 'convnt'; did you mean 'convnet'",
    ),
    "model key": (
        {"model": {"name": "mlp", "epochs": 3}, "step": [{"step": "prune"}]},
        "x.toml: no key 'model.epochs'; there are name, options, train",
    ),
    "model training": (
        {"model": {"name": "mlp", "train": {"epoch": 3}}, "step": [{"step": "prune"}]},
        "x.toml: no option 'model.train.epoch'; did you mean 'model.train.epochs'",
    ),
    "model option": (
        {"model": {"name": "convnet", "options": {"widht": 1.0}}, "step": [{"step": "prune"}]},
        "no option 'model.options.widht'; did you mean 'model.options.width'",
    ),
    "model seed": (
        {"model": {"name": "mlp", "options": {"seed": 1}}, "step": [{"step": "prune"}]},
        "no option 'model.options.seed'",
    ),
    "model no name": (
        {"model": {"name": ["mlp"]}, "step": [{"step": "prune"}]},
        "needs the name of a network",
    ),
    "no name": ({"step": [{"amount": 0.5}]}, "x.toml, step 1: needs step, one of train"),
    "unknown step": (
        {"step": [{"step": "prune"}, {"step": "quantise"}]},
        r"x.toml, step 2 \(quantise\): no step 'quantise'; did you mean 'quantize'",
    ),
    "misspelt": (
        {"step": [{"step": "prune", "ammount": 0.5}]},
        r"x.toml, step 1 \(prune\): no option 'ammount'; did you mean 'amount'",
    ),
    "misspelt deep": (
        {"step": [{"step": "prune", "training": {"augment": {"rotat": 3}}}]},
        "no option 'training.augment.rotat'; did you mean 'training.augment.rotate'",
    ),
    "misspelt common": (
        {"step": [{"step": "prune", "alowed_loss": 0.5}]},
        "no option 'alowed_loss'; did you mean 'allowed_loss'",
    ),
    "type": (
        {"step": [{"step": "quantize", "bits": "four"}]},
        "step 1 .*bits must be a whole number; got 'four'",
    ),
    "range": ({"step": [{"step": "quantize", "bits": 9}]}, r"step 1 \(quantize\): .*1 to 8"),
    "range deep": ({"step": [{"step": "prune", "training": {"lr": -1}}]}, "step 1 .*training: lr must be"),
    "augment": (
        {"step": [{"step": "train", "augment": "rotat=3"}]},
        "no augmentation 'rotat'; did you mean 'rotate'",
    ),
    "order": (
        {"step": [{"step": "quantize"}, {"step": "weight_only"}]},
        r"step 2 \(weight_only\): takes a float model; quantize gives an integer model",
    ),
    "after the end": (
        {"step": [{"step": "dynamic"}, {"step": "train"}]},
        r"step 2 \(train\): takes a float model or an integer model; dynamic gives",
    ),
    "teacher to come": (
        {"step": [{"step": "distil", "teacher": 1}]},
        "teacher 1: must be the number of an earlier",
    ),
    "teacher missing": ({"step": [{"step": "distil", "teacher": "no.netsuke"}]}, "there is no such file"),
    "teacher type": ({"step": [{"step": "distil", "teacher": 1.5}]}, "teacher must be"),
    "encode not last": (
        {"step": [{"step": "encode"}, {"step": "train"}]},
        r"step 2 \(train\): encode must be the last step",
    ),
    "taught nothing": ({"step": [{"step": "dynamic", "teacher": "self"}]}, "nothing to learn"),
    "softness alone": ({"step": [{"step": "prune", "hard": 0.5}]}, "hard belongs to a teacher"),
    "softness": ({"step": [{"step": "prune", "teacher": "self", "hard": 5}]}, "hard must be 0 to 1; got 5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_tables_that_are_refused(case: str) -> None:
    table, message = REFUSED[case]
    with pytest.raises(OptionError, match=message) as error:
        parsed(table, "x.toml")
    assert "\n" not in str(error.value)


def test_files_that_are_refused(tmp_path: Path) -> None:
    for content, message in (
        (b"[[step]\n", "cannot be read as a recipe"),
        (b"\xff\xfe", "cannot be read"),
        (b"", r"needs one \[\[step\]\] table"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b'[[step]]\nstep = "a\\nb\\u001b"', "no step"),
    ):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(OptionError, match=message) as error:
            read(tmp_path / "bad.toml")
        assert "\n" not in str(error.value)
        assert "bad.toml" in str(error.value)
    with pytest.raises(OptionError, match="No such file"):
        read(tmp_path / "none.toml")


ANY = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)
KEYS = st.sampled_from(sorted({key for kind in STEPS.values() for key in vars(kind.options())})) | st.text(
    max_size=5
)
STEP = st.dictionaries(KEYS | st.sampled_from(COMMON), ANY, max_size=3)


@given(
    st.lists(st.tuples(st.sampled_from(sorted(STEPS)), STEP), max_size=3),
    st.dictionaries(st.sampled_from(TOP) | st.text(max_size=4), ANY, max_size=2),
)
@settings(max_examples=60)
def test_any_table_is_a_recipe_or_one_printable_line(rows: list[Any], top: dict[str, Any]) -> None:
    table = {"step": [{"step": name, **row} for name, row in rows], **top}
    try:
        got = parsed(table)
    except OptionError as error:
        message = str(error)
        assert message.isprintable(), message
    else:
        assert json.dumps(got.to_json())


def test_what_only_the_network_tells_is_found_before_the_first_step(data: Dataset, tmp_path: Path) -> None:
    """A rehearsal: the last step refuses, and no training of the first has begun."""
    plan = recipe(
        {"step": "train", "epochs": 3},
        {"step": "quantize", "layers": {"cnv1": 4}},
    )
    begun: list[Any] = []
    with pytest.raises(NetsukeError, match=r"x.toml, step 2 \(quantize\): .*cnv1"):
        run(
            plan,
            build("convnet", data.image_shape, 4),
            data,
            work=tmp_path,
            progress=lambda *a: begun.append(a),
        )
    assert not begun
    assert not any(tmp_path.iterdir())


def test_a_network_outside_the_contract_is_found_before_the_first_step(data: Dataset) -> None:
    """The logits of a convolution cannot be quantised: said of step 2, before step 1 trains."""
    strange = nn.Sequential(nn.Conv2d(1, 4, 12), nn.Flatten())
    with pytest.raises(NetsukeError, match=r"step 2 \(quantize\): .*logits"):
        check(recipe({"step": "train", "epochs": 50}, {"step": "quantize"}), strange, data)


def test_patience_without_validation(data: Dataset, model: nn.Module) -> None:
    bare = replace(data, val=empty_like(data.val.images))
    with pytest.raises(DataError, match="patience needs validation images"):
        check(recipe({"step": "prune", "training": {"epochs": 3, "patience": 1}}), model, bare)


def test_an_integer_model_is_not_compressed_again(data: Dataset, model: nn.Module) -> None:
    small = carve(quantize(model, data), data, recipe={}, seed=0)
    with pytest.raises(OptionError, match="quantised already"):
        check(recipe({"step": "prune"}), small, data)


# --- what a run gives -------------------------------------------------------------------------------


def test_rows_and_manifest(data: Dataset, model: nn.Module, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    plan = recipe(
        {"step": "prune", "amount": 0.5, "training": {"epochs": 2, "batch": 16}, "teacher": "self"},
        {"step": "quantize", "bits": 4, "training": {"epochs": 2, "batch": 16}, "teacher": ["self", 1]},
        title="two steps",
    )
    artifact = run(plan, model, data, say=seen.append)
    rows = artifact.manifest["steps"]
    assert rows == seen
    assert [(r["step"], r["name"]) for r in rows] == [(0, "start"), (1, "prune"), (2, "quantize")]
    before, pruned, whole = rows
    assert before["size_bytes"] >= pruned["size_bytes"] > 0.9 * before["size_bytes"], "zeros stay in place"
    assert whole["size_bytes"] < 0.3 * before["size_bytes"]
    assert pruned["encoded_bytes"] <= before["encoded_bytes"]
    assert whole["encoded_bytes"] <= whole["size_bytes"]
    assert before["sparsity"] < 0.1 < 0.45 < pruned["sparsity"] <= whole["sparsity"]
    assert before["macs"] == pruned["macs"] == whole["macs"]
    assert whole["size_bytes"] == artifact.size_bytes
    assert whole["ram_bytes"] < before["ram_bytes"]
    right = (artifact.logits(data.val.images).argmax(1) == data.val.labels).mean()
    assert whole["accuracy"] == right, "of validation, by the artifact itself"
    for row in rows:
        assert row["latency_us"] > 0
        assert row["backend"] in ("onnxruntime", "numpy")
    assert artifact.graph.integer
    told = artifact.manifest["recipe"]
    assert (told["verb"], told["title"]) == ("compress", "two steps")
    assert [step["step"] for step in told["steps"]] == ["prune", "quantize"]
    assert told["steps"][1]["training"]["epochs"] == 2
    assert told["steps"][1]["teacher"] == ["self", 1]
    assert [len(phase) for phase in artifact.manifest["history"].values()] == [2, 2]
    artifact.save(tmp_path / "a.netsuke")
    assert Artifact.load(tmp_path / "a.netsuke").manifest["steps"] == json.loads(json.dumps(rows))


def test_a_step_that_costs_too_much_is_rolled_back(data: Dataset, model: nn.Module, tmp_path: Path) -> None:
    plan = recipe(
        {"step": "prune", "amount": 0.97, "allowed_loss": 0.02},
        {"step": "quantize", "bits": 8},
        allowed_loss=1.0,
    )
    for _ in range(2):  # the second run finds both steps done
        artifact = run(plan, model, data, work=tmp_path)
        start, pruned, whole = artifact.manifest["steps"]
        assert pruned["rolled_back"]
        assert pruned["accuracy"] < start["accuracy"] - 0.02
        assert not whole["rolled_back"]
        assert whole["sparsity"] < 0.5, "quantisation took the model before the pruning"
        alone = run(recipe({"step": "quantize", "bits": 8}), model, data)
        assert artifact.weight_hash == alone.weight_hash


def test_without_validation_images_nothing_is_rolled_back(data: Dataset, model: nn.Module) -> None:
    bare = replace(data, val=empty_like(data.val.images))
    artifact = run(recipe({"step": "prune", "amount": 0.97}, allowed_loss=0.0), model, bare)
    assert [row["accuracy"] for row in artifact.manifest["steps"]] == [None, None]
    assert not artifact.manifest["steps"][1]["rolled_back"]


def test_one_image_a_class(model: nn.Module) -> None:
    few = blobs((1, 12, 12), n=20)
    few = replace(few, train=few.train.take(np.arange(4)), val=empty_like(few.val.images))
    plan = recipe(
        {"step": "prune", "amount": 0.3, "training": {"epochs": 1}},
        {"step": "quantize", "bits": 4, "training": {"epochs": 1}},
    )
    assert run(plan, model, few).graph.integer


def test_the_seed_and_what_names_its_own(data: Dataset) -> None:
    steps = [{"step": "train", "epochs": 1}, {"step": "train", "epochs": 1, "seed": 3}]
    plan = parsed({"model": SMALL, "step": steps}, seed=7, threads=1)
    assert plan.model is not None
    assert plan.model.training.seed == 7
    assert [step.options.seed for step in plan.steps] == [7, 3]
    assert [step.options.threads for step in plan.steps] == [1, 1]


def test_a_recipe_begins_with_its_own_model(data: Dataset) -> None:
    artifact = run(recipe({"step": "quantize"}, model=SMALL), None, data)
    assert [row["name"] for row in artifact.manifest["steps"]] == ["train convnet", "quantize"]
    assert len(artifact.manifest["history"]["0 train convnet"]) == 4
    with pytest.raises(OptionError, match=r"names no \[model\]"):
        run(recipe({"step": "quantize"}), None, data)


# --- going on after a kill --------------------------------------------------------------------------


def test_work_of_another_recipe_is_not_taken(data: Dataset, model: nn.Module, tmp_path: Path) -> None:
    def hashed(work: Path | None, bits: int = 8, start: nn.Module = model, data: Dataset = data) -> str:
        plan = recipe({"step": "prune", "amount": 0.5}, {"step": "quantize", "bits": bits})
        return run(plan, start, data, work=work).weight_hash

    first = hashed(tmp_path)
    other = build("convnet", data.image_shape, 4, width=0.1, dropout=0.0, seed=1)
    assert hashed(tmp_path, bits=4) == hashed(None, bits=4) != first
    assert hashed(tmp_path, start=other) == hashed(None, start=other) != first
    more = blobs((1, 12, 12), seed=1)
    assert hashed(tmp_path, data=more) == hashed(None, data=more) != first
    assert hashed(tmp_path) == first


def test_a_damaged_file_in_the_work_folder_is_made_again(
    data: Dataset, model: nn.Module, tmp_path: Path
) -> None:
    plan = recipe({"step": "prune", "amount": 0.5}, {"step": "quantize"})
    first = run(plan, model, data, work=tmp_path).weight_hash
    kept = tmp_path / "step-1" / "after.pt"
    kept.write_bytes(kept.read_bytes()[:1000])
    assert run(plan, model, data, work=tmp_path).weight_hash == first


KILLED = """
import os, signal, sys
from netsuke.lab import checkpoint, recipe
from netsuke import data
from netsuke.lab.recipe import parsed, run
import json

plan = parsed(json.loads(sys.argv[2]))
target, phase = int(sys.argv[3]), sys.argv[4]
write, seen = checkpoint.write, {}

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def progress(number, name, done, info, resumed):
    seen[number] = seen.get(number, 0) + done
    if number == target and phase == "training" and seen[number] > 1.01:
        die()

def writing(path, state):
    if path.name == "after.pt" and path.parent.name == f"step-{target}":
        die()
    write(path, state)

if phase == "keeping":
    checkpoint.write = writing
print(run(plan, None, data.load("digits"), work=__import__("pathlib").Path(sys.argv[1]), progress=progress).weight_hash)
"""


def killed(work: Path, table: dict[str, Any], target: int, phase: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", KILLED, str(work), json.dumps(table), str(target), phase]
    return subprocess.run(words, capture_output=True, text=True, timeout=200, check=False, env={**os.environ})


LONG: dict[str, Any] = {
    "model": {
        "name": "convnet",
        "options": {"width": 0.1, "norm": True},
        "train": {"epochs": 3, "batch": 64},
    },
    "step": [
        {"step": "distil", "teacher": "self", "training": {"epochs": 2}},
        {"step": "prune", "amount": 0.5, "rounds": 2, "training": {"epochs": 2}},
        {"step": "share", "conv": 4, "dense": 4, "training": {"epochs": 2}},
        {"step": "quantize", "bits": 4, "teacher": 1, "training": {"epochs": 2}},
        {"step": "train", "epochs": 2, "ema": 0.9},
        {"step": "encode"},
    ],
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_kill_in_each_step_changes_nothing(digits: Dataset, tmp_path: Path) -> None:
    """One work folder, a kill in the second epoch of every step, and the rest in one go."""
    for target in range(len(LONG["step"]) + 1):
        phase = "training" if target < len(LONG["step"]) else "keeping"  # encode has nothing to train
        done = killed(tmp_path, LONG, target, phase)
        assert done.returncode == -signal.SIGKILL, (target, phase, done.stderr)
        assert not (tmp_path / f"step-{target}" / "after.pt").exists()
    done = killed(tmp_path, LONG, -1, "")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == run(parsed(LONG), None, digits).weight_hash


# --- snapshots --------------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[nn.Module, Dataset], nn.Module]] = {
    "module": lambda m, d: m,
    "pruned": lambda m, d: prune(m, d, amount=0.5),
    "pruned channels": lambda m, d: prune(m, d, amount=0.3, structure="channels"),
    "factorised": lambda m, d: STEPS["factorise"].run(prune(m, d, amount=0.5), d, None, energy=0.8),
    "shared": lambda m, d: STEPS["share"].run(prune(m, d, amount=0.5), d, None, dense=3),
    "integer": lambda m, d: quantize(m, d, bits=4),
    "pruned, integer": lambda m, d: quantize(prune(m, d, amount=0.5), d, bits=4),
    "learned steps": lambda m, d: quantize(m, d, bits=3, steps="learned"),
    "dynamic": lambda m, d: STEPS["dynamic"].run(m, d),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_snapshot_is_the_module(kind: str, data: Dataset, model: nn.Module, tmp_path: Path) -> None:
    """The same values, and the same after more training: masks, steps and statistics are all there."""
    made = MAKERS[kind](model, data).eval()
    torch.save(snapshot.state(made), tmp_path / "s.pt")
    back = snapshot.module(torch.load(tmp_path / "s.pt", weights_only=True), model)
    assert {k: v.shape for k, v in back.state_dict().items()} == {
        k: v.shape for k, v in made.state_dict().items()
    }
    for (_, mine), (_, theirs) in zip(
        sorted(back.state_dict().items()), sorted(made.state_dict().items()), strict=True
    ):
        assert torch.equal(mine, theirs)
    same(back, made, data)
    if kind != "dynamic":
        more = Training(epochs=1, batch=16)
        same(train(back, data, more), train(made, data, more), data)


def test_what_encode_has_marked_stays_marked(data: Dataset, model: nn.Module, tmp_path: Path) -> None:
    plan = recipe(
        {"step": "prune", "amount": 0.8}, {"step": "share"}, {"step": "encode", "method": "huffman"}
    )
    for start in (
        model,
        carve(quantize(prune(model, data, amount=0.8), data, bits=4), data, recipe={}, seed=0),
    ):
        steps = plan if start is model else recipe({"step": "encode", "method": "huffman"})
        first = run(steps, start, data, work=tmp_path)
        again = run(steps, start, data, work=tmp_path)
        assert first.coding == again.coding == "huffman"
        assert first.weight_hash == again.weight_hash
        last = again.manifest["steps"][-1]
        assert last["encoded_bytes"] == again.encoded_bytes


def same(one: nn.Module, other: nn.Module, data: Dataset) -> None:
    (graph, tensors), (wanted, arrays) = lower(one, data.image_shape), lower(other, data.image_shape)
    assert graph.to_json() == wanted.to_json()
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name], array)


def test_a_snapshot_names_no_foreign_class() -> None:
    for name in (["os", "system"], ["netsuke.lab.steps.train", "train"], ["netsuke.errors", "DataError"]):
        kept = {
            "graph": {
                "module": name,
                "values": {},
                "parameters": {},
                "buffers": {},
                "children": {},
                "forms": {},
            }
        }
        with pytest.raises(OptionError, match="a snapshot names"):
            snapshot.module(kept, nn.Identity())


# --- shipped ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipes.shipped())
def test_a_shipped_recipe_reads_and_says_what_it_does(name: str) -> None:
    path = recipes.find(name)
    plan = read(path, seed=3)
    assert plan.title == recipes.title(path)
    assert 20 < len(plan.title) < 100
    assert plan.model is not None, "so that it runs without a model too"
