"""A tiny export of each labelling tool, in the layout that the tool writes: what is recognised, and what is read."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simsiam.data import inventory
from simsiam.data.detection.checks import Policy, checked
from simsiam.data.detection.files import BoxFiles
from simsiam.data.detection.formats import FORMATS, recognise
from simsiam.errors import UserError
from simsiam.evaluation.detection.data import BoxSets, open_own

WIDTH, HEIGHT = 100, 80
CAT, DOG = (10.0, 20.0, 50.0, 60.0), (40.0, 8.0, 90.0, 72.0)
SPLITS = {"train": 3, "valid": 2, "test": 1}


def photo(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(file)
    return file


def outline(box: tuple[float, ...]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def coco(names: list[str], *, masks: bool = True, root: str | None = None) -> dict[str, Any]:
    """A cat and a dog on each image."""
    annotations = []
    for image, _ in enumerate(names):
        for category, (x1, y1, x2, y2) in ((1, CAT), (2, DOG)):
            one = {"id": len(annotations), "image_id": image, "category_id": category, "iscrowd": 0}
            one |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            annotations.append(one | ({"segmentation": [outline((x1, y1, x2, y2))]} if masks else {}))
    categories = [
        {"id": 1, "name": "cat", "supercategory": root or ""},
        {"id": 2, "name": "dog", "supercategory": root or ""},
    ]
    if root is not None:
        categories.insert(0, {"id": 0, "name": root, "supercategory": "none"})
    images = [{"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT} for n, name in enumerate(names)]
    info = {"info": {"description": ""}, "licenses": [{"name": "", "id": 0, "url": ""}]}
    return {**info, "categories": categories, "images": images, "annotations": annotations}


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def yolo_line(number: int, box: tuple[float, ...]) -> str:
    x1, y1, x2, y2 = box
    values = ((x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT)
    return f"{number} " + " ".join(f"{value:.6f}" for value in values) + "\n"


def yolo_outline(number: int, box: tuple[float, ...]) -> str:
    flat = outline(box)
    return f"{number} " + " ".join(f"{value / (WIDTH, HEIGHT)[n % 2]:.6f}" for n, value in enumerate(flat)) + "\n"


def voc_xml(name: str) -> str:
    objects = "".join(
        f"<object><name>{kind}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><bndbox>"
        f"<xmin>{x1:g}</xmin><ymin>{y1:g}</ymin><xmax>{x2:g}</xmax><ymax>{y2:g}</ymax></bndbox></object>"
        for kind, (x1, y1, x2, y2) in (("cat", CAT), ("dog", DOG))
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation><folder></folder><filename>{name}</filename>{size}{objects}</annotation>"


def roboflow_coco(root: Path) -> None:
    for split, count in SPLITS.items():
        names = [f"photo_{n}_jpg.rf.{n}a1b.jpg" for n in range(count)]
        for name in names:
            photo(root / split / name)
        write(root / split / "_annotations.coco.json", json.dumps(coco(names, root="animals")))
    write(root / "README.roboflow.txt", "")
    write(root / "README.dataset.txt", "")


def roboflow_voc(root: Path) -> None:
    for split, count in SPLITS.items():
        for n in range(count):
            name = f"photo_{n}_jpg.rf.{n}a1b"
            photo(root / split / f"{name}.jpg")
            write(root / split / f"{name}.xml", voc_xml(f"{name}.jpg"))
    write(root / "README.roboflow.txt", "")


def roboflow_yolo(root: Path) -> None:
    for split, count in SPLITS.items():
        for n in range(count):
            photo(root / split / "images" / f"photo_{n}.jpg")
            write(root / split / "labels" / f"photo_{n}.txt", yolo_line(0, CAT) + yolo_line(1, DOG))
    names = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['cat', 'dog']\n"
    write(root / "data.yaml", names + "\nroboflow:\n  workspace: mine\n")
    write(root / "README.roboflow.txt", "")


def ultralytics(root: Path) -> None:
    for split, count in {"train": 3, "val": 2}.items():
        for n in range(count):
            photo(root / "images" / split / f"{split}_{n}.jpg")
            write(root / "labels" / split / f"{split}_{n}.txt", yolo_outline(0, CAT) + yolo_outline(1, DOG))
    photo(root / "images/train/nothing_on_it.jpg")  # an image without labels is a negative
    names = (
        "path: ../datasets/pets\ntrain: images/train\nval: images/val\ntest:\n\n# Classes\nnames:\n  0: cat\n  1: dog\n"
    )
    write(root / "pets.yaml", names)


def label_studio_yolo(root: Path) -> None:
    for n in range(3):
        photo(root / "images" / f"a-{n}.jpg")
        write(root / "labels" / f"a-{n}.txt", yolo_line(0, CAT) + yolo_line(1, DOG))
    write(root / "classes.txt", "cat\ndog\n")
    notes = {
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
        "info": {"contributor": "Label Studio"},
    }
    write(root / "notes.json", json.dumps(notes))


def label_studio_coco(root: Path) -> None:
    names = [f"images/a-{n}.jpg" for n in range(3)]
    for name in names:
        photo(root / name)
    content = coco(names, masks=False)
    write(
        root / "result.json", json.dumps({key: content[key] for key in ("images", "categories", "annotations", "info")})
    )


def cvat_coco(root: Path) -> None:
    names = [f"{n}.jpg" for n in range(3)]
    for name in names:
        photo(root / "images/default" / name)
    write(root / "annotations/instances_default.json", json.dumps(coco(names)))


def cvat_xml(root: Path) -> None:
    images = ""
    for n in range(3):
        photo(root / "images" / f"{n}.jpg")
        x1, y1, x2, y2 = CAT
        box = f'<box label="cat" source="manual" occluded="0" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}" z_order="0"/>'
        x1, y1, x2, y2 = DOG
        points = f"{x1},{y1};{x2},{y1};{x2},{y2};{x1},{y2}"
        polygon = f'<polygon label="dog" source="manual" occluded="0" points="{points}" z_order="0"></polygon>'
        point = '<points label="cat" occluded="0" points="3,3"></points>'
        images += f'<image id="{n}" name="{n}.jpg" width="{WIDTH}" height="{HEIGHT}">{box}{polygon}{point}</image>'
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta></meta>'
    write(root / "annotations.xml", f"{head}{images}</annotations>")


def cvat_yolo(root: Path) -> None:
    for n in range(3):
        photo(root / "obj_train_data" / f"{n}.jpg")
        write(root / "obj_train_data" / f"{n}.txt", yolo_line(0, CAT) + yolo_line(1, DOG))
    write(root / "obj.names", "cat\ndog\n")
    write(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    write(root / "train.txt", "".join(f"data/obj_train_data/{n}.jpg\n" for n in range(3)))


def labelme(root: Path) -> None:
    for n in range(3):
        photo(root / f"{n}.jpg")
        x1, y1, x2, y2 = DOG
        flat = outline(CAT)
        shapes = [
            {"label": "cat", "points": [flat[i : i + 2] for i in range(0, 8, 2)], "shape_type": "polygon", "flags": {}},
            {"label": "dog", "points": [[x2, y2], [x1, y1]], "shape_type": "rectangle", "group_id": None, "flags": {}},
            {"label": "cat", "points": [[1, 1]], "shape_type": "point", "group_id": None, "flags": {}},
        ]
        content = {
            "version": "5.0.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"..\\photos\\{n}.jpg",
            "imageData": None,
        }
        write(root / f"{n}.json", json.dumps({**content, "imageHeight": HEIGHT, "imageWidth": WIDTH}))


def via_region(label: object, box: tuple[float, ...]) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    flat = outline(box)
    shape = {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
    if label == "dog":
        shape = {"name": "polygon", "all_points_x": flat[::2], "all_points_y": flat[1::2]}
    return {"shape_attributes": shape, "region_attributes": {"type": label}}


def via_json(root: Path) -> None:
    for split, count in {"train": 3, "val": 2}.items():
        metadata = {}
        for n in range(count):
            size = photo(root / split / f"{split}{n}.jpg").stat().st_size
            regions = [via_region("cat", CAT), via_region("dog", DOG)]
            metadata[f"{split}{n}.jpg{size}"] = {"filename": f"{split}{n}.jpg", "size": size, "regions": regions}
        write(root / split / "via_region_data.json", json.dumps(metadata))


def via_csv(root: Path) -> None:
    header = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    with open(_made(root) / "via.csv", "w", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(header.split(","))
        for n in range(3):
            photo(root / f"{n}.jpg")
            for number, region in enumerate((via_region("cat", CAT), via_region({"dog": True}, DOG))):
                attributes = [json.dumps(region[key]) for key in ("shape_attributes", "region_attributes")]
                rows.writerow([f"{n}.jpg", 1, "{}", 2, number, *attributes])


def open_images(root: Path) -> None:
    header = (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    )
    for split, count in {"train": 3, "validation": 2}.items():
        rows = [header]
        for n in range(count):
            photo(root / split / f"{split}{n:04x}.jpg")
            for name, (x1, y1, x2, y2) in (("/m/01yrx", CAT), ("/m/0bt9lr", DOG)):
                values = ",".join(f"{v:.6f}" for v in (x1 / WIDTH, x2 / WIDTH, y1 / HEIGHT, y2 / HEIGHT))
                rows.append(f"{split}{n:04x},xclick,{name},1,{values},0,0,0,0,0")
        write(root / f"{split}-annotations-bbox.csv", "\n".join(rows))
    write(root / "class-descriptions-boxable.csv", "/m/01yrx,cat\n/m/0bt9lr,dog\n")


def voc_lists(root: Path) -> None:
    for n in range(5):
        photo(root / "JPEGImages" / f"{n}.jpg")
        write(root / "Annotations" / f"{n}.xml", voc_xml(f"{n}.jpg"))
    write(root / "ImageSets/Main/train.txt", "0\n1\n2\n")
    write(root / "ImageSets/Main/val.txt", "3\n4\n")
    write(root / "ImageSets/Main/trainval.txt", "0\n1\n2\n3\n4\n")


def coco_splits(root: Path) -> None:
    for split, count in {"train2017": 3, "val2017": 2}.items():
        names = [f"{n:012d}.jpg" for n in range(count)]
        for name in names:
            photo(root / split / name)
        write(root / f"annotations/instances_{split}.json", json.dumps(coco(names)))
        write(root / f"annotations/captions_{split}.json", json.dumps({"images": [], "annotations": []}))


def supervisely(root: Path) -> None:
    classes = [
        {"title": "cat", "shape": "any", "color": "#FF0000"},
        {"title": "dog", "shape": "any", "color": "#00FF00"},
    ]
    write(root / "meta.json", json.dumps({"classes": classes, "tags": [], "projectType": "images"}))
    for split, count in {"train": 3, "val": 2}.items():
        for n in range(count):
            photo(root / split / "img" / f"{n}.jpg")
            flat = outline(DOG)
            corners = [*zip(flat[::2], flat[1::2], strict=True)]
            objects: list[dict[str, Any]] = [
                {"classTitle": "cat", "geometryType": "bitmap", "bitmap": bitmap(40, 40, (10, 20))},
                {"classTitle": "dog", "geometryType": "polygon", "points": {"exterior": corners}},
                {"classTitle": "dog", "geometryType": "point", "points": {"exterior": [[3, 3]], "interior": []}},
            ]
            content = {"size": {"height": HEIGHT, "width": WIDTH}, "tags": [], "objects": objects}
            write(root / split / "ann" / f"{n}.jpg.json", json.dumps(content))


def bitmap(width: int, height: int, origin: tuple[int, int]) -> dict[str, Any]:
    """A mask without a gap as Supervisely writes one: a PNG, packed, in base64."""
    png = io.BytesIO()
    Image.new("RGBA", (width, height), (255, 255, 255, 255)).save(png, "PNG")
    return {"origin": list(origin), "data": base64.b64encode(zlib.compress(png.getvalue())).decode()}


def label_studio(root: Path) -> None:
    tasks = []
    for n in range(3):
        photo(root / "images" / f"{n}.jpg")
        regions = [
            {"type": "rectanglelabels", "value": {**percent(CAT), "rotation": 0, "rectanglelabels": ["cat"]}},
            {"type": "polygonlabels", "value": {"points": corners_in_percent(DOG), "polygonlabels": ["dog"]}},
            {"type": "keypointlabels", "value": {"x": 1, "y": 1, "keypointlabels": ["cat"]}},
            {"type": "choices", "value": {"choices": ["sharp"]}},
        ]
        size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
        result = [
            {**size, "id": str(k), "from_name": "label", "to_name": "image", **each} for k, each in enumerate(regions)
        ]
        done = {"id": n, "was_cancelled": False, "result": result}
        cancelled = {"id": 90 + n, "was_cancelled": True, "result": []}
        data = {"image": f"/data/upload/1/0a1b2c3d-{n}.jpg"}
        tasks.append({"id": n, "annotations": [cancelled, done], "predictions": [], "data": data, "meta": {}})
    tasks.append({"id": 9, "annotations": [], "data": {"image": "/data/upload/1/0a1b2c3d-9.jpg"}})
    write(root / "project-1-at-2026-01-01.json", json.dumps(tasks))


def label_studio_min(root: Path) -> None:
    tasks = []
    for n in range(3):
        photo(root / f"{n}.jpg")
        size = {"original_width": WIDTH, "original_height": HEIGHT}
        boxes = [
            {**size, **percent(box), "rotation": 0, "rectanglelabels": [name]}
            for name, box in (("cat", CAT), ("dog", DOG))
        ]
        tasks.append({"image": f"/data/local-files/?d=photos/{n}.jpg", "id": n, "label": boxes, "annotator": 1})
    write(root / "project.json", json.dumps(tasks))


def percent(box: tuple[float, ...]) -> dict[str, float]:
    x1, y1, x2, y2 = box
    return {
        "x": 100 * x1 / WIDTH,
        "y": 100 * y1 / HEIGHT,
        "width": 100 * (x2 - x1) / WIDTH,
        "height": 100 * (y2 - y1) / HEIGHT,
    }


def corners_in_percent(box: tuple[float, ...]) -> list[list[float]]:
    flat = outline(box)
    return [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in zip(flat[::2], flat[1::2], strict=True)]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


EXPORTS: list[tuple[Callable[[Path], None], str]] = [
    (roboflow_coco, "Roboflow COCO export: train 3, valid 2, test 1 images, 12 objects, 2 classes"),
    (roboflow_voc, "Roboflow Pascal VOC XML: train 3, valid 2, test 1 images, 12 objects, 2 classes"),
    (roboflow_yolo, "Roboflow YOLO labels: train 3, valid 2, test 1 images, 12 objects, 2 classes"),
    (ultralytics, "YOLO labels: train 4, val 2 images, 10 objects, 2 classes"),
    (label_studio_yolo, "Label Studio YOLO labels: 3 images, 6 objects, 2 classes"),
    (label_studio_coco, "Label Studio COCO export: 3 images, 6 objects, 2 classes"),
    (cvat_coco, "CVAT COCO export: 3 images, 6 objects, 2 classes"),
    (cvat_xml, "CVAT images XML: 3 images, 6 objects, 2 classes"),
    (cvat_yolo, "YOLO labels: 3 images, 6 objects, 2 classes"),
    (labelme, "LabelMe json: 3 images, 6 objects, 2 classes"),
    (via_json, "VGG VIA regions: train 3, val 2 images, 10 objects, 2 classes"),
    (via_csv, "VGG VIA regions: 3 images, 6 objects, 2 classes"),
    (open_images, "OpenImages boxes: train 3, val 2 images, 10 objects, 2 classes"),
    (voc_lists, "Pascal VOC XML with its own lists: train 3, val 2 images, 10 objects, 2 classes"),
    (supervisely, "Supervisely project: train 3, val 2 images, 10 objects, 2 classes"),
    (label_studio, "Label Studio json: 3 images, 6 objects, 2 classes"),
    (label_studio_min, "Label Studio json: 3 images, 6 objects, 2 classes"),
    (coco_splits, "COCO annotations: instances_train2017 3, instances_val2017 2 images, 10 objects, 2 classes"),
]


@pytest.mark.parametrize(("export", "sentence"), EXPORTS, ids=[export.__name__ for export, _ in EXPORTS])
def test_an_export_is_recognised_and_read(tmp_path: Path, export: Callable[[Path], None], sentence: str) -> None:
    export(tmp_path / "set")
    found = recognise(tmp_path / "set")
    assert found.sentence == sentence
    for part in found.parts.values():
        source = checked(part, "stop").source
        assert source.classes == ("cat", "dog")
        for index in range(len(source)):
            target = source.target(index)
            assert source.read(index).image.size == (WIDTH, HEIGHT)
            if "nothing" not in source.image(index).path:
                assert target.labels.tolist() == [1, 2]
                assert target.boxes.tolist() == [pytest.approx(CAT, abs=1e-3), pytest.approx(DOG, abs=1e-3)]


def sets(place: Path, *, bad: Policy = "stop", **changes: Any) -> BoxSets:
    return open_own(place, bad=bad, **changes)


@pytest.mark.parametrize("export", [roboflow_coco, roboflow_voc, roboflow_yolo])
def test_the_exports_own_split_is_used_and_named(tmp_path: Path, export: Callable[[Path], None]) -> None:
    export(tmp_path)
    data = sets(tmp_path)
    assert (len(data.train), len(data.test)) == (3, 2)
    assert "Trained on train and scored on valid, its own split; test is not used." in data.notes[0]
    other = sets(tmp_path / "train", test=tmp_path / "test")
    assert (len(other.train), len(other.test)) == (3, 1)


def test_outlines_become_masks_where_every_object_has_one(tmp_path: Path) -> None:
    ultralytics(tmp_path / "yolo")
    part: BoxFiles = recognise(tmp_path / "yolo").parts["train"]
    assert part.has_masks
    target = next(part.target(index) for index in range(len(part)) if len(part.target(index)))
    assert target.area.tolist() == pytest.approx([1600, 3200], abs=1)
    labelme(tmp_path / "labelme")
    mixed = recognise(tmp_path / "labelme").parts[""]
    assert not mixed.has_masks
    assert mixed.notes == ("labelme: skipped 3 points.", "labelme: 3 of 6 objects have no outline: boxes only.")


def words(text: str) -> Callable[[Path], None]:
    """A change of data.yaml."""
    return lambda root: write(root / "data.yaml", text)


@pytest.mark.parametrize(
    ("change", "classes", "note"),
    [
        (words("names: {0: cat, 1: dog}"), ("cat", "dog"), ""),
        (words("names: [\n  'cat, big',\n  \"dog #1\"\n]  # both\nnc: 2"), ("cat, big", "dog #1"), ""),
        (words("names:\r\n- it''s\r\n- 'it''s'\r\n"), ("it''s", "it's"), ""),
        (words("names: [cat, dog, cow]\nnc: 2"), ("cat", "dog", "cow"), "nc: 2 and 3 names"),
        (words("names: data/no.names\nnc: 2"), ("0", "1"), "the classes have no names"),
        (lambda root: (root / "data.yaml").unlink(), ("0", "1"), "the classes have no names"),
    ],
)
def test_names_of_yolo(tmp_path: Path, change: Callable[[Path], None], classes: tuple[str, ...], note: str) -> None:
    roboflow_yolo(tmp_path)
    change(tmp_path)
    found = recognise(tmp_path)
    assert found.parts["train"].classes == classes
    assert note in " ".join(found.notes)
    assert bool(found.notes) == bool(note)


def test_key_points_of_yolo_are_skipped(tmp_path: Path) -> None:
    roboflow_yolo(tmp_path)
    for file in tmp_path.rglob("labels/*.txt"):
        file.write_text(yolo_line(0, CAT).strip() + " 0.2 0.3" * 4)
    write(tmp_path / "data.yaml", "names: [cat, dog]\nkpt_shape: [4, 2]\n")
    found = recognise(tmp_path)
    assert found.parts["train"].target(0).boxes.tolist() == [pytest.approx(CAT, abs=1e-3)]
    assert found.notes == ("key points behind each box are skipped.",)


def test_the_split_that_a_yaml_names(tmp_path: Path) -> None:
    for n in range(5):
        photo(tmp_path / "photos" / f"{n}.jpg")
        write(tmp_path / "labels" / f"{n}.txt", yolo_line(0, CAT))
    write(tmp_path / "a.txt", "".join(f"./photos/{n}.jpg\n" for n in range(3)))
    write(tmp_path / "b.txt", "photos/3.jpg\nC:\\data\\photos\\4.jpg\n")
    write(tmp_path / "data.yaml", "path: /nowhere\ntrain: a.txt\nval: b.txt\nnames: [cat]\n")
    assert {name: len(part) for name, part in recognise(tmp_path).parts.items()} == {"train": 3, "val": 2}
    write(tmp_path / "b.txt", "photos/3.jpg\nphotos/9.jpg\n")
    with pytest.raises(UserError, match=r"9: missing image \(listed"):
        sets(tmp_path)
    write(tmp_path / "data.yaml", "train: photos\nval: photos\nnames: [cat]\n")
    data = sets(tmp_path)
    assert (len(data.train), len(data.test)) == (4, 1)
    assert "train, val are the same images: some are held out to be scored on." in data.notes


def test_labels_beside_the_images(tmp_path: Path) -> None:
    for split, count in (("Train", 3), ("Val", 2)):
        for n in range(count):
            photo(tmp_path / split / f"{n}.jpg")
            write(tmp_path / split / f"{n}.txt", "cat, 0.5, 0.5, 0.2, 0.2\n")
    write(tmp_path / "classes.txt", "cat\ndog\n")
    assert recognise(tmp_path).sentence == "YOLO labels: Train 3, Val 2 images, 5 objects, 2 classes"


@pytest.mark.parametrize(
    ("export", "named", "images"),
    [
        (cvat_coco, "annotations", 3),
        (cvat_coco, "images", 3),
        (label_studio_yolo, "images", 3),
        (label_studio_yolo, "labels", 3),
        (ultralytics, "images/val", 2),
        (roboflow_yolo, "train", 3),
        (roboflow_voc, "..", 3),
        (coco_splits, "annotations", 3),
    ],
)
def test_a_part_of_an_export_may_be_named(
    tmp_path: Path, export: Callable[[Path], None], named: str, images: int
) -> None:
    export(tmp_path / "set/inner")
    part = next(iter(recognise((tmp_path / "set/inner" / named).resolve()).parts.values()))
    assert (len(part), part.classes) == (images, ("cat", "dog"))


def test_folders_that_could_each_be_meant_are_named(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        cvat_coco(tmp_path / name)
    with pytest.raises(UserError, match=r"in several of its folders: cats, dogs\. Name one as --data\."):
        recognise(tmp_path)


@pytest.mark.parametrize(
    ("lists", "counts"),
    [
        ({"ImageSets/Main/train.txt": "0.jpg\n1.jpg", "ImageSets/Main/val.txt": "2.jpg"}, {"train": 2, "val": 1}),
        ({"train.txt": "JPEGImages/0.jpg Annotations/0.xml", "val.txt": "JPEGImages/2.jpg x"}, {"train": 1, "val": 1}),
        ({"ImageSets/Main/trainval.txt": "0\n1\n"}, {"trainval": 2}),
    ],
)
def test_lists_of_a_split(tmp_path: Path, lists: dict[str, str], counts: dict[str, int]) -> None:
    voc_lists(tmp_path)
    for file in (tmp_path / "ImageSets/Main").iterdir():
        file.unlink()
    for name, text in lists.items():
        write(tmp_path / name, text)
    assert {name: len(part) for name, part in recognise(tmp_path).parts.items()} == counts


def test_a_list_with_a_name_that_is_not_there(tmp_path: Path) -> None:
    voc_lists(tmp_path)
    write(tmp_path / "ImageSets/Main/train.txt", "0\n99\n")
    with pytest.raises(UserError, match=r"99: image without annotation \(listed, and not in"):
        sets(tmp_path)


def test_a_score_needs_objects(tmp_path: Path) -> None:
    """Of many images without objects, one with an object is held out."""
    names = [f"{n}.jpg" for n in range(10)]
    for name in names:
        photo(tmp_path / name)
    content = coco(names, masks=False)
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in (4, 5)]
    write(tmp_path / "set.json", json.dumps(content))
    data = sets(tmp_path)
    assert sum(len(data.test.target(index)) for index in range(len(data.test)))
    assert sum(len(data.train.target(index)) for index in range(len(data.train)))


def test_a_brush_of_cvat_is_a_mask(tmp_path: Path) -> None:
    photo(tmp_path / "0.jpg")
    mask = '<mask label="cat" rle="1, 2, 3, 2" left="10" top="20" width="4" height="2"></mask>'
    image = f'<image id="0" name="0.jpg" width="{WIDTH}" height="{HEIGHT}">{mask}</image>'
    write(tmp_path / "annotations.xml", f"<annotations>{image}</annotations>")
    target = recognise(tmp_path).parts[""].target(0)
    assert target.boxes.tolist() == [[11, 20, 14, 22]]
    assert target.masks is not None
    assert target.masks.decode()[0].nonzero().tolist() == [[20, 11], [20, 12], [21, 12], [21, 13]]


def packed(values: list[int]) -> list[int]:
    """Bytes of a stroke as Label Studio writes them: here runs of equal values up to 4, each else a single word."""
    bits = f"{len(values):032b}" + f"{7:05b}" + "".join(f"{size:04b}" for size in (2, 3, 7, 15))
    for value, run in ((value, list(run)) for value, run in itertools.groupby(values)):
        length = len(run) - 1
        size = next(n for n, width in enumerate((3, 4, 8, 16)) if length < 1 << width)
        body = f"{value:08b}" if length else f"{value:08b}" * len(run)
        bits += f"{int(length > 0)}{size:02b}{length:0{(3, 4, 8, 16)[size]}b}{body}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def test_a_brush_of_label_studio_is_a_mask(tmp_path: Path) -> None:
    photo(tmp_path / "0.jpg")
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[20:23, 11:14] = 255
    alpha[21, 12] = 0
    values = np.stack([alpha // 3, alpha // 2, alpha, alpha], -1).ravel().tolist()
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "to_name": "image"}
    region = {**size, "value": {"format": "rle", "rle": packed(values), "brushlabels": ["cat"]}, "type": "brushlabels"}
    task = {"data": {"image": "0.jpg"}, "annotations": [{"result": [region]}]}
    write(tmp_path / "tasks.json", json.dumps([task]))
    target = recognise(tmp_path / "tasks.json").parts[""].target(0)
    assert target.boxes.tolist() == [[11, 20, 14, 23]]
    assert target.masks is not None
    assert (target.masks.decode()[0].numpy() == (alpha > 0)).all()
    region["value"] = {**percent(CAT), "rotation": 90, "rectanglelabels": ["cat"]}  # about its first corner
    write(tmp_path / "tasks.json", json.dumps([task]))
    target = recognise(tmp_path).parts[""].target(0)
    assert target.boxes.tolist() == [pytest.approx([-30, 20, 10, 60], abs=1e-4)]


def test_an_outline_of_supervisely_may_have_holes(tmp_path: Path) -> None:
    photo(tmp_path / "ds/img/0.jpg")
    whole, hole = (
        [*zip(flat[::2], flat[1::2], strict=True)] for flat in (outline((10, 10, 30, 30)), outline((15, 15, 20, 20)))
    )
    one = {"classTitle": "cat", "geometryType": "polygon", "points": {"exterior": whole, "interior": [hole]}}
    content = {"size": {"height": HEIGHT, "width": WIDTH}, "objects": [one]}
    write(tmp_path / "ds/ann/0.jpg.json", json.dumps(content))
    target = recognise(tmp_path).parts[""].target(0)
    assert target.boxes.tolist() == [[10, 10, 30, 30]]
    assert target.area.tolist() == [20 * 20 - 5 * 5]


def test_a_bomb_in_a_bitmap_is_refused(tmp_path: Path) -> None:
    photo(tmp_path / "ds/img/0.jpg")
    bomb = {"origin": [0, 0], "data": base64.b64encode(zlib.compress(bytes(1 << 28))).decode()}
    one = {"classTitle": "cat", "geometryType": "bitmap", "bitmap": bomb}
    content = {"size": {"height": HEIGHT, "width": WIDTH}, "objects": [one]}
    write(tmp_path / "ds/ann/0.jpg.json", json.dumps(content))
    with pytest.raises(UserError, match="unreadable annotation: 1"):
        sets(tmp_path)


def test_a_class_without_a_test_object_is_named(tmp_path: Path) -> None:
    roboflow_yolo(tmp_path)
    for file in (tmp_path / "valid/labels").iterdir():
        file.write_text(yolo_line(0, CAT))
    assert "no test object of dog: the mean is over the others." in sets(tmp_path).notes


def test_labels_in_pixels_are_refused_by_line(tmp_path: Path) -> None:
    roboflow_yolo(tmp_path)
    write(tmp_path / "train/labels/photo_0.txt", "0 30 40 20 20\n")
    with pytest.raises(UserError, match=r"photo_0.txt, line 1: .*expected fractions of the image, 0 to 1"):
        sets(tmp_path)


def test_a_folder_of_photos_says_what_is_known(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"no boxes recognised in it \(files there: 1 .jpg\). Known: COCO json"):
        recognise(tmp_path)


def test_a_new_format_is_one_file() -> None:
    folder = Path(__file__).parents[3] / "simsiam/data/detection"
    others = [file for file in folder.parents[1].rglob("*.py") if file.parent != folder / "formats"]
    named = [file for file in others for name in FORMATS if f"formats.{name}" in file.read_text()]
    assert named == []
    assert not any(f".{name}" in (folder / "formats/__init__.py").read_text() for name in FORMATS)


def test_what_lies_beside_the_images_is_counted(tmp_path: Path) -> None:
    cvat_coco(tmp_path)
    photo(tmp_path / "images/default/unnamed.jpg")
    (tmp_path / "images/default/a.mov").write_bytes(b"x")
    (tmp_path / "images/default/1.jpg").write_bytes(b"x")
    accounts = inventory.of(sets(tmp_path, bad="drop"))
    assert list(accounts) == ["images"]
    facts = accounts["images"].facts()
    assert (facts["found"], facts["used"]) == (4, 2)
    assert [(each["what"], each["count"], each["reason"].split(";")[0]) for each in facts["left_out"]] == [
        ("image", 1, "damaged image"),
        ("image", 1, "beside those of the set, and not named by its annotations"),
        ("other file", 1, "1 x .mov"),
    ]
