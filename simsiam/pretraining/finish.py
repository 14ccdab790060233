"""The end of a run: the backbone as files, the comparison with the baselines, the pictures, the result, the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simsiam.config import Model, Pretraining, as_dict
from simsiam.data.images import BadImage
from simsiam.data.splits import data_id, shared_images
from simsiam.model import SimSiam
from simsiam.pretraining import baselines, figures
from simsiam.pretraining.baselines import Contender
from simsiam.pretraining.inputs import Inputs, start_network
from simsiam.pretraining.monitor import Monitor
from simsiam.pretraining.run_folder import SKIPPED, changed_images
from simsiam.pretraining.verdict import Verdict, as_json
from simsiam.report.page import write_page
from simsiam.results import Result, WeightsId, read_metrics, versions
from simsiam.weights.load import fingerprint, load_backbone
from simsiam.weights.save import write_backbone
from simsiam.wording import counted

IN_TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


class Renormalised(nn.Module):
    """A network that expects another normalisation than the images in hand have."""

    def __init__(self, network: nn.Module, *, given: Sequence[Sequence[float]], wanted: Sequence[Sequence[float]]):
        super().__init__()
        self.network = network
        (mean, std), (mean_wanted, std_wanted) = (
            [torch.tensor(v, dtype=torch.float32).view(1, 3, 1, 1) for v in pair] for pair in (given, wanted)
        )
        self.register_buffer("scale", std / std_wanted)
        self.register_buffer("shift", (mean - mean_wanted) / std_wanted)
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """B x 3 x H x W, normalised the given way, to the network's features."""
        features: Tensor = self.network(images * self.scale + self.shift)
        return features


@dataclass(frozen=True, kw_only=True)
class Contenders:
    """What the trained backbone is measured against, and the state from which it set out."""

    start: nn.Module
    others: list[Contender]


def contenders(recipe: Pretraining, compare: Sequence[str], init: str | None) -> Contenders:
    """The random network, the weights that training started from, and those that the user named.

    Raises UserError if a file cannot be loaded in full.
    """
    random = start_network(recipe, None).network.backbone
    others = [Contender(name="random network", network=random)]
    start: nn.Module = random
    if init is not None:
        start = start_network(recipe, init).network.backbone
        others.append(Contender(name=f"before training: {init}", network=start))
    given = (recipe.views.mean, recipe.views.std)
    for source in compare:
        loaded = load_backbone(source)
        wanted = (loaded.preprocess.mean, loaded.preprocess.std)
        network = loaded.backbone if wanted == given else Renormalised(loaded.backbone, given=given, wanted=wanted)
        others.append(Contender(name=f"compared: {source}", network=network))
    return Contenders(start=start, others=others)


def conclude(
    root: Path,
    recipe: Pretraining,
    inputs: Inputs,
    monitor: Monitor,
    *,
    network: SimSiam,
    verdict: Verdict,
    contenders: Contenders,
    bad: dict[str, BadImage],
) -> Result:
    """Write everything that a finished run leaves behind; the result last, for it says that the run is done."""
    finite = all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())
    detail: dict[str, Any] = {"verdict": as_json(verdict), "baselines": {}, "comparisons": [], "settings": {}}
    if finite:
        write_backbone(root, network.backbone, recipe=recipe)
        for contender in [*(other.network for other in contenders.others), contenders.start]:
            contender.to(monitor.device)
        detail |= baselines.appraise(network.backbone, contenders.others, monitor)
        gallery = figures.gallery_of(inputs.train, inputs.held_out, seed=recipe.seed)
        figures.draw(root, monitor, before=contenders.start, after=network.backbone, gallery=gallery)
    throughput = _throughput(root, recipe)
    detail |= {
        "throughput": throughput,
        "data_notes": [*inputs.notes, *_data_notes(inputs, monitor.about), *changed_images(root, inputs)],
        "next_steps": next_steps(root, recipe, verdict, throughput),
        "inventory": inputs.train.inventory.facts(),
        "photo_side": inputs.photo_side,
        "skipped": {"count": len(bad), "file": SKIPPED if bad else None},
    }
    metrics = _metrics(detail, verdict)
    result = Result(
        protocol="pretrain",
        main_metric="knn" if "knn" in metrics else "view_recall",
        metrics=metrics,
        recipe=as_dict(recipe),
        weights=WeightsId(source=str(root), sha256=fingerprint(network.backbone.state_dict())),
        data=data_id(inputs.train),
        seed=recipe.seed,
        seconds=round(throughput["seconds"], 1),
        versions=versions(),
        detail=detail,
    )
    result.write(root / "result.json")
    write_page(root)
    return result


def _metrics(detail: dict[str, Any], verdict: Verdict) -> dict[str, float]:
    metrics = {
        measure: next(row["value"] for row in rows if row["name"] == "trained")
        for measure, rows in detail["baselines"].items()
    }
    numbers = verdict.numbers
    metrics.setdefault("view_recall", numbers.get("view retrieval, %", float("nan")))
    return metrics | {"spread": round(numbers.get("spread", float("nan")), 4)}


def _throughput(root: Path, recipe: Pretraining) -> dict[str, float]:
    """Pace of the training steps alone, from the log, so that a resumed run counts whole."""
    images = seconds = waited = 0.0
    last = 0
    rows = [row for row in read_metrics(root / "metrics.jsonl") if row["kind"] == "step"]
    for row in rows:
        done = (row["step"] - last) * recipe.batch_size
        took = done / row["images_per_second"] if row["images_per_second"] else 0.0
        images, seconds, waited, last = images + done, seconds + took, waited + took * row["data_wait"], row["step"]
    return {
        "images_per_second": round(images / seconds, 1) if seconds else 0.0,
        "data_wait": round(waited / seconds, 4) if seconds else 0.0,
        "seconds": round(seconds, 1),
        "images_seen": images,
        "epochs": round(rows[-1]["epoch"], 3) if rows else 0,
    }


def _data_notes(inputs: Inputs, about: str) -> list[str]:
    images = counted(len(inputs.train), "training image")
    notes = [f"{images}; {about}.", *shared_images(inputs.train, inputs.held_out, what="held-out image")]
    if inputs.labelled is None:
        notes.append(
            "No labels, so there is no kNN accuracy. A few are enough: --labels FILE.csv (path,label) or a folder."
        )
    return notes


def _use(root: Path, model: Model) -> str:
    """Where the backbone opens: only a ResNet of the usual shape goes by its name in other libraries."""
    if model.backbone.startswith("timm:"):
        return f"Use the backbone: `simsiam export {root} --to timm` (or onnx, pt2)."
    if model.backbone in IN_TORCHVISION and model.width == 64 and model.stem == "imagenet":
        return (
            f"Use the backbone: {root}/backbone.pth loads in torchvision's {model.backbone}, backbone.safetensors "
            f"carries its recipe; `simsiam export {root} --to timm` (or detectron2, onnx, ...) writes other forms."
        )
    return (
        f"Use the backbone: `simsiam.load_backbone('{root}')` in Python, `simsiam export {root} --to onnx` (or pt2) "
        f"for other programs. It is a {model.backbone} of width {model.width} with the stem {model.stem}, which "
        "goes by no name in torchvision or timm."
    )


def next_steps(root: Path, recipe: Pretraining, verdict: Verdict, throughput: dict[str, float]) -> list[str]:
    """What a person does with the outcome."""
    if verdict.status in ("collapsed", "partial collapse"):
        return [f"{cause.cause}: {cause.cure}" for cause in verdict.causes[:3]]
    steps = [
        _use(root, recipe.model),
        f"See what it makes of your images: `simsiam browse {root} IMAGES` searches a folder by example on a "
        f"local page, `simsiam neighbors {root} IMAGES --query PICTURE` in the terminal.",
    ]
    if recipe.data_kind in ("demo", "cifar10") and recipe.name != "cifar10":
        steps.append(
            "This was a short run. The paper's full CIFAR-10 run (ResNet-18, 800 epochs) is "
            "`simsiam pretrain cifar10 --recipe cifar10`; it belongs on a GPU, and the paper gives 91.8 % linear "
            "accuracy for it."
        )
    if throughput["seconds"]:
        hours = 2 * throughput["seconds"] / 3600
        steps.append(
            f"Train longer: SimSiam keeps improving for hundreds of epochs; twice as long takes {hours:.1f} h here "
            f"(--epochs {2 * recipe.epochs} --out another-folder)."
        )
    return steps
