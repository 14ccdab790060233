"""VOC2012 segmentation with the additional masks of SBD: 21 classes, contours and void marked 255.

Training is ImageSets/Segmentation/train.txt with SegmentationClass, and aug.txt (or trainaug.txt) with
SegmentationClassAug, 10,582 images in all (from memory, not verified); scored is val.txt, 1,449 images. SBD: Hariharan
et al. 2011, "Semantic contours from inverse detectors".
"""

from __future__ import annotations

from pathlib import Path

from simsiam.data.segmentation.masks import IGNORE, Coding, Colour, MaskSource, MaskSplits, Pair
from simsiam.errors import UserError
from simsiam.wording import counted, plural

CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
).split()
MASKS, AUG_MASKS = "SegmentationClass", "SegmentationClassAug"
SBD_PLACES = ("VOCaug/dataset/cls", "benchmark_RELEASE/dataset/cls", "sbd/cls", "SBD/cls")


def open_voc12aug(root: Path | str) -> MaskSplits:
    """Both sets of a VOC2012 tree.

    Args:
        root: the folder with ImageSets, JPEGImages and SegmentationClass, or the VOCdevkit above it.

    The additional masks are SegmentationClassAug/NAME.png, or the .mat files of SBD beside the tree. Where no list
    names them, all that are not in val.txt are taken. Raises UserError where lists or folders are missing.
    """
    tree = _tree(Path(root))
    test = _listed(tree, "val")
    plain = _listed(tree, "train")
    _not_both(tree, plain, test)
    aug_folder = _aug_folder(tree)
    extra = [name for name in _aug_names(tree, aug_folder) if name not in set(plain)]
    _not_both(tree, extra, test)
    train = [_pair(tree, name, tree / MASKS / f"{name}.png") for name in plain]
    train += [_pair(tree, name, _aug_mask(aug_folder, name)) for name in extra]
    return MaskSplits(
        train=_source(train, "voc2012aug-train"),
        test=_source([_pair(tree, name, tree / MASKS / f"{name}.png") for name in test], "voc2012aug-val"),
    )


def voc_colours() -> dict[Colour, int]:
    """The colours of VOC masks that lost their palette: the bits of the class id, spread over red, green and blue."""
    colours: dict[Colour, int] = {}
    for number in [*range(len(CLASSES)), IGNORE]:
        channels = [0, 0, 0]
        rest = number
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (rest >> channel & 1) << (7 - bit)
            rest >>= 3
        colours[channels[0], channels[1], channels[2]] = number
    return colours


def _source(pairs: list[Pair], name: str) -> MaskSource:
    coding = Coding(ids={**{n: n for n in range(len(CLASSES))}, 255: IGNORE}, colours=voc_colours())
    return MaskSource(pairs, name=name, classes=tuple(CLASSES), coding=coding)


def _tree(root: Path) -> Path:
    for candidate in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (candidate / "ImageSets" / "Segmentation").is_dir():
            return candidate
    raise UserError(
        f"{root}: no VOC2012 tree (ImageSets/Segmentation is missing there and in VOC2012 below it). Give the folder "
        f"that holds ImageSets, JPEGImages, {MASKS} and {AUG_MASKS}."
    )


def _listed(tree: Path, split: str) -> list[str]:
    file = tree / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not file.is_file():
        raise UserError(f"{file}: no such list; it comes with VOC2012 (trainval).")
    names = list(dict.fromkeys(line.split()[0] for line in file.read_text("utf-8").splitlines() if line.strip()))
    if not names:
        raise UserError(f"{file}: an empty list of images.")
    return names


def _aug_folder(tree: Path) -> Path:
    if (tree / AUG_MASKS).is_dir():
        return tree / AUG_MASKS
    for base in (tree, tree.parent, tree.parent.parent):
        for place in SBD_PLACES:
            if (base / place).is_dir():
                return base / place
    raise UserError(
        f"{tree / AUG_MASKS}: no such folder, and no SBD masks ({SBD_PLACES[0]}) beside the tree. Put the additional "
        f"masks there as NAME.png, or unpack SBD's dataset/cls; to train on VOC2012 alone, copy {MASKS} to {AUG_MASKS}."
    )


def _aug_names(tree: Path, folder: Path) -> list[str]:
    """What aug.txt or trainaug.txt lists; without them every additional mask that is not in a list of val."""
    lists = tree / "ImageSets" / "Segmentation"
    for name in ("aug", "trainaug"):
        if (lists / f"{name}.txt").is_file():
            return _listed(tree, name)
    held = set(_listed(tree, "val"))
    return sorted(file.stem for file in folder.iterdir() if file.suffix in (".png", ".mat") and file.stem not in held)


def _aug_mask(folder: Path, name: str) -> Path:
    mat = folder / f"{name}.mat"
    return mat if mat.is_file() else folder / f"{name}.png"


def _not_both(tree: Path, train: list[str], test: list[str]) -> None:
    both = sorted(set(train) & set(test))
    if both:
        raise UserError(
            f"{tree / 'ImageSets' / 'Segmentation'}: {counted(len(both), 'image is', 'images are')} listed "
            f"for training and in val.txt "
            f"({', '.join(both[:5])}). Take {plural(len(both), 'it', 'them')} out of the training list."
        )


def _pair(tree: Path, name: str, mask: Path) -> Pair:
    return Pair(name=f"JPEGImages/{name}.jpg", image=tree / "JPEGImages" / f"{name}.jpg", mask=mask)
