"""Who may ask: this machine's own browser, with the key that the command printed, from the page itself.

The server listens on the loopback alone, which leaves three others to keep out. A web page elsewhere whose name is
turned to 127.0.0.1 (DNS rebinding) shows in the Host header. A web page elsewhere that sends requests here shows in
Origin and Sec-Fetch-Site. Another person with an account on the machine does not know the key.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

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
