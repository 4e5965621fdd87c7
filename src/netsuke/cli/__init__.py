"""The command line: one verb a module; heavy imports stay inside the verbs."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from netsuke import __version__
from netsuke.cli import console
from netsuke.errors import NetsukeError

SETTINGS = {"help_option_names": ["-h", "--help"]}


INTERRUPTED = 130
STOPPED = "netsuke: stopped"
GOES_ON = "; what was finished is kept, and the same command goes on from there"
RESUMED = "shrink", "train", "tune", "compress", "compare"  # verbs that do


def _version(value: bool) -> None:
    if value:
        print(f"netsuke {__version__}")
        raise typer.Exit


def _build() -> typer.Typer:
    from netsuke.cli import (
        bench,
        compare,
        compress,
        data,
        evaluate,
        export,
        import_,
        models,
        read,
        reject,
        rerun,
        sensitivity,
        shrink,
        train,
        tune,
    )

    app = typer.Typer(
        context_settings=SETTINGS,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Carve neural networks into miniatures: from labelled images to a classifier that fits in a kilobyte.\n\n"
        "Example: netsuke shrink --data mnist --max-bytes 4096 -o digits.netsuke",
    )

    @app.callback()
    def root(
        version: bool = typer.Option(
            False, "--version", callback=_version, is_eager=True, help="Say the version."
        ),
    ) -> None:
        pass

    verbs: dict[str, Callable[..., None]] = {
        "shrink": shrink.shrink,
        "train": train.train,
        "tune": tune.tune,
        "compress": compress.compress,
        "sensitivity": sensitivity.sensitivity,
        "evaluate": evaluate.evaluate,
        "compare": compare.compare,
        "export": export.export,
        "bench": bench.bench,
        "read": read.read,
        "reject": reject.reject,
        "import": import_.import_,
        "rerun": rerun.rerun,
    }
    for name, verb in verbs.items():
        app.command(name, context_settings=SETTINGS)(verb)
    app.add_typer(data.app, name="data", context_settings=SETTINGS)
    app.add_typer(models.app, name="models", context_settings=SETTINGS)
    return app


def _stopped() -> str:
    return STOPPED + GOES_ON * any(verb in RESUMED for verb in sys.argv[1:2])


def main() -> None:
    """Run one verb: exit 0 on success, 2 on bad usage or bad input (one line says which), 1 on failure."""
    if sys.stdout is None:
        print("netsuke: standard output is closed; it may go to a file, or to /dev/null", file=sys.stderr)
        sys.exit(2)
    try:
        _build()()
    except NetsukeError as error:
        print(f"netsuke: {error}", file=sys.stderr)
        sys.exit(2)
    except console.Stopped as stop:
        print(f"netsuke: {stop}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer has caught the Ctrl-C
            print(_stopped(), file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print(_stopped(), file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"netsuke: {error.strerror or error}: {error.filename or ''}".rstrip(": "), file=sys.stderr)
        sys.exit(2)
