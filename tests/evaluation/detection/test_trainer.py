"""Schedules, rates and draws of a detector's training, and what becomes of a detection in the image's own pixels."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from simsiam.config import Machine
from simsiam.data.detection.boxes import BoxBatch, BoxImage, BoxSource, Frame, Target
from simsiam.engine.distributed import Process
from simsiam.engine.fit import Training
from simsiam.engine.optimizers import Group, sgd
from simsiam.errors import UserError
from simsiam.evaluation.detection.data import BoxSets
from simsiam.evaluation.detection.detector import Detector
from simsiam.evaluation.detection.inference import in_image
from simsiam.evaluation.detection.stages import Detections
from simsiam.evaluation.detection.trainer import DetectorTrainer, plan_of, shares, step_generator
from simsiam.evaluation.place import Place
from simsiam.recipes import detection as recipes
from simsiam.results import WeightsId
from simsiam.weights.pretrained import PretrainedBackbone
from tests.evaluation.detection import small_detectors as small

VOC = recipes.faster_rcnn_r50_c4_mstrain_24k_voc0712()
COCO = recipes.mask_rcnn_r50_fpn_mstrain_1x_coco()
EVERY = [
    recipes.faster_rcnn_r50_c4_mstrain_24k_voc0712,
    recipes.mask_rcnn_r50_fpn_mstrain_1x_coco,
    recipes.mask_rcnn_r50_fpn_mstrain_2x_coco,
    recipes.mask_rcnn_r50_c4_mstrain_1x_coco,
    recipes.mask_rcnn_r50_c4_mstrain_2x_coco,
    recipes.transfer_c4_voc07,
    recipes.transfer_c4_voc0712,
    recipes.transfer_c4_coco,
    recipes.mask_rcnn_r50_fpn_24k_cityscapes,
    recipes.folder_boxes,
    recipes.folder_masks,
]


@pytest.mark.parametrize("make", EVERY)
def test_every_recipe_holds_together_and_has_its_own_name(make: object) -> None:
    recipe = make()  # type: ignore[operator]
    recipe.check()
    assert recipe.name == make.__name__  # type: ignore[attr-defined]
    assert (recipe.momentum, recipe.weight_decay, recipe.gamma) == (0.9, 1e-4, 0.1)


def test_the_rate_of_the_voc_schedule() -> None:
    plan = plan_of(VOC, 1035, checkpoint_minutes=5)
    assert (plan.epochs, plan.steps_per_epoch) == (12, 2000)  # scored every 2,000 iterations, 24,000 in all
    assert plan.schedule_by == "step"
    expected = {0: 0.001, 50: 0.5005, 99: 0.99001, 100: 1.0, 17999: 1.0, 18000: 0.1, 21999: 0.1, 22000: 0.01}
    for iteration, factor in expected.items():
        assert plan.schedule(iteration) == pytest.approx(factor)
    assert VOC.scaled_lr == 0.02


def test_the_rate_of_the_coco_schedules() -> None:
    for recipe, epochs, first, second in (
        (COCO, 12, 8, 11),
        (recipes.mask_rcnn_r50_fpn_mstrain_2x_coco(), 24, 16, 22),
    ):
        plan = plan_of(recipe, 7330, checkpoint_minutes=5)
        assert (plan.epochs, plan.steps_per_epoch) == (epochs, 7330)
        expected = {0: 0.001, 500: 0.5005, 1000: 1.0, first * 7330 - 1: 1.0, first * 7330: 0.1, second * 7330: 0.01}
        for iteration, factor in expected.items():
            assert plan.schedule(iteration) == pytest.approx(factor)


def test_the_rate_follows_the_batch() -> None:
    assert replace(VOC, batch_size=4).scaled_lr == pytest.approx(0.005)
    assert recipes.mask_rcnn_r50_fpn_24k_cityscapes().scaled_lr == 0.01


def test_a_shorter_training_keeps_its_proportions() -> None:
    short = VOC.for_iterations(2400)
    assert (short.length, short.milestones, short.unit) == (2400, (1800, 2200), "iterations")
    assert short.evaluate_every == 200
    assert short.name == "faster_rcnn_r50_c4_mstrain_24k_voc0712-2400it"
    short = COCO.for_iterations(1200)
    assert (short.milestones, short.evaluate_every, short.warmup_iterations) == ((800, 1100), 100, 240)
    for count in (1, 2, 97, 100, 250, 1009):
        short = VOC.for_iterations(count)
        short.check()
        assert short.length == count
        assert short.evaluate_every >= min(count, 100)


def test_evaluations_must_reach_the_end() -> None:
    with pytest.raises(UserError, match="must divide --length 24000"):
        replace(VOC, evaluate_every=7000).check()


def batch(*, epoch: int, step: int) -> BoxBatch:
    return BoxBatch(images=torch.zeros(0), frames=[], targets=[], epoch=epoch, step=step)


def test_the_draws_of_a_step_depend_on_seed_position_and_process() -> None:
    def draw(seed: int, epoch: int, step: int, rank: int) -> int:
        generator = step_generator(seed, batch(epoch=epoch, step=step), rank)
        return int(torch.randint(1 << 40, (), generator=generator))

    positions = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    assert len({draw(*position) for position in positions}) == 5
    assert draw(3, 4, 5, 1) == draw(3, 4, 5, 1)


@pytest.mark.parametrize(("count", "parts", "sizes"), [(4, 2, [2, 2]), (5, 2, [2, 3]), (2, 4, [1, 1]), (3, 1, [3])])
def test_a_batch_is_cut_into_pieces_without_a_gap(count: int, parts: int, sizes: list[int]) -> None:
    cut = shares(count, parts)
    assert [piece.stop - piece.start for piece in cut] == sizes
    assert [row for piece in cut for row in range(piece.start, piece.stop)] == list(range(count))


def test_detections_come_back_in_the_images_own_pixels() -> None:
    frame = Frame(index=3, height=100, width=200, original_height=50, original_width=80)
    found = Detections(
        boxes=torch.tensor([[20.0, 20, 120, 60], [0.0, 0, 200, 100]]),
        scores=torch.tensor([0.9, 0.8]),
        labels=torch.tensor([1, 2]),
        masks=torch.stack([torch.ones(28, 28), torch.zeros(28, 28)]),
    )
    prediction = in_image(found, frame, 0.5)
    assert prediction.image == 3
    assert prediction.boxes.tolist() == [[8, 10, 48, 30], [0, 0, 80, 50]]
    assert prediction.masks is not None
    first, second = (mask.decode() for mask in prediction.masks)
    assert first.shape == (50, 80)
    assert first[10:30, 8:48].all()
    assert first.sum() == 20 * 40
    assert not second.any()


def test_small_passes_average_their_gradients(tmp_path: Path) -> None:
    architecture = replace(small.narrow(small.architecture("c4")), backbone_norm="frozen", head_norm="none")
    settings = replace(VOC, architecture=architecture, accumulate=2, batch_size=2)
    images, sizes, targets = small.batch()
    frames = [Frame(index=0, height=h, width=w, original_height=h, original_width=w) for h, w in sizes]
    whole = BoxBatch(images=images, frames=frames, targets=targets, epoch=3, step=7)
    network = small.backbone()
    place = Place(
        subject=PretrainedBackbone(
            backbone=network,
            size=224,
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.2, 0.2),
            weights=WeightsId(source="a test", sha256="0"),
            seed=11,
        ),
        machine=Machine(device="cpu"),
        process=Process(rank=0, world=1, device=torch.device("cpu")),
        folder=tmp_path,
        identity={},
    )
    trainer = DetectorTrainer(settings=settings, data=BoxSets(train=NoImages(), test=NoImages()), place=place)
    other = copy.deepcopy(trainer.detector).train()

    def optimizer_of(detector: Detector) -> torch.optim.Optimizer:
        parameters = [parameter for parameter in detector.parameters() if parameter.requires_grad]
        return sgd([Group(name="detector", parameters=parameters, lr=0.1)], momentum=0.9, weight_decay=1e-4)

    training = Training(modules={}, optimizer=optimizer_of(trainer.detector), recipe={})
    logged = trainer._step(training, trainer._losses())(whole)

    optimizer = optimizer_of(other)
    generator, totals = step_generator(11, whole, 0), []
    for row in range(2):
        rows = slice(row, row + 1)
        total = torch.stack(list(other(images[rows], sizes[rows], targets[rows], generator).values())).sum()
        (total / 2).backward()
        totals.append(total.detach())
    optimizer.step()
    torch.testing.assert_close(logged["loss"], torch.stack(totals).mean())
    for ours, theirs in zip(trainer.detector.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


class NoImages(BoxSource):
    """A set that nobody looks into."""

    name, classes, has_masks = "nothing", ("a", "b", "c"), False

    def __len__(self) -> int:
        return 0

    def image(self, index: int) -> BoxImage:
        raise IndexError(index)

    def target(self, index: int) -> Target:
        raise IndexError(index)

    def digests(self) -> np.ndarray:
        return np.arange(16 * len(self), dtype=np.uint8).reshape(-1, 16)

    def fingerprint(self) -> str:
        return ""
