"""Make docs/images/terminal.svg: what a terminal really shows for the commands of `make demo`.

    python docs/images/terminal.py            # runs the commands (minutes), then draws
    python docs/images/terminal.py saved.txt  # draws what an earlier run saved

A run saves what it showed as terminal.txt in the current folder, colours included. Lines of progress, which
a terminal overwrites in place, are left out of the picture.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).resolve().parent
DRAW_A_SEVEN = [str(HERE.parents[1] / "examples" / "sample_digit.py"), "7", "seven.png"]
SHOWN = (
    "netsuke shrink --data digits --max-bytes 2048 --effort quick -o digits.netsuke",
    "netsuke read seven.png --model digits.netsuke",
)
PROGRESS = re.compile(r"^\w+: +\d+%, .*\n", re.M)
# Rich asks for a font from elsewhere; a picture should load nothing, and any monospaced font will do.
FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.S)
FONTS = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def captured() -> str:
    """Run the commands in an empty folder; their prompts and all they wrote, with ANSI colours."""
    environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    text = ""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, *DRAW_A_SEVEN], cwd=folder, check=True)
        for command in SHOWN:
            done = subprocess.run(
                [sys.executable, "-m", *command.split()],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                check=True,
            )
            text += f"\033[1;32m$\033[0m \033[1m{command}\033[0m\n{done.stdout}\n"
    return text.rstrip()


def drawn(text: str) -> str:
    """The text as SVG."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=108, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text.from_ansi(PROGRESS.sub("", text)))
        svg = console.export_svg(title="netsuke", unique_id="netsuke")
    return FONT_FACE.sub("", svg).replace("Fira Code, monospace", FONTS)


def main() -> None:
    if len(sys.argv) > 1:
        text = Path(sys.argv[1]).read_text(encoding="utf-8")
    else:
        text = captured()
        Path("terminal.txt").write_text(text, encoding="utf-8")
    (HERE / "terminal.svg").write_text(drawn(text), encoding="utf-8")


if __name__ == "__main__":
    main()
