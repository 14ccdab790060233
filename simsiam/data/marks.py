"""How an image stands to a class in sets with several labels an image."""

from __future__ import annotations

PRESENT, ABSENT, DIFFICULT = 1, 0, -1  # VOC2007's own marks 1, -1 and 0 in this project's numbers
