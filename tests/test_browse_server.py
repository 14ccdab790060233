"""What `simsiam browse` serves, to whom, and what its answers say."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simsiam.browse import server
from simsiam.browse.pictures import Thumbnails
from simsiam.browse.server import Server, cookie_name, refusal
from simsiam.errors import UserError
from tests import tiny
from tests.served import IMAGES, Served, serve


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("browse")) as made:
        yield made


def test_listens_on_the_loopback_alone(served: Served) -> None:
    assert served.server.server_address[0] == "127.0.0.1"
    assert served.server.address.startswith("http://127.0.0.1:")


def test_the_printed_address_puts_the_key_in_a_cookie(served: Served) -> None:
    status, headers, _ = served.ask(f"/?key={served.server.key}", Cookie="")
    assert status == 303
    assert headers["Location"] == "/"
    assert (
        headers["Set-Cookie"]
        == f"{cookie_name(served.server.key)}={served.server.key}; HttpOnly; SameSite=Strict; Path=/"
    )
    for wrong in ("", "?key=", "?key=guess", f"?key={served.server.key}x", "?key=%C3%A9"):
        status, headers, content = served.ask(f"/{wrong}", Cookie="")
        assert (status, headers["Set-Cookie"]) == (403, None)
        assert b"carries the key" in content
    assert served.ask(f"/?key={served.server.key}", Cookie="", Host="evil.example")[0] == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:9999"}, 200),  # the other end of an SSH tunnel
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "evil.example:80@127.0.0.1"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost:evil"}, 403),
        ({"Cookie": ""}, 403),
        ({"Cookie": "simsiam-browse-guess=guess"}, 403),
        ({"Cookie": "\x7f=;;;"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
    ],
)
@pytest.mark.parametrize("path", ["/api/images", "/thumb/0", "/page.js"])
def test_who_may_ask(served: Served, path: str, headers: dict[str, str], status: int) -> None:
    assert served.ask(path, **headers)[0] == status


def test_a_page_elsewhere_cannot_search(served: Served) -> None:
    port = served.server.server_address[1]
    body = tiny.jpeg(tiny.shape("circle", seed=1))
    assert served.ask("/api/search", method="POST", body=body, Origin=f"http://127.0.0.1:{port}")[0] == 200
    assert served.ask("/api/search", method="POST", body=body, Origin=f"http://127.0.0.1:{port + 1}")[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        *("/../secret.txt", "/thumb/../../secret.txt", "/thumb/..%2f..%2fsecret.txt", "//etc/passwd", "/page.css/.."),
        *(
            "/%2e%2e/secret.txt",
            "/thumb/%2e%2e/%2e%2e/secret.txt",
            "/..%5csecret.txt",
            "/etc/passwd",
            "/thumb//etc/passwd",
        ),
        *(
            "/circle/000.jpg",
            "/image/1.jpg",
            "/templates/page.html",
            "/thumb/",
            "/api/",
            "/api/like/",
            "/api/map/other",
        ),
        *("/thumb/-1", "/thumb/0x1", f"/thumb/{IMAGES}", "/thumb/9999999999", "/thumb/%D9%A3", f"/api/like/{IMAGES}"),
    ],
)
def test_images_go_by_number_alone(served: Served, path: str) -> None:
    status, _, content = served.ask(path)
    assert status == 404
    assert b"secret" not in content


def test_headers_keep_the_page_to_itself(served: Served) -> None:
    for path in ("/", "/page.js", "/thumb/0", "/api/images"):
        headers = served.ask(path)[1]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers
    assert "Python" not in served.ask("/")[1]["Server"]


def test_other_methods_and_too_much(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served.ask("/api/images", method="DELETE")[0] == 501
    assert served.ask("/api/images", method="POST", body=b"x")[0] == 404
    monkeypatch.setattr(server, "MOST_BYTES", 1000)
    assert served.ask("/api/search", method="POST", body=b"x" * 1001)[0] == 413
    assert served.ask("/api/search", method="POST", body=None, Content_Length="many")[0] == 411
    status, _, content = served.ask("/api/search", method="POST", body=b"x" * 999)
    assert status == 400
    assert "not an image" in json.loads(content)["error"]
    for query in ("start=x", "count=-1"):
        assert served.ask(f"/api/images?{query}")[0] == 400


def test_pages_and_the_filter(served: Served) -> None:
    whole = served.json("/api/images?count=500")
    assert whole["total"] == len(whole["images"]) == IMAGES
    assert [one["row"] for one in whole["images"]] == list(range(IMAGES))
    part = served.json("/api/images?start=60&count=20")
    assert part["images"] == whole["images"][60:80]
    assert served.json("/api/images?start=9999")["images"] == []
    found = served.json("/api/images?text=SQUARE&count=500")
    assert found["total"] == 51
    assert all("square" in one["path"] for one in found["images"])
    assert served.json("/api/images?text=no%20such")["total"] == 0


def test_neighbours_are_those_of_the_index(served: Served) -> None:
    rows = served.collection.index.rows
    row = 7
    found = served.json(f"/api/like/{row}?k=9")
    order = [other for other in np.argsort(-(rows @ rows[row]), kind="stable") if other != row][:9]
    assert [one["row"] for one in found["images"]] == order
    assert found["query"]["path"] == "circle/007.jpg"
    assert found["images"][0]["similarity"] == pytest.approx(float(rows[row] @ rows[order[0]]), abs=1e-3)
    assert found["more"] is True
    assert served.json(f"/api/like/{row}?k=500")["more"] is False


def test_a_picture_that_is_sent_finds_itself(served: Served) -> None:
    body = (served.root / "stripes" / "003.jpg").read_bytes()
    found = served.json("/api/search?k=3", method="POST", body=body)
    assert found["images"][0]["path"] == "stripes/003.jpg"
    assert found["images"][0]["similarity"] == pytest.approx(1, abs=1e-3)


def _until_done(ask: Callable[[], Any]) -> Any:
    for _ in range(100):
        answer = ask()
        if answer["state"] != "working":
            return answer
        time.sleep(0.1)
    raise AssertionError("never done")


def test_duplicates_and_maps_come_when_they_are_done(served: Served) -> None:
    found = _until_done(lambda: served.json("/api/duplicates?threshold=0.99999"))
    pair = next(group for group in found["groups"] if any(one["copy"] for one in group["images"]))
    assert {one["path"] for one in pair["images"]} == {"circle/004.jpg", "square/zz copy.jpg"}
    assert found["copies"] == 1
    assert _until_done(lambda: served.json("/api/duplicates?threshold=7"))["state"] == "failed"
    assert served.ask("/api/duplicates?threshold=x")[0] == 400
    for method in ("pca", "tsne"):
        drawn = _until_done(lambda method=method: served.json(f"/api/map/{method}"))
        assert [point[0] for point in drawn["points"]] == list(range(IMAGES))
        values = np.array(drawn["points"])[:, 1:]
        assert values.min() >= 0
        assert values.max() == pytest.approx(1)


def test_thumbnails_are_small_and_kept_within_bounds(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    content = served.ask("/thumb/3")[2]
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "JPEG"
        assert max(picture.size) <= server.THUMB
    thumbs = Thumbnails(served.collection.embedded.source)
    monkeypatch.setattr("simsiam.browse.pictures.KEPT_BYTES", 3 * len(thumbs.jpeg(0, side=64)))
    for index in range(12):
        thumbs.jpeg(index, side=64)
    assert sum(map(len, thumbs._kept.values())) == thumbs._bytes <= 3 * len(thumbs.jpeg(0, side=64))
    gone = served.root / "circle" / "049.jpg"
    kept = gone.read_bytes()
    gone.unlink()
    assert served.ask("/thumb/49")[0] == 200, "a picture that vanished is a grey square"
    gone.write_bytes(kept)


def test_a_port_in_use_is_named(served: Served) -> None:
    port = served.server.server_address[1]
    with pytest.raises(UserError, match=f"--port {port}: cannot be listened on"):
        Server(served.collection, port=port)


def test_refusal_needs_the_whole_key() -> None:
    one, other = "abcdefgh", "ijklmnop"  # two servers share the browser's cookies: those know no ports
    cookies = f"{cookie_name(one)}={one}; {cookie_name(other)}={other}"
    for key in (one, other):
        assert refusal({"host": "localhost", "cookie": cookies}, path="/", key=key) is None
    assert refusal({"host": "localhost", "cookie": cookies}, path="/", key="abcdefgx") is not None
    assert refusal({"host": "localhost", "cookie": cookies}, path="/", key="abcdefg") is not None


def test_closing_waits_for_answers_but_for_no_idle_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())
    asked, ended = threading.Event(), threading.Event()

    def search(content: bytes, *, k: int) -> Any:
        asked.set()
        time.sleep(0.5)
        ended.set()
        return {}

    with ExitStack() as browsers, serve(tmp_path) as one:
        monkeypatch.setattr(one.collection, "search", search)
        idle = http.client.HTTPConnection("127.0.0.1", one.server.server_address[1])
        browsers.callback(idle.close)
        idle.request("GET", f"/?key={one.server.key}")
        assert idle.getresponse().read() == b""  # and the connection stays open
        searching = http.client.HTTPConnection("127.0.0.1", one.server.server_address[1])
        browsers.callback(searching.close)
        cookie = f"{cookie_name(one.server.key)}={one.server.key}"
        searching.request("POST", "/api/search", body=b"picture", headers={"Cookie": cookie})
        assert asked.wait(30)
        began = time.monotonic()
    assert ended.is_set()
    assert set(threading.enumerate()) <= before  # a thread of an earlier test may have ended meanwhile
    assert time.monotonic() - began < 10  # a silent browser would hold its thread for a minute


def test_the_command_serves_until_ctrl_c(tmp_path: Path) -> None:
    root = tiny.flat_folder(tmp_path / "photos", images=5)
    words = ["browse", "random:resnet10", str(root), "--size", "32", "--no-open", "--workers", "0", "--device", "cpu"]
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from simsiam.cli import main; main()"
    )
    environment = os.environ | {"SIMSIAM_CACHE": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("5 images at http://127.0.0.1:"), process.stderr
        address = first.split()[-1]
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(), urllib.request.ProxyHandler({}))
        assert b'<h1><a href="#">photos</a></h1>' in opener.open(address, timeout=30).read()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_link_that_leads_out_of_the_folder_is_not_served(served: Served) -> None:
    kept, outside = served.root / "circle" / "048.jpg", served.root.parent / "private.jpg"
    tiny.shape("square", seed=5).save(outside)
    content = kept.read_bytes()
    for target, status in ((outside, 400), (Path("047.jpg"), 200)):
        kept.unlink()
        kept.symlink_to(target)
        answer, _, said = served.ask("/image/48")
        assert answer == status
        assert (b"a link that leads out of the folder" in said) == (status == 400)
    kept.unlink()
    kept.write_bytes(content)
    folder, elsewhere = served.root / "square", served.root.parent / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    assert served.ask(f"/image/{IMAGES - 1}")[0] in (200, 400)
    assert served.ask("/image/60")[0] == 400, "nor what lies behind a linked folder"
    folder.unlink()
    elsewhere.rename(folder)
    assert served.ask("/image/60")[0] == 200
