"""`netsuke read`: the digits and numbers in images."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

if TYPE_CHECKING:
    from netsuke.cli.answers import Document, Lines, Table
    from netsuke.cli.inputs import Source
    from netsuke.cli.reading import Entry, Plan, Settings


class Counted(Protocol):
    """What `watched` counts up to; it may grow."""

    total: int


QUIET = 2.0  # seconds before progress is shown


def read(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images, TIFF and PDF files, folders, patterns such as 'scans/*.png'; - is stdin."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A .netsuke file or a shipped model; see netsuke models.")
    ] = None,
    one: Annotated[
        bool, typer.Option("--one", help="Each image is a crop of one digit; else it is judged.")
    ] = False,
    all_: Annotated[bool, typer.Option("--all", help="Each image is a page; else it is judged.")] = False,
    finder: Annotated[
        bool,
        typer.Option("--finder/--no-finder", help="Look at pages with the shipped finder and scanner, too."),
    ] = True,
    length: Annotated[str, typer.Option(help="Digits in a number: 5, or 3..6.")] = "",
    pattern: Annotated[str, typer.Option(help="What a number looks like: '\\d{4}-\\d{2}'.")] = "",
    range_: Annotated[str, typer.Option("--range", help="Its least and largest value: 0..100.")] = "",
    checksum: Annotated[
        str, typer.Option(help="luhn, isbn, mod11, iban:DE, or weights such as 3,1,3,1%10.")
    ] = "",
    sum_: Annotated[
        str, typer.Option("--sum", help="What the numbers of a page add up to; last: the last is the sum.")
    ] = "",
    threshold: Annotated[
        float | None, typer.Option(help="How sure a digit must be to be accepted, 0 to 1.")
    ] = None,
    error_rate: Annotated[
        float | None, typer.Option(help="Accept so that this share is wrong at most: 0.01.")
    ] = None,
    boxes: Annotated[bool, typer.Option("--boxes", help="Say where each digit stands.")] = False,
    masks: Annotated[
        bool, typer.Option("--masks", help="Each digit's pixels, in --json and --overlay.")
    ] = False,
    alternatives: Annotated[
        bool, typer.Option("--alternatives", help="What else a number may say, in text and --overlay.")
    ] = False,
    overlay: Annotated[
        Path | None,
        typer.Option(help="Draw what was read: a .png or .jpg for one image, a folder for several."),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(help="Read a picture from this camera: 0 is the first; or a device, a stream."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes side by side; all cores if not given.")] = None,
    csv: Annotated[str, typer.Option(help="Write a table, a row a number, to this file; - is stdout.")] = "",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Read handwritten digits and numbers: text, confidence, where they stand, and what else they may be.

    Any common image format, size, polarity and orientation; a file that cannot be read is named, and the rest go on.

    Example: netsuke read photo.jpg scan.png --json

    Example: netsuke read scans/ 'more/*.tiff' form.pdf --csv numbers.csv --overlay drawn/

    Example: netsuke read cheque.jpg --length 3..8 --boxes --masks --overlay out.png

    Example: netsuke read cards/ --pattern '\\d{4}-\\d{2}' --error-rate 0.01
    """
    from netsuke.cli import answers, inputs, reading, sharing
    from netsuke.cli.options import check_out, crops
    from netsuke.errors import OptionError

    found, single = _sources(files or [], camera), crops(one, all_)
    for given, name in ((threshold, "--threshold"), (error_rate, "--error-rate")):
        if given is not None and not 0 <= given <= 1:
            raise OptionError(f"{name} is a share, 0 to 1; got {given:g}")
    if threshold is not None and error_rate is not None:
        raise OptionError("--threshold and --error-rate exclude each other: choose one")
    if masks and not json and overlay is None:
        raise OptionError("--masks go into --json or --overlay: give one of them too")
    if json and csv == inputs.STDIN:
        raise OptionError("--json and --csv - both write to stdout: name a file for the CSV")
    settings = reading.Settings(
        model=model,
        mode="auto" if single is None else "one" if single else "all",
        field=_field(length=length, pattern=pattern, range=range_, checksum=checksum, sum=sum_),
        threshold=threshold,
        error_rate=error_rate,
        finder=finder,
        masks=masks,
        alternatives=alternatives,
    )
    if one and settings.field:
        raise OptionError(f"--{next(iter(settings.field))} is of numbers: leave out --one")
    if csv and csv != inputs.STDIN:
        check_out(Path(csv), "numbers.csv")
        if Path(csv).resolve() in reading.read_from(found):
            raise OptionError(f"--csv {csv} is one of the images: name another file")
        if overlay is not None and Path(csv).resolve() == overlay.resolve():
            raise OptionError(f"--csv and --overlay both name {csv}: give each a name of its own")
    plan = reading.Plan(found, overlay)
    out: list[Lines | Document | Table] = []
    if json:
        out.append(answers.Document())
    elif csv != inputs.STDIN:
        out.append(answers.Lines(boxes=boxes, alternatives=alternatives))
    if csv:  # the last to end: what else was begun is whole, even if it can't be written
        out.append(answers.Table(csv))
    _run(plan, settings, sharing.cores() if jobs is None else jobs, out)


def _sources(files: list[str], camera: str | None) -> list[Source]:
    from netsuke.cli import inputs
    from netsuke.errors import OptionError

    if camera is not None:
        if files:
            raise OptionError("--camera reads one picture: give no files beside it")
        return [inputs.Source(f"camera {camera}", f"camera-{camera}".replace("/", "-"), camera=camera)]
    if not files:
        raise OptionError("nothing to read: name images or a folder, such as netsuke read photo.jpg")
    return inputs.sources(files)


def _field(**given: str) -> dict[str, Any]:
    """The constraints that were given, as `netsuke.reader.Field` takes them."""
    return {
        key: int(text) if key == "length" and text.isdecimal() else text
        for key, text in given.items()
        if text
    }


def _run(plan: Plan, settings: Settings, jobs: int, out: list[Lines | Document | Table]) -> None:
    """Print every entry as it comes; errors go to stderr. Exits with 2 where there was one."""
    from netsuke.cli import console, sharing

    failed = done = 0
    try:
        for entry in watched(sharing.entries(plan, settings, jobs), plan):
            done += 1
            if "error" in entry:
                failed += 1
                console.note(f"netsuke: {entry['error']}")
            with console.whole():
                for way in out:
                    way.add(entry)
    except KeyboardInterrupt:
        raise console.Stopped(f"stopped after {done} of {plan.total}") from None
    finally:
        with console.whole():
            for way in out:
                way.end()
    if failed:
        raise typer.Exit(2)


def watched(entries: Iterator[Entry], plan: Counted) -> Iterator[Entry]:
    """The entries; once they have taken QUIET seconds, with a bar, unless answers run down the same screen."""
    from time import monotonic

    from netsuke.cli import console

    start, bar, done = monotonic(), None, 0
    with ExitStack() as stack:
        for entry in entries:
            yield entry
            done += 1
            if bar is None and monotonic() - start > QUIET and not sys.stdout.isatty():
                bar = stack.enter_context(console.progress("read", plan.total))
                bar.advance(done, resumed=True)
            elif bar is not None:
                bar.advance(1)
