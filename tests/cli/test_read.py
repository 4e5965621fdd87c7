"""`netsuke read` on real files by the real command: inputs, order, outputs, errors, processes, Ctrl-C."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from netsuke.cli import answers, inputs, reading, sharing
from netsuke.errors import OptionError
from netsuke.image.masks import expand
from refusal import heeds_ctrl_c


def one(height: int = 120, width: int = 90) -> np.ndarray:
    """A drawn 1."""
    image = np.full((height, width), 235, np.uint8)
    cv2.line(
        image, (width // 2 + 4, height // 6), (width // 2 - 3, height * 5 // 6), 40, max(2, height // 14)
    )
    return image


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten ones in two folders, named so that only the natural order is theirs; a hidden file and a text beside them."""
    for i in range(1, 11):
        save(tmp_path / "scans" / ("deep" if i > 8 else ".") / f"p{i}.png", one(100 + i))
    save(tmp_path / "scans" / ".hidden.png", one())
    (tmp_path / "scans" / "notes.txt").write_text("not an image")
    return tmp_path


def test_folders_and_patterns_in_natural_order(folder: Path, netsuke_cli: Any) -> None:
    done = netsuke_cli("read", "scans", cwd=folder)
    assert done.returncode == 0, done.stderr
    names = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert names == [f"scans/p{i}.png" for i in range(1, 9)] + ["scans/deep/p9.png", "scans/deep/p10.png"]
    assert all(re.search(r": 1  \d+\.\d% sure", line) for line in done.stdout.splitlines())
    done = netsuke_cli("read", "scans/p?.png", "scans/**/p10.png", "--json", cwd=folder)
    files = [entry["file"] for entry in json.loads(done.stdout)]
    assert files == [f"scans/p{i}.png" for i in range(1, 9)] + ["scans/deep/p10.png"]


def test_a_corrupt_file_is_named_and_the_rest_go_on(folder: Path, netsuke_cli: Any) -> None:
    whole = (folder / "scans" / "p2.png").read_bytes()
    (folder / "scans" / "p2.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty").mkdir()
    done = netsuke_cli(
        "read", "scans/p1.png", "scans/p2.png", "gone.png", "empty", "x*.png", "scans/p3.png", cwd=folder
    )
    assert done.returncode == 2
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["scans/p1.png", "scans/p3.png"]
    errors = [line for line in done.stderr.splitlines() if not line.startswith("read: ")]  # progress
    assert len(errors) == 4
    for line, says in zip(
        errors, ("p2.png: truncated or damaged PNG", "gone.png: No such file", "empty: no image", "x*.png: no file"),
        strict=True,
    ):  # fmt: skip
        assert line.startswith("netsuke: ")
        assert says in line
    done = netsuke_cli("read", "scans/p2.png", "scans/p1.png", "--json", "--csv", "t.csv", cwd=folder)
    bad, good = json.loads(done.stdout)
    assert bad["results"] == []
    assert "truncated" in bad["error"]
    assert good["results"][0]["text"] == "1"
    rows = list(csv.DictReader((folder / "t.csv").read_text().splitlines()))
    assert ["truncated" in row["error"] for row in rows] == [True, False]


def test_pages_of_a_tiff_are_entries_of_their_own(tmp_path: Path, netsuke_cli: Any) -> None:
    blank = np.full((90, 60), 240, np.uint8)
    data = cv2.imencodemulti(".tiff", [one(), blank, one(200, 100)])[1].tobytes()
    (tmp_path / "scan.tiff").write_bytes(data)
    done = netsuke_cli("read", "scan.tiff", "--one", cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"scan.tiff, page {i}" for i in (1, 2, 3)]
    assert lines[1].endswith("no number found")
    done = netsuke_cli("read", "scan.tiff", "--json", "--overlay", "drawn", cwd=tmp_path)
    assert [entry["page"] for entry in json.loads(done.stdout)] == [1, 2, 3]
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == [f"scan-{i}.png" for i in (1, 2, 3)]


def test_stdin_of_one_page_and_of_many(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "netsuke", "read", "-", "--one", "--json"]
    png = cv2.imencode(".png", one())[1].tobytes()
    tiff = cv2.imencodemulti(".tiff", [one(), one()])[1].tobytes()
    for data, pages in ((png, [None]), (tiff, [1, 2])):
        done = subprocess.run(command, input=data, capture_output=True, cwd=tmp_path, check=True)
        entries = json.loads(done.stdout)
        assert [entry["file"] for entry in entries] == ["-"] * len(pages)
        assert [entry.get("page") for entry in entries] == pages
        assert all(entry["results"][0]["text"] == "1" for entry in entries)
    done = subprocess.run(
        command, input=b"nonsense", capture_output=True, text=False, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert b"stdin: not an image" in done.stderr


def test_csv_to_a_file_and_to_stdout(folder: Path, netsuke_cli: Any) -> None:
    done = netsuke_cli("read", "scans/p1.png", "--one", "--csv", "-", cwd=folder)
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert (row["file"], row["number"], row["text"], row["error"]) == ("scans/p1.png", "1", "1", "")
    assert 0.5 < float(row["confidence"]) <= 1
    assert int(row["h"]) > int(row["w"]) > 0
    done = netsuke_cli("read", "scans", "--csv", "out/numbers.csv", cwd=folder)
    assert len(done.stdout.splitlines()) == 10
    assert len((folder / "out" / "numbers.csv").read_text().splitlines()) == 11


def test_what_is_written_never_takes_the_place_of_an_image(folder: Path, netsuke_cli: Any) -> None:
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*.png"))}
    for told in (
        ("--overlay", "scans"),
        ("--csv", "scans/p1.png"),
    ):
        done = netsuke_cli("read", "scans", *told, cwd=folder)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert told[1] in done.stderr
    done = netsuke_cli("read", "scans/p1.png", "--overlay", "./scans/../scans/p1.png", cwd=folder)
    assert done.returncode == 2
    assert {path: path.read_bytes() for path in sorted(folder.rglob("*.png"))} == before


def test_a_table_that_cannot_be_written_is_told_before_anything_is_read(
    folder: Path, netsuke_cli: Any
) -> None:
    done = netsuke_cli("read", "scans", "--json", "--csv", "scans", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "scans is a folder" in done.stderr


def test_overlays_keep_the_tree_and_never_overwrite_each_other(folder: Path, netsuke_cli: Any) -> None:
    save(folder / "scans" / "p1.jpg", one())
    done = netsuke_cli("read", "scans", "--overlay", "drawn", cwd=folder)
    assert done.returncode == 0, done.stderr
    drawn = sorted(str(path.relative_to(folder / "drawn")) for path in (folder / "drawn").rglob("*.png"))
    assert drawn == sorted([*(f"p{i}.png" for i in range(1, 9)), "p1-2.png", "deep/p9.png", "deep/p10.png"])
    netsuke_cli("read", "scans/p3.png", "--overlay", "three.png", cwd=folder)
    picture = cv2.imread(str(folder / "three.png"))
    assert picture.ndim == 3
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 2  # more than grey on grey
    done = netsuke_cli("read", "scans", "--overlay", "three.png", cwd=folder)
    assert done.returncode == 2
    assert "name a folder" in done.stderr


USAGE = {
    (): "nothing to read",
    ("a.png", "--threshold", "1.5"): "--threshold is a share, 0 to 1; got 1.5",
    ("a.png", "--threshold", "0.5", "--error-rate", "0.1"): "exclude each other",
    ("a.png", "--masks"): "--masks go into --json or --overlay",
    ("a.png", "--json", "--csv", "-"): "both write to stdout",
    ("a.png", "--one", "--length", "5"): "leave out --one",
    ("a.png", "--jobs", "0"): "--jobs must be at least 1",
    ("-", "-"): "twice",
    ("a.png", "--camera", "0"): "give no files beside it",
    ("a.png", "--one", "--all"): "--one and --all exclude each other",
    ("a.png", "--range", "5"): "range is 0..100 or (0, 100); got '5'",
    ("a.png", "--range", "9..3"): "the smaller first; got '9..3'",
    ("a.png", "--length", "0"): "length is 1 or more digits",
    ("a.png", "--length", "x"): "length is 5, 3..6",
    ("a.png", "--pattern", r"\d{4"): r"pattern '\d{4': at character 3",
    ("a.png", "--overlay", "x.gif"): "--overlay x.gif: netsuke draws .png, .jpg",
    ("",): "an empty name is no file",
    ("a.png", "--csv", "o.png", "--overlay", "o.png"): "--csv and --overlay both name o.png",
    ("a.png", "--overlay", "o.txt"): "--overlay o.txt: netsuke draws .png, .jpg",
    ("a.png", "--overlay", "o.xyz"): "--overlay o.xyz: netsuke draws .png, .jpg",
    (
        "a.png",
        "--pattern",
        "[5-2]",
    ): "pattern '[5-2]': at character 3 netsuke wants the smaller digit first, [2-5]",
    ("a.png", "a.png", "--overlay", "x.jpg"): "x.jpg names one picture and there are 2: name a folder",
    (
        "a.png",
        "--model",
        "digit-huge",
    ): "digit-huge: does not exist, and no shipped model is called so; there is digit-base, ",
    ("a.png", "--model", "digit-small", "--error-rate", "0.01"): "--threshold",
}


@pytest.mark.parametrize("args", USAGE, ids=" ".join)
def test_bad_usage_is_one_line(args: tuple[str, ...], tmp_path: Path, netsuke_cli: Any) -> None:
    save(tmp_path / "a.png", one())
    done = netsuke_cli("read", *args, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert USAGE[args] in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_an_overlay_is_of_the_format_its_name_says(tmp_path: Path, netsuke_cli: Any) -> None:
    save(tmp_path / "a.png", one())
    (tmp_path / "folder.jpg").mkdir()
    for name in ("x.jpg", "X.WEBP", "x.png", "folder.jpg", "v1.2"):
        done = netsuke_cli("read", "a.png", "--one", "--overlay", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    start = {name: (tmp_path / name).read_bytes()[:12] for name in ("x.jpg", "X.WEBP", "x.png")}
    assert start["x.jpg"].startswith(b"\xff\xd8\xff")
    assert start["X.WEBP"].endswith(b"WEBP")
    assert start["x.png"].startswith(b"\x89PNG")
    assert (tmp_path / "folder.jpg" / "a.png").is_file()  # it was a folder before
    assert (tmp_path / "v1.2" / "a.png").is_file()


def test_an_overlay_too_wide_for_its_format_is_an_error(tmp_path: Path, netsuke_cli: Any) -> None:
    save(tmp_path / "wide.png", np.full((40, 17_000), 235, np.uint8))  # a WebP ends at 16,383
    done = netsuke_cli("read", "wide.png", "--one", "--overlay", "x.webp", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "netsuke: wide.png: --overlay x.webp cannot hold 17000 x 40 pixels: name a .png\n"
    assert not (tmp_path / "x.webp").exists()


def test_a_camera_gives_a_picture(tmp_path: Path, netsuke_cli: Any) -> None:
    """A video file is to OpenCV what a camera is."""
    video = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (90, 120))
    for _ in range(20):
        video.write(cv2.cvtColor(one(), cv2.COLOR_GRAY2BGR))
    video.release()
    done = netsuke_cli("read", "--camera", "v.avi", "--one", "--json", cwd=tmp_path)
    (entry,) = json.loads(done.stdout)
    assert entry["file"] == "camera v.avi"
    assert entry["results"][0]["text"] == "1"
    done = netsuke_cli("read", "--camera", "97", cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"netsuke: camera 97: cannot be opened; .+\n", done.stderr)


# --- several processes -------------------------------------------------------------------------------


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are started after the first image, however short the work."""
    monkeypatch.setattr(sharing, "WORTH", 0.0)
    monkeypatch.setattr(sharing, "TRIED", 0.0)


def test_processes_answer_in_order_what_one_would(folder: Path, at_once: None) -> None:
    (folder / "scans" / "p4.png").write_bytes(b"broken")
    save(folder / "scans" / "p5.png", np.full((50, 50), 200, np.uint8))
    settings = reading.Settings(mode="one")

    def read(jobs: int) -> list[reading.Entry]:
        return list(sharing.entries(reading.Plan(inputs.sources([str(folder / "scans")])), settings, jobs))

    alone, shared = read(1), read(2)
    assert shared == alone
    assert len(shared) == 10
    assert [bool(entry["results"]) for entry in shared] == [i not in (3, 4) for i in range(10)]


def test_a_job_that_ends_its_process_costs_only_itself(
    folder: Path, at_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder is made to kill whoever decodes p6."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import netsuke.image.files as f, os\n"
        "load = f.load\n"
        "def deadly(source, name='image'):\n"
        "    if 'p6' in str(source): os.kill(os.getpid(), 9)\n"
        "    return load(source, name)\n"
        "f.load = deadly\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    plan = reading.Plan(inputs.sources([str(folder / "scans")]))
    got = list(sharing.entries(plan, reading.Settings(mode="one"), 2))
    assert [bool(entry["results"]) for entry in got] == [i != 5 for i in range(10)]
    assert "p6.png: reading it ended the process" in got[5]["error"]


def test_jobs_must_be_positive() -> None:
    with pytest.raises(OptionError, match="at least 1"):
        next(sharing.entries(reading.Plan([]), reading.Settings(), 0))


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_keeps_what_was_read(tmp_path: Path) -> None:
    """The document so far is whole JSON, one line says how far it came, and no process is left behind."""
    for i in range(400):
        save(tmp_path / "many" / f"{i}.png", np.kron(one(), np.ones((8, 8), np.uint8)))
    out = tmp_path / "out.json"
    with out.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "netsuke", "read", "many", "--one", "--json", "--jobs", "2"],
            cwd=tmp_path, stdout=file, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=heeds_ctrl_c,
        )  # fmt: skip
        for _ in range(400):
            time.sleep(0.05)
            if out.stat().st_size > 20_000 or process.poll() is not None:
                break
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    entries = json.loads(out.read_text())
    assert 0 < len(entries) < 400
    assert [entry["file"] for entry in entries] == [f"many/{i}.png" for i in range(len(entries))]
    assert re.search(rf"netsuke: stopped after {len(entries)} of 400$", said.strip())
    assert "Traceback" not in said
    for _ in range(100):
        if not alive(process.pid):
            break
        time.sleep(0.05)
    assert not alive(process.pid)


def test_ctrl_c_into_a_slow_pipe_cuts_nothing(tmp_path: Path) -> None:
    for i in range(40):
        save(tmp_path / "many" / f"{i}.png", one())
    with subprocess.Popen(
        [sys.executable, "-m", "netsuke", "read", "many", "--one", "--json", "--masks", "--jobs", "1"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, pipesize=4096, bufsize=0,
        preexec_fn=heeds_ctrl_c,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        begin = process.stdout.read(1)
        time.sleep(1)  # the pipe is full; netsuke waits amid an entry
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.5)
        out, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    entries = json.loads(begin + out)
    assert 0 < len(entries) < 40
    assert f"stopped after {len(entries)} of 40" in said.decode()


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="asks Linux which signals a process blocks"
)
def test_ctrl_c_waits_until_a_process_has_begun(folder: Path) -> None:
    """Else each that is still importing would print where it was."""
    (source,) = inputs.sources([str(folder / "scans" / "p1.png")])
    pool = sharing._pool(reading.Settings(mode="one"), 1)
    try:
        future = sharing._given(pool, reading.Job(next(iter(inputs.tasks(source)))))
        (process,) = pool._processes
        status = Path(f"/proc/{process}/status").read_text()
        assert future.result()["results"]
    finally:
        pool.shutdown()
    blocked = int(re.search(r"^SigBlk:\s*(\w+)$", status, re.M)[1], 16)  # type: ignore[index]
    assert blocked >> (signal.SIGINT - 1) & 1


def test_a_digit_in_a_ring_is_read_as_a_page(tmp_path: Path, netsuke_cli: Any) -> None:
    """It fills the picture only with the ring: as a crop it would be no digit."""
    image = np.full((240, 240), 235, np.uint8)
    cv2.putText(image, "7", (96, 150), cv2.FONT_HERSHEY_SIMPLEX, 3, 40, 7)
    cv2.ellipse(image, (122, 115), (68, 78), 10, 0, 360, 60, 5)
    save(tmp_path / "ring.png", image)
    assert re.match(r"ring\.png: 7  \d+\.\d% sure", netsuke_cli("read", "ring.png", cwd=tmp_path).stdout)


def test_closed_standard_output_is_named(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "netsuke", "read", "scans/p1.png"],
        cwd=folder, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: os.close(1),
    )  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(r"netsuke: standard output is closed.*\n", done.stderr)


def test_a_number_may_be_sure_and_a_digit_of_it_not() -> None:
    digits = [
        {"digit": "9", "state": "digit"},
        {"digit": ".", "state": "digit"},
        {"digit": "0", "state": "unsure"},
    ]
    result = {"text": "9.0", "confidence": 0.95, "state": "unsure", "digits": digits}
    lines = answers.Lines(boxes=False, alternatives=False)
    assert lines._line(result) == "9.0  95.0% sure, unsure of 0"


def test_thresholds_for_a_promised_error() -> None:
    curve = [[0.5, 0.04, 1.0], [0.8, 0.01, 0.95], [0.9, 0.012, 0.9], [0.99, 0.0, 0.5]]
    assert reading.threshold_for(curve, 0.01, "m") == 0.8
    assert reading.threshold_for(curve, 0.0, "m") == 0.99
    with pytest.raises(OptionError, match="carries no curve"):
        reading.threshold_for(None, 0.01, "m")
    with pytest.raises(OptionError, match=r"still errs on 1\.000%"):
        reading.threshold_for(curve[:2], 0.001, "m")


def test_masks_fill_their_boxes(folder: Path, netsuke_cli: Any) -> None:
    done = netsuke_cli(
        "read", "scans/p1.png", "--all", "--masks", "--json", "--overlay", "drawn.png", cwd=folder
    )
    (entry,) = json.loads(done.stdout)
    digits = [digit for result in entry["results"] for digit in result["digits"]]
    assert digits
    for digit in digits:
        mask = expand(digit["mask"])
        assert mask.shape == (digit["box"][3], digit["box"][2])
        assert 0 < mask.sum() < mask.size
    plain = json.loads(netsuke_cli("read", "scans/p1.png", "--all", "--json", cwd=folder).stdout)
    assert "mask" not in plain[0]["results"][0]["digits"][0]
