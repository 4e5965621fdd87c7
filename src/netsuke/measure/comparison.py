"""Many models side by side: the figures of each, a row a model with its spread over seeds, one document."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

import netsuke
from netsuke.artifact import Artifact
from netsuke.data import Dataset, Split
from netsuke.engine import Engine
from netsuke.files import write_whole
from netsuke.measure import energy
from netsuke.measure.accuracy import evaluate, log_softmax, scaled
from netsuke.measure.cost import cost
from netsuke.measure.latency import hardware
from netsuke.measure.runs import Run

CONFUSED = 12  # of the surest mistakes, how many are shown
COSTS = ("parameters", "macs", "size_bytes", "encoded_bytes", "ram_bytes", "energy_uj")
SHARES = ("precision", "recall", "f1")
SPREAD = ("accuracy", "f1", "precision", "recall", "loss", "train_s")  # mean, stdev, n; the rest are single


# --- one model ----------------------------------------------------------------------------------------


def judged(scores: np.ndarray, split: Split, classes: Sequence[str]) -> dict[str, Any]:
    """`accuracy.evaluate` of logits [n, classes] in nats, and the surest mistakes with their pictures."""
    document = evaluate(scores, split.labels, classes)
    if split.outliers(len(classes)):
        scores, split = scores[split.labels < len(classes)], split.known(len(classes))
    said = scores.argmax(1)
    confidence = np.exp(log_softmax(scores).max(1))
    wrong = np.flatnonzero(said != split.labels)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:CONFUSED]
    document["confused"] = [
        {
            "index": int(i),
            "label": classes[split.labels[i]],
            "said": classes[said[i]],
            "confidence": round(float(confidence[i]), 4),
            "image": png(split.images[i]),
        }
        for i in surest
    ]
    return document


def png(image: np.ndarray) -> str:
    """A uint8 image [C, H, W] of one or three channels as the base64 text of a PNG file."""
    import cv2

    pixels = image[0] if len(image) == 1 else image[2::-1].transpose(1, 2, 0)  # OpenCV writes blue first
    return base64.b64encode(cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes()).decode()


def figures(artifact: Artifact, split: Split, classes: Sequence[str]) -> dict[str, Any]:
    """Everything about an artifact that needs no clock, as plain JSON."""
    logits = Engine(artifact, backend="packaged").run(split.images)
    found = cost(artifact) | energy.energy(artifact)
    return judged(scaled(artifact, logits), split, classes) | {key: found[key] for key in COSTS}


def bits(artifact: Artifact) -> int | None:
    """The width of an integer model's weights, of the widest where layers differ; None for a float model."""
    widths = [op.attrs["bits"] for op in artifact.graph.ops if "bits" in op.attrs]
    return max(widths, default=8) if artifact.graph.integer else None


# --- several runs of one model ------------------------------------------------------------------------


def summary(values: Iterable[float | None]) -> dict[str, float] | None:
    """Mean, standard deviation (0 for a single value) and number; None where no value is known."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"mean": mean(known), "stdev": stdev(known) if len(known) > 1 else 0.0, "n": len(known)}


def row(name: str, kind: str, measured: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """A model's row from the figures of each of its runs; what has no spread is that of the first."""
    first = measured[0]
    accuracy = summary(m["accuracy"] for m in measured)
    assert accuracy is not None
    share = accuracy["mean"]
    return {
        "name": name,
        "kind": kind,
        "model": None,
        "options": {},
        "bits": None,
        "accuracy": accuracy,
        "accuracy_se": sqrt(share * (1 - share) / first["n"]),  # binomial, of the finite test set
        **{key: summary(m["macro"][key] for m in measured) for key in ("f1", "precision", "recall")},
        "loss": summary(m["loss"] for m in measured) if kind == "network" else None,
        **{key: first.get(key) for key in (*COSTS, "file_bytes")},
        "per_class": first["per_class"],
        "confusion": first["confusion"],
        "history": [],
        "confused": first["confused"],
        **more,
    }


def network_row(name: str, runs: Sequence[Run], measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The row of artifacts that differ by seed, with the `figures` of each."""
    recipe, first = runs[0].recipe, runs[0]
    model, options = recipe.get("model"), recipe.get("options")
    return row(
        name,
        "network",
        measured,
        model=model if isinstance(model, str) else None,
        options=options if isinstance(options, dict) else {},
        bits=bits(first.artifact),
        file_bytes=first.path.stat().st_size,
        train_s=summary(run.train_s for run in runs),
        history=first.history,
        runs=[
            {"seed": run.seed, "accuracy": m["accuracy"], "file": run.path.name}
            for run, m in zip(runs, measured, strict=True)
        ],
    )


# --- the document -------------------------------------------------------------------------------------


def document(dataset: Dataset, rows: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """All of a comparison as plain JSON, the most accurate model first: what --json, --html and --csv show.

    `rows` come from `network_row` and `row`, with the times of `clock` merged in; `more` replaces or adds keys.
    """
    return {
        "schema": 1,
        "title": f"{len(rows)} model{'' if len(rows) == 1 else 's'} on {dataset.name}",
        "data": dataset.name,
        "data_hash": dataset.hash,
        "split": "test",
        "n": len(dataset.test),
        "classes": list(dataset.classes),
        "recipe": None,
        "seeds": sorted({run["seed"] for r in rows for run in r["runs"] if run["seed"] is not None}),
        "hardware": hardware(),
        "threads": 1,
        "versions": versions(),
        "energy": {"source": energy.SOURCE, "formula": energy.FORMULA},
        "models": sorted(rows, key=lambda r: -r["accuracy"]["mean"]),
        "notes": [],
        **more,
    }


def versions() -> dict[str, str]:
    """Of netsuke, Python and every installed package that has a part in the figures."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"netsuke": netsuke.__version__, "python": platform.python_version()}
    for package in ("numpy", "onnx", "onnxruntime", "openvino", "ai-edge-litert", "torch", "scikit-learn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_csv(document: Mapping[str, Any], path: Path) -> None:
    """A line a model, in one step: means and deviations over seeds, costs, and the times of every backend."""
    import csv
    import io

    single = ("name", "kind", "model", "bits")
    costs = (*COSTS, "file_bytes", "load_ms", "backend", "latency_us", "p99_us", "images_per_s")
    names = list(dict.fromkeys(name for r in document["models"] for name in r["backends"]))
    times = ("latency_us", "p99_us", "images_per_s")
    columns = [
        *single,
        "runs",
        "accuracy_se",
        *(f"{key}_{part}" for key in SPREAD for part in ("mean", "stdev")),
    ]
    columns += [*costs, *(f"{name}_{key}" for name in names for key in times)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for r in document["models"]:
        spread = {f"{key}_{part}": v for key in SPREAD for part, v in (r[key] or {}).items()}
        clocks = {f"{name}_{key}": v for name, times in r["backends"].items() for key, v in times.items()}
        writer.writerow({**r, **spread, **clocks, "runs": r["accuracy"]["n"]})
    write_whole(path, text.getvalue().encode())
