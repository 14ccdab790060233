"""A set of images that can be looked through and asked; every answer is a plain value that goes out as JSON."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import numpy as np

from simsiam.browse.pictures import Thumbnails, leads_out
from simsiam.embedding.embedder import Embedder
from simsiam.embedding.similarity import Group, Hit, Index, Method, near_duplicates, plane
from simsiam.embedding.vectors import Embedded
from simsiam.errors import UserError

T = TypeVar("T")


class Job(Generic[T]):
    """One piece of work in a thread of its own.

    Attributes:
        share: how much is done, 0 to 1.
        result: what came out; None until then.
        error: what went wrong, in words; None where nothing did.
    """

    def __init__(self, work: Callable[[Callable[[float], None]], T]) -> None:
        self.share = 0.0
        self.result: T | None = None
        self.error: str | None = None
        self._stop = False
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Let the work end at its next word of progress: nobody waits for it any more."""
        self._stop = True

    def wait(self, seconds: float) -> bool:
        """Whether it has ended after at most this long."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self, work: Callable[[Callable[[float], None]], T]) -> None:
        try:
            self.result = work(self._progress)
        except _Cancelled:
            self.error = "cancelled"
        except UserError as error:
            self.error = str(error)
        except Exception as error:  # a page that asks for it must learn of it, or it asks for ever
            self.error = f"{type(error).__name__}: {error}"

    def _progress(self, share: float) -> None:
        self.share = share
        if self._stop:
            raise _Cancelled


class _Cancelled(Exception):
    """Nobody waits for the work any more."""


MOST: dict[Method, int] = {"pca": 10_000, "tsne": 2_000}  # points; a larger set is sampled


def chosen(total: int, method: Method) -> np.ndarray:
    """The rows that a map shows, ascending: all of them, or a sample with a fixed seed."""
    if total <= MOST[method]:
        return np.arange(total)
    return np.sort(np.random.default_rng(0).choice(total, MOST[method], replace=False))


Answer = dict[str, Any]
MOST_ROWS = 500  # in one answer
GROUP_SHOWN = 24  # members of a group in one answer


class Collection:
    """The images, their vectors in memory, and the work in the background.

    Attributes:
        background: similarities of pairs drawn at random.
    """

    def __init__(self, embedded: Embedded, embedder: Embedder) -> None:
        self.embedded = embedded
        self.index = Index.of(embedded)
        self.background = self.index.background()
        self.thumbnails = Thumbnails(embedded.source)
        self._embedder = embedder
        self._network = threading.Lock()  # one picture at a time goes through it
        self._jobs = threading.Lock()
        self._groups: tuple[float, Job[list[Group]]] | None = None
        self._maps: dict[Method, Job[list[list[float]]]] = {}
        self._filtered: tuple[str, list[int]] = ("", [])

    def __len__(self) -> int:
        return len(self.embedded)

    def jpeg(self, row: int, *, side: int) -> bytes:
        """The picture of a row as JPEG; raises UserError for a link that leads out of the folder."""
        index = int(self.embedded.features.indices[row])
        if leads_out(self.embedded.source, index):
            raise UserError(f"{self.embedded.path(row)}: a link that leads out of the folder; a list may name it.")
        return self.thumbnails.jpeg(index, side=side)

    def page(self, *, start: int, count: int, text: str) -> Answer:
        """Images in the set's order, those whose path or class holds the text."""
        rows = self._matching(text.strip().lower()) if text.strip() else range(len(self))
        return {"total": len(rows), "start": start, "images": [self._entry(row) for row in rows[start : start + count]]}

    def like(self, row: int, *, k: int) -> Answer:
        """The neighbours of an image of the set, without itself."""
        hits = self.index.nearest(self.index.rows[row], k, leave_out=row)
        return {"query": self._entry(row), "images": self._found(hits), "more": len(hits) < len(self) - 1}

    def search(self, content: bytes, *, k: int) -> Answer:
        """The neighbours of a picture that is none of the set; raises UserError if it cannot be read."""
        with self._network:
            vector = self._embedder([content])[0]
        hits = self.index.nearest(vector, k)
        return {"query": None, "images": self._found(hits), "more": len(hits) < len(self)}

    def duplicates(self, threshold: float, *, start: int, count: int, patience: float = 0.3) -> Answer:
        """Groups of near duplicates, or how far the search for them is."""
        job = self._duplicates_job(threshold)
        job.wait(patience)
        if job.result is None:
            return {"state": "failed" if job.error else "working", "share": job.share, "error": job.error}
        groups = job.result
        return {
            "state": "done",
            "total": len(groups),
            "members": sum(len(group.members) for group in groups),
            "copies": sum(group.copies for group in groups),
            "start": start,
            "groups": [self._group(group) for group in groups[start : start + count]],
        }

    def map(self, method: Method, *, patience: float = 0.3) -> Answer:
        """Points of the plane as [row, x, y], or word that they are being worked out."""
        with self._jobs:
            if method not in self._maps:
                self._maps[method] = Job(lambda progress: self._points(method))
            job = self._maps[method]
        job.wait(patience)
        if job.result is None:
            return {"state": "failed" if job.error else "working", "share": job.share, "error": job.error}
        return {"state": "done", "points": job.result, "total": len(self)}

    def _duplicates_job(self, threshold: float) -> Job[list[Group]]:
        with self._jobs:
            if self._groups is None or self._groups[0] != threshold:
                if self._groups is not None:
                    self._groups[1].cancel()
                job = Job(
                    lambda progress: near_duplicates(
                        self.index.rows,
                        threshold=threshold,
                        digests=self.embedded.digests(),
                        progress=progress,
                    )
                )
                self._groups = (threshold, job)
            return self._groups[1]

    def _points(self, method: Method) -> list[list[float]]:
        rows = chosen(len(self), method)
        points = plane(self.index.rows[rows], method)
        return [[int(row), round(float(x), 4), round(float(y), 4)] for row, (x, y) in zip(rows, points, strict=True)]

    def _matching(self, text: str) -> list[int]:
        known, rows = self._filtered
        if known != text:
            rows = [row for row in range(len(self)) if text in self._words(row)]
            self._filtered = (text, rows)
        return rows

    def _words(self, row: int) -> str:
        return f"{self.embedded.path(row)} {self.embedded.label(row) or ''}".lower()

    def _entry(self, row: int) -> Answer:
        return {"row": row, "path": self.embedded.path(row), "label": self.embedded.label(row)}

    def _found(self, hits: Iterable[Hit]) -> list[Answer]:
        return [{**self._entry(hit.row), "similarity": round(hit.similarity, 4)} for hit in hits]

    def _group(self, group: Group) -> Answer:
        shown = [
            {**self._entry(each.row), "similarity": round(each.similarity, 4), "copy": each.same_as is not None}
            for each in group.members[:GROUP_SHOWN]
        ]
        return {"size": len(group.members), "images": shown}
