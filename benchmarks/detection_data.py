"""What the data and metrics of detection cost at the published sizes, on made-up annotations.

    python benchmarks/detection_data.py [--images 118287] [--objects 860001] [--scored 5000] [--photos FOLDER]

Times reading and memory of a COCO json of train2017's size, reading of 16,551 VOC annotations, average precision of
5,000 images with 100 detections each (80 classes; with pycocotools on the same input where it is installed), and,
with a folder of photos that holds a COCO json beside its `images`, the images a second that one process resizes for
training. Every part runs in a process of its own, so that the peak of memory is that part's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from simsiam.data.detection.boxes import BoxImage, BoxSource, Prediction, Target
from simsiam.data.detection.coco import open_coco
from simsiam.data.detection.loader import BoxLoader
from simsiam.data.detection.transforms import BoxTransform
from simsiam.data.detection.voc import open_voc_folder
from simsiam.data.preprocess import Normalisation
from simsiam.evaluation.detection.average_precision import coco_scores, voc_scores

CLASSES, DETECTIONS, VOC_IMAGES = 80, 100, 16_551


def main() -> None:
    """Print one line for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--objects", type=int, default=860_001)
    parser.add_argument("--scored", type=int, default=5_000)
    parser.add_argument("--photos", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _alone("writing a COCO json", _write_coco, root, given.images, given.objects)
        _alone("reading a COCO json", _read_coco, root)
        _alone("writing VOC annotations", _write_voc, root / "voc")
        _alone("reading VOC annotations", _read_voc, root / "voc")
    for name, part in (("VOC's average precision", _voc), ("COCO's average precision of boxes", _coco)):
        _alone(name, part, given.scored)
    _alone("the same by pycocotools", _pycocotools, given.scored)
    if given.photos is not None:
        _alone("training images", _loading, given.photos)


def _alone(name: str, part: Callable[..., str], *arguments: Any) -> None:
    """Run in a fresh process; print its time, what it says and its peak of memory."""
    context = multiprocessing.get_context("spawn")
    queue: Any = context.SimpleQueue()
    process = context.Process(target=_measured, args=(queue, part, arguments))
    process.start()
    process.join()
    seconds, said, peak = queue.get() if process.exitcode == 0 else (float("nan"), "failed", float("nan"))
    print(f"{name}: {seconds:.1f} s, {said}, peak {peak:.2f} GiB", flush=True)


def _measured(queue: Any, part: Callable[..., str], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    started = time.perf_counter()
    said = part(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    queue.put((time.perf_counter() - started, said, peak))


def _write_coco(root: Path, images: int, objects: int) -> str:
    random = np.random.default_rng(0)
    entries = [
        {"id": number, "file_name": f"{number:012d}.jpg", "width": 640, "height": 480} for number in range(images)
    ]
    owners = np.sort(random.integers(0, images, objects)).tolist()
    corners = random.random((objects, 4)) * [500, 380, 100, 80] + [0, 0, 5, 5]
    circle = np.stack([np.cos(np.linspace(0, 6.2, 25)), np.sin(np.linspace(0, 6.2, 25))], 1) * 0.5 + 0.5
    annotations = []
    for number, (owner, box) in enumerate(zip(owners, corners, strict=True)):
        outline = np.round(circle * box[2:] + box[:2], 2).reshape(-1).tolist()
        annotations.append(
            {
                "id": number,
                "image_id": owner,
                "category_id": number % CLASSES + 1,
                "bbox": np.round(box, 2).tolist(),
                "area": float(box[2] * box[3]),
                "iscrowd": 0,
                "segmentation": [outline],
            }
        )
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)]
    (root / "set.json").write_text(
        json.dumps({"images": entries, "annotations": annotations, "categories": categories})
    )
    return f"{(root / 'set.json').stat().st_size / 2**20:.0f} MiB"


def _read_coco(root: Path) -> str:
    source = open_coco(root / "set.json", root)
    assert source.shapes is not None
    kept = sum(part.nbytes for part in (source.shapes.points, source.shapes.part_ends, source.shapes.ends))
    return f"{len(source):,} images, {len(source.objects.labels):,} objects, {kept / 2**20:.0f} MiB of outlines kept"


def _write_voc(root: Path) -> str:
    root.mkdir()
    one = (
        "<object><name>cat</name><difficult>0</difficult><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>110</xmax>"
        "<ymax>220</ymax></bndbox></object>"
    )
    size = "<size><width>500</width><height>375</height><depth>3</depth></size>"
    for number in range(VOC_IMAGES):
        file = f"{number:06d}.jpg"
        (root / file).touch()
        text = f"<annotation><filename>{file}</filename>{size}{one * 3}</annotation>"
        (root / f"{number:06d}.xml").write_text(text)
    return f"{VOC_IMAGES:,} files"


def _read_voc(root: Path) -> str:
    source = open_voc_folder(root)
    return f"{len(source):,} images, {len(source.objects.labels):,} objects"


class _Made(BoxSource):
    """Boxes without images."""

    def __init__(self, targets: list[Target]) -> None:
        self.name, self.targets, self.has_masks = "made up", targets, False
        self.classes = tuple(f"class {number}" for number in range(1, CLASSES + 1))

    def __len__(self) -> int:
        return len(self.targets)

    def image(self, index: int) -> BoxImage:
        """A record of a file that does not exist."""
        return BoxImage(id=index, path=f"{index}.jpg", file=Path(f"{index}.jpg"), width=640, height=480)

    def target(self, index: int) -> Target:
        """What is on it."""
        return self.targets[index]

    def fingerprint(self) -> str:
        """Not asked for."""
        return "made up"


def _case(images: int) -> tuple[_Made, list[Prediction]]:
    random = np.random.default_rng(0)
    targets, predictions = [], []
    for image in range(images):
        count = int(random.integers(1, 14))
        corner = random.random((count, 2)) * [500, 380]
        boxes = np.concatenate([corner, corner + random.random((count, 2)) * 90 + 8], 1).astype(np.float32)
        none = torch.zeros(count, dtype=torch.bool)
        sides = boxes[:, 2:] - boxes[:, :2]
        labels = random.integers(1, CLASSES + 1, count)
        targets.append(
            Target(
                boxes=torch.from_numpy(boxes),
                labels=torch.from_numpy(labels),
                difficult=none,
                crowd=none,
                area=torch.from_numpy(sides.prod(1)),
                masks=None,
            )
        )
        rows = random.integers(0, count, DETECTIONS)
        near = boxes[rows] + random.normal(0, 6, (DETECTIONS, 4)).astype(np.float32)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 2)
        predictions.append(
            Prediction(
                image=image,
                boxes=torch.from_numpy(near),
                scores=torch.from_numpy(random.random(DETECTIONS).astype(np.float32)),
                labels=torch.from_numpy(labels[rows]),
                masks=None,
            )
        )
    return _Made(targets), predictions


def _voc(images: int) -> str:
    source, predictions = _case(images)
    started = time.perf_counter()
    figures = voc_scores(predictions, source).metrics
    return f"of which {time.perf_counter() - started:.1f} s scoring, ap {figures['ap']:.3f}"


def _coco(images: int) -> str:
    source, predictions = _case(images)
    started = time.perf_counter()
    figures = coco_scores(predictions, source).metrics
    return f"of which {time.perf_counter() - started:.1f} s scoring, ap {figures['box_ap']:.3f}"


def _pycocotools(images: int) -> str:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        return "not installed"
    from simsiam.evaluation.detection.average_precision import found_of, truth_of

    source, predictions = _case(images)
    started = time.perf_counter()
    truth = COCO()
    truth.dataset = truth_of(source, masks=False)
    truth.createIndex()
    scoring = COCOeval(truth, truth.loadRes(found_of(predictions, "box")), "bbox")
    scoring.evaluate()
    scoring.accumulate()
    scoring.summarize()
    return f"of which {time.perf_counter() - started:.1f} s scoring, ap {100 * scoring.stats[0]:.3f}"


def _loading(photos: Path) -> str:
    source = open_coco(next(photos.glob("*.json")), photos / "images")
    how = BoxTransform(short_sides=(640, 672, 704, 736, 768, 800), long_side=1333, flip_probability=0.5)
    loader = BoxLoader(
        source,
        how,
        normalisation=Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        batch_size=2,
        seed=0,
        device=torch.device("cpu"),
    )
    next(loader.run(0, 1))
    started = time.perf_counter()
    steps = 60
    for _ in loader.run(0, steps):
        pass
    return f"{2 * steps / (time.perf_counter() - started):.1f} images a second in one process, masks included"


if __name__ == "__main__":
    main()
