"""The zoo: every published SimSiam model with its address, licence, recipe and what to know (no torch here)."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from simsiam.config import cache_folder
from simsiam.errors import UserError

_MMSELFSUP = "https://download.openmmlab.com/mmselfsup"
_OFFICIAL = "https://dl.fbaipublicfiles.com/simsiam/models"
_NON_COMMERCIAL = "CC BY-NC 4.0 (no commercial use)"

BGR_NOTE = (
    "Trained on images decoded as BGR and taken for RGB (a fault of MMSelfSup 0.5 and 0.6, mended in 0.7.0). "
    "Its linear and SVM figures were measured with BGR input too, detection and segmentation with RGB."
)
RERELEASE_NOTE = (
    "Re-released after the BGR fault. Only AvgPool, Places205 and kNN were measured anew; the SVM, Feature1-5, "
    "detection and segmentation figures beside it on its page are those of the weights before the fix."
)


@dataclass(frozen=True, kw_only=True)
class Card:
    """One published model."""

    name: str
    by: Literal["MMSelfSup", "official"]
    epochs: int
    batch_size: int
    version: str  # of the page or repository that published it
    url: str
    sha8: str | None  # first eight hex digits of the file's SHA-256, where the publisher gives them
    licence: str
    recipe: str  # ours that repeats it
    row: str  # its row in the published tables
    channel_order: Literal["RGB", "BGR"]
    linear_url: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The file's name at the source."""
        return self.url.rsplit("/", 1)[-1]


def _mmselfsup(
    epochs: int,
    version: str,
    stamp: str,
    *,
    folder: str = "simsiam",
    order: Literal["RGB", "BGR"],
    notes: tuple[str, ...],
) -> Card:
    config = f"simsiam_resnet50_8xb32-coslr-{epochs}e_in1k"
    return Card(
        name=f"mmselfsup-{epochs}e-{version}",
        by="MMSelfSup",
        epochs=epochs,
        batch_size=256,
        version=version,
        url=f"{_MMSELFSUP}/{folder}/{config}_{stamp}.pth",
        sha8=stamp.split("-")[1],
        licence="Apache-2.0",
        recipe=f"resnet50_8xb32-coslr-{epochs}e",
        row=f"resnet50_8xb32-coslr-{epochs}e",
        channel_order=order,
        notes=notes,
    )


def _official(epochs: int, batch_size: int, folder: str, *, linear: bool, notes: tuple[str, ...] = ()) -> Card:
    return Card(
        name=f"official-{epochs}e-bs{batch_size}",
        by="official",
        epochs=epochs,
        batch_size=batch_size,
        version="facebookresearch/simsiam",
        url=f"{_OFFICIAL}/{folder}/pretrain/checkpoint_{epochs - 1:04d}.pth.tar",
        sha8=None,
        licence=_NON_COMMERCIAL,
        recipe=f"resnet50_official-b{batch_size}-100e" if epochs == 100 else f"resnet50_8xb32-coslr-{epochs}e",
        row=f"{epochs} epochs, batch {batch_size}",
        channel_order="RGB",
        linear_url=f"{_OFFICIAL}/{folder}/linear/model_best.pth.tar" if linear else None,
        notes=notes,
    )


def _in_1x(epochs: int) -> str:
    return f"1.x/simsiam/simsiam_resnet50_8xb32-coslr-{epochs}e_in1k"


CARDS: tuple[Card, ...] = (
    _mmselfsup(100, "v0.5.0", "20211213-925d628c", order="BGR", notes=(BGR_NOTE, "The model of the page.")),
    _mmselfsup(100, "v0.6.0", "20211230-65a0eff4", order="BGR", notes=(BGR_NOTE, "Retrained; replaced v0.5.0's.")),
    _mmselfsup(100, "v0.7.0", "20220225-68a88ad8", order="RGB", notes=(RERELEASE_NOTE,)),
    _mmselfsup(100, "v1.0.0", "20220825-d07cb2e6", folder=_in_1x(100), order="RGB", notes=("Retrained in 1.x.",)),
    _mmselfsup(200, "v0.5.0", "20211213-b605f9f1", order="BGR", notes=(BGR_NOTE, "The model of the page.")),
    _mmselfsup(200, "v0.7.0", "20220225-2f488143", order="RGB", notes=(RERELEASE_NOTE,)),
    _mmselfsup(200, "v1.0.0", "20220825-efe91299", folder=_in_1x(200), order="RGB", notes=("Retrained in 1.x.",)),
    _official(100, 512, "100ep", linear=True),
    _official(100, 256, "100ep-256bs", linear=True),
    _official(
        200,
        256,
        "200ep-256bs",
        linear=False,
        notes=("Not in the README: the address was given by the author in facebookresearch/simsiam issue 18.",),
    ),
)


def find(name: str) -> Card | None:
    """The card of this exact name, if there is one."""
    return next((card for card in CARDS if card.name == name), None)


def get(name: str) -> Card:
    """The card of this name; raises UserError with the nearest names."""
    card = find(name)
    if card is None:
        near = difflib.get_close_matches(name, [c.name for c in CARDS], n=3) or [c.name for c in CARDS]
        raise UserError(f"no zoo model {name!r}. Did you mean {', '.join(near)}? `simsiam zoo` lists all.")
    return card


def notes_for_file(file: str) -> tuple[str, ...]:
    """What a card says about a file of this name, where the name is one's own and not a common one."""
    return tuple(note for card in CARDS if card.sha8 and card.file == file for note in card.notes)


def is_published(source: str) -> bool:
    """Whether a name is a card's, or a file's name one that only a card's file has."""
    file = Path(source).name
    return find(source) is not None or any(card.sha8 and card.file == file for card in CARDS)


def channel_order(file: str) -> Literal["RGB", "BGR"]:
    """What a published file of this name was trained on; RGB for every other."""
    return next((card.channel_order for card in CARDS if card.sha8 and card.file == file), "RGB")


def zoo_folder(cache: Path | None = None) -> Path:
    """Where fetched models lie: under the cache's folder."""
    return cache_folder(cache) / "zoo"


def place(card: Card, cache: Path | None = None) -> Path:
    """The path of a card's file once it is here, fetched or put there by hand."""
    return zoo_folder(cache) / card.name / card.file


def own_folder(name: str, cache: Path | None = None) -> Path:
    """Where an own run of this name lies once `simsiam zoo add` took it in."""
    return zoo_folder(cache) / "own" / name


def fetched_file(card: Card, cache: Path | None = None) -> Path:
    """A card's file; raises UserError that says how to get it where it is not here yet."""
    path = place(card, cache)
    if not path.exists():
        raise UserError(
            f"{card.name}: not fetched yet. Run `simsiam zoo get {card.name}`, or download\n{card.url}\nto {path}"
        )
    return path
