"""Two views of a JPEG on one core: plain torchvision beside this program's engines, all measured in one run.

    python benchmarks/views.py                    # 500 x 375 pixels, as ImageNet's
    python benchmarks/views.py --pixels 12        # a phone's twelve megapixels
    python benchmarks/views.py --size 48

The photographs are scikit-learn's two, resized and stored as JPEG at quality 90. Each side decodes every image anew and
makes two views of it; the last rows start from decoded pixels, as from the second epoch on with a cache. The sides take
turns, and the ratio is of the medians of processor time, so that other programs disturb it less.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_images
from torchvision import transforms

from simsiam.config import Views
from simsiam.data.images import read_image
from simsiam.data.two_views.draws import decoded_side, draw, step_generator
from simsiam.data.two_views.engines import opencv_crop, opencv_view, pil_view
from simsiam.recipes.pretrain import RECIPES

ROUNDS = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="pixels of a view")
    parser.add_argument("--pixels", type=float, default=0.1875, help="megapixels of the photographs")
    parser.add_argument("--images", type=int, default=40, help="decoded in each round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    views = dataclasses.replace(RECIPES["resnet50_8xb32-coslr-100e"]().views, size=options.size)
    files = photographs(options.pixels)
    sides = {"plain torchvision": plain(views, files), **ours(views, files)}
    if (lightly := lightly_ssl(views, files)) is not None:
        sides["LightlySSL"] = lightly
    pace: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side(0)
    for _ in range(ROUNDS):
        for name, side in sides.items():
            started = time.process_time()
            for number in range(options.images):
                side(number)
            pace[name].append(options.images / (time.process_time() - started))
    width, height = Image.open(io.BytesIO(files[0])).size
    print(f"{processor()}, one core, JPEG of {width} x {height}, two views of {options.size} px")
    base = statistics.median(pace["plain torchvision"])
    for name, values in pace.items():
        print(f"{name:<34} {statistics.median(values):>8,.1f} images/s  x{statistics.median(values) / base:.2f}")


def photographs(megapixels: float) -> list[bytes]:
    """The two photographs at 4:3 as JPEG files."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    files = []
    for pixels in load_sample_images().images:
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((height * 4 // 3, height)).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def plain(views: Views, files: list[bytes]) -> Callable[[int], Any]:
    """The recipe as anyone would write it with torchvision."""

    def blur(image: Image.Image) -> Image.Image:
        sigma = random.uniform(views.blur_sigma_min, views.blur_sigma_max)
        return image.filter(ImageFilter.GaussianBlur(radius=sigma))

    jitter = transforms.ColorJitter(views.brightness, views.contrast, views.saturation, views.hue)
    view = transforms.Compose(
        [
            transforms.RandomResizedCrop(views.size, (views.min_scale, views.max_scale)),
            transforms.RandomApply([jitter], p=views.jitter_probability),
            transforms.RandomGrayscale(views.grayscale_probability),
            transforms.RandomApply([transforms.Lambda(blur)], p=views.blur_probability),
            transforms.RandomHorizontalFlip(views.flip_probability),
            transforms.ToTensor(),
            transforms.Normalize(views.mean, views.std),
        ]
    )

    def one(number: int) -> Any:
        image = Image.open(io.BytesIO(files[number % len(files)])).convert("RGB")
        return view(image), view(image)

    return one


def ours(views: Views, files: list[bytes]) -> dict[str, Callable[[int], Any]]:
    """Each engine from the file, and the views alone."""
    draws = draw(views, 2 * 64, step_generator(seed=0, epoch=0, step=0))
    decoded = [np.asarray(read_image(file, name="photograph")) for file in files]

    def from_file(view: Callable[..., np.ndarray], *, array: bool, short_side: int | None = None) -> Any:
        def one(number: int) -> Any:
            image = read_image(files[number % len(files)], name="photograph", short_side=short_side)
            image = np.asarray(image) if array else image
            return [view(image, views, draws, (2 * number + second) % len(draws)) for second in (0, 1)]

        return one

    def from_pixels(number: int) -> Any:
        image = decoded[number % len(decoded)]
        return [opencv_view(image, views, draws, (2 * number + second) % len(draws)) for second in (0, 1)]

    return {
        "PIL engine": from_file(pil_view, array=False),
        "crops for the device engine": from_file(opencv_crop, array=True, short_side=decoded_side(views)),
        "OpenCV engine, whole decoding": from_file(opencv_view, array=True),
        "OpenCV engine, decoding to scale": from_file(opencv_view, array=True, short_side=decoded_side(views)),
        "OpenCV engine, decoded before": from_pixels,
    }


def lightly_ssl(views: Views, files: list[bytes]) -> Callable[[int], Any] | None:
    """LightlySSL's transform of SimSiam, where it is installed."""
    try:
        from lightly.transforms import SimSiamTransform
    except ImportError:
        return None
    view = SimSiamTransform(input_size=views.size)

    def one(number: int) -> Any:
        return view(Image.open(io.BytesIO(files[number % len(files)])).convert("RGB"))

    return one


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
