"""A photo as evaluations and embeddings take it, on one core: decoded whole, and decoded at the scale that suffices.

    python benchmarks/evaluation_decoding.py                  # 12 megapixels, as a phone's
    python benchmarks/evaluation_decoding.py --pixels 0.1875  # 500 x 375, as ImageNet's: nothing to gain
    python benchmarks/evaluation_decoding.py --size 48

The photographs are scikit-learn's two, resized and stored as JPEG. Both sides take turns and are timed in processor
time, so that other programs disturb them less. The difference is of what the network sees, in levels of 255.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np

from simsiam.data.preprocess import Preprocess, short_edge
from simsiam.data.source import Source
from simsiam.pretraining.bench_sides import photographs
from simsiam.pretraining.pace import processor


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="pixels of the square that the network sees")
    parser.add_argument("--pixels", type=float, default=12.0, help="megapixels of the photographs")
    parser.add_argument("--rounds", type=int, default=5, help="in each, every photograph is read twice by both sides")
    options = parser.parse_args()
    resize = short_edge(options.size)
    how = Preprocess(kind="center", resize=resize, size=options.size, mean=(0.0,) * 3, std=(1.0,) * 3)
    pace: dict[str, list[float]] = {"decoded whole": [], "decoded at scale": []}
    seen: dict[str, list[np.ndarray]] = {}

    def read(source: Source) -> list[np.ndarray]:
        return [how.resample(source.read(index)) for index in range(len(source))]

    with photographs(options.pixels) as whole_source:
        sides = dict(zip(pace, (whole_source, whole_source.at_scale(how.decoded_side)), strict=True))
        for _ in range(options.rounds):
            for name, source in sides.items():
                started = time.process_time()
                seen[name] = [*read(source), *read(source)]
                pace[name].append(len(seen[name]) / (time.process_time() - started))
    print(
        f"{processor()}, load average {os.getloadavg()[0]:.1f}; one core, {whole_source.name}, "
        f"{options.size} px out of a short edge of {resize}"
    )
    whole, scaled = (statistics.median(values) for values in pace.values())
    off = np.abs(np.subtract(*(np.stack(seen[name]).astype(np.float32) for name in pace)))
    print(f"decoded whole    {whole:8.1f} images/s")
    print(f"decoded at scale {scaled:8.1f} images/s  x{scaled / whole:.2f}")
    print(f"difference of the pixels: mean {off.mean():.2f}, largest {off.max():.0f} levels of 255")


if __name__ == "__main__":
    main()
