"""torch.hub entries: `torch.hub.load(PLACE, "simsiam_backbone", weights="runs/NAME")`, and the zoo's models by name.

A zoo model's entry is its name with _ for every other sign: `mmselfsup_100e_v0_7_0`, `official_100e_bs256`. Its file
is fetched once, verified, and kept.
"""

import re
import sys
from functools import partial

dependencies = ["torch", "torchvision", "numpy", "PIL", "safetensors"]


def simsiam_backbone(weights, backbone=None):
    """A backbone in evaluation mode: `forward` gives pooled features, `stages` the feature maps.

    Args:
        weights: a run folder, a checkpoint, a file of another program, or the name of a zoo model that was fetched.
        backbone: the network, where the file does not tell; timm:NAME for a timm model.

    `preprocess` of what comes out says at which size, mean and std images must come in.
    """
    from simsiam.weights.load import load_backbone

    loaded = load_backbone(weights, backbone=backbone)
    loaded.backbone.preprocess = loaded.preprocess
    return loaded.backbone


def _from_zoo(name):
    from simsiam.weights import cards, zoo

    card = cards.get(name)
    if "Apache" not in card.licence:
        print(f"{name}: licence {card.licence}", file=sys.stderr)
    return simsiam_backbone(zoo.get(name))


def _entries():
    from simsiam.weights.cards import CARDS

    for card in CARDS:
        entry = partial(_from_zoo, card.name)
        entry.__doc__ = f"{card.by}, {card.epochs} epochs, batch {card.batch_size}. Licence: {card.licence}"
        yield re.sub(r"\W", "_", card.name), entry


globals().update(_entries())
