"""Proposals and heads of a detector: losses by hand and by the literal formulas, counts, suppression."""

from __future__ import annotations

from dataclasses import replace

import torch

from simsiam.data.detection.boxes import LearnTarget
from simsiam.evaluation.detection import boxes as box_maths
from simsiam.evaluation.detection.heads import mask_targets, pool
from simsiam.evaluation.detection.settings import Assignment, Proposals, Sampling, Selection
from simsiam.evaluation.detection.stages import Level, RegionProposals, choose, keep_best
from simsiam.recipes import detection as recipes
from tests.evaluation.detection import small_detectors as small


def level(logits: list[float], deltas: list[list[float]], anchors: list[list[float]]) -> Level:
    return Level(
        logits=torch.tensor([logits]),
        deltas=torch.tensor([deltas]),
        anchors=torch.tensor(anchors),
        grid=(1, len(anchors), 16),
    )


def rpn(**changes: object) -> RegionProposals:
    return RegionProposals(replace(recipes.c4(None).rpn, **changes), channels=4, strides=(16,))  # type: ignore[arg-type]


def test_the_proposal_losses_by_hand() -> None:
    anchors = [[0.0, 0, 20, 20], [20.0, 0, 40, 20], [0.0, 0, 10, 14], [30.0, 0, 50, 20]]
    deltas = [[0.1, -0.2, 0.3, 0.0], [9.0, 9, 9, 9], [9.0, 9, 9, 9], [9.0, 9, 9, 9]]
    truth = LearnTarget(boxes=torch.tensor([[0.0, 0, 20, 16]]), labels=torch.tensor([1]), masks=None)
    # overlaps: 320/400 = 0.8 positive; 0 background; 140/320 = 0.44 left out; the last crosses the border at 48
    losses = rpn().losses([level([2.0, -1.0, 5.0, 7.0], deltas, anchors)], [(32, 48)], [truth], small.seeded())
    entropy = -torch.tensor(2.0).sigmoid().log() - (1 - torch.tensor(-1.0).sigmoid()).log()
    torch.testing.assert_close(losses["rpn_objectness"], entropy / 2)
    wanted = torch.tensor([0.0, -0.1, 0.0, torch.tensor(16 / 20).log()])  # plain offsets: deviations 1
    torch.testing.assert_close(losses["rpn_box"], (torch.tensor(deltas[0]) - wanted).abs().sum() / 2)


def test_the_box_distance_is_l1_where_smooth_l1_would_be_quadratic() -> None:
    truth = LearnTarget(boxes=torch.tensor([[0.0, 0, 16, 16]]), labels=torch.tensor([1]), masks=None)
    one = level([0.0], [[0.01, 0, 0, 0]], [[0.0, 0, 16, 16]])
    torch.testing.assert_close(rpn().losses([one], [(32, 32)], [truth], small.seeded())["rpn_box"], torch.tensor(0.005))


def test_proposals_are_clipped_suppressed_and_counted() -> None:
    anchors = [[0.0, 0, 20, 20], [1.0, 0, 21, 20], [10.0, 0, 50, 20], [0.0, 40, 20, 60], [60.0, 60, 80, 80]]
    one = level([3.0, 2.0, 1.0, 0.0, 4.0], [[0.0] * 4] * 5, anchors)
    network = rpn()
    boxes = network.propose([one], [(50, 32)], Proposals(before_nms=5, kept=5))[0]
    # the first two overlap by 380/420 > 0.7; the third is cut at 32, the fourth at 50; the last has nothing inside
    assert boxes.tolist() == [[0, 0, 20, 20], [10, 0, 32, 20], [0, 40, 20, 50]]
    assert network.propose([one], [(50, 32)], Proposals(before_nms=5, kept=2))[0].tolist() == boxes[:2].tolist()
    best_two = network.propose([one], [(50, 32)], Proposals(before_nms=2, kept=5))[0]
    assert best_two.tolist() == [[0, 0, 20, 20]]  # the best of all lies outside and still was one of the two
    twice = network.propose([one, one], [(50, 32)], Proposals(before_nms=5, kept=9))[0]
    assert len(twice) == 6  # suppression is within a level


def test_the_published_proposal_counts() -> None:
    c4, fpn = recipes.c4(None).rpn, recipes.fpn(None).rpn
    assert (c4.train, c4.test) == (Proposals(before_nms=12000, kept=2000), Proposals(before_nms=6000, kept=1000))
    assert (fpn.train, fpn.test) == (Proposals(before_nms=2000, kept=1000), Proposals(before_nms=1000, kept=1000))
    assert c4.nms == fpn.nms == 0.7


def test_512_proposals_a_quarter_of_them_objects_which_join_in_themselves() -> None:
    how = recipes.c4(None).boxes
    objects = torch.tensor([[0.0, 0, 40, 40], [60.0, 60, 90, 90]])
    truth = LearnTarget(boxes=objects, labels=torch.tensor([2, 1]), masks=None)
    near = objects[0] + torch.rand(300, 4, generator=small.seeded()) * 4
    far = torch.rand(900, 4, generator=small.seeded(1)).sort(1).values[:, [0, 1, 2, 3]] * 5 + 200
    sampled = choose(torch.cat([near, far]), truth, how, small.seeded())
    assert len(sampled.boxes) == 512
    assert len(sampled.objects) == 128
    few = choose(far, truth, how, small.seeded())
    assert few.objects.tolist() == [0, 1]  # the objects alone
    assert torch.equal(few.boxes[:2], objects)
    assert len(few.boxes) == 512


def test_an_objects_best_proposal_is_found_before_the_objects_join() -> None:
    rule = Assignment(positive=0.5, negative=0.5, low_quality="on", lowest=0.3)
    how = replace(recipes.fpn(None).boxes, assignment=rule, sampling=Sampling(count=8, positive_fraction=0.5))
    truth = LearnTarget(boxes=torch.tensor([[0.0, 0, 10, 10]]), labels=torch.tensor([1]), masks=None)
    proposals = torch.tensor([[0.0, 0, 10, 4], [50.0, 50, 60, 60]])  # 0.4: below the threshold, but the best there is
    assert choose(proposals, truth, how, small.seeded()).objects.tolist() == [0, 0]
    off = replace(how, assignment=replace(rule, low_quality="off"))
    assert choose(proposals, truth, off, small.seeded()).objects.tolist() == [0]


def test_the_head_losses_are_the_literal_formulas() -> None:
    detector = small.detector("c4 masks")
    roi = detector.roi
    _, _, targets = small.batch()
    maps = [torch.randn(2, 32, 6, 6, generator=small.seeded())]
    proposals = [torch.cat([t.boxes + 2, torch.tensor([[0.0, 70, 9, 80], [60.0, 60, 80, 70]])]) for t in targets]
    got = roi.eval().losses(maps, proposals, targets, small.seeded())
    generator, entropies, distances, masks = small.seeded(), [], [], []
    for image, (boxes, target) in enumerate(zip(proposals, targets, strict=True)):
        sampled = choose(boxes, target, roi.settings.boxes, generator)
        features = maps[0][image : image + 1]
        for row, box in enumerate(sampled.boxes):
            described = roi.describe(_pooled(features, box[None]))
            scores, deltas = roi.predict(described.vectors)
            positive = row < len(sampled.objects)
            label = int(target.labels[sampled.objects[row]]) if positive else 0
            entropies.append(-scores[0].log_softmax(0)[label])
            if positive:
                thing = target.boxes[sampled.objects[row]]
                wanted = box_maths.encode(thing[None], box[None], (0.1, 0.1, 0.2, 0.2))[0]
                distances.append((deltas[0, label - 1] - wanted).abs().sum())
                assert target.masks is not None
                wanted_mask = _crop(target.masks[sampled.objects[row]], box)
                logits = roi.mask_head(described.maps, torch.tensor([label]))[0]  # type: ignore[misc]
                p = logits.sigmoid()
                masks.append(-(wanted_mask * p.log() + (1 - wanted_mask) * (1 - p).log()).mean())
    rows = len(entropies)
    assert len(distances) == 6  # each object and its near copy
    torch.testing.assert_close(got["roi_class"], torch.stack(entropies).mean())
    torch.testing.assert_close(got["roi_box"], torch.stack(distances).sum() / rows)
    torch.testing.assert_close(got["mask"], torch.stack(masks).mean(), atol=1e-5, rtol=1e-4)


def _pooled(features: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    return pool([features], [box], [16], 14)


def _crop(mask: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    return mask_targets(mask[None], box[None], torch.tensor([0]), 14)[0]


def test_the_best_of_each_class_are_kept() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 11, 10], [30.0, 30, 40, 40]])[:, None].repeat(1, 2, 1)
    scores = torch.tensor([[0.9, 0.04], [0.8, 0.6], [0.05, 0.3]])
    found = keep_best(boxes, scores, Selection(score=0.05, nms=0.5, detections=100))
    # class 1: the second is suppressed by the first (0.82), 0.05 is not above 0.05; class 2 stands for itself
    assert found.labels.tolist() == [1, 2, 2]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.6, 0.3]))
    assert found.boxes.tolist() == [[0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 40, 40]]
    assert len(keep_best(boxes, scores, Selection(score=0.05, nms=0.5, detections=2)).boxes) == 2


def test_a_network_that_ran_away_finds_nothing() -> None:
    """As after a step at far too high a rate: every proposal is lost, and that is no error of the scoring."""
    detector = small.detector("fpn masks").eval()
    for parameter in detector.parameters():
        parameter.data.fill_(float("nan"))
    images, sizes, _ = small.batch()
    assert [len(found.boxes) for found in detector.detect(images, sizes)] == [0, 0]
