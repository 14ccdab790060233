"""Annotation files of every form, damaged as bytes and in their words: XML with bombs of entities, json, CSV, text."""

from __future__ import annotations

import functools
import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from simsiam.data.detection.checks import checked
from simsiam.data.detection.formats import recognise
from simsiam.data.detection.instance_masks import from_runs
from simsiam.data.segmentation.class_list import read_classes
from simsiam.errors import UserError
from tests.data.detection import test_formats as exports
from tests.fuzz.harness import Outcome, Target, mutate, refused_memory

# Each export with the file that is damaged.
EXPORTS: tuple[tuple[Callable[[Path], None], str], ...] = (
    (exports.voc_lists, "Annotations/0.xml"),
    (exports.voc_lists, "ImageSets/Main/train.txt"),
    (exports.cvat_coco, "annotations/instances_default.json"),
    (exports.roboflow_coco, "train/_annotations.coco.json"),
    (exports.cvat_xml, "annotations.xml"),
    (exports.roboflow_yolo, "train/labels/photo_0.txt"),
    (exports.ultralytics, "pets.yaml"),
    (exports.labelme, "0.json"),
    (exports.via_json, "train/via_region_data.json"),
    (exports.via_csv, "via.csv"),
    (exports.open_images, "train-annotations-bbox.csv"),
)
RUNS = {"size": [80, 100], "counts": [840, 200, 6960]}
WORDS = '0 -1 1e308 NaN Infinity null true [] {} "" 99999999999999999999 0.5 "x" [1,2] 1e-9'.split()
_JARGON = ("Traceback", "<class", "NoneType")


class Files(Target):
    """A damaged file in an export that is whole apart from it."""

    @functools.cached_property
    def samples(self) -> Sequence[bytes]:
        """The number of the export, or one more for a list of classes, and the file."""
        import tempfile

        found = []
        for number, (write, name) in enumerate(EXPORTS):
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder))
                content = (Path(folder) / name).read_bytes()
            if name.endswith("instances_default.json"):  # run lengths, plain and packed
                objects = json.loads(content)
                objects["annotations"][0]["segmentation"] = RUNS
                objects["annotations"][1]["segmentation"] = {"size": [80, 100], "counts": _packed()}
                content = json.dumps(objects).encode()
            found.append(bytes([number]) + content)
        lists = ("0 ground\n1 car\n2 car\n255 void\n", exports_labelmap(), "Pixel Value, Class\n0, ground\n1, cat\n")
        return [*found, *(bytes([len(EXPORTS)]) + each.encode() for each in lists)]

    def make(self, seed: int) -> bytes:
        """Damage to bytes, or to numbers and words; now and then a bomb."""
        rng = random.Random(seed)
        sample = rng.choice(self.samples)
        content = sample[1:]
        if rng.random() < 0.5:
            content = _words(content, rng)
        else:
            content = mutate(content, rng, [each[1:] for each in self.samples])
        if content.lstrip().startswith(b"<") and rng.random() < 0.3:
            content = _bomb(content, rng)
        elif content.lstrip().startswith(b"{") and rng.random() < 0.1:
            content = b"[" * rng.choice((1000, 200_000)) + content
        return sample[:1] + content

    def check(self, content: bytes, folder: Path) -> Outcome:
        """Recognise the export, check it and read every object's mask."""
        try:
            _read(content[0], content[1:], folder / f"set{content[0]}")
        except UserError as error:
            refusal = error
        else:
            return "read"
        assert not refused_memory(refusal), "memory ran out"
        assert not any(word in str(refusal) for word in _JARGON), refusal
        return "refused"


def _read(number: int, content: bytes, place: Path) -> None:
    place.mkdir(exist_ok=True)
    if number == len(EXPORTS):
        (place / "classes.txt").write_bytes(content)
        read_classes(place / "classes.txt")
        return
    write, name = EXPORTS[number]
    write(place)
    (place / name).write_bytes(content)
    for part in recognise(place).parts.values():
        source = checked(part, "drop").source
        for index in range(len(source)):
            masks = source.target(index).masks
            assert masks is None or masks.decode().shape == (len(masks), exports.HEIGHT, exports.WIDTH)


def exports_labelmap() -> str:
    """CVAT's list of classes."""
    return "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\ndog:51,221,255::\n"


def _packed() -> str:
    return from_runs(RUNS["counts"], height=80, width=100).counts.decode()


def _words(content: bytes, rng: random.Random) -> bytes:
    """Numbers, words and brackets replaced by others."""
    places = [match.span() for match in re.finditer(rb'-?\d+\.?\d*|"[^"]*"|\[[^\[\]]*\]', content)]
    for start, stop in sorted(rng.sample(places, min(len(places), rng.choice((1, 1, 3, 10)))), reverse=True):
        content = content[:start] + rng.choice(WORDS).encode() + content[stop:]
    return content


def _bomb(content: bytes, rng: random.Random) -> bytes:
    """Entities that name entities, or a file of the machine, ahead of the text and in it."""
    layers = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, rng.choice((4, 12))))
    outside = '<!ENTITY l0 SYSTEM "file:///etc/passwd">' if rng.random() < 0.3 else '<!ENTITY l0 "ha">'
    body = re.sub(rb"^\s*<\?xml[^>]*\?>", b"", content)
    named = body.replace(b"cat", b"&l3;", 1)
    encoded = f"<!DOCTYPE annotation [{outside}{layers}]>".encode() + named
    return encoded if rng.random() < 0.7 else encoded.decode("latin-1").encode("utf-16")
