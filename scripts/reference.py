"""The reference of the public names, from their docstrings: build/reference/simsiam.html. `make docs` runs it."""

from __future__ import annotations

from pathlib import Path

import pdoc

import simsiam

for name in simsiam.__all__:
    setattr(simsiam, name, getattr(simsiam, name))  # they are imported when first used; pdoc only looks
pdoc.render.configure(docformat="google", footer_text=f"simsiam {simsiam.__version__}")
pdoc.pdoc("simsiam", output_directory=Path("build/reference"))
print("build/reference/simsiam.html")
