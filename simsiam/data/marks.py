"""Numbers that stand for a word: how an image stands to a class, and the pixels that no class is known of."""

from __future__ import annotations

PRESENT, ABSENT, DIFFICULT = 1, 0, -1  # VOC2007's own marks 1, -1 and 0 in this project's numbers
IGNORE = 255  # in a mask
