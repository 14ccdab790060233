"""Downloads: resumed, verified, never half a file under the final name."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from simsiam.data.download import Unavailable, fetch

CONTENT = np.random.default_rng(0).bytes(400_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; /cut breaks off after 150,000 bytes of each answer, /plain knows no ranges."""

    ranges: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        if self.path == "/none":
            self.send_error(404)
            return
        first = 0
        asked = self.headers.get("Range")
        if asked and self.path != "/plain":
            self.ranges.append(asked)
            first = int(asked.removeprefix("bytes=").rstrip("-"))
            if first >= len(CONTENT):
                self.send_error(416)
                return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        last = first + 150_000 if self.path == "/cut" else len(CONTENT)
        self.wfile.write(CONTENT[first:last])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.ranges = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_whole_file(tmp_path: Path, server: str) -> None:
    path = fetch(f"{server}/whole", tmp_path / "new" / "file", md5=MD5)
    assert path.read_bytes() == CONTENT
    assert [each.name for each in path.parent.iterdir()] == ["file"]
    assert fetch("http://127.0.0.1:9/unused", path, md5=MD5) == path  # already there: no connection


def test_broken_connections_are_resumed(tmp_path: Path, server: str) -> None:
    assert fetch(f"{server}/cut", tmp_path / "file", md5=MD5).read_bytes() == CONTENT
    assert Handler.ranges == ["bytes=150000-", "bytes=300000-"]


def test_a_killed_download_goes_on(tmp_path: Path, server: str) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:399_000])
    assert fetch(f"{server}/whole", tmp_path / "file", md5=MD5).read_bytes() == CONTENT
    assert Handler.ranges == ["bytes=399000-"]


def test_a_whole_part_needs_only_its_name(tmp_path: Path, server: str) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert fetch(f"{server}/whole", tmp_path / "file", md5=MD5).read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(tmp_path: Path, server: str) -> None:
    (tmp_path / "file.part").write_bytes(b"?" * 1000)
    assert fetch(f"{server}/plain", tmp_path / "file", md5=MD5).read_bytes() == CONTENT


def test_damage_is_noticed_and_thrown_away(tmp_path: Path, server: str) -> None:
    (tmp_path / "file.part").write_bytes(b"?" * 1000)
    with pytest.raises(Unavailable, match="damaged"):
        fetch(f"{server}/whole", tmp_path / "file", md5=MD5)
    assert list(tmp_path.iterdir()) == []
    assert fetch(f"{server}/whole", tmp_path / "file", md5=MD5).read_bytes() == CONTENT


def test_failures_are_reasons_and_quick(tmp_path: Path, server: str) -> None:
    with pytest.raises(Unavailable, match="404"):
        fetch(f"{server}/none", tmp_path / "file", md5=MD5)
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        fetch("http://127.0.0.1:9/", tmp_path / "file", md5=MD5)
    assert time.monotonic() - started < 5
    assert list(tmp_path.iterdir()) == []
