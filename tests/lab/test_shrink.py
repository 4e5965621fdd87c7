"""The main job, on sets of seconds: the budget holds, byte by byte, and the road is the promised one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lab.sets import blobs
from netsuke.artifact import Artifact
from netsuke.data import Dataset, Split
from netsuke.errors import NetsukeError, OptionError
from netsuke.lab import shrink
from netsuke.lab.augment import HANDWRITING, MILD
from netsuke.lab.shrink import EFFORTS, MAX_WIDTH, Effort, Shrink, phases, plan
from netsuke.measure.cost import cost

DATA = blobs((1, 8, 8))
BUDGETS = [600, 1000, 4096, 16384, 60000]


@pytest.fixture(autouse=True)
def _seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """An effort of two epochs a phase."""
    monkeypatch.setitem(EFFORTS, "quick", Effort(0.001, 0.001, 0.001))


def mnist_shaped() -> Dataset:
    return blobs((1, 28, 28), classes=10, n=100)


def test_plans_use_their_budget() -> None:
    data, widths = mnist_shaped(), []
    for budget in BUDGETS:
        p = plan(data, budget)
        assert p.size_bytes <= budget
        if p.width < MAX_WIDTH:  # a channel more is at most a few per cent more
            assert p.size_bytes > 0.85 * budget
        assert 1 <= p.bits <= 8
        widths.append(p.width)
    assert widths == sorted(widths)
    assert len(set(widths)) == len(widths)
    assert plan(data, 10**9).size_bytes < 10**9


def test_too_small_a_budget_names_the_least() -> None:
    with pytest.raises(OptionError, match=r"the least is \d+") as caught:
        plan(DATA, 50)
    least = int(str(caught.value).split()[-1])
    assert plan(DATA, least).size_bytes == least
    for too_small in (least - 1, 0, -5):
        with pytest.raises(OptionError, match=f"^{too_small} bytes are too few for 4 classes of 1x8x8"):
            plan(DATA, too_small)


@pytest.mark.parametrize("budget", [400, 1500, 60000])
def test_the_artifact_keeps_the_budget(budget: int, tmp_path: Path) -> None:
    job = Shrink(DATA, budget, effort="quick", seed=1)
    result = job.run()
    artifact = result.artifact
    assert artifact.graph.integer
    assert artifact.size_bytes <= job.plan.size_bytes <= budget
    storage = cost(artifact)["storage"]
    assert sum(row["size_bytes"] for row in storage) == artifact.size_bytes
    assert {row["tensor"] for row in storage} == set(artifact.tensors), "every tensor is accounted for"
    bits = {op.attrs["bits"] for op in artifact.graph.ops if "bits" in op.attrs}
    assert bits == {job.plan.bits}
    assert set(result.validation) == {"teacher", "student", "quantised"}
    assert all(0 <= value <= 1 for value in result.validation.values())
    assert not result.teacher.graph.integer
    artifact.save(tmp_path / "a.netsuke")
    back = Artifact.load(tmp_path / "a.netsuke")
    np.testing.assert_array_equal(back.logits(DATA.test.images), artifact.logits(DATA.test.images))
    recipe = back.manifest["recipe"]
    assert (recipe["verb"], recipe["max_bytes"], recipe["width"]) == ("shrink", budget, job.plan.width)
    assert [step["step"] for step in recipe["steps"]] == ["teacher", "student", "quantised"]
    assert set(back.manifest["history"]) == {"teacher", "student", "quantised"}
    assert (back.manifest["seed"], back.manifest["data_hash"]) == (1, DATA.hash)


def test_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EFFORTS, "quick", Effort(1.5, 2, 2))
    result = Shrink(DATA, 1500, effort="quick").run()
    right = result.artifact.logits(DATA.test.images).argmax(1) == DATA.test.labels
    assert right.mean() > 0.8


def test_same_seed_same_weights_and_test_images_play_no_part() -> None:
    first = Shrink(DATA, 1500, effort="quick", seed=3).run().artifact
    blind = replace(DATA, test=Split(DATA.test.images[:0], DATA.test.labels[:0]))
    assert Shrink(blind, 1500, effort="quick", seed=3).run().artifact.weight_hash == first.weight_hash
    assert Shrink(DATA, 1500, effort="quick", seed=4).run().artifact.weight_hash != first.weight_hash


class Killed(Exception):
    pass


@pytest.mark.parametrize("phase", ["teacher", "student", "quantised"])
def test_killed_run_goes_on(phase: str, tmp_path: Path) -> None:
    whole = Shrink(DATA, 1500, effort="quick").run().artifact

    def kill(name: str, done: float, info: str, resumed: bool) -> None:
        if name == phase and info.startswith("epoch 2/"):
            raise Killed

    with pytest.raises(Killed):
        Shrink(DATA, 1500, effort="quick", work=tmp_path).run(kill)
    seen: list[tuple[str, str]] = []
    again = Shrink(DATA, 1500, effort="quick", work=tmp_path).run(
        lambda name, done, info, resumed: seen.append((name, info))
    )
    assert (phase, "resumed after epoch 1") in seen
    assert again.artifact.weight_hash == whole.weight_hash


def test_one_teacher_serves_every_budget(tmp_path: Path) -> None:
    first = Shrink(DATA, 1500, effort="quick", work=tmp_path).run()
    seen: list[tuple[str, str]] = []
    second = Shrink(DATA, 4000, effort="quick", work=tmp_path).run(
        lambda name, done, info, resumed: seen.append((name, info))
    )
    assert ("teacher", "resumed after epoch 2") in seen
    assert second.teacher.weight_hash == first.teacher.weight_hash
    assert not any(info.startswith("resumed") for name, info in seen if name != "teacher")


def test_given_teacher() -> None:
    teacher = Shrink(DATA, 1500, effort="quick").run().teacher
    job = Shrink(DATA, 1500, effort="quick", teachers=[teacher])
    assert [phase.name for phase in job.phases] == ["student", "quantised"]
    assert job.estimate() > 0
    result = job.run()
    assert result.teacher.weight_hash == teacher.weight_hash
    assert set(result.validation) == {"student", "quantised"}


def test_unfit_teachers() -> None:
    made = Shrink(DATA, 1500, effort="quick").run()
    with pytest.raises(OptionError, match="teacher takes other images or knows other classes"):
        Shrink(blobs((1, 10, 8)), 1500, effort="quick", teachers=[made.teacher])
    with pytest.raises(OptionError, match="teacher takes other images or knows other classes"):
        Shrink(blobs((1, 8, 8), classes=2), 1500, effort="quick", teachers=[made.teacher])


def test_estimate_and_phases() -> None:
    assert Shrink(DATA, 1500, effort="quick").estimate() > 0
    for effort in EFFORTS:
        names = [phase.name for phase in phases(mnist_shaped(), plan(mnist_shaped(), 2000), effort, seed=5)]
        assert names == ["teacher", "student", "quantised"]
    total = {
        e: sum(p.options.epochs for p in phases(mnist_shaped(), plan(mnist_shaped(), 2000), e, 0))
        for e in ("normal", "long")
    }
    assert total["normal"] < total["long"]
    with pytest.raises(OptionError, match="quick, normal, long"):
        phases(DATA, plan(DATA, 1500), "heroic", 0)


def test_augmentation_follows_the_data() -> None:
    def of(name: str, shape: tuple[int, int, int] = (1, 28, 28)) -> object:
        return shrink.augmentation(replace(blobs(shape), name=name))

    assert of("mnist") == HANDWRITING
    assert shrink.augmentation(replace(blobs((1, 28, 28)), name="mnist"), tiny=True) == MILD
    assert of("my-photos") != HANDWRITING
    assert of("fashion-mnist").flip == 0.5  # type: ignore[attr-defined]
    assert of("mnist").flip == of("my-photos").flip == 0  # type: ignore[attr-defined]
    assert of("digits", (1, 8, 8)).thickness == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("shape", [(3, 12, 20), (1, 5, 5), (3, 32, 32)])
def test_other_shapes(shape: tuple[int, int, int]) -> None:
    data = blobs(shape, classes=2, n=40)
    job = Shrink(data, 2000, effort="quick")
    assert job.run().artifact.size_bytes <= job.plan.size_bytes <= 2000


def test_impossible_images_say_so() -> None:
    with pytest.raises(NetsukeError, match="2x8"):
        Shrink(blobs((1, 2, 8), classes=2), 2000, effort="quick").run()
