"""Contenders timed in turns: the rounds, the ratios, an interrupt, and every contender's logits."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graphs import random_images, small_artifact
from netsuke.bench import figures, interleaved, ratios
from netsuke.bench.contenders import NAMES, Contender, contender
from netsuke.bench.fresh import fresh
from netsuke.cli.bench import chosen_baseline, names_of
from netsuke.errors import MissingExtra, OptionError, UnsupportedOp
from refusal import heeds_ctrl_c

NODE = [tool for tool in ("clang", "wasm-ld", "node") if not shutil.which(tool)]


def paced(name: str, us: list[float], log: list[str]) -> Contender:
    """A contender whose clock says what the test says."""
    times = iter(us)

    def take(images: np.ndarray, batch: int, seconds: float) -> np.ndarray:
        log.append(name)
        return np.array([next(times)])

    return Contender(name, take, lambda images: images, 0)


def test_rounds_turn_and_ratios_stay_within_a_round() -> None:
    log: list[str] = []
    # The machine is twice as slow in every second round; the ratio of the two is 4 in each.
    slow = paced("slow", [0, 0, 8, 8, 16, 16, 8, 8, 16, 16], log)
    fast = paced("fast", [0, 0, 2, 2, 4, 4, 2, 2, 4, 4], log)
    jobs = {(c.name, what): (c, 1) for c in (slow, fast) for what in ("latency", "throughput")}
    images = dict.fromkeys(("slow", "fast"), np.zeros((1, 1, 2, 2), np.uint8))
    heard: list[float] = []
    found = interleaved(jobs, images, 0.4, lambda spent, name: heard.append(spent), rounds=4)
    assert log[:4] == ["slow", "slow", "fast", "fast"]  # the warm-up
    assert log[4:8] == log[8:12][::-1] == log[12:16]
    assert sum(heard) == pytest.approx(4 * 0.4)
    got = ratios(found, "fast", "slow")
    assert got["latency"] == {"median": 4, "p5": 4, "p95": 4, "n": 4}
    row = figures(found, "slow")
    assert (row["latency_us"], row["min_us"], row["n"]) == (12, 8, 4)
    assert row["images_per_s"] == pytest.approx(1e6 / 12)
    assert row["images_per_s_all_cores"] is None


def test_an_interrupt_keeps_whole_rounds() -> None:
    calls = 0

    def take(images: np.ndarray, batch: int, seconds: float) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 8:  # the second contender of the third round, after two of warm-up
            raise KeyboardInterrupt
        return np.array([1.0])

    one, two = (Contender(name, take, lambda images: images, 0) for name in "ab")
    jobs = {("a", "latency"): (one, 1), ("b", "latency"): (two, 1)}
    found = interleaved(jobs, dict.fromkeys("ab", np.zeros((1, 1, 1, 1), np.uint8)), 1)
    assert [len(series.rounds) for series in found.values()] == [2, 2]


@pytest.mark.parametrize("name", NAMES)
def test_every_contender_gives_the_reference_logits(name: str, tmp_path: Path) -> None:
    artifact = small_artifact()
    images = random_images(artifact.graph, 5)
    try:
        made = contender(name, artifact, tmp_path)
    except (MissingExtra, UnsupportedOp) as error:
        pytest.skip(str(error))
    try:
        np.testing.assert_array_equal(made.run(images), artifact.logits(images))
        times = made.times(images, 2, 0.01)
        assert times.size >= 1
        assert (times > 0).all()
        assert made.file_bytes > 0
    finally:
        made.close()


@pytest.mark.skipif(bool(NODE), reason=f"install {' and '.join(NODE)}")
@pytest.mark.parametrize("name", ["numpy", "wasm-simd"])
def test_fresh_process(name: str, tmp_path: Path) -> None:
    small_artifact().save(tmp_path / "a.netsuke")
    got = fresh(tmp_path / "a.netsuke", name)
    assert got["load_ms"] > 0
    assert got["rss_bytes"] > 10 << 20
    assert got["added_bytes"] < got["rss_bytes"]
    assert fresh(tmp_path / "none.netsuke", name) == {}


def test_names() -> None:
    assert names_of("numpy, c") == ("numpy", "c")
    assert names_of(None) == NAMES
    with pytest.raises(OptionError, match=r"unknown contender 'tvm'; choose from .*wasm-simd"):
        names_of("tvm")
    assert chosen_baseline(None, ["c", "numpy"]) == "numpy"
    with pytest.raises(OptionError, match="'c' is not among those that ran: numpy"):
        chosen_baseline("c", ["numpy"])


@pytest.mark.slow
def test_verb(netsuke_cli, tmp_path: Path) -> None:
    small_artifact().save(tmp_path / "a.netsuke")
    small_artifact(integer=False).save(tmp_path / "float.netsuke")
    args = (
        "bench",
        "a.netsuke",
        "--only",
        "numpy,onnxruntime,c",
        "--beside",
        "float.netsuke",
        "--seconds",
        "0.02",
    )
    done = netsuke_cli(*args, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    names = {row["backend"] for row in got["results"]} | {row["backend"] for row in got["absent"]}
    assert names == {f"{name}{model}" for name in ("numpy", "onnxruntime", "c") for model in ("", " (float)")}
    assert {"backend": "c (float)"}.items() <= got["absent"][-1].items()
    for row in got["results"]:
        assert row["p5_us"] <= row["latency_us"] <= row["p95_us"]
        assert row["images_per_s"] > 0
        assert row["file_bytes"] > 0
        assert {"load_ms", "rss_bytes", "hardware"} <= {*row, *got}
        assert row["times_faster"]["latency"]["median"] > 0
    own = next(row for row in got["results"] if row["backend"] == row["baseline"])
    assert own["times_faster"]["latency"]["median"] == 1
    shown = netsuke_cli("bench", "a.netsuke", "--only", "numpy", "--seconds", "0.02", cwd=tmp_path)
    assert "images/s" in shown.stdout


@pytest.mark.slow
def test_ctrl_c_prints_what_was_measured(tmp_path: Path) -> None:
    small_artifact().save(tmp_path / "a.netsuke")
    command = [
        sys.executable,
        "-m",
        "netsuke",
        "bench",
        "a.netsuke",
        "--only",
        "numpy",
        "--seconds",
        "60",
        "--json",
    ]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeds_ctrl_c,
    ) as process:
        assert process.stderr
        process.stderr.readline()  # it says how far it is once it measures
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=200)
    assert process.returncode == 1, err
    if out:  # on a busy machine no round may be over yet
        assert json.loads(out)["interrupted"] is True
