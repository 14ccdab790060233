"""The guides to labelling tools: each command reads a tiny export of the tool and says what its page shows."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simsiam import cli
from simsiam.data.segmentation.folders import open_mask_tree
from tests import tiny
from tests.data.detection import test_formats as exports
from tests.detection_command import NARROW, evaluate, weights
from tests.test_docs import FENCE, PAGES, shown_commands

__all__ = ["weights"]
GUIDES = ("cvat", "label_studio", "labelme", "roboflow", "ultralytics")
MASK = np.repeat(np.array([0, 1, 2], np.uint8), 20)[None].repeat(48, 0)


def cvat_masks(root: Path) -> None:
    colours = np.array([(0, 0, 0), (250, 50, 83), (51, 221, 255)], np.uint8)
    names = [f"{n}" for n in range(4)]
    for name in names:
        exports.photo(root / "JPEGImages" / f"{name}.jpg")
        Image.new("RGB", MASK.shape[::-1]).save(root / "JPEGImages" / f"{name}.jpg")
        (root / "SegmentationClass").mkdir(exist_ok=True)
        Image.fromarray(colours[MASK]).save(root / "SegmentationClass" / f"{name}.png")
    exports.write(root / "ImageSets/Segmentation/default.txt", "\n".join(names))
    colour_lines = "background:0,0,0::\ncat:250,50,83::\ndog:51,221,255::\n"
    exports.write(root / "labelmap.txt", f"# label:color_rgb:parts:actions\n{colour_lines}")


def roboflow_masks(root: Path) -> None:
    for split, count in exports.SPLITS.items():
        for n in range(count):
            exports.photo(root / split / f"photo_{n}_jpg.rf.{n}a1b.jpg")
            Image.new("RGB", MASK.shape[::-1]).save(root / split / f"photo_{n}_jpg.rf.{n}a1b.jpg")
            Image.fromarray(MASK).save(root / split / f"photo_{n}_jpg.rf.{n}a1b_mask.png")
        exports.write(root / split / "_classes.csv", "Pixel Value, Class\n0, background\n1, cat\n2, dog\n")


EXPORTS: dict[str, Callable[[Path], None]] = {
    "animals.v1i.coco": exports.roboflow_coco,
    "animals.v1i.voc": exports.roboflow_voc,
    "animals.v1i.yolov8": exports.roboflow_yolo,
    "animals.v1i.png-mask-semantic": roboflow_masks,
    "cvat-coco": exports.cvat_coco,
    "cvat-images": exports.cvat_xml,
    "cvat-yolo": exports.cvat_yolo,
    "cvat-masks": cvat_masks,
    "project-1-coco": exports.label_studio_coco,
    "project-1-yolo": exports.label_studio_yolo,
    "project-1-json": exports.label_studio,
    "labelme-photos": exports.labelme,
    "pets": exports.ultralytics,
}


def test_every_export_has_its_guide() -> None:
    named = {shlex.split(line)[-1] for guide in GUIDES for line in lines_of(guide) if "--data" in line}
    assert named == set(EXPORTS)


@pytest.mark.parametrize("guide", GUIDES)
def test_each_command_reads_an_export_and_says_what_the_page_shows(
    guide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = " ".join(re.sub(r"\s+", " ", body) for _, body in FENCE.findall(page(guide).read_text()))
    for line in lines_of(guide):
        *_, flag, name = shlex.split(line)
        if flag != "--data":
            continue
        EXPORTS[name](Path(name))
        if "detection-folder" in line:
            notes = exports.sets(Path(name)).notes
        else:
            notes = open_mask_tree(Path(name), None, seed=0).notes
        assert f"note: {notes[0]}" in shown


def test_a_command_of_a_guide_trains(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector of the Ultralytics guide at its smallest; reading is what the guides differ in."""
    monkeypatch.chdir(tmp_path)
    EXPORTS["pets"](Path("pets"))
    weights_and_flags = [weights, "--data", "pets", *NARROW, "--iterations", "1", "--evaluate-every", "1"]
    assert evaluate("folder", *weights_and_flags, "--batch-size", "2", "--lr", "0.08", "--out", "out") == 0
    assert (tmp_path / "out/report.html").is_file()


def test_the_classifier_of_the_phone_guide(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(weights, "runs/demo")
    tiny.folder(tmp_path / "photos", classes=2, images=3)
    rows = [f"photos/{kind}/{n:03d}.jpg,{kind}" for kind in ("circle", "square") for n in range(2)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    for line in shown_commands(page("phone")):
        if re.match(r"simsiam (evaluate few-labels|predict) ", line):
            with pytest.raises(SystemExit) as end:
                cli.main([*shlex.split(line)[1:], "--device", "cpu"])
            assert end.value.code == 0
    assert len((tmp_path / "predictions/predictions.csv").read_text().splitlines()) == 1 + 6 * 2


def page(guide: str) -> Path:
    return PAGES[f"docs/guides/{guide}.md"]


def lines_of(guide: str) -> list[str]:
    return [line.split("#")[0].strip() for line in shown_commands(page(guide)) if "-folder " in line]
