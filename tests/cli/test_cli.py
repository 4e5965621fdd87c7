"""What every verb owes its user: help with an example, honest exit codes, pure JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from netsuke import __version__
from netsuke.cli import _build


def _verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from _verbs(child, (*path, name))


VERBS = list(_verbs(typer.main.get_command(_build())))


@pytest.mark.parametrize("verb", VERBS, ids=lambda v: " ".join(("netsuke", *v)))
def test_help_shows_an_example(verb, netsuke_cli):
    done = netsuke_cli(*verb, "-h")
    assert done.returncode == 0, done.stderr
    assert "Example" in done.stdout
    assert f"netsuke {' '.join(verb)}".rstrip() in done.stdout.split("Example", 1)[1]


def test_version(netsuke_cli):
    assert netsuke_cli("--version").stdout == f"netsuke {__version__}\n"


@pytest.mark.parametrize(
    "args",
    [
        ("carve",),
        ("train", "--no-such-option"),
        ("data", "info", "no-such-set"),
        ("evaluate", "no-such-file.netsuke", "--data", "digits"),
        ("read", "no-such-file.png"),
    ],
    ids=" ".join,
)
def test_bad_usage_exits_with_2_and_says_why(args, netsuke_cli, tmp_path):
    done = netsuke_cli(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert args[-1].lstrip("-") in done.stderr or args[1].lstrip("-") in done.stderr
    assert "Traceback" not in done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("args", [("data", "list"), ("data", "info", "digits"), ("models",)], ids=" ".join)
def test_json_stands_alone_on_stdout(args, netsuke_cli, tmp_path):
    done = netsuke_cli(*args, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
