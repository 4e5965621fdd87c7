"""One peer reads a folder of images and writes what it says: run by reading.py, with the Python that has the peer.

    python reading_peer.py rapidocr|rapidocr-forced|tesseract FOLDER OUT.json

FOLDER/index.json is [[file, "crop" | "strip" | "page"], ...]; OUT.json gets {"version", "bytes", "answers": [{"texts":
[[text, confidence], ...], "ms"}, ...]}. `forced` lets the recogniser choose among digits and separators only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

DIGITS = "0123456789"
SIGNS = DIGITS + ".,-"


def rapidocr(forced: bool) -> tuple[str, int, Any]:
    """Version, bytes of its models, and a function from file and kind to [(text, confidence), ...]."""
    from importlib.metadata import version

    import cv2
    import numpy as np
    import rapidocr as package

    cv2.setNumThreads(1)
    one = {"EngineConfig.onnxruntime.intra_op_num_threads": 1, "Global.log_level": "error"}
    engine = package.RapidOCR(params=one)
    allowed = DIGITS
    if forced:
        engine(np.full((48, 48, 3), 255, np.uint8), use_det=False, use_cls=False, use_rec=True)  # makes it
        recogniser = engine.text_rec
        session, signs = recogniser.session, recogniser.postprocess_op.character

        def masked(batch: Any) -> Any:
            scores = session(batch)
            for k, sign in enumerate(signs):
                if k and sign not in allowed:  # 0 is the blank
                    scores[..., k] = 0
            return scores

        recogniser.session = masked

    def read(path: str, kind: str) -> list[tuple[str, float]]:
        nonlocal allowed
        allowed = DIGITS if kind == "crop" else SIGNS
        image = cv2.imread(path)
        # Its detector loses digits of small strips, so strips go to its recogniser whole: what suits it best.
        found = engine(image, use_det=kind == "page", use_cls=False, use_rec=True)
        texts = found.txts or ()
        return [(str(text), float(score)) for text, score in zip(texts, found.scores or (), strict=False)]

    folder = Path(package.__file__).parent
    size = sum(path.stat().st_size for path in folder.rglob("*.onnx"))
    return f"rapidocr {version('rapidocr')}", size, read


def tesseract() -> tuple[str, int, Any]:
    """The same of the program, told to read digits; what it is sure of is the mean of its words."""
    told = subprocess.run(["tesseract", "--version"], capture_output=True, text=True, check=True)
    listed = subprocess.run(["tesseract", "--list-langs"], capture_output=True, text=True, check=True)
    folder = listed.stdout.partition('"')[2].partition('"')[0]
    data = Path(folder) / "eng.traineddata"
    modes = {"crop": "10", "strip": "7", "page": "6"}

    def read(path: str, kind: str) -> list[tuple[str, float]]:
        done = subprocess.run(
            ["tesseract", path, "-", "--psm", modes[kind], "-c", f"tessedit_char_whitelist={SIGNS}", "tsv"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        rows = [line.split("\t") for line in done.stdout.splitlines()[1:]]
        return [(row[11], float(row[10]) / 100) for row in rows if len(row) == 12 and row[11].strip()]

    return told.stdout.splitlines()[0], data.stat().st_size if data.exists() else 0, read


def main() -> int:
    name, folder, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    os.environ["OMP_THREAD_LIMIT"] = "1"
    try:
        version, size, read = tesseract() if name == "tesseract" else rapidocr(name.endswith("forced"))
    except ImportError as error:
        print(
            f"{name}: {error}; pip install 'rapidocr==3.10.*' onnxruntime, and name that Python by --python"
        )
        return 3
    except FileNotFoundError:
        print("tesseract: no such program; install tesseract-ocr (Debian) or tesseract (Homebrew)")
        return 3
    index = json.loads((folder / "index.json").read_text())
    if index:
        read(str(folder / index[0][0]), index[0][1])  # the first call sets things up
    answers = []
    for file, kind in index:
        start = perf_counter()
        texts = read(str(folder / file), kind)
        answers.append({"texts": texts, "ms": (perf_counter() - start) * 1e3})
    out.write_text(json.dumps({"version": version, "bytes": size, "answers": answers}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
