"""The documentation holds: its Python runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
PAGES = [REPO / "README.md", REPO / "README.zh-CN.md", *sorted((REPO / "docs").rglob("*.md"))]

# A fence, its language, the rest of its info line, its body; an indented fence (in a list) counts as well.
FENCE = re.compile(r"^([ ]*)```(\w*)[ ]*([^\n]*)\n(.*?)^\1```", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SHELL = ("console", "bash", "sh", "shell")


def _fences(page: Path) -> Iterator[tuple[int, str, str, str]]:
    """Line number of the body, language, remarks, body without its indentation."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        indent, language, remarks, body = match.groups()
        line = text.count("\n", 0, match.start(4))
        yield line, language, remarks, re.sub(f"^{indent}", "", body, flags=re.M)


def _commands(body: str, language: str) -> Iterator[list[str]]:
    """The words of each netsuke call in a shell block; output lines of a console block are passed over."""
    for line in body.replace("\\\n", " ").splitlines():
        prompt = line.startswith("$ ")
        if language == "console" and not prompt:
            continue
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words and words[0] == "netsuke":
            end = next((i for i, word in enumerate(words) if word in ("|", ">", "&&", ";", "||")), len(words))
            yield words[1:end]


def _name(page: Path) -> str:
    return page.relative_to(REPO).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_snippets_run(page, tmp_path, monkeypatch):
    """The snippets of a page share one namespace and start in an empty folder; `python no-run` is passed over."""
    monkeypatch.chdir(tmp_path)
    snippets = [f for f in _fences(page) if f[1] == "python" and "no-run" not in f[2]]
    if any("torch" in body or "netsuke.lab" in body for _, _, _, body in snippets):
        pytest.importorskip("torch", reason="needs torch: pip install 'netsuke[lab]'")
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line, _, _, body in snippets:
        exec(compile("\n" * line + body, str(page), "exec"), namespace)  # the traceback names the page's line


@pytest.fixture(scope="module")
def helps(netsuke_cli):
    """Asks `netsuke VERB -h` once a verb: (exit status, help)."""
    seen: dict[tuple[str, ...], tuple[int, str]] = {}

    def ask(*verb: str) -> tuple[int, str]:
        if verb not in seen:
            done = netsuke_cli(*verb, "-h", env={"COLUMNS": "200"})
            seen[verb] = done.returncode, done.stdout
        return seen[verb]

    return ask


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_exist(page, helps):
    for line, language, _, body in _fences(page):
        if language not in SHELL:
            continue
        for words in _commands(body, language):
            where = f"{_name(page)}:{line + 1}: netsuke {' '.join(words)}"
            verb: tuple[str, ...] = ()
            text = helps()[1]
            for word in words:  # `data list` is a verb within a verb
                if "COMMAND" not in text.split("\n\n", 1)[0].upper() or word.startswith("-"):
                    break
                verb = (*verb, word)
                status, text = helps(*verb)
                assert status == 0, f"{where}: no such verb"
            for option in words[len(verb) :]:
                if re.match(r"--?[a-zA-Z]", option):
                    flag = option.split("=")[0]
                    assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text), f"{where}: no {flag}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_resolve(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.split("#")[0]).exists(), f"{_name(page)} links to {target}"
