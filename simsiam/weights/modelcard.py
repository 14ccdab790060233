"""The Markdown card that goes with weights: what they are, how to load them, what was measured (no torch here)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from simsiam.config import Pretraining
from simsiam.results import Result
from simsiam.wording import counted

Target = Literal[
    "torchvision", "timm", "detectron2", "mmpretrain", "mmdet", "onnx", "pt2", "safetensors", "huggingface"
]

_METHODS = {
    "SimSiam": "A backbone pre-trained with SimSiam (Chen and He, arXiv 2011.10566); no classifier.",
    "not known": "A backbone without a classifier. Its file does not say how it was trained.",
}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card tells."""

    title: str
    method: Literal["SimSiam", "not known"]  # that the backbone was trained with
    licence: str | None  # None: not stated
    backbone: str  # one line
    preprocess: dict[str, Any]
    recipe: Pretraining | None
    sha256: str
    source: str
    usage: str  # a code block with its heading line
    checks: Sequence[str] = ()
    results: Sequence[Result] = ()
    verdict: str | None = None  # how the training went, in a sentence
    notes: Sequence[str] = ()


def render(facts: Facts) -> str:
    """The card as Markdown with the front matter that model hubs read."""
    known = {"apache-2.0": "apache-2.0", "mit": "mit", "cc by-nc 4.0": "cc-by-nc-4.0", "cc by 4.0": "cc-by-4.0"}
    front = [
        "---",
        f"license: {known.get((facts.licence or '').lower(), 'other' if facts.licence else 'unknown')}",
        "tags: [simsiam, self-supervised-learning, image-feature-extraction]",
        "---",
    ]
    size, mean, std = (facts.preprocess[key] for key in ("size", "mean", "std"))
    origin = " (assumed: the source does not say)" if facts.preprocess.get("origin") == "assumed" else ""
    rows = [
        ("Backbone", facts.backbone),
        ("Licence", facts.licence or "not stated by whoever exported it"),
        ("Input", f"RGB, {size} x {size}, mean {_numbers(mean)}, std {_numbers(std)}{origin}"),
        ("Source", facts.source),
        ("Weights SHA-256", f"`{facts.sha256}`"),
    ]
    if facts.recipe is not None:
        rows.append(("Recipe", _recipe(facts.recipe)))
    if facts.verdict:
        rows.append(("Training", facts.verdict))
    table = ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows)]
    parts = ["\n".join(front), f"# {facts.title}", _METHODS[facts.method], "\n".join(table)]
    parts += [f"## Use\n\n{facts.usage}"] if facts.usage else []
    parts += [f"## Results\n\n{_results(facts.results)}"] if facts.results else []
    parts += ["## Checked\n\n" + "\n".join(f"- {line}" for line in facts.checks)] if facts.checks else []
    parts += ["## Notes\n\n" + "\n".join(f"- {line}" for line in facts.notes)] if facts.notes else []
    return "\n\n".join(parts) + "\n"


def usage(target: str, file: str, backbone: str, stem: str) -> str:
    """How to load what was exported, as a sentence and a code block."""
    name = backbone.removeprefix("timm:")
    small = "" if stem == "imagenet" else _SMALL_STEM.format(stride=2 if stem == "small-stride2" else 1)
    construct = f"{name}()" if name != "resnet10" else "ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])"
    text = _USAGE[target]
    return text.format(file=file, name=name, small=small, construct=construct, depth=name.removeprefix("resnet"))


_SMALL_STEM = """network.conv1 = torch.nn.Conv2d(3, 64, 3, {stride}, 1, bias=False)
network.maxpool = torch.nn.Identity()
"""

_USAGE = {
    "torchvision": """```python
import torch, torchvision

network = torchvision.models.{construct}
network.fc = torch.nn.Identity()
{small}network.load_state_dict(torch.load("{file}", weights_only=True))
network.eval()
```""",
    "timm": """```python
import timm, torch
from safetensors.torch import load_file

network = timm.create_model("{name}", num_classes=0)
{small}network.load_state_dict(load_file("{file}"))
network.eval()
```""",
    "detectron2": """In a detectron2 configuration (RGB input, stride in the 3x3 convolutions):

```yaml
MODEL:
  WEIGHTS: "{file}"
  PIXEL_MEAN: [123.675, 116.28, 103.53]
  PIXEL_STD: [58.395, 57.12, 57.375]
  RESNETS: {{DEPTH: {depth}, STRIDE_IN_1X1: False, NORM: "SyncBN"}}
  BACKBONE: {{FREEZE_AT: 0}}
INPUT: {{FORMAT: "RGB"}}
```""",
    "mmpretrain": """In an MMPretrain configuration:

```python
model = dict(
    backbone=dict(
        type="ResNet", depth={depth}, style="pytorch",
        init_cfg=dict(type="Pretrained", checkpoint="{file}", prefix="backbone."),
    )
)
```""",
    "mmdet": """In an MMDetection or MMSegmentation configuration (bare names, so without `prefix`):

```python
model = dict(
    backbone=dict(
        type="ResNet", depth={depth}, style="pytorch", frozen_stages=-1,
        init_cfg=dict(type="Pretrained", checkpoint="{file}"),
    )
)
```""",
    "onnx": """```python
import numpy, onnxruntime

session = onnxruntime.InferenceSession("{file}")
images = numpy.zeros((1, *session.get_inputs()[0].shape[1:]), numpy.float32)  # normalised RGB
features = session.run(["features"], {{"images": images}})[0]
```""",
    "pt2": """```python
import torch

network = torch.export.load("{file}").module()
```""",
    "safetensors": """```python
import simsiam

loaded = simsiam.load_backbone("{file}")
network = loaded.backbone
```""",
    "huggingface": """```python
import simsiam

loaded = simsiam.load_backbone("{file}")
network = loaded.backbone
```

Where timm has the network: `timm.create_model("local-dir:FOLDER")`, or `hf-hub:NAME` once it is on the hub.""",
}


def _recipe(recipe: Pretraining) -> str:
    return (
        f"{recipe.name}: {counted(recipe.epochs, 'epoch')}, batch {recipe.batch_size}, base lr {recipe.base_lr}, "
        f"weight decay {recipe.weight_decay}, data as {recipe.data_kind}, seed {recipe.seed}"
    )


def _results(results: Sequence[Result]) -> str:
    lines = ["| protocol | measure | value | data | images | seed |", "|---|---|---|---|---|---|"]
    for result in results:
        for name, value in result.metrics.items():
            data = f"{_cell(result.data.name)} | {result.data.images:,} | {result.seed}"
            lines.append(f"| {result.protocol} | {name} | {value:.2f} | {data} |")
    return "\n".join(lines)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
