"""The fast linear probe against the exact protocol on CIFAR-10: seconds and accuracy of both, in one run.

    python benchmarks/linear_probe.py [--weights RUN] [--train 10000] [--test 10000] [--epochs 100] [--lrs 10 30]

Both sides read the same images and the same frozen backbone on the same device. The exact side is the AvgPool
protocol with plain SGD (crops drawn anew each epoch) at the rate that the probe picked, scored once at its end.
Without --weights the backbone is a random ResNet-10 of width 16: enough to compare the two, and no word on SimSiam.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from simsiam.backbones import Backbone, build_backbone
from simsiam.config import Machine
from simsiam.data.loading import image_batches
from simsiam.data.preprocess import Preprocess
from simsiam.data.sources import Source, open_source
from simsiam.data.splits import Splits
from simsiam.evaluation.protocol import Protocol
from simsiam.recipes.linear import adapted, linear_cifar10, linear_probe
from simsiam.recipes.pretrain import CIFAR_MEAN, CIFAR_STD
from simsiam.results import Result, WeightsId
from simsiam.weights.load import fingerprint
from simsiam.weights.pretrained import PretrainedBackbone, open_subject


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A result with the seconds that it took: on the clock, and of this process on the CPU."""

    result: Result
    seconds: float
    cpu_seconds: float  # tells more than the clock where other programs run on the same cores

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s ({self.cpu_seconds:.1f} s of CPU)"

    @property
    def top1(self) -> float:
        """Percent."""
        return self.result.metrics["top1"]

    @property
    def picked_lr(self) -> float:
        """The rate that a probe chose."""
        lr: float = self.result.detail["chosen"]["lr"]
        return lr


def main() -> None:
    """Run both sides and print one table."""
    options = _options()
    torch.set_num_threads(options.threads)
    data = Splits(train=_some("train", options.train, options.data), test=_some("test", options.test, options.data))
    subject = _subject(options.weights, data.train)
    print(
        f"{subject.weights.source}: {subject.backbone.features} features at {subject.size} px; CIFAR-10, "
        f"{len(data.train):,} training and {len(data.test):,} test images; {options.device}, "
        f"{options.threads} threads, torch {torch.__version__}"
    )
    fast = [_fast(copies, subject, data, options.device) for copies in options.copies]
    for lr in options.lrs or [fast[0].picked_lr]:
        exact = _timed(_exact(lr, options.epochs, subject.size), subject, data, options.device)
        print(f"exact, lr {lr:g}, {options.epochs} epochs: top-1 {exact.top1:.2f} in {exact}")
        for copies, probe in zip(options.copies, fast, strict=True):
            clock, cpu = exact.seconds / probe.seconds, exact.cpu_seconds / probe.cpu_seconds
            points = probe.top1 - exact.top1
            print(
                f"  the probe with {copies} copies: {clock:.1f} times as fast by the clock, {cpu:.1f} by CPU seconds, "
                f"{points:+.2f} points",
                flush=True,
            )


def _fast(copies: int, subject: PretrainedBackbone, data: Splits, device: str) -> Timed:
    probe = _timed(adapted(replace(linear_probe(), copies=copies), size=subject.size), subject, data, device)
    detail = probe.result.detail
    print(
        f"probe, {copies} copies, {len(detail['sweep'])} heads: top-1 {probe.top1:.2f} in {probe} "
        f"(features {detail['seconds']['features']:.1f}, heads {detail['seconds']['heads']:.1f}), picked lr "
        f"{probe.picked_lr:g}, weight decay {detail['chosen']['weight_decay']:g}",
        flush=True,
    )
    return probe


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="a run folder or weights file; default: a random ResNet-10")
    parser.add_argument("--data", default="", help="a local CIFAR-10; default: the cache, else a download")
    parser.add_argument("--train", type=int, default=10000, help="training images")
    parser.add_argument("--test", type=int, default=10000, help="test images")
    parser.add_argument("--epochs", type=int, default=100, help="of the exact side")
    parser.add_argument(
        "--lrs", type=float, nargs="+", help="rates of the exact side, a run each; default: the probe's pick"
    )
    parser.add_argument("--copies", type=int, nargs="+", default=[3], help="augmented copies of the probe")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _subject(weights: str | None, train: Source) -> PretrainedBackbone:
    if weights is not None:
        return open_subject(weights, seed=0)
    torch.manual_seed(0)
    backbone = build_backbone("resnet10", width=16, stem="small-stride2")
    _settle(backbone, train)
    identity = WeightsId(source="random ResNet-10, width 16", sha256=fingerprint(backbone.state_dict()))
    return PretrainedBackbone(backbone=backbone, size=32, mean=CIFAR_MEAN, std=CIFAR_STD, weights=identity, seed=0)


def _settle(backbone: Backbone, train: Source) -> None:
    """Give a random network unit BatchNorm weights and the statistics of the data, or little signal comes through."""
    preprocess = Preprocess(kind="center", resize=32, size=32, mean=CIFAR_MEAN, std=CIFAR_STD)
    for part in backbone.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(part.weight)
            part.momentum = None  # a plain mean over the batches
    backbone.train()
    with torch.no_grad():
        for batch in image_batches(train, preprocess, batch_size=256, device=torch.device("cpu")):
            backbone(batch.images)
    backbone.eval()


def _some(split: str, count: int, data: str) -> Source:
    whole = open_source(data, kind="cifar10", split=split)
    return whole.subset(np.arange(min(count, len(whole))))


def _exact(lr: float, epochs: int, size: int) -> Protocol[Splits]:
    recipe = linear_cifar10()
    optimisation = replace(recipe.schooling.optimisation, epochs=epochs, lr=lr)
    schooling = replace(recipe.schooling, optimisation=optimisation, evaluate_every=epochs)
    return adapted(replace(recipe, schooling=schooling), size=size)


def _timed(protocol: Protocol[Splits], subject: PretrainedBackbone, data: Splits, device: str) -> Timed:
    """Run with an empty feature cache, so that the fast side computes its features."""
    with tempfile.TemporaryDirectory() as cache:
        started, cpu = time.perf_counter(), time.process_time()
        result = protocol.run(subject, data, machine=Machine(device=device, workers=0, cache=Path(cache)))
        return Timed(result=result, seconds=time.perf_counter() - started, cpu_seconds=time.process_time() - cpu)


if __name__ == "__main__":
    main()
