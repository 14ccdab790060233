"""A photo as evaluations and embeddings take it, on one core: decoded whole, and decoded at the scale that suffices.

    python benchmarks/evaluation_decoding.py                  # 12 megapixels, as a phone's
    python benchmarks/evaluation_decoding.py --pixels 0.1875  # 500 x 375, as ImageNet's: nothing to gain
    python benchmarks/evaluation_decoding.py --size 48

The photographs are scikit-learn's two, resized and stored as JPEG. Both sides take turns and are timed in processor
time, so that other programs disturb them less. The difference is of what the network sees, in levels of 255.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import time

import numpy as np
from PIL import Image
from views import photographs, processor

from simsiam.data.images import read_image
from simsiam.data.preprocess import Preprocess, short_edge


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="pixels of the square that the network sees")
    parser.add_argument("--pixels", type=float, default=12.0, help="megapixels of the photographs")
    parser.add_argument("--rounds", type=int, default=5, help="in each, every photograph is read twice by both sides")
    options = parser.parse_args()
    resize = short_edge(options.size)
    how = Preprocess(kind="center", resize=resize, size=options.size, mean=(0.0,) * 3, std=(1.0,) * 3)
    files = photographs(options.pixels)
    sides: dict[str, int | None] = {"decoded whole": None, "decoded at scale": how.decoded_side}
    pace: dict[str, list[float]] = {name: [] for name in sides}
    seen: dict[str, list[np.ndarray]] = {}
    for _ in range(options.rounds):
        for name, short_side in sides.items():
            started = time.process_time()
            for file in 2 * files:
                how.resample(read_image(file, name="photograph", short_side=short_side))
            pace[name].append(2 * len(files) / (time.process_time() - started))
            seen[name] = [how.resample(read_image(file, name="photograph", short_side=short_side)) for file in files]
    width, height = Image.open(io.BytesIO(files[0])).size
    print(
        f"{processor()}, load average {os.getloadavg()[0]:.1f}; one core, JPEG of {width} x {height}, "
        f"{options.size} px out of a short edge of {resize}"
    )
    whole, scaled = (statistics.median(pace[name]) for name in sides)
    off = np.abs(np.subtract(*(np.stack(seen[name]).astype(np.float32) for name in sides)))
    print(f"decoded whole    {whole:8.1f} images/s")
    print(f"decoded at scale {scaled:8.1f} images/s  x{scaled / whole:.2f}")
    print(f"difference of the pixels: mean {off.mean():.2f}, largest {off.max():.0f} levels of 255")


if __name__ == "__main__":
    main()
