"""The page of examples/web in a browser: a stroke is drawn, and read."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from netsuke import zoo
from netsuke.artifact import Artifact
from netsuke.export import wasm

PAGE = Path(__file__).parents[2] / "examples" / "web" / "index.html"
TOOLS = ("clang", "wasm-ld", "chromium")
DRAWN = """\
  const at = (x, y) => ({ offsetX: x, offsetY: y, buttons: 1 });
  paper.canvas.onpointerup(); // nothing is drawn yet: nothing is said
  if (answer.textContent.includes("sure")) throw new Error("blank paper was read");
  paper.canvas.onpointerdown(at(150, 60));
  for (let y = 60; y < 220; y += 5) paper.canvas.onpointermove(at(150 - (y - 60) / 8, y));
  paper.canvas.onpointerup();
</script>
"""


@pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason="needs clang, lld and chromium")
def test_a_stroke_is_read_as_one(tmp_path: Path) -> None:
    artifact = Artifact.load(zoo.path("digit-small"))
    wasm.write(artifact, tmp_path, "digit-small", normaliser=True, confidence=True)
    (tmp_path / "index.html").write_text(PAGE.read_text().replace("</script>", DRAWN))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
        flags += [
            f"--user-data-dir={tmp_path / 'home'}",
            f"http://127.0.0.1:{server.server_address[1]}/index.html",
        ]
        done = subprocess.run(["chromium", *flags], capture_output=True, text=True, timeout=120, check=False)
    finally:
        server.shutdown()
    said = re.search(r"(\d), ([\d.]+) % sure", done.stdout)
    assert said, done.stdout[-600:]
    assert said[1] == "1"
    assert float(said[2]) > 90
