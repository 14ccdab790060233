"""`simsiam browse`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from simsiam.commands.embedding_options import read, say
from simsiam.wording import counted

ABOUT = """Search a set of images by example, on a page that this machine alone can open.

Click a picture to see those most like it, or drop one of your own on the page. Ctrl-C ends it. Links that lead out of
a folder are not shown: name such images in a list.
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The page."""

    port: int = 0  # Port of 127.0.0.1; 0: any that is free.
    no_open: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False  # Print the address and open no browser.


def run(arguments: list[str]) -> int:
    """Embed the images, then serve the page until Ctrl-C."""
    asked = read(arguments, Options(), about=ABOUT, prog="simsiam browse")
    embedded = asked.embed()
    from simsiam.browse.collection import Collection
    from simsiam.browse.server import Server
    from simsiam.embedding.embedder import Embedder

    embedder = Embedder(asked.subject, asked.settings, device=asked.inputs.device)
    with Server(Collection(embedded, embedder), port=asked.options.port) as server:
        print(f"{counted(len(embedded), 'image')} at {server.address}")
        say("only this machine can open it, with this address; Ctrl-C ends it")
        sys.stdout.flush()
        if not asked.options.no_open and _has_screen():
            import webbrowser

            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("ended")
    return 0


def _has_screen() -> bool:
    """Whether a browser can show a window; without one a browser of the terminal would take the terminal over."""
    return not sys.platform.startswith("linux") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
