"""What a person says of the data, for each kind of protocol: the fields are flags, `open` reads the sets.

Nothing that reads images is imported before `open` is called, so that `--help` answers at once.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import tyro

from simsiam.config import cache_folder
from simsiam.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from simsiam.data.classification.voc import MultiLabelSplits
    from simsiam.data.segmentation.masks import MaskSplits
    from simsiam.data.sources import Source
    from simsiam.data.splits import Splits
    from simsiam.evaluation.detection.data import BoxSets

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]
Layout = Literal["places205", "inaturalist2018"]
NO_FLAGS = ("LabelledSets.layout", "PublishedBoxes.kind", "PublishedMasks.kind")  # what the protocol's name says
PUBLISHED_BOXES = {
    "voc0712": "the VOCdevkit that holds VOC2007 and VOC2012",
    "voc07": "the VOCdevkit that holds VOC2007",
    "coco2017": "the COCO folder that holds annotations, train2017 and val2017",
    "cityscapes": "the folder that holds leftImg8bit and gtFine",
}


@dataclass(frozen=True, kw_only=True)
class DataFlags(ABC):
    """Where the data of a protocol lie."""

    one_set: ClassVar[bool] = False  # the protocol is of one published set, so results need not be filed by its name

    @abstractmethod
    def open(self, cache: Path | None) -> Any:
        """The data as the protocol takes them; raises UserError where nothing usable is named or found.

        Args:
            cache: of downloads; None: the usual folder.
        """

    def filled(self, name: str, places: dict[str, Any]) -> Self:
        """The flags with what a caller of the protocol `name` gave; UserError for a name that it does not have."""
        hints = typing.get_type_hints(type(self))
        known = [each.name for each in dataclasses.fields(self) if each.name not in ("layout", "kind")]
        given = {}
        for key, value in places.items():
            if key not in known:
                hint = did_you_mean(key, known)
                raise UserError(f"{key}: {name} has no such argument.{hint} Known: {', '.join(known)}.")
            kinds = typing.get_args(hints[key]) if isinstance(hints[key], types.UnionType) else (hints[key],)
            kept = value is None or isinstance(value, bool | int)
            given[key] = value if kept else (Path if Path in kinds else str)(value)
        return dataclasses.replace(self, **given)


@dataclass(frozen=True, kw_only=True)
class LabelledSets(DataFlags):
    """A labelled training and test set."""

    layout: Layout | None = None  # of --data, where only one set will do
    data: str | None = None  # A set with splits: cifar10, cifar100, fashion-mnist, or a folder such as ImageNet's.
    train: str | None = None  # Training images instead: class folders, a list of "path label", or a CSV of path,label.
    test: str | None = None  # Test images, in any of the forms of --train.

    def open(self, cache: Path | None) -> Splits:
        """Both sets."""
        from simsiam.data.classification.datasets import splits

        return splits(data=self.data, train=self.train, test=self.test, cache=cache, layout=self.layout)


@dataclass(frozen=True, kw_only=True)
class PartlyLabelledSets(LabelledSets):
    """The images of ImageNet that a list names, to learn from, and its validation images."""

    part: Path | None = None  # List of the labelled images in --data, such as SimCLR's 1percent.txt.

    def open(self, cache: Path | None) -> Splits:
        """The labelled part and the test set."""
        both = super().open(cache)
        if self.part is None:
            return both
        if self.data is None:
            raise UserError("--part: names images of an ImageNet folder; give that folder as --data.")
        from simsiam.data.classification.named_sets import imagenet_part
        from simsiam.data.splits import Splits

        return Splits(train=imagenet_part(self.data, self.part), test=both.test)


@dataclass(frozen=True, kw_only=True)
class GallerySets(LabelledSets):
    """A test set whose images are looked for among each other, and a training set where that is the gallery."""

    def open(self, cache: Path | None) -> Splits:
        """Both sets; the test set twice where it is named alone."""
        if self.test is None or self.train is not None or self.data is not None:
            return super().open(cache)
        from simsiam.data.classification.datasets import labelled
        from simsiam.data.splits import Splits

        alone = labelled(self.test, cache=cache)
        return Splits(train=alone, test=alone)


@dataclass(frozen=True, kw_only=True)
class MultiLabelSets(LabelledSets):
    """A VOC tree, two CSV files of path,label1;label2, or a labelled training and test set, one class against rest."""

    def open(self, cache: Path | None) -> MultiLabelSplits:  # type: ignore[override]  # several labels an image
        """Both sets."""
        from simsiam.data.classification.datasets import multilabel

        return multilabel(data=self.data, train=self.train, test=self.test, cache=cache)


@dataclass(frozen=True, kw_only=True)
class LabelledSet(DataFlags):
    """One labelled set."""

    data: str | None = None  # Labelled images: class folders, a CSV of path,label, or a set such as cifar10.

    def open(self, cache: Path | None) -> Source:
        """The set; of one with splits, the test images."""
        if self.data is None:
            raise UserError("--data: name the labelled images: class folders, a CSV of path,label, or a set's name.")
        from simsiam.data.classification.datasets import labelled

        return labelled(self.data, cache=cache)


@dataclass(frozen=True, kw_only=True)
class PublishedBoxes(DataFlags):
    """A published detection set in its own layout."""

    one_set: ClassVar[bool] = True
    kind: Literal["voc0712", "voc07", "coco2017", "cityscapes"]
    data: Path | None = None  # The folder of the unpacked data set.
    skip_bad: Switch = False  # Skip damaged images and boxes, and report how many, instead of stopping.

    def open(self, cache: Path | None) -> BoxSets:
        """Both sets, checked file by file and object by object."""
        from simsiam.evaluation.detection.data import open_published

        if self.data is None:
            raise UserError(f"--data: name {PUBLISHED_BOXES[self.kind]}.")
        return open_published(self.kind, self.data, bad="drop" if self.skip_bad else "stop")


@dataclass(frozen=True, kw_only=True)
class OwnBoxes(DataFlags):
    """Boxes, and maybe masks, of your own."""

    data: Path | None = None  # Folder, archive or file of a COCO, VOC, YOLO, CVAT, LabelMe, VIA or OpenImages export.
    images: Path | None = None  # Folder of the images; by default looked for beside the annotations.
    test: Path | None = None  # A test set; by default the export's own split, or a random fifth of --data.
    test_images: Path | None = None  # Folder of the test images, like --images.
    skip_bad: Switch = False  # Skip damaged images and boxes, and report how many, instead of stopping.
    first_pixel: Literal[0, 1] = 0  # Number of the first pixel in VOC XML files: 0 for most tools, 1 for VOC itself.

    def open(self, cache: Path | None) -> BoxSets:
        """Both sets, checked file by file and object by object."""
        from simsiam.data.unpack import opened
        from simsiam.evaluation.detection.data import open_own

        if self.data is None:
            raise UserError(
                "--data: name a folder of annotated images: COCO json, VOC-XML, YOLO, CVAT, LabelMe, VIA or OpenImages."
            )
        return open_own(
            opened(self.data, cache=cache_folder(cache)).place,
            images=self.images,
            test=self.test,
            test_images=self.test_images,
            first_pixel=self.first_pixel,
            bad="drop" if self.skip_bad else "stop",
        )


@dataclass(frozen=True, kw_only=True)
class PublishedMasks(DataFlags):
    """A published segmentation set in its own layout."""

    one_set: ClassVar[bool] = True
    kind: Literal["voc12aug", "cityscapes"]
    data: Path | None = None  # The VOCdevkit, or the folder that holds leftImg8bit and gtFine.
    skip_bad: Switch = (
        False  # Leave out images that are damaged or whose mask is, and report them, in place of stopping.
    )

    def open(self, cache: Path | None) -> MaskSplits:
        """Both sets."""
        from simsiam.data.segmentation.cityscapes import open_cityscapes
        from simsiam.data.segmentation.voc12aug import open_voc12aug

        if self.data is None:
            raise UserError(
                f"--data: name the folder of the data set: simsiam evaluate segmentation-{self.kind} RUN --data DIR."
            )
        found = {"voc12aug": open_voc12aug, "cityscapes": open_cityscapes}[self.kind](self.data)
        return dataclasses.replace(found, skip_bad=self.skip_bad)


@dataclass(frozen=True, kw_only=True)
class OwnMasks(DataFlags):
    """Images and masks of your own."""

    data: Path | None = None  # A folder with images/, masks/ and classes.txt, or a Roboflow or CVAT mask export.
    train_images: Path | None = None  # Instead of --data: the folder of training images; sub-folders are read too.
    train_masks: Path | None = None  # Folder of their masks, with the same names.
    test_images: Path | None = None  # Folder of test images; by default a tenth of the training images is held out.
    test_masks: Path | None = None  # Folder of the test images' masks.
    classes: Path | None = None  # Text file with a line per class: NAME, ID NAME or RED GREEN BLUE NAME.
    skip_bad: Switch = (
        False  # Leave out images that are damaged or whose mask is, and report them, in place of stopping.
    )

    def open(self, cache: Path | None) -> MaskSplits:
        """Both sets; the held-out part is the same for every seed of the training."""
        return dataclasses.replace(self._read(cache), skip_bad=self.skip_bad)

    def _read(self, cache: Path | None) -> MaskSplits:
        from simsiam.data.segmentation.class_list import find_class_file
        from simsiam.data.segmentation.folders import Folders, open_mask_folders, open_mask_tree
        from simsiam.data.unpack import opened

        own = {
            "--train-images": self.train_images,
            "--train-masks": self.train_masks,
            "--test-images": self.test_images,
            "--test-masks": self.test_masks,
        }
        given = [flag for flag, value in own.items() if value is not None]
        if self.data is not None:
            if given:
                raise UserError(f"--data and {given[0]}: name the data set one way.")
            return open_mask_tree(opened(self.data, cache=cache_folder(cache)).place, self.classes, seed=0)
        train_images, train_masks, test_images, test_masks = own.values()
        if train_images is None or train_masks is None or (test_images is None) != (test_masks is None):
            raise UserError(
                "name your images and masks: --data DIR (with images/, masks/ and classes.txt), or --train-images and "
                "--train-masks, with --test-images and --test-masks or without both."
            )
        classes = self.classes or find_class_file(train_masks, train_masks.parent)
        if classes is None:
            raise UserError("--classes: name the list of classes, a text file with a line for each.")
        test = Folders(images=test_images, masks=test_masks) if test_images and test_masks else None
        return open_mask_folders(Folders(images=train_images, masks=train_masks), test, classes, seed=0)
