"""The local page's server: standard library, loopback only, images by number and never by path."""

from __future__ import annotations

import hmac
import json
import re
import secrets
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from simsiam.browse.collection import MOST_ROWS, Collection
from simsiam.errors import UserError
from simsiam.report.html import template
from simsiam.wording import counted, plural

_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?")  # any port: an SSH tunnel may end at another one
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' blob:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def refusal(headers: Mapping[str, str], *, path: str, key: str) -> str | None:
    """Why a request is refused, in words for the person at the browser; None where it is answered.

    The server listens on the loopback alone, which leaves three others to keep out. A web page elsewhere whose name is
    turned to 127.0.0.1 (DNS rebinding) shows in the Host header. A web page elsewhere that sends requests here shows in
    Origin and Sec-Fetch-Site. Another person with an account on the machine does not know the key.

    Args:
        headers: under their names in small letters.
        path: that is asked for.
        key: of this server.
    """
    if not _HOST.fullmatch(headers.get("host", "")):
        return "This page answers to 127.0.0.1 and localhost only."
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        return "Requests from other pages are refused."
    if headers.get("sec-fetch-site") in ("cross-site", "same-site") and path != "/":
        return "Requests from other pages are refused."
    if not hmac.compare_digest(_cookie(headers.get("cookie", ""), cookie_name(key)).encode(), key.encode()):
        return "Open the address that `simsiam browse` printed: it carries the key."
    return None


def cookie_name(key: str) -> str:
    """The cookie that holds a server's key: one a server, since browsers do not tell cookies apart by port."""
    return f"simsiam-browse-{key[:6]}"


def _cookie(value: str, name: str) -> str:
    try:
        found = SimpleCookie(value).get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""


TEMPLATES = Path(__file__).parent / "templates"


def page_files(collection: Collection) -> dict[str, tuple[bytes, str]]:
    """Content and kind of what never changes, by path; every value in the page is escaped by the template engine."""
    embedded = collection.embedded
    html = template("page.html", TEMPLATES).render(
        name=embedded.source.name,
        images=len(collection),
        left_out=len(embedded.bad),
        weights=embedded.facts["weights"],
        backbone=embedded.facts["backbone"],
        size=embedded.settings.size,
        layer=embedded.settings.layer,
        background=collection.background,
    )
    kinds = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
    files = {f"/{name}": ((TEMPLATES / name).read_bytes(), f"{kind}; charset=utf-8") for name, kind in kinds.items()}
    return {"/": (html.encode("utf-8", "replace"), "text/html; charset=utf-8"), **files}


LOOPBACK = "127.0.0.1"
THUMB, LARGE = 256, 1600  # pixels of the longer side
MOST_BYTES = 64 << 20  # of a picture that is sent
JSON, JPEG = "application/json", "image/jpeg"


class Refused(Exception):
    """A request that gets no answer; the status and the reason go out."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves one collection until it is closed.

    Closing hangs up on every browser and waits for the threads that answer: one that still held the network while
    Python ends would abort the program (torch cannot be left by a thread that Python stops).

    Attributes:
        address: what to open in the browser, the key included.
    """

    daemon_threads = False  # so that closing waits for them

    def __init__(self, collection: Collection, *, port: int) -> None:
        self.key = secrets.token_urlsafe(18)
        self._connections: set[Any] = set()
        self._connecting = threading.Lock()
        try:
            super().__init__((LOOPBACK, port), partial(_Handler, collection, page_files(collection), self.key))
        except (OSError, OverflowError) as error:
            raise UserError(f"--port {port}: cannot be listened on ({error}). Use another, or 0 for any.") from error
        self.address = f"http://{LOOPBACK}:{self.server_address[1]}/?key={self.key}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a browser in a thread of its own, its connection known here until it ends."""
        with self._connecting:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """A connection has ended."""
        with self._connecting:
            self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Hang up on every browser, and wait for what is being answered."""
        with self._connecting:
            for connection in self._connections:
                with suppress(OSError):  # the browser hung up first
                    connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "simsiam", ""
    timeout = 60  # seconds that a silent connection may last

    def __init__(self, collection: Collection, files: dict[str, tuple[bytes, str]], key: str, *arguments: Any) -> None:
        self._collection = collection
        self._files = files
        self._key = key
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal is the person's, not the server's."""

    def _answer(self, method: Any) -> None:
        try:
            self._answer_or_refuse(method)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):  # the browser went on to something else
            self.close_connection = True

    def _answer_or_refuse(self, method: Any) -> None:
        self._url = urlsplit(self.path)
        self._query = parse_qs(self._url.query)
        self._said = {name.lower(): value for name, value in self.headers.items()}
        try:
            if self._is_first_visit():
                return
            reason = refusal(self._said, path=self._url.path, key=self._key)
            if reason is not None:
                raise Refused(HTTPStatus.FORBIDDEN, reason)
            method()
        except Refused as refused:
            self.close_connection = True  # what is left of its body is never read
            self._send(refused.status, str(refused).encode(), "text/plain; charset=utf-8")
        except UserError as error:
            self._send_json({"error": str(error)}, status=HTTPStatus.BAD_REQUEST)

    def _is_first_visit(self) -> bool:
        """Whether the request carries the printed key; it is then put in a cookie and out of the address."""
        given = self._query.get("key", [""])[0]
        if self._url.path != "/" or not hmac.compare_digest(given.encode(), self._key.encode()):
            return False
        if refusal(
            {"host": self._said.get("host", ""), "cookie": f"{cookie_name(given)}={given}"}, path="/", key=self._key
        ):
            return False
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", "/")
        self.send_header("Set-Cookie", f"{cookie_name(given)}={given}; HttpOnly; SameSite=Strict; Path=/")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return True

    def _get(self) -> None:
        path = self._url.path
        if (fixed := self._files.get(path)) is not None:
            self._send(HTTPStatus.OK, *fixed)
        elif match := re.fullmatch(r"/(thumb|image)/(\d{1,9})", path):
            side = THUMB if match[1] == "thumb" else LARGE
            content = self._collection.jpeg(self._row(match[2]), side=side)
            self._send(HTTPStatus.OK, content, JPEG, lasting="private, max-age=86400")
        elif path == "/api/images":
            start, count = self._number("start", 0, 10**9), self._number("count", 100, MOST_ROWS)
            self._send_json(self._collection.page(start=start, count=count, text=self._query.get("text", [""])[0]))
        elif match := re.fullmatch(r"/api/like/(\d{1,9})", path):
            self._send_json(self._collection.like(self._row(match[1]), k=self._number("k", 48, MOST_ROWS)))
        elif path == "/api/duplicates":
            start, count = self._number("start", 0, 10**9), self._number("count", 20, 100)
            self._send_json(self._collection.duplicates(self._threshold(), start=start, count=count))
        elif match := re.fullmatch(r"/api/map/(pca|tsne)", path):
            self._send_json(self._collection.map("pca" if match[1] == "pca" else "tsne"))
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _post(self) -> None:
        if self._url.path != "/api/search":
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")
        length = self._said.get("content-length", "")
        if not length.isdecimal():
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "The picture's length is missing.")
        if int(length) > MOST_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A picture may have {MOST_BYTES >> 20} MB.")
        content = self.rfile.read(int(length))
        self._send_json(self._collection.search(content, k=self._number("k", 48, MOST_ROWS)))

    def _row(self, text: str) -> int:
        if int(text) >= len(self._collection):
            raise Refused(
                HTTPStatus.NOT_FOUND,
                f"There {plural(len(self._collection), 'is', 'are')} {counted(len(self._collection), 'image')}.",
            )
        return int(text)

    def _number(self, name: str, default: int, most: int) -> int:
        text = self._query.get(name, [str(default)])[0]
        if not text.isdecimal():
            raise Refused(HTTPStatus.BAD_REQUEST, f"{name}: a whole number.")
        return min(int(text), most)

    def _threshold(self) -> float:
        try:
            return float(self._query.get("threshold", ["0.95"])[0])
        except ValueError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "threshold: a number.") from error

    def _send_json(self, value: Any, *, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, json.dumps(value).encode(), JSON)

    def _send(self, status: HTTPStatus, content: bytes, kind: str, *, lasting: str = "no-store") -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", lasting)
        self.end_headers()
        self.wfile.write(content)
