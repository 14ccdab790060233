"""The detectors as a whole and part by part: published structure, literal losses, weights that arrive in full."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from simsiam.backbones import build_backbone
from simsiam.config import Stem
from simsiam.data.detection.boxes import LearnTarget
from simsiam.errors import UserError
from simsiam.evaluation.detection.detector import Pyramid, build_detector, check_complete, residual_strides
from simsiam.evaluation.detection.settings import Assignment, Sampling, Selection
from simsiam.recipes import detection as recipes
from tests.evaluation.detection import small_detectors as small

KINDS = ("c4", "c4 masks", "fpn", "fpn masks")


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns(kind: str) -> None:
    detector = small.detector(kind)
    detector.train()
    losses = detector(*small.batch(), small.seeded())
    assert set(losses) == {"rpn_objectness", "rpn_box", "roi_class", "roi_box"} | (
        {"mask"} if "mask" in kind else set()
    )
    torch.stack(list(losses.values())).sum().backward()
    without = [name for name, parameter in detector.named_parameters() if parameter.grad is None]
    assert without == []
    last = "roi.describe.stage" if kind.startswith("c4") else "features.trunk.layer4"
    still = [
        n
        for n, p in detector.named_parameters()
        if n.startswith(last) and n.endswith("bn2.weight") and p.grad.eq(0).all()
    ]  # type: ignore[union-attr]
    assert still == []  # the last stage is trained, not only registered


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objects", [(0, 0), (0, 2)])
def test_images_without_objects_train_too(kind: str, objects: tuple[int, ...]) -> None:
    detector = small.detector(kind)
    detector.train()
    losses = detector(*small.batch(objects=objects), small.seeded())
    assert all(torch.isfinite(value) for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in detector.parameters())
    if objects == (0, 0):
        assert losses["roi_box"] == 0
        assert losses["rpn_box"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_detections_lie_in_the_image_and_keep_the_limits(kind: str) -> None:
    detector = small.detector(kind)
    detector.architecture = replace(detector.architecture, test=Selection(score=0.0, nms=0.5, detections=7))
    detector.roi.settings = detector.architecture
    detector.eval()
    images, sizes, _ = small.batch()
    found = detector.detect(images, sizes)
    assert len(found) == 2
    for each, (height, width) in zip(found, sizes, strict=True):
        assert each.boxes.shape == (7, 4)
        assert (each.boxes[:, 2] <= width).all()
        assert (each.boxes[:, 3] <= height).all()
        assert (each.boxes >= 0).all()
        assert each.scores.tolist() == sorted(each.scores.tolist(), reverse=True)
        assert set(each.labels.tolist()) <= {1, 2, 3}
        side = {"c4 masks": 14, "fpn masks": 28}.get(kind)
        assert (
            (each.masks is None) if side is None else (each.masks is not None and each.masks.shape == (7, side, side))
        )


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_found_is_an_empty_answer(kind: str) -> None:
    detector = small.detector(kind)
    detector.roi.settings = replace(detector.architecture, test=Selection(score=1.0, nms=0.5, detections=7))
    detector.eval()
    images, sizes, _ = small.batch()
    assert [len(each.boxes) for each in detector.detect(images, sizes)] == [0, 0]


@pytest.mark.parametrize(
    ("name", "stem", "strides"),
    [
        ("resnet18", "imagenet", (4, 8, 16, 32)),
        ("resnet50", "imagenet", (4, 8, 16, 32)),
        ("resnet18", "small", (1, 2, 4, 8)),
        ("resnet10", "small-stride2", (2, 4, 8, 16)),
        ("resnet8", "small", (1, 2, 4)),
    ],
)
@pytest.mark.parametrize("kind", ["c4 masks", "fpn"])
def test_every_resnet_fits_at_its_own_strides(name: str, stem: Stem, strides: tuple[int, ...], kind: str) -> None:
    network = small.backbone(name, stem=stem)
    assert residual_strides(network) == strides
    detector = small.detector(kind, network)
    assert detector.features.strides == ((strides[-2],) if kind.startswith("c4") else (*strides, 2 * strides[-1]))
    images, sizes, targets = small.batch()
    for features, stride in zip(detector.features(images), detector.features.strides, strict=True):
        assert features.shape[-2:] == (-(-96 // stride), -(-96 // stride))
    detector.train()
    assert all(torch.isfinite(loss) for loss in detector(images, sizes, targets, small.seeded()).values())


@pytest.mark.parametrize("kind", ["c4", "fpn"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet8"])
def test_every_backbone_tensor_arrives(kind: str, name: str) -> None:
    network = small.backbone(name)
    with torch.no_grad():
        for n, tensor in enumerate(network.state_dict().values()):
            tensor.fill_(n)  # no two alike
    detector = small.detector(kind, network)
    state = detector.state_dict()
    assert check_complete(detector, network) == len(network.state_dict())
    last = f"layer{len(network.stage_channels) - 1}."
    for key, tensor in network.state_dict().items():
        place = f"features.trunk.{key}"
        if kind == "c4" and key.startswith(last):
            place = f"roi.describe.stage.{key.removeprefix(last)}"
        assert torch.equal(state[place], tensor), key
    parameters = {id(p) for p in detector.parameters()}
    assert len(parameters) == len(list(detector.parameters()))  # none twice under two names
    assert not {id(p) for p in network.parameters()} & parameters  # a copy: the subject itself stays as it is


def test_the_published_c4_detector_holds_all_of_resnet50() -> None:
    network = build_backbone("resnet50")
    detector = build_detector(recipes.c4(None), network, 20)
    assert check_complete(detector, network) == 318
    in_backbone = sum(p.numel() for p in network.parameters())
    # RPN: 3x3 conv 1024 and 15 x (1 + 4) outputs; the extra norm; 21 classes and 20 boxes from 2048 features
    rpn = 1024 * 1024 * 9 + 1024 + (1024 + 1) * 15 * 5
    head = 2 * 2048 + (2048 + 1) * 21 + (2048 + 1) * 80
    assert sum(p.numel() for p in detector.parameters()) == in_backbone + rpn + head


def test_the_published_mask_rcnn_has_its_layers_and_norms() -> None:
    network = build_backbone("resnet50")
    detector = build_detector(recipes.fpn(recipes.FPN_MASKS), network, 80)
    pyramid = sum(256 * (c + 9 * 256) + 2 * 2 * 256 for c in (256, 512, 1024, 2048))  # no biases, two norms a level
    rpn = 256 * 256 * 9 + 256 + (256 + 1) * 3 * 5
    box = 4 * (256 * 256 * 9 + 2 * 256) + 256 * 49 * 1024 + 1024 + 1025 * 81 + 1025 * 320
    mask = 4 * (256 * 256 * 9 + 2 * 256) + 256 * 256 * 4 + 256 + 257 * 80
    expected = sum(p.numel() for p in network.parameters()) + pyramid + rpn + box + mask
    assert sum(p.numel() for p in detector.parameters()) == expected


def test_a_tensor_that_does_not_arrive_is_an_error() -> None:
    network = small.backbone()
    detector = small.detector("c4", network)
    with torch.no_grad():
        detector.roi.describe.stage[0].conv1.weight.add_(1)  # type: ignore[union-attr, index, operator]
    with pytest.raises(UserError, match=r"1 of 120 tensors did not get into the detector \(layer4.0.conv1.weight\)"):
        check_complete(detector, network)
    replaced = small.detector("c4", network)
    replaced.roi.describe.stage = copy.deepcopy(replaced.roi.describe.stage)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="30 of 120 tensors"):  # equal values, but not what is trained
        check_complete(replaced, network)


def test_a_backbone_without_stages_is_refused() -> None:
    pytest.importorskip("timm")
    with pytest.raises(UserError, match="needs a ResNet"):
        build_detector(small.architecture("c4"), build_backbone("timm:resnet10t"), 3)


@pytest.mark.parametrize("kind", ["c4", "fpn"])
def test_batch_norm_trains_as_published_and_stays_where_frozen(kind: str) -> None:
    for norm, moves in (("trained", True), ("frozen", False)):
        architecture = replace(small.narrow(small.architecture(kind)), backbone_norm=norm, head_norm="none")
        detector = build_detector(architecture, small.backbone(), 3)
        detector.train()
        before = {k: v.clone() for k, v in detector.state_dict().items() if "running_mean" in k}
        detector(*small.batch(), small.seeded())
        changed = [not torch.equal(v, detector.state_dict()[k]) for k, v in before.items()]
        assert len(changed) == 20
        assert all(changed) if moves else not any(changed)
        assert any("bn" in name and not p.requires_grad for name, p in detector.named_parameters()) != moves


def test_the_extra_norm_follows_res5_without_activation() -> None:
    describe = small.detector("c4").roi.describe
    pooled = torch.randn(4, 32, 14, 14)
    described = describe(pooled)
    stage, norm = describe.stage, describe.norm
    assert isinstance(norm, nn.BatchNorm2d)
    expected = functional.batch_norm(stage(pooled), None, None, norm.weight, norm.bias, training=True)  # type: ignore[operator]
    torch.testing.assert_close(described.maps, expected)
    assert described.maps.shape == (4, 64, 7, 7)
    assert described.maps.min() < 0
    torch.testing.assert_close(described.vectors, expected.mean((2, 3)))


def test_the_pyramid_adds_from_above_and_subsamples_its_top() -> None:
    pyramid = Pyramid(small.backbone(), channels=16, norm="batch").eval()
    images = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        maps = pyramid(images)
        stages = pyramid.trunk.stages(images)
        inner = pyramid.lateral[3](stages[4])
        torch.testing.assert_close(maps[3], pyramid.output[3](inner))
        inner = pyramid.lateral[2](stages[3]) + inner.repeat_interleave(2, 2).repeat_interleave(2, 3)
        torch.testing.assert_close(maps[2], pyramid.output[2](inner))
    torch.testing.assert_close(maps[4], maps[3][:, :, ::2, ::2])
    for block in [*pyramid.lateral, *pyramid.output]:
        assert [type(layer) for layer in block] == [nn.Conv2d, nn.BatchNorm2d]  # type: ignore[union-attr]
        assert block[0].bias is None  # type: ignore[index]


def test_a_mask_is_read_from_its_own_class() -> None:
    head = small.detector("fpn masks").roi.mask_head
    assert head is not None
    maps = torch.randn(2, 16, 14, 14)
    every = head.eval().masks(functional.relu(head.up(head.convs(maps))))
    torch.testing.assert_close(head(maps, torch.tensor([3, 1])), torch.stack([every[0, 2], every[1, 0]]))


def test_the_published_rules_of_the_recipes() -> None:
    c4, fpn = recipes.c4(recipes.C4_MASKS), recipes.fpn(recipes.FPN_MASKS)
    assert c4.rpn.border == "inside"
    assert fpn.rpn.border == "any"
    for each in (c4, fpn):
        assert each.boxes.deviations == (0.1, 0.1, 0.2, 0.2)
        assert each.boxes.sampling == Sampling(count=512, positive_fraction=0.25)
        assert each.test == Selection(score=0.05, nms=0.5, detections=100)
        assert each.rpn.assignment == Assignment(positive=0.7, negative=0.3, low_quality="on", lowest=0.3)
    assert c4.boxes.assignment == Assignment(positive=0.5, negative=0.5, low_quality="off", lowest=0.5)
    assert fpn.boxes.assignment == Assignment(positive=0.5, negative=0.5, low_quality="on", lowest=0.5)
    assert (c4.boxes.pool, fpn.boxes.pool) == (14, 7)


@pytest.mark.parametrize("kind", ["c4 masks", "fpn masks"])
def test_bf16_gives_nearly_the_same_losses(kind: str) -> None:
    exact = small.detector(kind).train()(*small.batch(), small.seeded())
    detector = small.detector(kind).train()
    with torch.autocast("cpu", torch.bfloat16):
        rough = detector(*small.batch(), small.seeded())
    for name, loss in rough.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact[name], atol=0.02, rtol=0.05)
    torch.stack(list(rough.values())).sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        found = detector.eval().detect(*small.batch()[:2])
    assert all(each.boxes.dtype == torch.float32 for each in found)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_the_gpu_agrees_with_the_cpu(kind: str) -> None:
    """The samplers draw on the CPU, so that both train on the same boxes."""
    exact = small.detector(kind).train()(*small.batch(), small.seeded())
    device = torch.device("cuda")
    detector = small.detector(kind).train().to(device)
    images, sizes, targets = small.batch()
    there = [
        LearnTarget(
            boxes=each.boxes.to(device),
            labels=each.labels.to(device),
            masks=each.masks.to(device) if each.masks is not None else None,
        )
        for each in targets
    ]
    got = detector(images.to(device), sizes, there, small.seeded())
    for name, loss in got.items():
        torch.testing.assert_close(loss.cpu(), exact[name], atol=1e-3, rtol=1e-2)
    detector.to(memory_format=torch.channels_last)
    with torch.autocast("cuda", torch.bfloat16):
        fast = detector(images.to(device, memory_format=torch.channels_last), sizes, there, small.seeded())
    torch.stack(list(fast.values())).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in detector.parameters())
    assert len(detector.eval().detect(images.to(device), sizes)) == 2
