"""Pooled features of augmented copies of a data set, computed once and kept in memory-mapped files.

A file is named by a hash of everything that its numbers depend on: weights, data, augmentation, seed, copy, number
format. It is written beside under another name, with the count of finished rows, and takes its name when complete;
an interrupted extraction goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from simsiam.backbones import Backbone
from simsiam.config import as_dict
from simsiam.data.classification.loader import augmented_copy
from simsiam.data.classification.transforms import Augmenter
from simsiam.data.loading import image_batches
from simsiam.data.preprocess import Preprocess
from simsiam.data.sources import Source
from simsiam.engine import precision as number_format
from simsiam.engine.precision import Precision
from simsiam.features.extraction import evaluation_mode
from simsiam.results import read_json, write_json

BATCH = 256
ROWS_BETWEEN_MARKS = 16_384  # rows after which the progress is written down

Matrix = np.ndarray[Any, Any]  # N x F, memory-mapped; a row of NaN is an image that could not be read


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Features of some images, by position in the source."""

    positions: Tensor  # B
    features: Tensor  # B x F


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """Computes or finds features: one backbone, one device, one cache folder."""

    backbone: Backbone
    weights: str  # hash of the backbone's tensors
    folder: Path
    device: torch.device
    workers: int
    precision: Precision
    storage: Literal["fp16", "fp32"]

    def augmented(self, source: Source, augmenter: Augmenter, *, copy: int, seed: int) -> Matrix:
        """The features of every image in its `copy`-th augmentation, N x F."""
        key = {"augmenter": as_dict(augmenter), "copy": copy, "seed": seed}

        def rows(first: int) -> Iterator[Rows]:
            batches = augmented_copy(
                source,
                augmenter,
                copy=copy,
                batch_size=BATCH,
                seed=seed,
                device=self.device,
                workers=self.workers,
                first=first,
            )
            for batch in batches:
                yield Rows(positions=batch.indices, features=self._forward(batch.images))

        return self._kept(source, key, rows)

    def plain(self, source: Source, preprocess: Preprocess) -> Matrix:
        """The features of every image without augmentation, N x F."""

        def rows(first: int) -> Iterator[Rows]:
            left = np.arange(first, len(source))
            for batch in image_batches(
                source, preprocess, batch_size=BATCH, device=self.device, workers=self.workers, indices=left
            ):
                yield Rows(positions=batch.indices.cpu(), features=self._forward(batch.images))

        return self._kept(source, {"preprocess": as_dict(preprocess)}, rows)

    def _forward(self, images: Tensor) -> Tensor:
        with (
            torch.inference_mode(),
            evaluation_mode(self.backbone),
            number_format.autocast(self.precision, self.device),
        ):
            features: Tensor = self.backbone(images)
        return features.float().cpu()

    def _kept(self, source: Source, key: dict[str, Any], rows: Callable[[int], Iterator[Rows]]) -> Matrix:
        key = {
            **key,
            "weights": self.weights,
            "data": source.fingerprint(),
            "precision": self.precision,
            "storage": self.storage,
        }
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:40]
        path = self.folder / f"{name}.npy"
        if not path.exists():
            self._compute(source, rows, path)
        table: Matrix = np.load(path, mmap_mode="r")
        return table

    def _compute(self, source: Source, rows: Callable[[int], Iterator[Rows]], path: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        part, mark = path.with_suffix(".part"), path.with_suffix(".json")
        first = 0
        if part.exists() and mark.exists():
            first = int(read_json(mark)["rows"])
            table = np.load(part, mmap_mode="r+")
        else:
            dtype = np.float16 if self.storage == "fp16" else np.float32
            table = open_memmap(part, mode="w+", dtype=dtype, shape=(len(source), self.backbone.features))
        done = first
        table[first:] = np.nan
        for batch in rows(first):
            table[batch.positions.numpy()] = batch.features.numpy()
            reached = int(batch.positions[-1]) + 1 if len(batch.positions) else done
            if reached // ROWS_BETWEEN_MARKS > done // ROWS_BETWEEN_MARKS:
                table.flush()
                write_json(mark, {"rows": reached})
            done = reached
        table.flush()
        os.replace(part, path)
        mark.unlink(missing_ok=True)
