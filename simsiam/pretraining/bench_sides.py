"""What `simsiam bench` measures: the ways of making a step, views, and vectors, the plain one first."""

from __future__ import annotations

import dataclasses
import itertools
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision import transforms as _transforms

from simsiam import model as simsiam_model
from simsiam.config import Pretraining, Views
from simsiam.data.source import FileSource, Source
from simsiam.data.two_views.draws import decoded_side, draw, step_generator
from simsiam.data.two_views.engines import opencv_crop, opencv_view, pil_view
from simsiam.model import SimSiam
from simsiam.pretraining.pace import Side, step_of, wait
from simsiam.weights import export

transforms: Any = _transforms  # torchvision annotates little of them
PLAIN = "plain loop, as one would write it first"
OTHER = "another precision"
TO_SCALE, USED = "decoding to the scale of the views", "simsiam, OpenCV engine"
DECODED = "simsiam, OpenCV engine, decoded before"
ROWS = 64  # of draws, taken in turn
KEPT = 16  # decoded images kept in memory


def step_sides(recipe: Pretraining, device: torch.device, *, compiled: bool, notes: list[str]) -> list[Side]:
    """Training steps on random views; a note says where a side is left out or took long to begin."""
    batch, size = recipe.batch_size, recipe.views.size
    x1, x2 = (torch.randn(batch, 3, size, size, device=device) for _ in range(2))
    ways: dict[str, Callable[[], object]] = {PLAIN: _plain_step(recipe, x1, x2)}
    if (lightly := _lightly_step(recipe, x1, x2)) is not None:
        ways["LightlySSL"] = lightly
    else:
        notes.append("LightlySSL is not installed here, so it is not among the sides.")
    ways["simsiam, channels-first"] = step_of(recipe, device, batch=batch, channels_last=False)
    ways["simsiam, channels-last"] = step_of(recipe, device, batch=batch, channels_last=True)
    if recipe.precision != "bf16":
        half = dataclasses.replace(recipe, precision="bf16")
        ways[f"simsiam, channels-last, bf16 ({OTHER})"] = step_of(half, device, batch=batch, channels_last=True)
    if compiled:
        call = step_of(recipe, device, batch=batch, channels_last=True, compiled=True)
        started = time.monotonic()
        call()
        wait(device)
        notes.append(f"torch.compile took {time.monotonic() - started:.0f} s before its first step was done.")
        ways["simsiam, channels-last, torch.compile"] = call
    return [Side(name=name, images=batch, call=way) for name, way in ways.items()]


def _plain_step(recipe: Pretraining, x1: torch.Tensor, x2: torch.Tensor) -> Callable[[], float]:
    """The same network in torch's default layout, fp32, with a loss.item() a step."""
    network = SimSiam(recipe.model).to(x1.device)
    optimizer = torch.optim.SGD(network.parameters(), recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay)

    def step() -> float:
        if x1.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        loss = simsiam_model.loss(*network(x1, x2))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    return step


def _lightly_step(recipe: Pretraining, x1: torch.Tensor, x2: torch.Tensor) -> Callable[[], float] | None:
    """The same backbone under LightlySSL's heads and loss; None where it is not installed."""
    try:
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead
    except ImportError:
        return None
    model = recipe.model
    ours = SimSiam(model)
    project = SimSiamProjectionHead(ours.backbone.features, model.projector_hidden, model.projector_dim)
    predict = SimSiamPredictionHead(model.projector_dim, model.predictor_dim, model.projector_dim)
    network = torch.nn.ModuleDict({"f": ours.backbone, "g": project, "h": predict}).to(x1.device)
    optimizer = torch.optim.SGD(network.parameters(), recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay)
    criterion = NegativeCosineSimilarity()

    def step() -> float:
        z1, z2 = (network["g"](network["f"](x)) for x in (x1, x2))
        p1, p2 = network["h"](z1), network["h"](z2)
        loss = (criterion(p1, z2.detach()) + criterion(p2, z1.detach())) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


@contextmanager
def photographs(megapixels: float) -> Iterator[Source]:
    """scikit-learn's two photographs at 4:3 and of so many megapixels, as JPEG files of quality 90 for a while."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    with tempfile.TemporaryDirectory(prefix="simsiam-") as folder:
        for number, photo in enumerate(export.photographs()):
            picture = photo.resize((height * 4 // 3, height))
            picture.save(Path(folder) / f"{number}.jpg", quality=90)
        name = f"photographs of {height * 4 // 3} x {height}"
        yield FileSource(Path(folder), ["0.jpg", "1.jpg"], None, name=name, classes=None)


def decoding_sides(views: Views, source: Source) -> list[Side]:
    """A photo decoded whole, and at the scale that the views need."""
    scaled = source.at_scale(decoded_side(views))
    return [
        Side(name="decoding whole", images=1, call=_each(source, source.read)),
        Side(name=TO_SCALE, images=1, call=_each(source, scaled.read)),
    ]


def view_sides(views: Views, source: Source) -> list[Side]:
    """Two views of an image from its file, and the ones of OpenCV from decoded pixels too."""
    draws = draw(views, 2 * ROWS, step_generator(seed=0, epoch=0, step=0))
    scaled = source.at_scale(decoded_side(views))
    pixels = [np.asarray(scaled.read(index)) for index in range(min(len(source), KEPT))]
    turn = itertools.count()

    def two(view: Callable[..., Any], image: Any) -> list[Any]:
        return [view(image, views, draws, next(turn) % len(draws)) for _ in (0, 1)]

    plain = _torchvision_views(views)
    ways: dict[str, Callable[[int], object]] = {
        "torchvision, as one would write it first": lambda index: two(
            lambda image, *_: plain(image), source.read(index)
        ),
        "simsiam, Pillow engine": lambda index: two(pil_view, source.read(index)),
        "simsiam, crops for the batch engine": lambda index: two(opencv_crop, np.asarray(scaled.read(index))),
        USED: lambda index: two(opencv_view, np.asarray(scaled.read(index))),
        DECODED: lambda index: two(opencv_view, pixels[index % len(pixels)]),
    }
    with suppress(ImportError):
        from lightly.transforms import SimSiamTransform

        theirs = SimSiamTransform(input_size=views.size)
        ways["LightlySSL"] = lambda index: theirs(source.read(index))
    return [Side(name=name, images=1, call=_each(source, way)) for name, way in ways.items()]


def _each(source: Source, way: Callable[[int], object]) -> Callable[[], object]:
    """The way on one image after the other."""
    indices = itertools.cycle(range(len(source)))
    return lambda: way(next(indices))


def _torchvision_views(views: Views) -> Callable[[Image.Image], Any]:
    """The recipe's augmentation as anyone would write it with torchvision."""

    def blur(image: Image.Image) -> Image.Image:
        sigma = random.uniform(views.blur_sigma_min, views.blur_sigma_max)
        return image.filter(ImageFilter.GaussianBlur(radius=sigma))

    jitter = transforms.ColorJitter(views.brightness, views.contrast, views.saturation, views.hue)
    view: Callable[[Image.Image], Any] = transforms.Compose(
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
    return view


def embedding_sides(recipe: Pretraining, device: torch.device) -> list[Side]:
    """The frozen backbone on images that lie ready."""
    batch = min(recipe.batch_size, 64)
    size = recipe.views.size

    def side(name: str, layout: torch.memory_format) -> Side:
        backbone = SimSiam(recipe.model).backbone.to(device).eval().to(memory_format=layout)
        images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=layout)

        def call() -> object:
            with torch.inference_mode():
                return backbone(images)

        return Side(name=name, images=batch, call=call)

    return [
        side("network alone, channels-first", torch.contiguous_format),
        side("network alone, channels-last", torch.channels_last),
    ]
