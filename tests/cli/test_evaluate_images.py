"""`netsuke evaluate --images`: the figures against ones worked out by hand, reasons, the page, and the real sets."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from netsuke.data.labelled import Labelled
from netsuke.image.masks import compress
from netsuke.measure.judged import judge
from netsuke.measure.page import gallery
from netsuke.measure.reasons import REASONS, reasons


def result(text: str, sure: float, *, x: int = 0, state: str = "digit", mask: Any = None) -> dict[str, Any]:
    """A number of digits 10 wide and 20 high, side by side from x."""
    digits = [
        {
            "digit": c,
            "confidence": sure,
            "box": [x + 10 * i, 0, 10, 20],
            "runner_up": "0",
            "state": state,
            "mask": mask,
        }
        for i, c in enumerate(text)
        if c.isdigit()
    ]
    return {
        "text": text,
        "confidence": sure,
        "box": [x, 0, 10 * len(text), 20],
        "state": state,
        "digits": digits,
    }


def entry(*results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"file": "x", "results": list(results), **more}


def truth(text: str, boxes: Any = None, mask: Path | None = None) -> Labelled:
    return Labelled(Path("x.png"), "x.png", text, boxes, mask)


def test_the_figures_of_four_images() -> None:
    got = judge(
        [truth("12"), truth("34"), truth("56"), truth("7")],
        [entry(result("12", 0.9)), entry(result("3", 0.8)), entry(result("96", 0.6, state="unsure")),
         entry(error="damaged")],
    )  # fmt: skip
    assert (got["n"], got["failed"]) == (4, 1)
    assert got["exact"]["value"] == 1 / 4
    assert got["digits_right"]["value"] == pytest.approx(4 / 7)
    assert got["character_error_rate"]["value"] == pytest.approx(3 / 7)
    assert got["coverage"]["value"] == 2 / 4
    assert got["accuracy_accepted"]["value"] == 1 / 2
    assert got["calibration_error"] == pytest.approx((0.1 + 0.8 + 0.6 + 0) / 4)
    assert [p["accuracy"] for p in got["curve"]] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert "detection" not in got
    assert got["images"][3]["error"] == "damaged"


def test_separators_count_where_a_label_has_some() -> None:
    read = [entry(result("12.50", 0.9)), entry(result("3", 0.9), result("4", 0.9))]
    assert judge([truth("1250"), truth("34")], read)["exact"]["value"] == 1
    assert judge([truth("12.50"), truth("34")], read)["exact"]["value"] == 1
    assert judge([truth("1,250"), truth("34")], read)["exact"]["value"] == 0.5
    assert judge([truth("12.50"), truth("3 4")], read)["exact"]["value"] == 1
    got = judge([truth("1.250")], [entry(result("1250.", 0.9))])
    assert got["digits_right"] == got["digits_right"] | {"value": 1.0, "digits": 4}
    assert got["character_error_rate"]["value"] == 2 / 5


def test_images_without_a_digit_tell_how_often_one_is_invented() -> None:
    got = judge(
        [truth(""), truth(""), truth(""), truth("1")],
        [
            entry(),
            entry(result("7", 0.99)),
            entry(result("7", 0.3, state="not a digit")),
            entry(result("1", 1.0)),
        ],
    )
    assert got["invented"]["value"] == pytest.approx(1 / 3)
    assert got["exact"] == got["exact"] | {"value": 1.0, "n": 1}


def test_boxes_and_masks(tmp_path: Path) -> None:
    boxes = (("1", (0.0, 0.0, 10.0, 20.0)), ("2", (10.0, 0.0, 10.0, 18.0)))
    read = entry(result("17", 0.9), result("5", 0.5, x=100))
    found = judge([truth("12", boxes)], [read])["detection"]
    assert found["precision"]["value"] == pytest.approx(2 / 3)
    assert found["recall"]["value"] == 1
    assert found["f1"]["value"] == pytest.approx(4 / 5)
    assert found["found_and_right"]["value"] == 1 / 2
    sheet = np.zeros((20, 40), np.uint8)
    sheet[:, :10], sheet[:10, 10:20], sheet[:, 30:] = 1, 2, 3  # the second by half, the third not found
    full = compress(np.ones((20, 10), bool))
    got = judge([truth("127", mask=tmp_path)], [entry(result("12", 0.9, mask=full))], lambda _: sheet)
    assert got["segmentation"]["iou"]["value"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert got["segmentation"]["digits"] == 3


def page(ink: int = 30, paper: int = 230, scale: int = 1) -> np.ndarray:
    """Two strokes apart, of 40 pixels."""
    image = np.full((60, 60), paper, np.uint8)
    image[10:50, 15:20] = image[10:50, 40:45] = ink
    return cv2.resize(image, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)


def why(pixels: np.ndarray | None, text: str, *results: dict[str, Any]) -> list[str]:
    read = entry(*results)
    row = judge([truth(text)], [read])["images"][0]
    return reasons(pixels, truth(text), read, row)


def at(text: str, sure: float, box: tuple[int, int, int, int], state: str = "digit") -> dict[str, Any]:
    found = result(text, sure, state=state)
    for digit in found["digits"]:
        digit["box"] = list(box)
    return found


def test_each_reason_is_seen() -> None:
    whole = (12, 8, 40, 44)
    assert why(None, "1") == ["unreadable"]
    assert why(page(), "12", at("77", 0.9, whole)) == []
    assert why(page(scale=6), "12", at("77", 0.9, (2, 1, 6, 8))) == ["too small"]
    assert why(page(ink=200), "12", at("77", 0.9, whole)) == ["too faint"]
    assert why(page(), "123", at("77", 0.9, whole)) == ["touching"]
    assert why(page(), "12", at("77", 0.9, (0, 8, 40, 44))) == ["cut off"]
    assert why(page(), "12", at("77", 0.3, whole)) == ["unlike anything trained on"]
    assert why(page(), "12", at("77", 0.9, whole, "not a digit")) == ["unlike anything trained on"]
    assert why(page(), "12", at("77", 0.99, whole)) == ["label perhaps wrong"]
    assert (
        why(page(), "12", at("7", 0.99, whole)) == []
    )  # another length: the label is not the likely culprit
    assert why(page(ink=200), "12", at("77", 0.99, whole)) == ["too faint"]


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders: drawn ones, a four that is called 7, and blank paper."""
    root = tmp_path_factory.mktemp("crops")
    for name, count in (("1", 5), ("7", 1), ("none", 3)):
        (root / name).mkdir()
        for i in range(count):
            image = np.full((120, 90), 235, np.uint8)
            if name == "1":
                cv2.line(image, (48, 20), (42, 100), 40, 6 + i)
            if name == "7":
                cv2.putText(image, "4", (18, 95), cv2.FONT_HERSHEY_SIMPLEX, 2.8, 40, 8, cv2.LINE_AA)
            cv2.imwrite(str(root / name / f"{i}.png"), image)
    return root


def test_class_folders_by_the_real_command(crops: Path, netsuke_cli: Any, tmp_path: Path) -> None:
    done = netsuke_cli("evaluate", "--images", crops, "--html", "g.html", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert (got["n"], got["model"], got["folder"]) == (9, "digit-base", str(crops))
    assert got["exact"]["value"] == pytest.approx(5 / 6)
    assert got["invented"]["value"] == 0
    (wrong,) = [row for row in got["images"] if not row["exact"]]
    assert (wrong["file"], wrong["text"], wrong["said"]) == ("7/0.png", "7", "4")
    assert wrong["reasons"] == ["label perhaps wrong"]
    html = (tmp_path / "g.html").read_text()
    assert html.count("data:image/jpeg;base64,") == 1
    assert "7 → 4" in html
    assert "<script" not in html
    assert not re.search(r'(src|href)="(?!data:)', html)
    done = netsuke_cli("evaluate", "digit-small", "--images", crops, "--threshold", "1", cwd=tmp_path)
    assert "exact strings" in done.stdout
    assert "label perhaps wrong" in done.stdout


def test_what_stands_in_a_page_is_escaped() -> None:
    document = judge([truth("<b>"), truth("2")], [entry(result("1", 0.5)), entry(result("1", 0.7))])
    text = gallery.render({**document, "model": "<m>", "folder": "</script>"})
    assert "<b> →" not in text
    assert "&lt;b&gt; → 1" in text
    assert "&lt;m&gt;" in text
    assert set(REASONS)


USAGE = {
    (): "give --data NAME, or --images FOLDER",
    ("--data", "digits", "--images", "x"): "not both",
    ("--data", "digits"): "which model?",
    ("m.netsuke", "--data", "digits", "--html", "x.html"): "--html is of --images",
    ("--images", "gone"): "gone: no such folder",
    ("nope", "--images", "."): "no labels.csv",
    ("--images", ".", "--one", "--all"): "--one and --all exclude each other",
    ("m.netsuke", "--data", "digits", "--all"): "--all is of --images",
}


@pytest.mark.parametrize("args", USAGE, ids=" ".join)
def test_bad_usage_is_one_line(args: tuple[str, ...], netsuke_cli: Any, tmp_path: Path) -> None:
    done = netsuke_cli("evaluate", *args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert USAGE[args] in done.stderr


def test_exam_digits_exported_as_a_folder(tmp_path: Path, netsuke_cli: Any) -> None:
    file = Path(os.environ.get("NETSUKE_DATA", "")) / "exam-digits" / "data.npz"
    if not file.is_file():
        pytest.skip("needs exam-digits: set NETSUKE_DATA to a folder that holds exam-digits/")
    with np.load(file, allow_pickle=False) as held:
        images, labels = held["images"][:200], held["labels"][:200]
    lines = ["file,text"]
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
        lines.append(f"{i}.png,{label}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    got = json.loads(netsuke_cli("evaluate", "--images", tmp_path, "--json").stdout)
    assert got["n"] == 200
    assert got["exact"]["value"] > 0.9
    assert got["exact"]["value"] == pytest.approx(got["digits_right"]["value"])
