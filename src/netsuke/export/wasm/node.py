"""NAME.js and a module in a process of Node.js: one process answers any number of questions."""

from __future__ import annotations

import json
import subprocess
from importlib.resources import as_file, files
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from netsuke.errors import ArtifactError, MissingExtra

MISSING = "no {!r}: install Node.js 18 or newer, or name another one"


class Node:
    """A model loaded into Node.js; close it, or use it as a context.

    `script` is NAME.js, `module` one of its .wasm files. `started` tells `load_ms`, `rss_bytes`,
    `added_bytes` and `outputs`, the shape of an image's logits.
    Raises MissingExtra without Node.js, ArtifactError where it cannot load the files.
    """

    def __init__(self, script: Path, module: Path, node: str = "node"):
        self.name = module.name
        with as_file(files(__package__).joinpath("runner.mjs")) as runner:
            try:
                self.process = subprocess.Popen(
                    [node, str(runner), str(script), str(module)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is for Python, which closes it
                )
            except OSError:
                raise MissingExtra(MISSING.format(node)) from None
            self.started = self._answer()[0]  # by now the runner has been read

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits int32 [n, classes], or maps [n, O, H, W], of uint8 images [n, C, H, W]; n is not 0."""
        logits = self._ask({"do": "run"}, images)[1]
        return np.frombuffer(logits, "<i4").astype(np.int32).reshape(len(images), *self.started["outputs"])

    def times(self, images: np.ndarray, *, batch: int, seconds: float) -> np.ndarray:
        """Microseconds of calls with `batch` images each, measured inside, for about `seconds`."""
        command = {"do": "time", "batch": batch, "seconds": seconds}
        return np.array(self._ask(command, images)[0]["us"])

    def per_mille(self, logits: np.ndarray) -> int:
        """How sure int32 logits [classes] are, by the module."""
        answer: int = self._ask({"do": "per mille"}, logits.astype("<i4"))[0]["per_mille"]
        return answer

    def normalise(self, grey: np.ndarray) -> tuple[np.ndarray, list[int]] | None:
        """The model's input, uint8 and flat, of a grey image [H, W], and the box of its ink; None where it is blank."""
        command = {"do": "normalise", "width": grey.shape[1], "height": grey.shape[0]}
        document, pixels = self._ask(command, grey)
        return None if document["box"] is None else (np.frombuffer(pixels, np.uint8), document["box"])

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, command: dict[str, Any], images: np.ndarray) -> tuple[dict[str, Any], bytes]:
        data = np.ascontiguousarray(images).tobytes()
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps({**command, "bytes": len(data)}).encode() + b"\n" + data)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says why
        return self._answer()

    def _answer(self) -> tuple[dict[str, Any], bytes]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            _, said = self.process.communicate()
            complaint = [text for text in said.decode(errors="replace").splitlines() if "Error" in text]
            raise ArtifactError(f"node cannot run {self.name}: {complaint[0] if complaint else 'it ended'}")
        document = json.loads(line)
        return document, self.process.stdout.read(document["bytes"])
