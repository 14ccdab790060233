"""Why a training may have failed, and what to do: the causes that fit a recipe and what was measured (no torch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simsiam.config import Pretraining
from simsiam.wording import counted

HIGH_BASE_LR = 1.0  # healthy runs of the corpus had 0.1 to 0.8; at 5 some still learnt, at 15 none


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A likely reason and its cure."""

    cause: str
    cure: str


def likely(recipe: Pretraining | None, images: int, measured: Sequence[Cause] = ()) -> list[Cause]:
    """Likely causes, the likeliest first: what is left out of the method, what was measured, what the recipe says.

    Args:
        recipe: None: those that fit any.
        images: in the training set; 0 where it is not known.
        measured: causes that the monitor's numbers speak for.
    """
    if recipe is None:
        return [
            *measured,
            Cause(cause="the learning rate is too high", cure="a third of it, with a warm-up"),
            Cause(cause="batches of under 32 images are too few for BatchNorm", cure="batches of 64 or more"),
            *ALWAYS,
        ]
    causes = []
    if recipe.model.stop_gradient == "off":
        causes.append(
            Cause(
                cause="the stop-gradient is off; without it the loss has a trivial minimum (paper, Figure 2)",
                cure="--model.stop-gradient on",
            )
        )
    if recipe.model.predictor == "none":
        causes.append(
            Cause(cause="there is no predictor (paper, Table 1: 0.1 % accuracy)", cure="--model.predictor mlp")
        )
    if recipe.model.predictor == "fixed":
        causes.append(
            Cause(cause="the predictor is never trained (paper, Table 1: 1.5 % accuracy)", cure="--model.predictor mlp")
        )
    if recipe.model.heads_norm == "none":
        causes.append(
            Cause(cause="there is no BatchNorm in the heads (paper, Table 3)", cure="--model.heads-norm default")
        )
    views = recipe.views
    if views.min_scale > 0.6 or views.jitter_probability == 0:
        causes.append(
            Cause(
                cause="the two views of an image differ too little: crops "
                f"from {views.min_scale:g} of the area, colour jitter in {views.jitter_probability:.0%}",
                cure="--views.min-scale 0.2 --views.jitter-probability 0.8",
            )
        )
    if recipe.weight_decay > 0.01:
        causes.append(
            Cause(
                cause=f"the weight decay {recipe.weight_decay:g} is far above the published 0.0001 to 0.0005",
                cure="--weight-decay 0.0005",
            )
        )
    if recipe.base_lr > HIGH_BASE_LR:
        causes.append(
            Cause(
                cause=f"the base rate {recipe.base_lr:g} (lr {recipe.lr:g}) is far above the published 0.03 to 0.05",
                cure=f"--base-lr {max(0.03, recipe.base_lr / 10):g}",
            )
        )
    causes += measured
    if recipe.batch_size > 2048:
        causes.append(
            Cause(
                cause=f"batch {recipe.batch_size}: SGD fails above 2,048 (paper, Table 2)",
                cure="--batch-size 512",
            )
        )
    if recipe.batch_size < 32:
        causes.append(
            Cause(
                cause=f"batch {recipe.batch_size} gives BatchNorm too few images for steady statistics",
                cure="--batch-size 64",
            )
        )
    if min(recipe.model.width, recipe.model.projector_dim // 2, recipe.model.predictor_dim // 2) < 8:
        causes.append(
            Cause(
                cause=f"the network is small: {recipe.model.width} channels, d {recipe.model.projector_dim}",
                cure="--model.width 32 --model.projector-dim 512 --model.predictor-dim 128",
            )
        )
    if recipe.predictor_lr == "cosine":
        causes.append(
            Cause(
                cause="the predictor's rate decays, so it lags behind the projector at the end",
                cure="--predictor-lr fixed",
            )
        )
    if images and images < 2000:
        causes.append(
            Cause(
                cause=f"{counted(images, 'image is', 'images are')} few for a network with "
                f"{recipe.model.projector_dim} output channels",
                cure="more images, or --model.backbone resnet18 --model.projector-dim 512 --model.predictor-dim 128",
            )
        )
    causes.append(
        Cause(
            cause="the rate is too high for this data set and network",
            cure=f"--base-lr {recipe.base_lr / 3:.3g}, and --warmup-epochs {max(1, recipe.epochs // 10)}",
        )
    )
    return [*causes, *ALWAYS]


ALWAYS = (
    Cause(
        cause="the views differ too little, so that constant features solve the task",
        cure="look at the views in the report; --views.min-scale 0.2 or less, colour jitter on",
    ),
    Cause(
        cause="many images are near-duplicates of each other",
        cure="look at the neighbours in the report and thin them out",
    ),
)
