"""Weights out to other programs; each file is loaded again and its features compared before it counts as written."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from simsiam import claims
from simsiam.errors import UserError, install_extra
from simsiam.results import write_atomic
from simsiam.weights import modelcard, targets
from simsiam.weights.cards import is_published
from simsiam.weights.load import Loaded, Preprocess
from simsiam.weights.modelcard import Target as Target
from simsiam.weights.targets import Reader
from simsiam.wording import counted

if TYPE_CHECKING:
    from PIL import Image


def write_onnx(loaded: Loaded, out: Path) -> Path:
    """One .onnx file: input `images` B x 3 x H x W with any B, output `features` B x C."""
    require_onnx()
    return write_program(loaded.backbone, _example(loaded), out / "backbone.onnx", outputs=("features",), free=(0,))


def write_pt2(loaded: Loaded, out: Path) -> Path:
    """A torch.export program with any batch size."""
    return write_program(loaded.backbone, _example(loaded), out / "backbone.pt2", outputs=("features",), free=(0,))


def _example(loaded: Loaded) -> Tensor:
    return torch.zeros(2, 3, loaded.preprocess.size, loaded.preprocess.size)


def write_program(
    network: torch.nn.Module, images: Tensor, path: Path, *, outputs: Sequence[str], free: Sequence[int]
) -> Path:
    """The network as one file with all it computes, ONNX or torch.export by its suffix; the input is `images`.

    Args:
        network: in evaluation mode, on the CPU.
        images: an example of its input.
        outputs: their names.
        free: the dimensions of the input whose size is not that of the example alone.
    """
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    sizes = {at: torch.export.Dim("batch", min=1) if at == 0 else torch.export.Dim.DYNAMIC for at in free}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's notes to its own developers
        program = torch.export.export(network, (images,), dynamic_shapes=(sizes,), strict=False)
        if path.suffix == ".pt2":
            torch.export.save(program, part)
        else:
            torch.onnx.export(
                program,
                (),
                part,
                input_names=["images"],
                output_names=list(outputs),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    part.replace(path)
    return path


def require_onnx() -> None:
    """Raise UserError where the libraries that write and check ONNX are absent."""
    try:
        import onnx  # noqa: F401 - what torch's exporter needs
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--to onnx needs the onnx extra: {install_extra('onnx')}") from error


def read_program(path: Path) -> tuple[Callable[[Tensor], list[Tensor]], str]:
    """What a file of `write_program` computes when onnxruntime or torch loads it, and that library's version."""
    if path.suffix == ".pt2":
        with warnings.catch_warnings():  # torch 2.11 warns of its own reading of the file
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            module = torch.export.load(path).module()

        def outputs(images: Tensor) -> list[Tensor]:
            found = module(images)
            return [found] if isinstance(found, Tensor) else list(found)

        return outputs, f"torch {torch.__version__}"
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise UserError(
            f"{path.name} cannot be checked here, so it is not written. That needs: {install_extra('onnx')}"
        ) from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return (
        lambda images: [torch.from_numpy(each) for each in session.run(None, {"images": images.numpy()})],
        f"onnxruntime {onnxruntime.__version__}",
    )


def read_features(loaded: Loaded, path: Path) -> Reader:
    """A backbone's program."""
    del loaded
    run, library = read_program(path)
    return Reader(run=lambda images: run(images)[0], library=library)


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a target is written and read, and how far its features may lie from ours."""

    write: Callable[[Loaded, Path], Path]
    read: Callable[[Loaded, Path], Reader]
    tolerance: float = 1e-5  # largest difference over the largest feature


FORMS: dict[str, Form] = {
    "torchvision": Form(write=targets.write_torchvision, read=targets.read_torchvision),
    "timm": Form(write=targets.write_timm, read=targets.read_timm),
    "detectron2": Form(write=targets.write_detectron2, read=partial(targets.read_back, absent="detectron2")),
    "mmpretrain": Form(write=partial(targets.write_mm, target="mmpretrain", prefix="backbone."), read=targets.read_mm),
    "mmdet": Form(write=partial(targets.write_mm, target="mmdet", prefix=""), read=targets.read_mm),
    "onnx": Form(write=write_onnx, read=read_features, tolerance=1e-4),
    "pt2": Form(write=write_pt2, read=read_features),
    "safetensors": Form(write=targets.write_safetensors, read=targets.read_back),
    "huggingface": Form(write=targets.write_huggingface, read=targets.read_huggingface),
}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and how it was checked."""

    target: str
    path: Path
    card: Path
    library: str  # that loaded it again, with its version
    max_relative_difference: float
    tolerance: float
    images: int

    def __str__(self) -> str:
        """One line for the terminal."""
        return (
            f"{self.path}: loaded again with {self.library}; on {counted(self.images, 'image')} the "
            f"features differ by at most "
            f"{self.max_relative_difference:.1e} (tolerance {self.tolerance:.0e})"
        )


def export(
    loaded: Loaded, *, to: Target, out: Path, images: Tensor | None = None, licence: str | None = None
) -> Exported:
    """Write a backbone for another program into a folder, with a model card, and check it.

    Args:
        loaded: from `load_backbone`.
        to: the program.
        out: a folder; it is made, and what an earlier export to this target left there is replaced.
        images: normalised images to compare on, B x 3 x H x W; None: four crops of scikit-learn's two photographs.
        licence: of the weights, for the card; None: the card says that none was stated.

    Raises:
        UserError: the target cannot hold this backbone, a library that it needs is absent, or the features of what
            was written differ by more than the tolerance (the file is then removed).
    """
    if to not in FORMS:
        raise UserError(f"--to {to}: unknown. Known: {', '.join(get_args(Target))}.")
    out.mkdir(parents=True, exist_ok=True)
    images = sample_images(loaded.preprocess) if images is None else images
    try:
        with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as part:
            exported = _export(loaded, to, Path(part), images, licence)
            read = [each for each in [Path(loaded.weights.source)] if each.is_file()]
            names = sorted(each.name for each in Path(part).iterdir())
            with claims.claim(out, command=f"export {to}", makes=names, inputs=read):
                for name in names:
                    os.replace(Path(part) / name, out / name)
    except UserError:
        with contextlib.suppress(OSError):  # it holds files
            out.rmdir()
        raise
    return dataclasses.replace(exported, path=out / exported.path.name, card=out / exported.card.name)


def _export(loaded: Loaded, to: Target, out: Path, images: Tensor, licence: str | None) -> Exported:
    """Write into a folder that passes, read again and compare."""
    form = FORMS[to]
    path = form.write(loaded, out)
    reader = form.read(loaded, path)
    difference = relative_difference(reader, loaded, images)
    if not difference <= form.tolerance:
        raise UserError(
            f"{path.name}: removed. Loaded with {reader.library}, its features differ from ours by {difference:.1e} "
            f"(tolerance {form.tolerance:.0e}); please report this with the two versions."
        )
    exported = Exported(
        target=to,
        path=path,
        card=out / "README.md",
        library=reader.library,
        max_relative_difference=difference,
        tolerance=form.tolerance,
        images=len(images),
    )
    backbone, stem = loaded.backbone, getattr(loaded.backbone, "stem", None)
    details = f", stem {stem}, {getattr(backbone, 'width', None)} channels wide" if stem else ""
    by_simsiam = loaded.recipe is not None or loaded.projector is not None or is_published(loaded.weights.source)
    facts = modelcard.Facts(
        title=f"SimSiam {backbone.name}" if by_simsiam else backbone.name,
        method="SimSiam" if by_simsiam else "not known",
        licence=licence,
        backbone=f"{backbone.name}{details}, {backbone.features} features",
        preprocess=dataclasses.asdict(loaded.preprocess),
        recipe=loaded.recipe,
        sha256=loaded.weights.sha256,
        source=f"{Path(loaded.weights.source).name} ({loaded.source_format})",
        usage=modelcard.usage(to, path.name, backbone.name, stem or "imagenet"),
        checks=(str(exported).split(": ", 1)[1],),
        notes=loaded.notes,
    )
    write_atomic(exported.card, modelcard.render(facts))
    return exported


@torch.no_grad()
def relative_difference(reader: Reader, loaded: Loaded, images: Tensor) -> float:
    """The largest difference of any feature, over the largest feature; infinite where shapes differ."""
    ours, theirs = loaded.backbone(images), reader.run(images)
    if ours.shape != theirs.shape:
        return float("inf")
    return float((theirs - ours).abs().max() / ours.abs().max().clamp_min(1e-12))


def photographs() -> list[Image.Image]:
    """The two photographs that scikit-learn carries, 640 x 427 pixels."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(array) for array in load_sample_images().images]


def sample_images(preprocess: Preprocess) -> Tensor:
    """Four crops of the two photographs that scikit-learn carries, normalised: 4 x 3 x size x size."""
    from torchvision.transforms import functional

    crops = []
    for photo in photographs():
        side = min(photo.size)
        for left in (0, photo.width - side):
            square = photo.crop((left, 0, left + side, side)).resize((preprocess.size, preprocess.size))
            tensor = functional.to_tensor(square)
            crops.append(functional.normalize(tensor, list(preprocess.mean), list(preprocess.std)))
    return torch.stack(crops)
