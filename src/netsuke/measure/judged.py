"""A reader's answers against the labels of a folder: one document with every figure, and a row an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from netsuke.data.labelled import Labelled
from netsuke.measure import reading

SEPARATORS = ".,- /"

Entry = Mapping[str, Any]  # what `netsuke read --json` says of an image
Row = dict[str, Any]
MaskOf = Callable[[Labelled], np.ndarray]  # integers [H, W], 0 for paper, i for the i-th digit


def judge(
    truths: Sequence[Labelled], entries: Sequence[Entry], mask_of: MaskOf | None = None
) -> dict[str, Any]:
    """Every figure of `entries`, one an image in the order of `truths`; see docs/evaluate-images.md for each.

    Separators count where some label holds one. An image that could not be read counts as read wrong. Images whose
    text is "" tell how often a digit is invented, and enter nothing else. Masks need `mask_of`, and to be in `entries`.
    """
    plain = not any(set(truth.text) & set(SEPARATORS.strip()) for truth in truths)
    rows = [row(truth, entry, plain) for truth, entry in zip(truths, entries, strict=True)]
    written = [r for r in rows if r["text"]]
    empty = [r for r in rows if not r["text"]]
    right = [r["exact"] for r in written]
    accepted = [r["exact"] for r in written if r["accepted"]]
    document: dict[str, Any] = {
        "n": len(rows),
        "failed": sum("error" in entry for entry in entries),
        "exact": reading.share(sum(right), len(right)),
        "digits_right": reading.ratio([(r["right"], r["digits"]) for r in written])
        | {"digits": sum(r["digits"] for r in written)},
        "character_error_rate": reading.ratio([(r["edits"], len(r["text"])) for r in written]),
        "coverage": reading.share(len(accepted), len(written)),
        "accuracy_accepted": reading.share(sum(accepted), len(accepted)),
        "calibration_error": reading.calibration_error([r["confidence"] for r in written], right),
        "curve": reading.curve([r["confidence"] for r in written], right),
    }
    if empty:
        document["invented"] = reading.share(sum(r["accepted"] for r in empty), len(empty))
    if any(truth.boxes is not None for truth in truths):
        document["detection"] = _detection(truths, entries)
    if mask_of is not None and any(truth.mask is not None for truth in truths):
        document["segmentation"] = _segmentation(truths, entries, mask_of)
    return document | {"images": rows}


def row(truth: Labelled, entry: Entry, plain: bool) -> Row:
    """One image: what it says, what was read, how far apart they are. `plain` leaves separators out of both."""
    results, text = entry["results"], truth.text
    apart = any(c.isspace() for c in text)  # numbers that the label keeps apart
    said = (" " if apart else "").join(result["text"] for result in results)
    if plain:
        said = "".join(c for c in said if c not in SEPARATORS or (apart and c == " "))
    bare = _bare(text)
    right = reading.align(bare, _bare(said))[1]
    if len(text) == len(results) == 1:  # a crop: its digit, whether the model would stand by it or not
        right = int(results[0]["digits"][0]["digit"] == text)
    return {
        "file": truth.name,
        "text": text,
        "said": said,
        "confidence": float(prod(result["confidence"] for result in results)) if results else 0.0,
        "accepted": bool(results) and all(result.get("state", "digit") == "digit" for result in results),
        "exact": said == text,
        "edits": reading.distance(text, said),
        "digits": len(bare),
        "right": right,
        **({"error": entry["error"]} if "error" in entry else {}),
    }


def _bare(text: str) -> str:
    return "".join(c for c in text if c not in SEPARATORS)


def digits(entry: Entry) -> list[Mapping[str, Any]]:
    """Every digit of an entry, in reading order; separators are left out, and what the model calls no digit."""
    every = (d for result in entry["results"] for d in result["digits"])
    return [d for d in every if not d.get("separator") and d.get("state") != "not a digit"]


def _pairs(truth: Labelled, entry: Entry) -> list[tuple[int, int]]:
    found = digits(entry)
    boxes = [box for _, box in truth.boxes or ()]
    return reading.match(boxes, [d["box"] for d in found], [d["confidence"] for d in found])


def _detection(truths: Sequence[Labelled], entries: Sequence[Entry]) -> dict[str, Any]:
    """Precision, recall and F1 of boxes whatever their class, and the share that is found with the right class."""
    counts = []  # matched, found, true, matched with its class
    for truth, entry in zip(truths, entries, strict=True):
        if truth.boxes is None:
            continue
        found, pairs = digits(entry), _pairs(truth, entry)
        named = sum(truth.boxes[i][0] == found[j]["digit"] for i, j in pairs)
        counts.append((len(pairs), len(found), len(truth.boxes), named))
    table = np.array(counts)
    return {
        "iou": reading.MATCH,
        "precision": reading.ratio(table[:, [0, 1]]),
        "recall": reading.ratio(table[:, [0, 2]]),
        "f1": reading.ratio(table[:, :3], reading.f1),
        "found_and_right": reading.ratio(table[:, [3, 2]]),
        "digits": int(table[:, 2].sum()),
    }


def _segmentation(truths: Sequence[Labelled], entries: Sequence[Entry], mask_of: MaskOf) -> dict[str, Any]:
    """Mean IoU of each true mask with that of the digit found there; one that is not found counts 0."""
    sums = []
    for truth, entry in zip(truths, entries, strict=True):
        if truth.mask is None:
            continue
        sheet = mask_of(truth)
        true = [sheet == i for i in range(1, int(sheet.max(initial=0)) + 1)]
        found = digits(entry)
        boxes = [_extent(mask) for mask in true]
        pairs = reading.match(boxes, [d["box"] for d in found], [d["confidence"] for d in found])
        reached = [reading.mask_iou(true[i], _placed(found[j], sheet.shape)) for i, j in pairs]
        sums.append((sum(reached), len(true)))
    return {"iou": reading.ratio(sums), "digits": int(sum(n for _, n in sums))}


def _extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def _placed(digit: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """The digit's mask on a sheet of `shape`; its box where it has none."""
    from netsuke.image.masks import expand

    sheet = np.zeros(shape, bool)
    x, y, w, h = digit["box"]
    mask = expand(digit["mask"]) if digit.get("mask") else np.ones((h, w), bool)
    part = sheet[y : y + h, x : x + w]
    part[:] = mask[: part.shape[0], : part.shape[1]]
    return sheet
