"""Bad input, in processes of their own: exit code 2, one line that says why, nothing half-written."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphs import small_artifact
from netsuke.artifact import Artifact
from refusal import refused, tree

# --- data -------------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def doctored(root: Path, **change: bytes) -> Path:
    """A NETSUKE_DATA folder with a small mnist, some of its four files changed."""
    rng = np.random.default_rng(0)
    files = {}
    for half, n in (("train", 60), ("t10k", 20)):
        files[f"{half}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (n, 28, 28), np.uint8))
        files[f"{half}-labels-idx1-ubyte"] = idx((np.arange(n) % 10).astype(np.uint8))
    folder = root / "mnist"
    folder.mkdir()
    for name, data in {**files, **{key.replace("_", "-"): data for key, data in change.items()}}.items():
        (folder / f"{name}.gz").write_bytes(data if data[:2] == b"\x1f\x8b" else gzip.compress(data))
    return root


LABELS = (np.arange(60) % 10).astype(np.uint8)
IMAGES = np.zeros((60, 28, 28), np.uint8)
DAMAGE: dict[str, dict[str, bytes]] = {
    "truncated images": {"train_images_idx3_ubyte": idx(IMAGES)[:-100]},
    "truncated header": {"train_images_idx3_ubyte": idx(IMAGES)[:10]},
    "truncated gzip": {"train_images_idx3_ubyte": gzip.compress(idx(IMAGES))[:-12]},
    "bytes too many": {"train_images_idx3_ubyte": idx(IMAGES) + b"tail"},
    "wrong magic": {"train_images_idx3_ubyte": b"\x00\x00\x0d\x03" + idx(IMAGES)[4:]},
    "no idx at all": {"train_images_idx3_ubyte": b"<html>not found</html>"},
    "labels for images": {"train_images_idx3_ubyte": idx(LABELS)},
    "count mismatch": {"train_labels_idx1_ubyte": idx(LABELS[:59])},
    "label out of range": {"train_labels_idx1_ubyte": idx(np.full(60, 10, np.uint8))},
    "huge claim": {"train_images_idx3_ubyte": struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31)},
    "empty file": {"train_labels_idx1_ubyte": b""},
}
ACROSS = ("labels for images", "count mismatch", "label out of range")  # seen once all files are read


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_mnist(damage: str, tmp_path: Path, netsuke_cli: Any) -> None:
    root = doctored(tmp_path, **DAMAGE[damage])
    before = tree(tmp_path)
    done = netsuke_cli(
        "data", "info", "mnist", env={"NETSUKE_DATA": str(root), "http_proxy": "http://127.0.0.1:9"}
    )
    file = next(iter(DAMAGE[damage])).replace("_", "-")
    refused(done, "mnist" if damage in ACROSS else file)
    assert tree(tmp_path) == before


def test_the_undamaged_set_is_read(tmp_path: Path, netsuke_cli: Any) -> None:
    """Else the damaged ones may be refused for another reason."""
    done = netsuke_cli("data", "info", "mnist", "--json", env={"NETSUKE_DATA": str(doctored(tmp_path))})
    assert done.returncode == 0, done.stderr
    assert "digits" in done.stdout


def test_training_on_damaged_data_leaves_nothing(tmp_path: Path, netsuke_cli: Any) -> None:
    root = doctored(tmp_path, **DAMAGE["count mismatch"])
    before = tree(tmp_path)
    for verb in (("train",), ("shrink", "--max-bytes", "2000")):
        done = netsuke_cli(
            *verb, "--data", "mnist", "-o", tmp_path / "a.netsuke", env={"NETSUKE_DATA": str(root)}
        )
        refused(done, "60", "59")
    assert tree(tmp_path) == before


def test_validation_sets_are_not_trained_on(netsuke_cli: Any, tmp_path: Path) -> None:
    from netsuke import data

    if not data.on_disk("exam-digits"):
        pytest.skip("needs exam-digits: set NETSUKE_DATA to a folder that holds exam-digits/")
    done = netsuke_cli("train", "--data", "exam-digits", "-o", tmp_path / "a.netsuke")
    refused(done, "exam-digits", "validation only", "mnist")
    assert not any(tmp_path.iterdir())


# --- folders of images ------------------------------------------------------------------------------


def picture() -> bytes:
    import cv2

    return cv2.imencode(".png", np.full((8, 8), 200, np.uint8))[1].tobytes()


def folder_of(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir()
    for name, data in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)
    return root


def folders() -> dict[str, tuple[dict[str, bytes], str]]:
    png = picture()
    good = {f"{name}/{i}.png": png for name in "ab" for i in range(5)}
    return {
        "empty": ({}, "one folder of images for each class"),
        "loose images": ({"1.png": png}, "one folder of images for each class"),
        "a single class": ({f"a/{i}.png": png for i in range(5)}, "at least 2"),
        "an empty class": ({**good, "c/readme.txt": b"x"}, "c: no image"),
        "a text among good ones": ({**good, "b/9.png": b"not a picture"}, "9.png"),
        "a truncated one among good ones": ({**good, "b/9.png": png[:-20]}, "9.png"),
        "an empty file among good ones": ({**good, "b/9.jpg": b""}, "9.jpg"),
    }


@pytest.mark.parametrize("what", folders())
def test_bad_folders(what: str, tmp_path: Path, netsuke_cli: Any) -> None:
    files, word = folders()[what]
    folder = folder_of(tmp_path / "pictures", files)
    before = tree(tmp_path)
    refused(netsuke_cli("data", "info", folder), word)
    assert tree(tmp_path) == before


def test_training_on_a_bad_folder(tmp_path: Path, netsuke_cli: Any) -> None:
    folder = folder_of(tmp_path / "pictures", {f"a/{i}.png": picture() for i in range(5)})
    before = tree(tmp_path)
    refused(netsuke_cli("train", "--data", folder, "-o", tmp_path / "a.netsuke"), "at least 2")
    assert tree(tmp_path) == before


# --- artifacts --------------------------------------------------------------------------------------


def parts(path: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Header, manifest and tensor bytes of a saved artifact."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["netsuke"]), data[8 + length :]


def joined(header: dict[str, Any], manifest: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps({**header, "__metadata__": {"netsuke": json.dumps(manifest)}}).encode()
    return len(text).to_bytes(8, "little") + text + body


def hostile(path: Path) -> dict[str, tuple[bytes, str]]:
    """What may come in the place of a good file, and a word of the answer."""
    data = path.read_bytes()
    header, manifest, body = parts(path)
    name = next(key for key in header if key != "__metadata__")
    huge = {**header, name: {**header[name], "shape": [1 << 40, 1 << 20]}}
    graph = json.loads(json.dumps(manifest["graph"]))
    graph["input_shape"] = [60000, 60000, 60000]
    nan = bytearray(body)
    floats = next(k for k, row in header.items() if k != "__metadata__" and row["dtype"] == "F32")
    start = header[floats]["data_offsets"][0]
    nan[start : start + 4] = struct.pack("<f", float("nan"))
    return {
        "truncated": (data[:-50], ""),
        "cut in the header": (data[:40], "cut short"),
        "empty": (b"", "cut short"),
        "a picture": (picture(), ""),
        "a pickle": (b"\x80\x04cos\nsystem\n(S'touch ran'\ntR.", ""),
        "a huge header": ((1 << 62).to_bytes(8, "little") + data[8:], ""),
        "a huge shape": (joined(huge, manifest, body), name),
        "a huge input": (joined(header, {**manifest, "graph": graph}, body), ""),
        "an unknown schema": (joined(header, {**manifest, "schema": 99}, body), "schema 99"),
        "no manifest": (joined(header, {}, body), "schema"),
        "NaN weights": (joined(header, manifest, bytes(nan)), "NaN"),
        "another weight": (joined(header, manifest, body[:-1] + bytes([body[-1] ^ 1])), "weight_hash"),
    }


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.netsuke"
    small_artifact(integer=False).save(path)
    return path


HOSTILE = (
    "truncated", "cut in the header", "empty", "a picture", "a pickle", "a huge header", "a huge shape",
    "a huge input", "an unknown schema", "no manifest", "NaN weights", "another weight",
)  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_artifacts(what: str, good: Path, tmp_path: Path, netsuke_cli: Any) -> None:
    data, word = hostile(good)[what]
    (tmp_path / "bad.netsuke").write_bytes(data)
    done = netsuke_cli("export", "bad.netsuke", "--to", "onnx", "-o", "out", cwd=tmp_path)
    refused(done, "bad.netsuke", word)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.netsuke"]


def test_the_good_artifact_is_taken(good: Path, netsuke_cli: Any, tmp_path: Path) -> None:
    header, manifest, body = parts(good)
    (tmp_path / "same.netsuke").write_bytes(joined(header, manifest, body))
    done = netsuke_cli("export", "same.netsuke", "--to", "onnx", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", ["evaluate", "bench", "compress", "read", "train"])
def test_every_verb_refuses_a_hostile_artifact(
    verb: str, good: Path, tmp_path: Path, netsuke_cli: Any
) -> None:
    (tmp_path / "bad.netsuke").write_bytes(hostile(good)["an unknown schema"][0])
    (tmp_path / "a.png").write_bytes(picture())
    out = ("--data", "digits", "-o", "out.netsuke")
    args = {
        "evaluate": ("bad.netsuke", "--data", "digits"),
        "bench": ("bad.netsuke",),
        "compress": ("bad.netsuke", *out),
        "read": ("a.png", "--model", "bad.netsuke"),
        "train": ("--teacher", "bad.netsuke", *out),
    }[verb]
    refused(netsuke_cli(verb, *args, cwd=tmp_path), "bad.netsuke", "schema 99")
    assert {path.name for path in tmp_path.iterdir()} == {"bad.netsuke", "a.png"}


# --- places to write --------------------------------------------------------------------------------

VERBS = {
    "train": ("train", "--data", "digits", "--epochs", "0"),
    "shrink": ("shrink", "--data", "digits", "--max-bytes", "2000"),
    "compress": ("compress", "GOOD", "--data", "digits"),
    "export": ("export", "GOOD", "--to", "onnx"),
}


def call(netsuke_cli: Any, verb: str, good: Path, out: Path) -> subprocess.CompletedProcess[str]:
    words = [good if word == "GOOD" else word for word in VERBS[verb]]
    return netsuke_cli(*words, "-o", out)  # type: ignore[no-any-return]


@pytest.mark.parametrize("verb", VERBS)
def test_a_place_below_a_file(verb: str, good: Path, tmp_path: Path, netsuke_cli: Any) -> None:
    """What a read-only folder is to a user, a file in the way is to everyone, root included."""
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    done = call(netsuke_cli, verb, good, tmp_path / "file" / "a.netsuke")
    refused(done, str(tmp_path / "file"))
    assert tree(tmp_path) == {"file": b"in the way"}


@pytest.mark.parametrize("verb", ["train", "shrink", "compress"])
def test_out_is_a_folder(verb: str, good: Path, tmp_path: Path, netsuke_cli: Any) -> None:
    refused(call(netsuke_cli, verb, good, tmp_path), "is a folder")
    assert not any(tmp_path.iterdir())


BAD_RECIPES: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "no toml": (b"[[step]\n", ("mine.toml", "cannot be read as a recipe")),
    "nested": (b"a = " + b"[" * 100_000, ("mine.toml", "nested too deeply")),
    "misspelt": (b'[[step]]\nstep = "prune"\n[[step]]\nstep = "quantize"\nbit = 4\n', ("step 2", "'bits'")),
    "a layer that is not there": (
        b'[[step]]\nstep = "train"\nepochs = 500\n[[step]]\nstep = "quantize"\nlayers = { c = 4 }\n',
        ("step 2 (quantize)", "'c'"),
    ),
}


@pytest.mark.parametrize("case", BAD_RECIPES)
def test_a_bad_recipe(case: str, tmp_path: Path, netsuke_cli: Any) -> None:
    """Even what only the network tells comes before the 500 epochs of the first step."""
    content, words = BAD_RECIPES[case]
    (tmp_path / "mine.toml").write_bytes(content)
    before = tree(tmp_path)
    where = ("--data", "digits", "--recipe", "mine.toml", "-o", "a.netsuke")
    refused(netsuke_cli("compress", "mlp", *where, cwd=tmp_path), *words)
    assert tree(tmp_path) == before


def test_a_read_only_file_system(netsuke_cli: Any) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs /proc, which takes no files from anybody")
    refused(netsuke_cli("train", "--data", "digits", "-o", "/proc/a.netsuke"), "/proc")


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, netsuke_cli: Any) -> None:
    """Bad options over a good file leave the good file."""
    small_artifact().save(tmp_path / "a.netsuke")
    before = tree(tmp_path)
    done = netsuke_cli("train", "--data", "digits", "--model", "resnet", "-o", tmp_path / "a.netsuke")
    refused(done, "resnet", "convnet")
    assert tree(tmp_path) == before
    Artifact.load(tmp_path / "a.netsuke")


def test_a_finished_run_removes_its_checkpoints_and_nothing_else(tmp_path):
    from netsuke.cli import options

    work = tmp_path / "a.netsuke.work"
    (work / "teacher").mkdir(parents=True)
    for file in (work / "checkpoint.pt", work / "teacher" / "checkpoint.pt", work / "mine.txt"):
        file.write_text("x")
    options.clear_work(work)
    assert sorted(p.name for p in work.rglob("*")) == ["mine.txt"]


def test_data_without_test_images_is_refused_before_training(tmp_path, netsuke_cli):
    import cv2
    import numpy as np

    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "pets" / name / "0.png"), np.full((12, 12), 90, np.uint8))
    done = netsuke_cli("shrink", "--data", "./pets", "--max-bytes", "1000", "-o", "x.netsuke", cwd=tmp_path)
    assert done.returncode == 2
    assert "no test images" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["pets"]
