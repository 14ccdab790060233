"""Every kind of image file becomes 8-bit RGB; every damaged one becomes a reason, never a crash."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simsiam.data.images import IMAGE_SUFFIXES, BadImage, UnreadableImage, is_image_name, read_image, write_skipped
from tests import tiny


def saved(tmp_path: Path, image: Image.Image, name: str, **options: object) -> Image.Image:
    image.save(tmp_path / name, **options)
    return read_image(tmp_path / name, name=name)


def test_damaged_files_are_unreadable_with_a_reason(tmp_path: Path) -> None:
    reasons = {}
    for path in tiny.damaged(tmp_path):
        with pytest.raises(UnreadableImage) as caught:
            read_image(path, name=path.name)
        assert caught.value.path == path.name
        reasons[path.name] = caught.value.reason
    assert reasons["empty.jpg"] == "empty file (0 bytes)"
    assert reasons["text.jpg"].startswith("not an image")
    assert reasons["truncated.jpg"].startswith("truncated")
    assert reasons["truncated.png"].startswith("truncated")
    assert "bomb" in reasons["bomb.png"]
    assert all("\n" not in reason and len(reason) < 300 for reason in reasons.values())


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="no such file"):
        read_image(tmp_path / "none.jpg", name="none.jpg")
    with pytest.raises(UnreadableImage, match="folder"):
        read_image(tmp_path, name="x")


def test_random_damage_never_crashes() -> None:
    random = np.random.default_rng(0)
    image = tiny.shape("circle", seed=3, size=64)
    outcomes = {"read": 0, "unreadable": 0}
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        file = io.BytesIO()
        image.save(file, kind)
        for attempt in range(60):
            damaged = bytearray(file.getvalue())
            if attempt % 2:
                damaged = damaged[: random.integers(1, len(damaged))]
            for place in random.integers(0, len(damaged), attempt % 4):
                damaged[place] = random.integers(0, 256)
            try:
                assert read_image(bytes(damaged), name="x").mode == "RGB"
                outcomes["read"] += 1
            except UnreadableImage:
                outcomes["unreadable"] += 1
    assert min(outcomes.values()) > 50


def test_sixteen_bit_grey_is_scaled(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    read = saved(tmp_path, Image.fromarray(values), "deep.png")
    assert np.asarray(read)[0, :, 0].tolist() == [0, 1, 128, 255]
    assert read.mode == "RGB"


def test_float_and_integer_tiff(tmp_path: Path) -> None:
    unit = saved(tmp_path, Image.fromarray(np.array([[0.0, 0.5, 1.0, np.nan]], np.float32)), "unit.tif")
    assert np.asarray(unit)[0, :, 0].tolist() == [0, 128, 255, 0]
    wide = saved(tmp_path, Image.fromarray(np.array([[-1000, 0, 1000]], np.int32)), "wide.tif")
    assert np.asarray(wide)[0, :, 1].tolist() == [0, 128, 255]


def test_cmyk(tmp_path: Path) -> None:
    read = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "ink.jpg", quality=95)
    red, green, blue = np.asarray(read).reshape(-1, 3).mean(axis=0)
    assert red > 200
    assert green < 60
    assert blue < 60


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (2, 1), (0, 0, 0, 0) if mode == "RGBA" else (0, 0))
    image.putpixel((1, 0), (10, 20, 30, 255) if mode == "RGBA" else (10, 255))
    read = np.asarray(saved(tmp_path, image, "clear.png"))
    assert read[0, 0].tolist() == [255, 255, 255]
    assert read[0, 1].tolist() == ([10, 20, 30] if mode == "RGBA" else [10, 10, 10])


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([250, 0, 0, 0, 0, 250])
    image.putpixel((1, 0), 1)
    assert np.asarray(saved(tmp_path, image, "plain.png"))[0].tolist() == [[250, 0, 0], [0, 0, 250]]
    clear = np.asarray(saved(tmp_path, image, "clear.png", transparency=0))
    assert clear[0].tolist() == [[255, 255, 255], [0, 0, 250]]
    keyed = np.asarray(saved(tmp_path, Image.new("RGB", (1, 1), (1, 2, 3)), "keyed.png", transparency=(1, 2, 3)))
    assert keyed[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_animation_gives_its_first_frame(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "webp" else {}
    read = saved(tmp_path, frames[0], f"moving.{kind}", save_all=True, append_images=frames[1:], **options)
    assert np.asarray(read)[3, 3].tolist() == [255, 0, 0]


def test_exif_rotation(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 10, 10))  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    read = saved(tmp_path, image, "turned.jpg", exif=exif, quality=95)
    assert read.size == (10, 20)
    pixels = np.asarray(read)
    assert pixels[2, 5].min() > 200  # the left side is now the top
    assert pixels[17, 5].max() < 50


def test_grey_and_bilevel(tmp_path: Path) -> None:
    assert np.asarray(saved(tmp_path, Image.new("L", (1, 1), 77), "grey.png"))[0, 0].tolist() == [77, 77, 77]
    assert np.asarray(saved(tmp_path, Image.new("1", (1, 1), 1), "bit.png"))[0, 0].tolist() == [255, 255, 255]


def test_red_stays_red(tmp_path: Path) -> None:
    assert np.asarray(saved(tmp_path, Image.new("RGB", (4, 4), (255, 0, 0)), "red.png"))[0, 0].tolist() == [255, 0, 0]


def test_skipped_csv_lists_each_file_once(tmp_path: Path) -> None:
    bad = [BadImage(path="b, c.jpg", reason='said "no"'), BadImage(path="a.jpg", reason="empty file (0 bytes)")]
    write_skipped(tmp_path / "skipped.csv", bad * 3)
    with open(tmp_path / "skipped.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["path", "reason"], ["a.jpg", "empty file (0 bytes)"], ["b, c.jpg", 'said "no"']]
    assert [path.name for path in tmp_path.iterdir()] == ["skipped.csv"]


def test_a_name_ends_as_images_do_by_its_last_suffix() -> None:
    names = (
        "a.jpg",
        "a.JPEG",
        ".jpg",
        "..jpg",
        "a/.png",
        "a/b.png",
        "a.b/c",
        "a.png/b",
        "a",
        "",
        ".",
        "a.",
        "a..jpg",
        "a.txt",
    )
    for name in names:
        assert is_image_name(name) == (os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES), name
