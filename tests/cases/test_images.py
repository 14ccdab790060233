"""Cases from bug reports on sets of images: what is found, used and left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simsiam.cli import main
from simsiam.commands.predict import _refuse_beside, file_names, image_files
from simsiam.data.folders import FolderSource
from simsiam.data.images import UnreadableImage, read_image
from simsiam.data.inventory import useless_labels
from simsiam.data.shards import ShardSource
from simsiam.data.sources import kind_of, open_source
from simsiam.errors import UserError
from simsiam.results import read_json
from tests import tiny

HERE = Path(__file__).parent


def opened(place: Path) -> object:
    return open_source(place, kind=kind_of(place), split="all")


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--workers", "0", "--device", "cpu"])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def case(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of the case that the test names: indexes are written beside the data."""
    return Path(shutil.copytree(HERE / request.param, tmp_path / request.param))


@pytest.mark.parametrize("case", ["heic_beside_jpg"], indirect=True)
def test_heic_and_films_beside_photos_are_named(case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = FolderSource(case / "iphone")
    facts = source.inventory.facts()
    assert (len(source), facts["found"], facts["used"]) == (12, 12, 12)
    assert facts["left_out"][0]["count"] == 60
    assert facts["left_out"][0]["reason"].startswith("30 x .heic, 30 x .mov; `pip install pillow-heif`")
    out = tmp_path / "vectors.csv"
    assert command("embed", "random:resnet10", case / "iphone", "--out", out, "--size", 32) == 0
    said = capsys.readouterr().err
    assert "iphone: 12 images used; left out: 60 other files (30 x .heic, 30 x .mov" in said


def test_an_evaluation_says_and_keeps_what_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        tiny.folder(tmp_path / split, classes=2, images=4)
    (tmp_path / "test" / "circle" / "film.mov").write_bytes(b"film")
    (tmp_path / "test" / "circle" / "._000.jpg").write_bytes(b"of macOS")
    places = ("--train", tmp_path / "train", "--test", tmp_path / "test")
    assert command("evaluate", "knn", "random:resnet10", *places, "--out", tmp_path / "out") == 0
    sentence = "test set: 8 images used; left out: 1 other file (1 x .mov; `ffmpeg -i VIDEO"
    assert sentence in capsys.readouterr().err
    result = read_json(tmp_path / "out" / "result.json")
    assert any(note.startswith(sentence) for note in result["notes"])
    assert result["detail"]["inventory"]["train"]["left_out"] == []
    assert result["detail"]["inventory"]["test"]["left_out"][0]["count"] == 1


@pytest.mark.parametrize("case", ["stray_tar_in_photo_folder"], indirect=True)
def test_one_tar_among_photos_is_left_out(case: Path) -> None:
    assert kind_of(case / "stray") == "folder"
    source = FolderSource(case / "stray")
    assert len(source) == 64
    assert [(each.count, each.reason) for each in source.inventory.left_out] == [(1, "1 x .tar")]


def test_a_photo_among_tars_is_left_out(tmp_path: Path) -> None:
    root = tiny.shards(tmp_path, count=2, samples=3)
    tiny.shape("circle", seed=0).save(root / "preview.png")
    (root / "._preview.png").write_bytes(b"\0\x05\x16\x07")
    assert kind_of(root) == "shards"
    left = ShardSource(root).inventory.left_out
    assert [(each.what, each.count) for each in left] == [("image", 1)]


@pytest.mark.parametrize("case", ["tar_with_bmp_gif_tif"], indirect=True)
def test_every_kind_of_image_is_read_from_a_tar(case: Path) -> None:
    source = ShardSource(case / "mixed.tar")
    assert [Path(source.path(index)).name for index in range(10)] == [
        *("0.jpg", "1.png", "2.JPG", "3.JPEG", "4.webp", "5.bmp", "6.gif", "7.tif", "8.jfif", "9.avif")
    ]
    assert all(source.read(index).size == (40, 40) for index in range(10))
    assert source.inventory.left_out == ()


@pytest.mark.parametrize("case", ["tar_with_double_suffix_keys"], indirect=True)
def test_members_named_key_dot_input_dot_jpg(case: Path) -> None:
    source = ShardSource(case / "clip.tar")
    assert [source.path(index) for index in (0, 7)] == ["clip.tar/s00000.input.jpg", "clip.tar/s00007.input.jpg"]
    assert len(source) == 8


def test_masks_and_films_of_a_tar_are_left_out_and_counted(tmp_path: Path) -> None:
    import tarfile

    photo = tiny.jpeg(tiny.shape("circle", seed=0))
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        names = ("a.jpg", "a.seg.png", "a.cls", "a.mov", "._a.jpg", "b.left.jpg", "b.right.jpg", "b.txt")
        for name, content in zip(names, (photo, photo, b"3", b"film", b"x", photo, photo, b"words"), strict=True):
            tiny.add(tar, name, content)
    for _ in range(2):  # once built, once from the index
        source = ShardSource(tmp_path / "s.tar")
        assert [source.path(index) for index in range(len(source))] == [
            *("s.tar/a.jpg", "s.tar/b.left.jpg", "s.tar/b.right.jpg")
        ]
        assert source.labels is not None
        assert source.labels.tolist() == [0, -1, -1]
        assert source.classes == ("3",)
        assert [(each.what, each.count) for each in source.inventory.left_out] == [("other member", 1), ("image", 1)]


@pytest.mark.parametrize("case", ["twelve_bit_in_sixteen"], indirect=True)
def test_twelve_bits_in_a_file_of_sixteen(case: Path) -> None:
    for number in range(12):
        for bits, full in ((12, 4095), (16, 65535)):
            file = case / "u16" / f"{number}_{bits}.png"
            with Image.open(file) as stored:
                expected = np.rint(np.asarray(stored).astype(float) / full * 255)
            assert (np.asarray(read_image(file, name=file.name))[:, :, 0] == expected).all()
            assert expected.max() > 50


@pytest.mark.parametrize("alpha", [False, True])
def test_twelve_bits_of_colour(tmp_path: Path, alpha: bool) -> None:
    """A PNG of 16 bits a channel, written by hand for want of a writer: Pillow has none."""
    import struct
    import zlib

    levels = np.array([[[4095, 0, 2048], [16, 4095, 1024]]], ">u2")
    if alpha:
        levels = np.concatenate([levels, np.full((1, 2, 1), 65535, ">u2")], axis=2)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 2, 1, 16, 6 if alpha else 2, 0, 0, 0)
    rows = zlib.compress(b"\0" + levels.astype(">u2").tobytes())
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    read = np.asarray(read_image(png, name="deep.png"))
    assert read[0].tolist() == [[255, 0, 128], [1, 255, 64]]


@pytest.mark.parametrize("name", ["my {photos}", "a*b", "[1]"])
def test_an_existing_folder_is_a_folder_whatever_its_name(tmp_path: Path, name: str) -> None:
    root = tiny.flat_folder(tmp_path / name, images=5)
    assert kind_of(root) == "folder"
    assert len(open_source(root, kind=kind_of(root))) == 5
    tiny.shards(tmp_path, count=1, samples=3)
    tar = next(tmp_path.glob("**/*.tar")).rename(tmp_path / f"{name}.tar")
    assert len(open_source(tar, kind=kind_of(tar))) == 3


def test_white_drawings_on_a_clear_ground_differ() -> None:
    drawings = []
    for place in (4, 20):
        image = Image.new("RGBA", (32, 32), (255, 255, 255, 0))
        image.paste((255, 255, 255, 255), (place, 4, place + 8, 28))
        from io import BytesIO

        content = BytesIO()
        image.save(content, "PNG")
        drawings.append(np.asarray(read_image(content.getvalue(), name="drawing.png")))
    assert drawings[0][10, 6].tolist() == [255, 255, 255]
    assert drawings[0][10, 22].tolist() == [0, 0, 0]
    assert (drawings[0] != drawings[1]).any()


def test_folders_of_splits_are_no_classes(tmp_path: Path) -> None:
    for split, images in (("Train", 5), ("valid", 2), ("test", 3)):
        tiny.folder(tmp_path / "set" / split, classes=2, images=images)
    train = open_source(tmp_path / "set", kind="folder")
    assert len(train) == 10
    assert train.classes is not None
    assert len(train.classes) == 2
    assert [(each.count, each.reason) for each in train.inventory.left_out] == [
        (10, "of other splits: 6 in test/, 4 in valid/")
    ]
    assert len(open_source(tmp_path / "set", kind="folder", split="test")) == 6
    whole = open_source(tmp_path / "set", kind="folder", split="all")
    assert len(whole) == 20
    assert whole.classes == train.classes
    assert whole.inventory.lines()[1] == "Train/, test/, valid/ are splits of the set, not classes; all are used"


def test_a_folder_a_person_gives_no_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for user in range(24):
        place = tmp_path / "users" / f"user{user:03d}"
        place.mkdir(parents=True)
        tiny.shape("circle" if user % 2 else "square", seed=user).save(place / "photo.jpg")
    arguments = ["--epochs", "1", "--batch-size", "8", "--model.backbone", "resnet10", "--views.size", "32"]
    out = tmp_path / "run"
    assert command("pretrain", tmp_path / "users", *arguments, "--out", out) in (0, 3, 4)
    detail = read_json(out / "result.json")["detail"]
    assert "knn" not in read_json(out / "result.json")["metrics"]
    assert any(
        "24 sub-folders are taken as classes" in note and "none is quoted" in note for note in detail["data_notes"]
    )
    assert detail["inventory"]["used"] == 24
    assert read_json(out / "recipe.json")["inventory"]["found"] == 24
    assert "sub-folders are taken as classes" in capsys.readouterr().err


def test_which_labels_can_be_measured_by() -> None:
    assert useless_labels(np.array([0, 0, 1, -1])) is None
    assert useless_labels(None) == "the images have no labels"
    assert useless_labels(np.array([2, 2, -1])) == "the labels name fewer than two classes"
    assert useless_labels(np.array([0, 10**9, 2])) is not None


def test_a_file_that_is_no_image_says_what_it_is() -> None:
    for content, words in (
        (b"PK\x03\x04rest", "a zip archive"),
        (b"PAR1rest", "a Parquet table"),
        (b"<!doctype html><title>Sign in", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
    ):
        with pytest.raises(UnreadableImage, match=words):
            read_image(content, name="photo.jpg")


def test_an_archive_given_for_images_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"PK\x03\x04" + bytes(range(256)))
    with pytest.raises(UserError, match=r"photos\.zip: a zip archive, damaged or cut short"):
        opened(tmp_path / "photos.zip")


def test_figures_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    root = tiny.folder(tmp_path / "photos", classes=2, images=12)
    arguments = ["--epochs", "2", "--batch-size", "8", "--model.backbone", "resnet10", "--views.size", "16"]
    arguments += ["--model.projector-hidden", "0"]
    arguments += ["--model.width", "8", "--model.projector-dim", "32", "--model.predictor-dim", "8"]
    results = []
    for workers in (0, 3):
        out = tmp_path / f"run{workers}"
        run = ["pretrain", str(root), *arguments, "--out", str(out), "--device", "cpu", "--workers", str(workers)]
        with pytest.raises(SystemExit):
            main(run)
        result = read_json(out / "result.json")
        results.append((result["metrics"], result["weights"]["sha256"]))
    assert results[0] == results[1]


def test_predict_names_what_it_does_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny.flat_folder(tmp_path / "photos", images=2)
    for name in ("._photo 000.png", "a.heic"):
        (root / name).write_bytes(b"none")
    assert [file.name for file in image_files([root])] == ["photo 000.png", "photo 001.png"]
    assert "2 images used; left out: 1 other file (1 x .heic; `pip install pillow-heif`" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize(("bits", "full"), [(10, 1023), (12, 4095), (14, 16383), (16, 65535)])
def test_few_bits_of_sixteen_in_colour(tmp_path: Path, ending: str, bits: int, full: int) -> None:
    import cv2

    colour = np.array([[[200, 30, 90], [10, 255, 0]]])
    cv2.imwrite(str(tmp_path / f"a.{ending}"), np.rint(colour[:, :, ::-1] / 255 * full).astype(np.uint16))
    read = np.asarray(read_image(tmp_path / f"a.{ending}", name="a")).astype(int)
    assert np.abs(read - colour).max() <= 1, bits


def test_thumbnails_of_a_store_are_no_photos(tmp_path: Path) -> None:
    root = tiny.flat_folder(tmp_path / "photos", images=5)
    tiny.flat_folder(root / "@eaDir" / "photo 000.png", images=2)
    tiny.flat_folder(root / "$RECYCLE.BIN", images=1)
    assert len(FolderSource(root)) == 5


def test_a_cut_image_is_called_truncated(tmp_path: Path) -> None:
    content = tiny.jpeg(tiny.shape("circle", seed=0))
    for cut in (len(content) // 2, len(content) - 30):
        with pytest.raises(UnreadableImage, match="truncated or damaged"):
            read_image(content[:cut], name="cut.jpg")


def test_predictions_get_names_of_their_own_and_stay_away_from_the_photos(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.jpg", "A.png", "b.jpg")]
    assert file_names(files) == ["a", "A-2", "b"]
    files[0].write_bytes(b"")
    _refuse_beside(tmp_path / "out", ["a.jpg", "masks/a.png"], files)
    for out in (tmp_path, tmp_path / "out" / ".."):
        with pytest.raises(UserError, match=r"would lie beside .*a\.jpg, which is read"):
            _refuse_beside(out, ["a.png"], files)


def test_vectors_of_two_forms_share_their_facts_or_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tiny.flat_folder(tmp_path / "photos", images=4, size=24)
    for out in ("v.npy", "v.csv"):
        assert command("embed", "random:resnet10", root, "--size", 32, "--out", tmp_path / out, "--again") == 0
    facts = (tmp_path / "v.json").read_bytes()
    assert command("embed", "random:resnet10", root, "--size", 48, "--out", tmp_path / "v.csv", "--again") == 2
    assert "v.json beside it describes v.npy" in capsys.readouterr().err
    assert (tmp_path / "v.json").read_bytes() == facts
