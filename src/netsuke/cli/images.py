"""`netsuke evaluate --images`: how well a model reads a folder of the user's own."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from netsuke.cli.inputs import Task
from netsuke.cli.reading import Job, Settings, decoded
from netsuke.cli.sharing import entries

if TYPE_CHECKING:
    import numpy as np

    from netsuke.data.labelled import Labelled

SHOWN = 300  # errors in the gallery, at most
THUMB = 320  # pixels of a picture's longer side there


class _Listed:
    """The labelled images as a plan: one job an image."""

    def __init__(self, truths: list[Labelled]):
        self.truths, self.total = truths, len(truths)

    def __iter__(self) -> Any:
        return (Job(Task(str(truth.file), truth.name)) for truth in self.truths)


def evaluate_images(
    truths: list[Labelled], settings: Settings, *, jobs: int, folder: str, gallery: bool
) -> dict[str, Any]:
    """The document of `measure.judged.judge`, with reasons for every error and, for a gallery, its picture."""
    from netsuke.cli.read import watched
    from netsuke.measure.judged import judge
    from netsuke.measure.reasons import reasons

    plan = _Listed(truths)
    found = list(watched(entries(plan, settings, jobs), plan))
    document = judge(truths, found, _mask)
    shown = 0
    for truth, entry, row in zip(truths, found, document["images"], strict=True):
        if row["exact"]:
            continue
        pixels = None if "error" in entry else decoded(Task(str(truth.file), truth.name))
        row["reasons"] = reasons(pixels, truth, entry, row)
        if gallery and pixels is not None and shown < SHOWN:
            shown += 1
            row["image"] = _thumb(pixels, entry["results"])
    return {"folder": folder, "model": settings.model or _default(), **document}


def single(truths: list[Labelled]) -> bool:
    """Whether each image is a crop of one digit: no label has more than one character."""
    return all(len(truth.text) <= 1 for truth in truths)


def show(document: dict[str, Any]) -> None:
    """The figures, and the reasons of the errors, as tables."""
    from collections import Counter

    from netsuke.cli import console
    from netsuke.measure.page import gallery

    d = document
    title = f"{d['model']} on {d['folder']}: {d['n']:,} images"
    console.table(title, ("figure", "value", "95 % interval", "of"), gallery.lines(d))
    counts = Counter(reason for row in d["images"] for reason in row.get("reasons", ()))
    wrong = [row for row in d["images"] if not row["exact"]]
    if wrong:
        rows = [(name, n) for name, n in counts.most_common()]
        rows.append(("no plain reason", sum(not row["reasons"] for row in wrong)))
        console.table(f"Errors: {len(wrong)} images", ("what speaks for it", "images"), rows)
        said = [(row["file"], row["text"], row["said"], f"{row['confidence']:.1%}") for row in wrong]
        said.sort(key=lambda row: -float(row[3].rstrip("%")))
        console.table("The surest errors", ("file", "label", "read", "sure"), said[:10], left=3)


def _mask(truth: Labelled) -> np.ndarray:
    """A mask's numbers, integers [H, W]. Raises DataError where the PNG is no picture of whole numbers."""
    from netsuke.errors import DataError
    from netsuke.image.files import load, upright

    name, data = load(truth.mask or "")
    sheet = upright(data)
    if sheet is None or sheet.ndim != 2 or sheet.dtype.kind != "u":
        raise DataError(f"{name}: a mask is a grey PNG of 8 or 16 bits: 0 for paper, i on the i-th digit")
    return sheet


def _thumb(pixels: np.ndarray, results: list[dict[str, Any]]) -> str:
    """The overlay as the base64 text of a JPEG."""
    import cv2

    from netsuke.image.overlay import overlay

    picture = overlay(pixels, results)
    scale = THUMB / max(picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return base64.b64encode(cv2.imencode(".jpg", picture[..., ::-1])[1].tobytes()).decode()


def _default() -> str:
    from netsuke.reader import DEFAULT

    return DEFAULT
