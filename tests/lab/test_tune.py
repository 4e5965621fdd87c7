"""The search: its space, its folds, what it keeps, and that a kill changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'netsuke[lab]'")
optuna = pytest.importorskip("optuna", reason="needs optuna: pip install 'netsuke[lab]'")

from lab.sets import blobs  # noqa: E402
from netsuke.errors import DataError, MissingExtra, NetsukeError, OptionError  # noqa: E402
from netsuke.lab import space as spaces  # noqa: E402
from netsuke.lab import study as studies  # noqa: E402
from netsuke.lab import tune as tuning  # noqa: E402
from netsuke.lab.folds import folds, parts  # noqa: E402
from netsuke.lab.models import KINDS, MODELS  # noqa: E402
from netsuke.lab.space import Choice, Range, parse  # noqa: E402
from netsuke.lab.tune import Search, Tune  # noqa: E402

SHAPE = (1, 8, 8)
QUICK = "lr=1e-3..1e-1:log, batch=16|32, width=2..6, depth=0"


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def job(work: Path, text: str = QUICK, **options: Any) -> Tune:
    return Tune(blobs(SHAPE), Search(text, **{"model": "separable", "epochs": 2, **options}), work=work)


# --- the space --------------------------------------------------------------------------------------


def test_space_is_read() -> None:
    space = parse(
        "lr=1e-4..1e-2:log,width=0.25..1, optimizer=adam|sgd , batch=64|128, norm=true, dropout=0..0.5"
    )
    assert space == {
        "lr": Range(1e-4, 1e-2, True, False),
        "width": Range(0.25, 1.0, False, False),
        "optimizer": Choice(("adam", "sgd")),
        "batch": Choice((64, 128)),
        "norm": Choice((True,)),
        "dropout": Range(0.0, 0.5, False, False),
    }
    text = ", ".join(f"{name}={domain}" for name, domain in space.items())
    assert parse(text) == space


def test_whole_numbers_stay_whole() -> None:
    space = parse("width=8..32:log", "separable")
    assert space == {"width": Range(8, 32, True, True)}
    assert isinstance(spaces.draw(optuna.create_study().ask(), space, "separable")["width"], int)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr", ["name=low..high", "'lr'"]),
        ("lr=", ["name=low..high"]),
        ("lr=1e-2..1e-4", ["lr", "low end"]),
        ("lr=1..1", ["low end"]),
        ("lr=0..1:log", ["above 0"]),
        ("lr=1e-4..1e-2:ln", [":log"]),
        ("lr=fast..slow", ["lr is a number", "fast"]),
        ("lr=0..inf", ["inf"]),
        ("lr=nan..1", ["nan"]),
        ("batch=1.5..8", ["batch is a whole number"]),
        ("optimizer=adam..sgd", ["optimizer=a|b"]),
        ("norm=yes", ["true or false"]),
        ("lr=0.1, lr=0.2", ["twice"]),
        ("momentun=0..0.9", ["momentun", "did you mean 'momentum'"]),
        ("widht=0.5..1", ["did you mean 'width'"]),
        ("epochs=3..9", ["epochs is not searched"]),
        ("rates=0.1|0.2", ["rates is not searched"]),
        ("model=lenet5|convnot", ["convnot", "did you mean 'convnet'"]),
        ("model=convnet|separable, width=1..2", ["one at a time"]),
        ("depth=1..2, model=lenet5|convnet", ["depth"]),
    ],
)
def test_wrong_space_names_what_would_work(text: str, words: list[str]) -> None:
    with pytest.raises(OptionError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("lr=0..0.1", "lr"),
        ("batch=0|8", "batch"),
        ("optimizer=adam|lion", "rmsprop"),
        ("momentum=0.5..1", "momentum"),
        ("augment=none|swirl", "handwriting"),
        ("width=0..1", "width"),
        ("dropout=0.5..3", "dropout"),
    ],
)
def test_impossible_ends_are_refused_before_training(text: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=word) as caught:
        job(tmp_path / "w", text, model="convnet")
    assert text in str(caught.value)
    assert not (tmp_path / "w").exists()


def test_a_model_that_takes_no_such_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="lenet5"):
        job(tmp_path, "lr=0.01", model="lenet5")


def test_every_option_of_training_can_be_written() -> None:
    assert all(type(value) in KINDS for value in spaces.TRAINING.values())


@pytest.mark.parametrize("model", MODELS)
def test_default_space_suits_the_model(model: str) -> None:
    space = parse(spaces.default(model), model)
    if model in ("convnet", "lenet5", "separable"):  # the others take their time to build
        spaces.check(space, model, (1, 28, 28), 10)
    assert {"lr", "optimizer", "batch"} <= set(space)
    assert spaces.defaults(space, model)["lr"] == 2e-3


def test_options_are_drawn_where_the_model_knows_them() -> None:
    space = parse(
        "model=lenet5|convnet, width=0.5..1, dropout=0..0.5, lr=1e-3..1e-2:log, augment=none|handwriting"
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    seen = set()
    for _ in range(12):
        drawn = spaces.draw(study.ask(), space, "convnet")
        options, training = spaces.settings(drawn, epochs=2)
        seen.add(drawn["model"])
        assert set(options) == {"dropout"} | ({"width"} if drawn["model"] == "convnet" else set())
        assert 1e-3 <= training.lr <= 1e-2
        assert training.augment.off == (drawn["augment"] == "none")
    assert seen == {"lenet5", "convnet"}


# --- the folds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 5])
def test_folds_part_the_training_half(k: int) -> None:
    data = blobs(SHAPE, n=163)
    whole = np.concatenate([data.train.images, data.val.images])
    made = folds(data, k, seed=1)
    seen = np.concatenate([fold.val.images for fold in made])
    assert sorted(image.tobytes() for image in seen) == sorted(image.tobytes() for image in whole)
    for fold in made:
        assert len(fold.train) + len(fold.val) == len(whole)
        assert not {x.tobytes() for x in fold.train.images} & {x.tobytes() for x in fold.val.images}
        assert len(fold.test) == 0
        assert fold.image_shape == SHAPE
    counts = np.array([np.bincount(fold.val.labels, minlength=4) for fold in made])
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert np.ptp(counts.sum(1)) <= 1
    assert len({fold.hash for fold in made}) == k


def test_more_folds_than_images_of_a_class() -> None:
    with pytest.raises(OptionError, match="30 folds need 30 images of every class; 'c"):
        folds(blobs(SHAPE, n=40), 30, 0)


def test_parts_hold_no_test_images_and_as_many_as_asked() -> None:
    data = blobs(SHAPE)
    (one,) = parts(data, images=40)
    assert (len(one.train), len(one.val), len(one.test)) == (40, len(data.val), 0)
    three = parts(data, k=3, images=60)
    assert [len(p.train) + len(p.val) for p in three] == [60] * 3
    assert all(len(p.test) == 0 for p in three)
    with pytest.raises(OptionError, match="--images must be at least two a class, 8"):
        parts(data, images=5)
    with pytest.raises(DataError, match="val"):
        parts(replace(data, val=data.val.take(np.arange(0))))


# --- the search -------------------------------------------------------------------------------------


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_stopped_in_the_middle_and_again_is_the_same_search(tmp_path: Path) -> None:
    whole = job(tmp_path / "whole", folds=2)
    whole.run(3)
    broken = job(tmp_path / "broken", folds=2)
    calls = 0

    def stop(done: float, info: str, resumed: bool) -> None:
        nonlocal calls
        calls += "trial 2/3" in info
        if calls == 3:  # within the first fold's second epoch or the second fold: a checkpoint is there
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken.run(3, progress=stop)
    assert [row["trial"] for row in broken.rows()] == [1]
    assert list((tmp_path / "broken").glob("trial-2/fold-*/checkpoint.pt"))
    again = job(tmp_path / "broken", folds=2)
    resumed = []
    again.run(3, progress=lambda done, info, was: resumed.append(info) if was and "resumed" in info else None)
    assert any("trial 2/3: resumed after epoch" in info for info in resumed)
    assert plain(again.rows()) == plain(whole.rows())
    assert all(row["sd"] is not None and len(row["scores"]) == 2 for row in again.rows("complete"))
    assert [p.name for p in (tmp_path / "broken").iterdir()] == ["study.db"]
    again.run(3)  # nothing left to do
    assert len(again.rows()) == 3


def test_first_trial_is_the_defaults(tmp_path: Path) -> None:
    search = job(tmp_path, "lr=1e-3..1e-1:log, width=2|24, depth=0..3", epochs=1)
    search.run(1)
    assert search.rows()[0]["drawn"] == {"lr": 2e-3, "width": 24, "depth": 2}


def test_another_search_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    job(tmp_path)
    job(tmp_path, QUICK.replace(", ", ","))  # a blank is no difference
    with pytest.raises(OptionError, match=r"epochs is 2, this one's 3.*--work"):
        job(tmp_path, epochs=3)
    with pytest.raises(OptionError, match=r"space is 'lr=.*', this one's 'lr=0.1'"):
        job(tmp_path, "lr=0.1")
    other = replace(blobs(SHAPE), hash="other")
    with pytest.raises(OptionError, match=r"data_hash is 'blobs.*', this one's 'other'"):
        Tune(other, Search(QUICK, "separable", 2), work=tmp_path)


def test_a_damaged_study_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"no database" * 500)
    with pytest.raises(DataError, match=r"study\.db"):
        job(tmp_path)


def test_any_path_will_do(tmp_path: Path) -> None:
    work = tmp_path / "a ?b#c%20d"
    job(work)
    assert [p.name for p in work.iterdir()] == ["study.db"]


def test_models_over_the_limit_are_drawn_again(tmp_path: Path) -> None:
    search = job(tmp_path, "lr=0.01..0.1, width=2|40, depth=0", epochs=1, max_parameters=500)
    search.run(2)
    assert search.counts()["complete"] == 2
    assert all(row["drawn"]["width"] == 2 and row["parameters"] <= 500 for row in search.rows("complete"))
    refused = search.rows("refused")
    assert refused, "the seed draws at least one wide model"
    assert all("over the limit of 500" in row["reason"] for row in refused)


def test_no_model_within_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "REFUSED", 3)
    with pytest.raises(NetsukeError, match="bytes are over the limit of 10"):
        job(tmp_path, max_bytes=10).run(1)


def test_a_failing_trial_is_not_the_end(tmp_path: Path) -> None:
    search = job(
        tmp_path, "lr=0.01|1e8, optimizer=sgd, precision=float32, depth=0, width=4", epochs=1, metric="loss"
    )
    search.run(6)
    counts = search.counts()
    assert counts["complete"]
    assert counts["failed"]
    assert counts["complete"] + counts["failed"] == 6
    assert all("not finite" in row["reason"] and row["score"] is None for row in search.rows("failed"))
    losses = [row["score"] for row in search.ranking]
    assert losses == sorted(losses)


def test_all_failing_is_one_error(tmp_path: Path) -> None:
    search = job(tmp_path, "lr=1e8, optimizer=sgd, precision=float32, depth=0", epochs=1)
    with pytest.raises(NetsukeError, match=r"none of 2 trials has a score.*not finite"):
        search.run(2)


def test_a_trial_behind_the_median_is_pruned(tmp_path: Path) -> None:
    search = job(tmp_path, "lr=1e-9, depth=0, width=4", epochs=4)
    for _ in range(5):
        search.study.add_trial(
            optuna.trial.create_trial(value=2.0, intermediate_values=dict.fromkeys(range(1, 5), 2.0))
        )
    done = 0.0

    def count(n: float, info: str, resumed: bool) -> None:
        nonlocal done
        done += n

    search.run(6, progress=count)
    (pruned,) = search.rows("pruned")
    assert "behind the median" in pruned["reason"]
    assert "after epoch 1 of 4" in pruned["reason"]
    assert done == pytest.approx(6 * 4), "the estimate counts what was saved"


def test_timeout_begins_no_other_trial(tmp_path: Path) -> None:
    search = job(tmp_path, epochs=1)
    search.run(50, timeout=1e-6)
    assert len(search.rows()) == 1


def test_the_best_is_trained_on_the_whole_training_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = job(tmp_path, images=40)
    search.run(2)
    seen = []

    def spy(module: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((len(data.train), len(data.val)))
        return real(module, data, *args, **kwargs)

    real = tuning.train
    monkeypatch.setattr(tuning, "train", spy)
    artifact = search.finish(3)
    data = search.data
    assert seen == [(len(data.train) + len(data.val), 0)]
    recipe = artifact.manifest["recipe"]
    best = search.ranking[0]
    assert recipe["search"]["best"] == {"trial": best["trial"], "score": best["score"], "sd": None}
    assert recipe["search"]["trials"]["complete"] == 2
    assert recipe["search"]["space"] == search.search.space
    assert recipe["training"]["lr"] == best["drawn"]["lr"]
    assert recipe["options"] == {k: best["drawn"][k] for k in ("width", "depth")}
    assert len(artifact.manifest["history"]) == recipe["training"]["epochs"] == 3
    path = tmp_path / "best.netsuke"
    artifact.save(path)
    assert type(artifact).load(path).weight_hash == artifact.weight_hash


# --- importance -------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_importance_finds_what_matters(direction: str) -> None:
    studies.require_optuna()
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(0))
    sign = 1 if direction == "maximize" else -1
    for i in range(40):
        trial = study.ask()
        x, _ = trial.suggest_float("matters", 0, 1), trial.suggest_float("not", 0, 1)
        if i % 4 == 3 and abs(x - 0.3) > 0.3:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, -sign * abs(x - 0.3))
    found = studies.importance(study)
    assert sum(found.values()) == pytest.approx(1)
    assert next(iter(found)) == "matters"
    assert found["matters"] > 0.7


def test_no_importance_from_a_handful(tmp_path: Path) -> None:
    search = job(tmp_path, epochs=1)
    search.run(2)
    assert search.importance() == {}


def test_optuna_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"netsuke\[lab\]"):
        job(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"folds": 1},
        {"folds": -2},
        {"metric": "f1"},
        {"images": -1},
        {"max_bytes": -1},
        {"seed": -1},
    ],
)
def test_wrong_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong)).split("_")[0]):
        Search(**wrong)
