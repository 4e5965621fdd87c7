"""How every verb speaks: JSON and tables on stdout; notes, errors and progress on stderr."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class Stopped(Exception):
    """Ctrl-C in a verb that has nothing to go on from; the text says how far it came."""


@contextmanager
def whole() -> Iterator[None]:
    """What is written within is whole: a Ctrl-C waits for its end.

    The signal is blocked, not caught: a write that it interrupts would lose the rest of its block.
    """
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def note(text: str) -> None:
    """A remark for a person, on stderr."""
    print(text, file=sys.stderr, flush=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> None:
    """A table on stdout; every column but the first `left` is right-aligned."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # plain text: a class may be called "[bold]"

    view = Table(title=Text(title), title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        view.add_column(Text(column), justify="left" if i < left else "right")
    for row in rows:
        view.add_row(*(Text(str(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 120).print(view)


class Bar:
    """A running count with an estimate of what is left."""

    def __init__(self, advance: Any):
        self.advance = (
            advance  # advance(n=1, info=None, resumed=False): resumed work was done by a former run
        )


@contextmanager
def progress(label: str, total: float) -> Iterator[Bar]:
    """A progress bar with an estimate on stderr; where that is no terminal, a line every ten seconds."""
    if not sys.stderr.isatty():
        yield Bar(_Lines(label, total).advance)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[info]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as view:
        task = view.add_task(label, total=total, info="")

        def advance(n: float = 1, info: str | None = None, resumed: bool = False) -> None:
            if resumed:
                left = view.tasks[task].total
                view.update(task, total=None if left is None else left - n)
            else:
                view.update(task, advance=n)
            if info is not None:
                view.update(task, info=info)

        yield Bar(advance)


class _Lines:
    """Progress as plain lines, for logs."""

    def __init__(self, label: str, total: float):
        from time import monotonic

        self.label, self.total, self.done, self.info = label, total, 0.0, ""
        self.clock = monotonic
        self.start = self.last = monotonic()

    def advance(self, n: float = 1, info: str | None = None, resumed: bool = False) -> None:
        if resumed:
            self.total -= n
            return
        self.done += n
        self.info = self.info if info is None else info
        now = self.clock()
        if now - self.last < 10:
            return
        self.last = now
        left = (now - self.start) / self.done * max(self.total - self.done, 0) if self.done else 0
        note(f"{self.label}: {self.done / max(self.total, 1e-9):4.0%}, {left:.0f} s left  {self.info}")
