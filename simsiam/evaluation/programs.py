"""Trained models as files that need nothing of this package: ONNX and torch.export, checked on two photographs.

torchvision's own detectors cannot take ours as a state dict: their anchors, pooling and box coder have other numbers
(see `detection/detector.py`). A torch.export program holds the whole computation; it needs torch and torchvision alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.functional import to_tensor

from simsiam import claims
from simsiam.data.detection.loader import MULTIPLE
from simsiam.data.segmentation.transforms import fitted
from simsiam.errors import UserError
from simsiam.evaluation.classification.inference import TrainedClassifier
from simsiam.evaluation.detection.detector import Detector
from simsiam.evaluation.detection.inference import SHOWN, TrainedDetector
from simsiam.evaluation.models import open_model
from simsiam.evaluation.segmentation.inference import TrainedSegmentor
from simsiam.evaluation.segmentation.segmentor import Segmentor
from simsiam.results import write_atomic
from simsiam.weights.export import photographs, read_program, require_onnx, write_program
from simsiam.wording import counted, some

To = Literal["onnx", "pt2"]
TOLERANCE = 1e-3  # of each output: largest difference over the largest value, at least 1


@dataclass(frozen=True, kw_only=True)
class Program:
    """A network from RGB images in 0 to 1 to what a person wants, and how images come in."""

    name: str  # of the file
    network: nn.Module
    outputs: dict[str, str]  # name -> what it is
    free: tuple[int, ...]  # dimensions of the input that may have any size
    resize: str  # Python that makes `small` of `image`
    use: str  # Python that shows what came out
    classes: tuple[str, ...]
    examples: list[Tensor]  # 1 x 3 x H x W


class _Normalised(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def normalised(self, images: Tensor) -> Tensor:
        """As the network was trained."""
        return (images - self.mean) / self.std


class _Detection(_Normalised):
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """1 x 3 x H x W -> boxes, scores, labels from 1, and masks within their boxes where there are some."""
        height, width = images.shape[2:]
        padded = functional.pad(self.normalised(images), (0, -width % MULTIPLE, 0, -height % MULTIPLE))
        assert isinstance(self.network, Detector)
        (found,) = self.network.detect(padded, [(height, width)])
        return (found.boxes, found.scores, found.labels, *([] if found.masks is None else [found.masks]))


class _Segmentation(_Normalised):
    def forward(self, images: Tensor) -> Tensor:
        """1 x 3 x H x W -> 1 x H x W int64."""
        assert isinstance(self.network, Segmentor)
        scores = self.network(self.normalised(images)).main
        return self.network.scores_at(scores, (images.shape[2], images.shape[3])).argmax(1)


class _Classification(nn.Module):
    def __init__(self, trained: TrainedClassifier) -> None:
        super().__init__()
        self.body = _Normalised(trained.backbone, trained.preprocess.mean, trained.preprocess.std)
        self.trained = trained

    def forward(self, images: Tensor) -> Tensor:
        """B x 3 x S x S -> B x C."""
        return self.trained.classified(self.body.network(self.body.normalised(images)))


def export_model(folder: Path, *, to: To, out: Path) -> list[str]:
    """Write the model of an evaluation's folder as a program with a README.md; what was checked, in lines.

    Raises UserError where the folder holds no finished model, a library is absent, or the program's answers differ.
    """
    if to == "onnx":
        require_onnx()
    program = program_of(folder)
    name = f"{program.name}.{to}"
    with claims.claim(out, command=f"export {to}", makes=[name, "README.md"], inputs=[]):
        path = out / name
        try:
            write_program(program.network, program.examples[0], path, outputs=[*program.outputs], free=program.free)
            run, library = read_program(path)
            worst, found = _compared(program, run)
        except UserError:
            path.unlink(missing_ok=True)
            raise
        if not worst <= TOLERANCE:
            path.unlink()
            raise UserError(
                f"{name}: removed. Loaded with {library} its answers differ from ours by {worst:.1e} (tolerance "
                f"{TOLERANCE:.0e}); please report this with the two versions."
            )
        checked = (
            f"loaded again with {library}; on {counted(len(program.examples), 'photograph')} ({found}) its answers "
            f"differ from ours by at most {worst:.1e} (tolerance {TOLERANCE:.0e})"
        )
        write_atomic(out / "README.md", _card(program, to, name, checked).encode())
    return [f"{path}: {checked}", f"{out / 'README.md'}: how to load it, without simsiam"]


def program_of(folder: Path) -> Program:
    """The model of an evaluation's folder; raises UserError as `open_model` does."""
    trained = open_model(folder, device="cpu", threshold=None, most=1).trained
    if isinstance(trained, TrainedDetector):
        return _detection(trained)
    return _segmentation(trained) if isinstance(trained, TrainedSegmentor) else _classification(trained)


def _detection(trained: TrainedDetector) -> Program:
    short, long = trained.images.short_sides[0], trained.images.long_side
    masks = {"masks": "N x S x S, probabilities within each box"} if trained.detector.architecture.masks else {}
    examples = [
        image.resize(trained.images.scaled_size(*image.size, short), Image.Resampling.BILINEAR)
        for image in photographs()
    ]
    return Program(
        name="detector",
        network=_Detection(trained.detector, trained.mean, trained.std).eval(),
        outputs={"boxes": "N x 4, x1 y1 x2 y2 in pixels of `small`", "scores": "N", "labels": "N, from 1", **masks},
        free=(2, 3),
        resize=(
            f"scale = min({short} / min(image.size), {long} / max(image.size))\n"
            "small = image.resize([max(1, int(side * scale + 0.5)) for side in image.size], Image.Resampling.BILINEAR)"
        ),
        use=(
            "boxes, scores, labels = found[:3]\n"
            "for box, score, label in zip(boxes / scale, scores, labels):\n"
            f"    if score >= {SHOWN if trained.score is None else trained.score:g}:\n"
            "        print(CLASSES[int(label) - 1], float(score), box.tolist())"
        ),
        classes=trained.classes,
        examples=[to_tensor(image)[None] for image in examples],
    )


def _segmentation(trained: TrainedSegmentor) -> Program:
    testing = trained.settings.testing
    if testing.windows != "whole":
        raise UserError(
            "this segmentor looks at images in overlapping windows (--windows slide), which no program of one pass "
            "does. Train it with --windows whole, as segmentation-folder does by default."
        )
    long, short = testing.test_long, testing.test_short
    examples = [
        image.resize(fitted(image.size, long=long, short=short), Image.Resampling.BILINEAR) for image in photographs()
    ]
    return Program(
        name="segmentor",
        network=_Segmentation(trained.network, trained.normalisation.mean, trained.normalisation.std).eval(),
        outputs={"classes": "1 x H x W, the class of each pixel of `small`, from 0"},
        free=(2, 3),
        resize=(
            f"scale = min({long} / max(image.size), {short} / min(image.size))\n"
            "small = image.resize([int(side * scale + 0.5) for side in image.size], Image.Resampling.BILINEAR)"
        ),
        use=(
            "for number in found[0].unique():\n"
            "    print(CLASSES[int(number)], float((found[0] == number).float().mean()))"
        ),
        classes=trained.classes,
        examples=[to_tensor(image)[None] for image in examples],
    )


def _classification(trained: TrainedClassifier) -> Program:
    how = trained.preprocess
    return Program(
        name="classifier",
        network=_Classification(trained).eval(),
        outputs={"probabilities": "B x C"},
        free=(0,),
        resize=(
            "from torchvision.transforms.functional import center_crop, resize\n"
            f"small = center_crop(resize(image, [{how.resize}]), [{how.size}, {how.size}])"
        ),
        use=(
            "for share, number in zip(*found[0].topk(min(5, len(CLASSES)))):\n"
            "    print(CLASSES[int(number)], float(share))"
        ),
        classes=trained.classes,
        examples=[to_tensor(Image.fromarray(how.resample(image)))[None].repeat(2, 1, 1, 1) for image in photographs()],
    )


@torch.no_grad()
def _compared(program: Program, run: Any) -> tuple[float, str]:
    """The largest difference of any output, infinite where shapes differ, and the first output's shapes in words."""
    worst, sizes = 0.0, []
    for images in program.examples:
        ours = program.network(images)
        ours = [ours] if isinstance(ours, Tensor) else list(ours)
        theirs = run(images)
        sizes.append(" x ".join(map(str, ours[0].shape)))
        for one, other in zip(ours, theirs, strict=True):
            if one.shape != other.shape:
                return float("inf"), ""
            if one.numel():
                most = one.double().abs().max().clamp_min(1)
                worst = max(worst, float((one.double() - other.double()).abs().max() / most))
    return worst, f"{next(iter(program.outputs))} {some(sizes)}"


def _card(program: Program, to: To, file: str, checked: str) -> str:
    load = {
        "pt2": f'program = torch.export.load("{file}").module()\nfound = program(to_tensor(small)[None])',
        "onnx": (
            f'session = onnxruntime.InferenceSession("{file}")\n'
            'given = {"images": to_tensor(small)[None].numpy()}\n'
            "found = [torch.from_numpy(each) for each in session.run(None, given)]\n"
            "found = found if len(found) > 1 else found[0]"
        ),
    }[to]
    imports = (
        "import onnxruntime\nimport torch" if to == "onnx" else "import torch\nimport torchvision  # its operations"
    )
    rows = "\n".join(f"- `{name}`: {what}" for name, what in program.outputs.items())
    return f"""# A {program.name} as a program

`{file}` needs no simsiam. Input: `images`, RGB in 0 to 1 (normalised inside). Output:

{rows}

```python
{imports}
from PIL import Image
from torchvision.transforms.functional import to_tensor

CLASSES = {list(program.classes)!r}
image = Image.open("photo.jpg").convert("RGB")
{program.resize}
{load}
{program.use}
```

Checked: {checked}.
"""
