"""Views: augmented copies and teachers' answers, in memory and kept in a folder."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.sets import blobs
from netsuke.errors import DataError, OptionError
from netsuke.lab import kept as keeping
from netsuke.lab.augment import HANDWRITING, Augment
from netsuke.lab.kept import kept
from netsuke.lab.models import build
from netsuke.lab.steps.train import Teacher, Training, train
from netsuke.lab.teachers import ask
from netsuke.lab.views import Views

DATA = blobs((1, 8, 8))
AUGMENT = Augment(rotate=8, shift=0.1)


def network(seed: int) -> torch.nn.Module:
    return build("separable", DATA.image_shape, len(DATA.classes), seed=seed, width=6, depth=1).eval()


TEACHERS = [network(0), network(1)]


def files(folder: Path) -> dict[str, int]:
    """Every .npy below, with the moment it was written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*.npy")}


def test_in_memory_answers_are_the_teachers() -> None:
    views = Views(DATA, AUGMENT, 3, 0, TEACHERS[0])
    copies, answers = views.get(4)
    assert copies.dtype == torch.uint8
    assert copies.shape == (len(DATA.train), 1, 8, 8)
    assert torch.equal(copies, views.get(1)[0])
    assert not torch.equal(copies, views.get(2)[0])
    assert answers is not None
    torch.testing.assert_close(answers, ask(TEACHERS[0], copies.float() / 255))


def test_several_teachers_answer_with_their_mean() -> None:
    alone = [Views(DATA, AUGMENT, 1, 0, teacher).get(0)[1] for teacher in TEACHERS]
    both = Views(DATA, AUGMENT, 1, 0, TEACHERS).get(0)[1]
    torch.testing.assert_close(both, torch.stack(alone).mean(0))  # type: ignore[arg-type]


def test_key_tells_apart_whatever_changes_the_answers(tmp_path: Path) -> None:
    made = [
        Views(DATA, AUGMENT, 2, 0),
        Views(DATA, AUGMENT, 3, 0),
        Views(DATA, AUGMENT, 2, 1),
        Views(DATA, HANDWRITING, 2, 0),
        Views(replace(DATA, hash="other"), AUGMENT, 2, 0),
        Views(DATA, AUGMENT, 2, 0, TEACHERS[0]),
        Views(DATA, AUGMENT, 2, 0, TEACHERS[1]),
        Views(DATA, AUGMENT, 2, 0, TEACHERS),
        Views(DATA, AUGMENT, 2, 0, TEACHERS[0], folder=tmp_path),  # answers of half the digits
    ]
    assert len({views.key for views in made}) == len(made)
    assert Views(DATA, AUGMENT, 2, 0, [TEACHERS[0]]).key == made[5].key
    assert Views(DATA, AUGMENT, 2, 0, folder=tmp_path).key == made[0].key


def test_folder_gives_the_same_and_is_read_again(tmp_path: Path) -> None:
    fresh = Views(DATA, AUGMENT, 2, 0, TEACHERS)
    first = Views(DATA, AUGMENT, 2, 0, TEACHERS, folder=tmp_path)
    for turn in range(2):
        assert torch.equal(first.get(turn)[0], fresh.get(turn)[0])
        torch.testing.assert_close(first.get(turn)[1].float(), fresh.get(turn)[1], rtol=1e-3, atol=1e-3)  # type: ignore
        assert first.get(turn)[1].dtype == torch.float16  # type: ignore[union-attr]
    written = files(tmp_path)
    assert len(written) == 4
    assert not list(tmp_path.rglob("*.part"))
    wider = Views(DATA, AUGMENT, 3, 0, TEACHERS, folder=tmp_path)  # another count shares what is there
    for turn in range(2):
        assert torch.equal(wider.get(turn)[0], fresh.get(turn)[0])
    assert files(tmp_path) == written
    Views(DATA, AUGMENT, 2, 0, TEACHERS[0], folder=tmp_path).get(0)
    assert len(files(tmp_path)) == 5  # another teacher, the same images


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def pickled(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([{}], object), allow_pickle=True)


def other(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3, np.uint8))


@pytest.mark.parametrize("damage", [cut, flip, empty, pickled, other])
def test_damaged_file_is_made_anew(damage: Callable[[Path], None], tmp_path: Path) -> None:
    want = Views(DATA, AUGMENT, 1, 0, TEACHERS, folder=tmp_path).get(0)
    want = want[0].clone(), want[1].clone()  # type: ignore[union-attr]
    for path in tmp_path.rglob("*.npy"):
        damage(path)
    again = Views(DATA, AUGMENT, 1, 0, TEACHERS, folder=tmp_path).get(0)
    assert torch.equal(again[0], want[0])
    assert torch.equal(again[1], want[1])  # type: ignore[arg-type]
    later = Views(DATA, AUGMENT, 1, 0, TEACHERS, folder=tmp_path)
    before = files(tmp_path)
    later.get(0)
    assert files(tmp_path) == before


def test_writing_to_a_copy_leaves_the_file(tmp_path: Path) -> None:
    first = Views(DATA, AUGMENT, 1, 0, folder=tmp_path).get(0)[0]
    want = first.clone()
    first.zero_()
    assert torch.equal(Views(DATA, AUGMENT, 1, 0, folder=tmp_path).get(0)[0], want)


def test_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
        with pytest.raises(DataError, match=r"64 views need 0\.0 GB more.*take fewer, or another folder"):
            Views(DATA, AUGMENT, 64, 0, folder=tmp_path)

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    views = Views(DATA, AUGMENT, 1, 0, folder=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(keeping.np, "save", full)
        with pytest.raises(DataError, match="cannot keep views there: No space left on device"):
            views.get(0)
    assert not list(tmp_path.rglob("*.part"))
    views.get(0)  # room was made


def test_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot keep 1 views there"):
        Views(DATA, AUGMENT, 1, 0, folder=tmp_path / "file")


def test_teacher_of_other_classes_is_refused(tmp_path: Path) -> None:
    stranger = build("separable", DATA.image_shape, 7, width=6, depth=1)
    with pytest.raises(OptionError, match="gives 7 logits; the data have 4 classes"):
        Views(DATA, AUGMENT, 1, 0, stranger, folder=tmp_path).get(0)


def _note(path: Path, log: Path) -> None:
    def make() -> np.ndarray:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return np.arange(200_000, dtype=np.uint8)

    assert kept(path, np.uint8, (200_000,), make)[5] == 5


def test_of_many_processes_one_makes_the_array(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    jobs = [
        context.Process(target=_note, args=(tmp_path / "a" / "0.npy", tmp_path / "log")) for _ in range(6)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
        assert job.exitcode == 0
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_training_on_kept_views_goes_as_on_those_in_memory(tmp_path: Path) -> None:
    options = Training(epochs=4, batch=16, lr=5e-3)
    runs: list[list[dict[str, float]]] = []
    for folder in (None, tmp_path, tmp_path):
        views = Views(DATA, AUGMENT, 2, 0, TEACHERS, folder=folder)
        assert views.teacher is not None
        runs.append([])
        train(network(2), DATA, options, teacher=Teacher(views.teacher), views=views, history=runs[-1])
    assert [row["loss"] for row in runs[1]] == [row["loss"] for row in runs[2]]
    assert runs[0][-1]["loss"] == pytest.approx(runs[1][-1]["loss"], rel=0.02)


def test_a_training_makes_the_views_that_its_options_name() -> None:
    options = Training(epochs=3, batch=16, lr=5e-3, augment=AUGMENT, seed=4)
    guide = Teacher(TEACHERS[0])
    histories: list[list[dict[str, float]]] = [[], [], []]
    views = Views(DATA, AUGMENT, 2, 4, TEACHERS[0])
    train(network(2), DATA, options, teacher=guide, views=views, history=histories[0])
    train(network(2), DATA, replace(options, views=2), teacher=guide, history=histories[1])
    train(network(2), DATA, options, teacher=guide, history=histories[2])
    given, named, fresh = ([row["loss"] for row in rows] for rows in histories)
    assert given == named != fresh
