"""Dilation, heads, loading and loss of the segmentor, each against its definition."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet50

from simsiam.backbones import ResNet, build_backbone
from simsiam.data.preprocess import Normalisation
from simsiam.errors import UserError
from simsiam.evaluation.segmentation.inference import TrainedSegmentor
from simsiam.evaluation.segmentation.segmentor import (
    FullyConvolutionalHead,
    Segmentor,
    check_complete,
    dilate,
    output_stride,
    segmentation_loss,
)
from simsiam.recipes.segmentation import fcn_r50_d8_512x512_20k_voc12aug, fcn_r50_d8_769x769_40k_cityscapes

PUBLISHED = fcn_r50_d8_512x512_20k_voc12aug().segmentation.design
NARROW = replace(PUBLISHED, head_channels=12, auxiliary_channels=6)
NAMES = ("resnet8", "resnet10", "resnet18", "resnet50")


def random_resnet(name: str, stem: Any = "imagenet", width: int = 8) -> ResNet:
    """With BatchNorms that do something, so that a mistake in any branch shows."""
    torch.manual_seed(1)
    backbone = build_backbone(name, width=width, stem=stem)
    assert isinstance(backbone, ResNet)
    for part in backbone.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.2, 0.2)
    return backbone.eval()


def test_resnet50_at_stride_8_has_the_published_strides_and_dilations() -> None:
    backbone = dilate(build_backbone("resnet50", width=8), 8)
    found = []
    for stage in backbone.stage_modules()[1:]:
        first, *others = list(stage[0].children())
        found.append((first.conv2.stride[0], first.conv2.dilation[0], {block.conv2.dilation[0] for block in others}))
    assert found == [(1, 1, {1}), (2, 1, {1}), (1, 1, {2}), (1, 2, {4})]
    theirs = resnet50(replace_stride_with_dilation=[False, True, True])
    for name, part in theirs.named_modules():
        if isinstance(part, nn.Conv2d):
            ours = backbone.get_submodule(name)
            assert (ours.stride, ours.dilation, ours.padding) == (part.stride, part.dilation, part.padding), name


@pytest.mark.parametrize(
    ("name", "stem", "asked", "stages"),
    [
        ("resnet50", "imagenet", 8, [4, 8, 8, 8]),
        ("resnet18", "imagenet", 8, [4, 8, 8, 8]),
        ("resnet18", "imagenet", 4, [4, 4, 4, 4]),
        ("resnet18", "imagenet", 32, [4, 8, 16, 32]),
        ("resnet18", "small", 8, [1, 2, 4, 8]),
        ("resnet18", "small", 4, [1, 2, 4, 4]),
        ("resnet10", "small-stride2", 8, [2, 4, 8, 8]),
        ("resnet8", "small", 8, [1, 2, 4]),
    ],
)
def test_the_maps_have_the_sizes_of_the_output_stride(name: str, stem: Any, asked: int, stages: list[int]) -> None:
    backbone = dilate(random_resnet(name, stem), asked)
    with torch.no_grad():
        maps = backbone.stages(torch.randn(1, 3, 64, 96))
    assert [tuple(each.shape[2:]) for each in maps[1:]] == [(64 // stride, 96 // stride) for stride in stages]
    assert output_stride(backbone) == stages[-1]


@pytest.mark.parametrize(("name", "stem"), [*itertools.product(NAMES, ("imagenet",)), ("resnet18", "small")])
def test_at_every_second_place_dilated_features_are_the_strided_ones(name: str, stem: Any) -> None:
    strided = random_resnet(name, stem)
    dilated = dilate(copy.deepcopy(strided), 4)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        for one, other in zip(strided.stages(images), dilated.stages(images), strict=True):
            step = other.shape[2] // one.shape[2]
            assert torch.allclose(one, other[:, :, ::step, ::step], atol=1e-4 * float(one.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_dilating_keeps_every_tensor_and_loading_is_complete(name: str) -> None:
    backbone = random_resnet(name)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    network = Segmentor(copy.deepcopy(backbone), 5, NARROW)
    assert check_complete(network, before) == len(before)
    assert list(network.backbone.state_dict()) == list(before)
    backbone.load_state_dict(network.backbone.state_dict(), strict=True)
    assert all(torch.equal(value, backbone.state_dict()[key]) for key, value in before.items())


def test_weights_that_do_not_arrive_are_named() -> None:
    backbone = random_resnet("resnet10")
    network = Segmentor(copy.deepcopy(backbone), 5, NARROW)
    weights = {key: value.clone() for key, value in backbone.state_dict().items()}
    weights["layer3.0.conv1.weight"][0, 0, 0, 0] += 1
    del weights["bn1.bias"]
    with pytest.raises(UserError, match=r"2 tensors .*bn1.bias, layer3.0.conv1.weight"):
        check_complete(network, weights)


def test_networks_that_cannot_be_dilated_are_refused() -> None:
    with pytest.raises(UserError, match="the stem of resnet10 alone has 4"):
        dilate(random_resnet("resnet10"), 2)
    with pytest.raises(UserError, match="need one of the ResNets"):
        dilate(build_backbone("timm:test_vit"), 8)


def test_the_heads_have_the_published_layers() -> None:
    head = FullyConvolutionalHead(2048, 512, 21, convolutions=2, form="joined", dropout=0.1, norm="batch")
    shapes = [tuple(p.weight.shape) for p in head.modules() if isinstance(p, nn.Conv2d)]
    assert shapes == [(512, 2048, 3, 3), (512, 512, 3, 3), (512, 2560, 3, 3), (21, 512, 1, 1)]
    auxiliary = FullyConvolutionalHead(1024, 256, 21, convolutions=1, form="plain", dropout=0.1, norm="batch")
    shapes = [tuple(p.weight.shape) for p in auxiliary.modules() if isinstance(p, nn.Conv2d)]
    assert shapes == [(256, 1024, 3, 3), (21, 256, 1, 1)]
    assert float(head.classifier.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert [p.p for p in head.modules() if isinstance(p, nn.Dropout2d)] == [0.1]


def test_the_joined_head_sees_its_input_beside_the_convolutions() -> None:
    head = FullyConvolutionalHead(6, 4, 3, convolutions=2, form="joined", dropout=0.1, norm="batch").eval()
    features = torch.randn(2, 6, 5, 7)
    assert head.join is not None
    inner = head.convolutions(features)
    expected = head.classifier(head.join(torch.cat([features, inner], dim=1)))
    assert torch.equal(head(features), expected)


def test_scores_of_both_heads_and_their_resize() -> None:
    network = Segmentor(random_resnet("resnet18"), 5, NARROW).train()
    scores = network(torch.randn(2, 3, 64, 96))
    assert scores.main.shape == (2, 5, 8, 12)
    assert scores.auxiliary.shape == (2, 5, 8, 12)
    assert network.eval()(torch.randn(1, 3, 64, 96)).auxiliary is None
    for design, aligned in ((NARROW, False), (replace(NARROW, corners="aligned"), True)):
        network.design = design
        expected = functional.interpolate(scores.main, (64, 96), mode="bilinear", align_corners=aligned)
        assert torch.equal(network.scores_at(scores.main, (64, 96)), expected)


@pytest.mark.parametrize("make", [fcn_r50_d8_512x512_20k_voc12aug, fcn_r50_d8_769x769_40k_cityscapes])
def test_scores_of_a_test_go_to_the_size_of_the_image_and_then_to_that_of_the_mask(make: Any) -> None:
    """Both tests of the published program: up to what the network saw, averaged, down to the mask, the best class."""
    recipe = make().segmentation
    aligned = recipe.design.corners == "aligned"
    torch.manual_seed(3)
    network = Segmentor(random_resnet("resnet18"), 5, replace(NARROW, corners=recipe.design.corners)).eval()
    nn.init.normal_(network.head.classifier.weight)
    testing = replace(recipe.testing, window=64, window_stride=64)  # windows that do not overlap: each once
    image = torch.randn(1, 3, 64, 128)
    tester = TrainedSegmentor(
        network=network,
        settings=replace(recipe, testing=testing),
        classes=("a", "b"),
        normalisation=Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        device=torch.device("cpu"),
        workers=0,
    )
    parts = [image] if recipe.testing.windows == "whole" else [image[..., :64], image[..., 64:]]

    def resized(scores: Tensor, size: tuple[int, ...]) -> Tensor:
        return functional.interpolate(scores, size, mode="bilinear", align_corners=aligned)

    with torch.no_grad():
        seen = torch.cat([resized(network(part).main, part.shape[2:]) for part in parts], 3)
        directly = resized(torch.cat([network(part).main for part in parts], 3), (45, 90))
    expected = resized(seen, (45, 90))[0].argmax(0)
    assert torch.equal(tester.classes_of(image, 45, 90), expected)
    assert not torch.equal(directly[0].argmax(0), expected)  # one resize is another test


def test_corners_as_published() -> None:
    assert PUBLISHED.corners == "half-pixel"
    assert fcn_r50_d8_769x769_40k_cityscapes().segmentation.design.corners == "aligned"


def test_frozen_statistics_stay_in_training_and_the_heads_learn() -> None:
    network = Segmentor(random_resnet("resnet10"), 4, replace(NARROW, backbone_norm="frozen", norm="group")).train()
    before = copy.deepcopy(network.state_dict())
    network(torch.randn(2, 3, 64, 64)).main.sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in network.head.modules())
    trained = Segmentor(random_resnet("resnet10"), 4, NARROW).train()
    before = copy.deepcopy(trained.state_dict())
    trained(torch.randn(2, 3, 64, 64))
    assert not torch.equal(trained.backbone.bn1.running_mean, before["backbone.bn1.running_mean"])


@pytest.mark.parametrize("mean_over", ["all", "labelled"])
def test_the_loss_by_its_formula(mean_over: Any) -> None:
    torch.manual_seed(0)
    scores, masks = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    masks[0, :2] = 255
    total, labelled = 0.0, 0
    for b, y, x in itertools.product(range(2), range(4), range(5)):
        if masks[b, y, x] != 255:
            column = scores[b, :, y, x]
            total += float(torch.logsumexp(column, 0) - column[masks[b, y, x]])
            labelled += 1
    expected = total / (40 if mean_over == "all" else labelled)
    assert float(segmentation_loss(scores, masks, mean_over=mean_over)) == pytest.approx(expected, rel=1e-5)


def test_a_loss_without_a_labelled_pixel_is_zero() -> None:
    masks = torch.full((1, 4, 4), 255)
    for mean_over in ("all", "labelled"):
        assert float(segmentation_loss(torch.randn(1, 3, 4, 4), masks, mean_over=mean_over)) == 0.0  # type: ignore[arg-type]
