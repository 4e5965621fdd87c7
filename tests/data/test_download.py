"""Downloads against a real local server: whole, broken off, resumed, corrupted."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from netsuke.data import download
from netsuke.data.catalogue import File
from netsuke.errors import DataError

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()


class Mirror(ThreadingHTTPServer):
    """Serves CONTENT; how badly is set by its attributes."""

    content = CONTENT
    break_after = 0  # bytes of an answer after which the connection drops, once
    ranges = True
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []  # the Range header of each request

    def file(self, *more: str) -> File:
        url = f"http://127.0.0.1:{self.server_address[1]}/a.gz"
        return File("a.gz", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), (*more, url))


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range", "")
        server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        body = server.content[start:]
        self.send_response(206 if start else server.status)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            )
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.break_after:
            body, server.break_after = body[: server.break_after], 0
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def quiet(name: str, done: int, total: int) -> None:
    pass


def test_whole_file(mirror: Mirror, tmp_path: Path) -> None:
    seen: list[int] = []
    path = tmp_path / "set" / "a.gz"
    download.fetch(mirror.file(), path, lambda name, done, total: seen.append(done))
    assert path.read_bytes() == CONTENT
    assert seen == sorted(seen)
    assert seen[-1] == len(CONTENT)
    assert [p.name for p in path.parent.iterdir()] == ["a.gz"]


def test_broken_connection_goes_on_where_it_stopped(mirror: Mirror, tmp_path: Path) -> None:
    mirror.break_after = 100_000
    download.fetch(mirror.file(), tmp_path / "a.gz", quiet)
    assert (tmp_path / "a.gz").read_bytes() == CONTENT
    assert mirror.asked == ["", "bytes=100000-"]


def test_part_of_an_earlier_process_is_continued(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "a.gz.part").write_bytes(CONTENT[:123_456])
    download.fetch(mirror.file(), tmp_path / "a.gz", quiet)
    assert (tmp_path / "a.gz").read_bytes() == CONTENT
    assert mirror.asked == ["bytes=123456-"]


def test_server_without_ranges_starts_over(mirror: Mirror, tmp_path: Path) -> None:
    mirror.ranges = False
    (tmp_path / "a.gz.part").write_bytes(b"x" * 1000)
    download.fetch(mirror.file(), tmp_path / "a.gz", quiet)
    assert (tmp_path / "a.gz").read_bytes() == CONTENT


@pytest.mark.parametrize("spoilt", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 5)])
def test_spoilt_part_is_thrown_away(mirror: Mirror, tmp_path: Path, spoilt: bytes) -> None:
    (tmp_path / "a.gz.part").write_bytes(spoilt)
    download.fetch(mirror.file(), tmp_path / "a.gz", quiet)
    assert (tmp_path / "a.gz").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "content", [CONTENT[:-1] + b"\0", CONTENT + b"more"], ids=["corrupted", "longer than published"]
)
def test_wrong_check_sum_leaves_nothing(mirror: Mirror, tmp_path: Path, content: bytes) -> None:
    mirror.content = content
    with pytest.raises(DataError, match="wrong check sum"):
        download.fetch(mirror.file(), tmp_path / "a.gz", quiet)
    assert list(tmp_path.iterdir()) == []


def test_short_file_is_not_taken_for_the_whole(mirror: Mirror, tmp_path: Path) -> None:
    mirror.content = CONTENT[:1000]
    with pytest.raises(DataError):
        download.fetch(mirror.file(), tmp_path / "a.gz", quiet)
    assert not (tmp_path / "a.gz").exists()


def test_next_mirror_where_the_first_fails(mirror: Mirror, tmp_path: Path) -> None:
    download.fetch(mirror.file("http://127.0.0.1:9/a.gz"), tmp_path / "a.gz", quiet)
    assert (tmp_path / "a.gz").read_bytes() == CONTENT


def test_error_page_is_not_data(mirror: Mirror, tmp_path: Path) -> None:
    mirror.status = 503
    with pytest.raises(DataError, match=r"503|Service"):
        download.fetch(mirror.file(), tmp_path / "a.gz", quiet)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="download failed"):
        download.fetch(mirror.file(), tmp_path / "file" / "a.gz", quiet)


def test_offline_says_what_is_missing_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("NETSUKE_DATA", raising=False)
    file = File("a.gz", 1, "0" * 64, ("http://127.0.0.1:9/a.gz",))
    with pytest.raises(DataError) as caught:
        download.ensure("mnist", file, quiet)
    assert str(tmp_path / "netsuke" / "mnist" / "a.gz") in str(caught.value)
    assert "NETSUKE_DATA" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_netsuke_data_comes_before_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NETSUKE_DATA", str(tmp_path / "data"))
    file = File("a.gz", 1, "0" * 64)
    cached, own = tmp_path / "cache" / "netsuke" / "mnist" / "a.gz", tmp_path / "data" / "mnist" / "a.gz"
    for path in (cached, own):
        assert download.locate("mnist", file) != path
        path.parent.mkdir(parents=True)
        path.touch()
        assert download.locate("mnist", file) == path


def test_relative_cache_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert download.cache_folder() == Path.home() / ".cache" / "netsuke"
