"""A small set served as `simsiam browse` serves it, for the tests of the page and of its server."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simsiam.browse.collection import Collection
from simsiam.browse.server import Server, cookie_name
from simsiam.config import Machine
from simsiam.data.sources import FolderSource
from simsiam.embedding.embedder import Embedder
from simsiam.embedding.vectors import embed_source, embedding
from simsiam.weights.pretrained import open_subject
from tests import tiny

IMAGES = 3 * 50 + 2  # shapes, an exact copy, and one with a hostile name
HOSTILE = '<img src=x onerror="document.title=1">.png'


@dataclass(frozen=True, kw_only=True)
class Served:
    server: Server
    collection: Collection
    root: Path

    def ask(self, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> Any:
        """One request with the key, unless `cookie` says otherwise; status, headers and body."""
        sent = {"Cookie": f"{cookie_name(self.server.key)}={self.server.key}"} | {
            name.replace("_", "-"): one for name, one in headers.items()
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_address[1], timeout=30)
        connection.request(method, path, body=body, headers=sent)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.headers, content

    def json(self, path: str, **arguments: Any) -> Any:
        status, _, content = self.ask(path, **arguments)
        assert status == 200, content
        return json.loads(content)


@contextmanager
def serve(place: Path) -> Iterator[Served]:
    """The set in a folder below `place`, served until the block ends."""
    root = tiny.folder(place / "photos", classes=3, images=50)
    (root / "square" / "zz copy.jpg").write_bytes((root / "circle" / "004.jpg").read_bytes())
    tiny.shape("circle", seed=999).save(root / "stripes" / HOSTILE)
    (root / "stripes" / "broken.png").write_text("none")
    (root.parent / "secret.txt").write_text("secret")
    subject = open_subject("random:resnet10", seed=0, size=32)
    machine = Machine(cache=root.parent / "cache", device="cpu", workers=0)
    embedded = embed_source(subject, FolderSource(root), embedding(32), machine=machine)
    collection = Collection(embedded, Embedder(subject, embedding(32), device="cpu"))
    with Server(collection, port=0) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield Served(server=made, collection=collection, root=root)
        made.shutdown()
        thread.join()
