"""The recipes behind each name of `simsiam evaluate`: which there are, and which one is taken for images of a size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from simsiam.errors import UserError, did_you_mean
from simsiam.evaluation.protocol import Protocol
from simsiam.recipes import classification, linear

SMALL = 64  # pixels; up to here the recipes for CIFAR-sized images are the usual ones
Make = Callable[[int], Protocol[Any]]  # pixels of the images -> the recipe
Needs = Literal["splits", "multilabel", "labelled"]  # train and test; the same with several labels; one set


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one name of `simsiam evaluate` can run."""

    needs: Needs
    recipes: dict[str, Make]  # by the recipe's name without the image size; the first is the usual one
    small: str | None = None  # the usual one for images of at most SMALL pixels
    layout: Literal["places205", "inaturalist2018"] | None = None  # of --data, where only one set will do

    def recipe(self, size: int, name: str | None = None) -> Protocol[Any]:
        """The recipe by name, or the usual one for this image size; raises UserError on a typo."""
        if name is None:
            name = self.small if self.small is not None and size <= SMALL else next(iter(self.recipes))
        if name not in self.recipes:
            known = ", ".join(self.recipes)
            raise UserError(
                f"--recipe {name}: not one of this protocol.{did_you_mean(name, self.recipes)} Known: {known}."
            )
        return self.recipes[name](size)


def _linear(*makers: Callable[[], linear.LinearRecipe]) -> dict[str, Make]:
    return {make().name: partial(_sized, make) for make in makers}


def _sized(make: Callable[[], linear.LinearRecipe], size: int) -> Protocol[Any]:
    return linear.adapted(make(), size=size)


CHOICES: dict[str, Choice] = {
    "knn": Choice(
        needs="splits",
        recipes={"knn": classification.knn, "knn_monitor": classification.knn_monitor},
    ),
    "svm-voc07": Choice(
        needs="multilabel",
        recipes={"svm_voc07": classification.svm_voc07, "svm_pooled": classification.svm_pooled},
    ),
    "low-shot-voc07": Choice(
        needs="multilabel",
        recipes={
            "low_shot_voc07": classification.low_shot_voc07,
            "low_shot_voc07_published": classification.low_shot_voc07_published,
        },
    ),
    "linear-mhead": Choice(
        needs="splits",
        recipes=_linear(linear.resnet50_mhead_8xb32_steplr_90e, linear.linear_mhead_cifar10),
        small=linear.linear_mhead_cifar10().name,
    ),
    "linear-avgpool": Choice(
        needs="splits",
        recipes=_linear(
            linear.resnet50_8xb512_coslr_90e_in1k,
            linear.lincls_lars_90e_in1k,
            linear.lincls_sgd_90e_in1k,
            linear.resnet50_8xb32_steplr_100e_in1k,
            linear.resnet50_8xb32_coslr_100e_in1k,
            linear.resnet50_8xb128_coslr_90e_in1k,
            linear.linear_cifar10,
        ),
        small=linear.linear_cifar10().name,
    ),
    "inaturalist2018": Choice(
        needs="splits",
        recipes=_linear(linear.resnet50_mhead_8xb32_steplr_84e_inat18),
        layout="inaturalist2018",
    ),
    "places205": Choice(
        needs="splits",
        recipes=_linear(linear.resnet50_mhead_8xb32_steplr_28e_places205),
        layout="places205",
    ),
    "semi-supervised": Choice(
        needs="splits",
        recipes=_linear(linear.semi_supervised_1_percent, linear.semi_supervised_10_percent),
    ),
    "probe": Choice(
        needs="splits",
        recipes={"linear-probe": linear.linear_probe},
    ),
    "few-labels": Choice(
        needs="labelled",
        recipes={"few_labels": classification.few_labels},
    ),
    "clustering": Choice(
        needs="labelled",
        recipes={"clustering": classification.clustering},
    ),
    "retrieval": Choice(
        needs="splits",
        recipes={"retrieval": classification.retrieval},
    ),
}
