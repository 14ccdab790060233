"""Every data set of the model zoo page in its own layout, with few small images, under one folder."""

from __future__ import annotations

from pathlib import Path

from tests import tiny_masks, tiny_shapes, trees


def write(root: Path) -> Path:
    """Enough images that every column can be filled: k=200 neighbours, 96 positive and 192 negative images a class."""
    trees.imagenet(root / "imagenet", sizes={"train": 240, "val": 30})
    for percent, count in ((1, 6), (10, 24)):
        names = [f"n{index % 3:08d}_{index}.JPEG\n" for index in range(count)]
        (root / "imagenet" / f"{percent}percent.txt").write_text("".join(names))
    trees.inaturalist(root / "iNaturalist2018")
    trees.places205(root / "Places205")
    tiny_masks.voc12aug(root / "VOCdevkit")
    tiny_shapes.voc_tree(root / "VOCdevkit", train=1100, test=24, side=64)
    tiny_shapes.coco_folder(root / "coco", train=12, test=6, side=64)
    tiny_masks.cityscapes(root / "cityscapes")
    return root
