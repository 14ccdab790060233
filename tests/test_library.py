"""The package as a library: the loop of one's own from the README, and the example of every public name."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

import simsiam
from simsiam.backbones import ResNet
from simsiam.errors import UserError
from simsiam.model import SimSiam
from simsiam.weights.save import write_backbone
from tests import tiny

PUBLIC = [name for name in simsiam.__all__ if name != "__version__"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, train and test in class folders, and a run."""
    root = tmp_path_factory.mktemp("place")
    tiny.folder(root / "photos", classes=3, images=8)
    tiny.folder(root / "train", classes=3, images=8)
    tiny.folder(root / "test", classes=3, images=2)
    write_backbone(root / "runs/demo", simsiam.SimSiam("resnet10", width=8, projector_dim=8).backbone, recipe=None)
    return root


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_of_every_public_name_runs(
    name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in place.iterdir():
        (tmp_path / folder.name).symlink_to(folder) if folder.name != "runs" else None
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/demo").symlink_to(place / "runs/demo")
    monkeypatch.chdir(tmp_path)
    known = {"torch": torch, "torchvision": torchvision, "Image": Image, "simsiam": simsiam}
    public = getattr(simsiam, name)
    known |= {other: getattr(simsiam, other) for other in PUBLIC}
    finder = doctest.DocTestFinder(recurse=True)
    tests = [test for test in finder.find(public, name, globs=known) if test.examples]
    assert tests, f"{name} has no example"
    for test in tests:
        failures, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
        assert failures == 0


def test_a_loop_of_ones_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    torch.manual_seed(0)
    data = torchvision.datasets.ImageFolder("photos", transform=simsiam.TwoViews(size=32))
    theirs = torchvision.models.resnet18()
    before = theirs.layer1[0].conv1.weight.detach().clone()
    model = simsiam.SimSiam(theirs, projector_dim=64, predictor_dim=16)
    optimizer = torch.optim.SGD(model.parameter_groups(lr=0.05), momentum=0.9, weight_decay=1e-4)
    watch = simsiam.Monitor("test", size=32)
    watch.check(model)
    for (x1, x2), _ in torch.utils.data.DataLoader(data, batch_size=8, shuffle=True, drop_last=True):
        p1, p2, z1, z2 = model(x1, x2)
        loss = simsiam.loss(p1, p2, z1, z2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert not torch.equal(theirs.layer1[0].conv1.weight, before), "the module is trained in place"
    check = watch.check(model, step=3)
    assert 0 <= check.view_recall <= 100
    assert check.epoch == 1
    assert watch.verdict.status == "too early to say"

    result = simsiam.evaluate("knn", model.backbone, train="train", test="test", size=32)
    assert 0 <= result.metrics[result.main_metric] <= 100

    run = simsiam.pretrain("photos", epochs=1, batch_size=8, device="cpu", out="runs/photos")
    assert run.verdict.status in ("too early to say", "too few images to tell")
    assert run.folder == Path("runs/photos")
    assert isinstance(run.backbone, ResNet)
    assert simsiam.pretrain("photos", epochs=1, batch_size=8, device="cpu", out="runs/photos").result == run.result


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvisions_resnets_give_what_they_give_before_their_classifier(name: str) -> None:
    theirs = getattr(torchvision.models, name)().eval()
    ours = simsiam.SimSiam(theirs).eval().backbone
    x = torch.randn(2, 3, 64, 64)
    theirs.fc = nn.Identity()
    torch.testing.assert_close(ours(x), theirs(x))
    assert (ours.name, ours.features) == (name, 512 if name == "resnet18" else 2048)
    assert [tuple(each.shape[1:2]) for each in ours.stages(x)] == [(c,) for c in ours.stage_channels]
    assert set(ours.state_dict()) == set(theirs.state_dict())  # and back again


def test_any_module_with_pooled_features(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = simsiam.SimSiam(module, size=16, projector_dim=8, predictor_dim=4)
    p1, _, z1, _ = model(torch.randn(4, 3, 16, 16), torch.randn(4, 3, 16, 16))
    assert p1.shape == z1.shape == (4, 8)
    with pytest.raises(UserError, match="pool"):
        simsiam.SimSiam(nn.Conv2d(3, 5, 3))


def test_a_torchvision_resnet_for_small_images_is_taken_before_its_classifier() -> None:
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    model = simsiam.SimSiam(theirs)
    assert model.backbone.features == 512
    assert model.backbone(torch.randn(2, 3, 32, 32)).shape == (2, 512)
    other = simsiam.SimSiam(torchvision.models.mobilenet_v3_small())
    assert other.backbone.features == 576


def test_the_two_views_are_the_published_ones() -> None:
    image = tiny.shape("circle", seed=0, size=60)
    views = simsiam.TwoViews(size=24)
    torch.manual_seed(0)
    pairs = [views(image) for _ in range(40)]
    assert all(x.shape == (3, 24, 24) for pair in pairs for x in pair)
    assert not any(torch.equal(*pair) for pair in pairs)
    torch.manual_seed(0)
    assert torch.equal(views(image)[0], pairs[0][0])  # torch's own seed decides
    still = simsiam.TwoViews(
        size=60, min_scale=1.0, jitter_probability=0.0, grayscale_probability=0.0, blur_probability=0.0,
        flip_probability=0.0,
    )  # fmt: skip
    square = Image.new("L", (60, 60), 128)
    wanted = (128 / 255 - torch.tensor(still.views.mean)) / torch.tensor(still.views.std)
    torch.testing.assert_close(still(square)[1][:, 30, 30], wanted)


def test_the_monitor_takes_what_holds_images(place: Path) -> None:
    model = simsiam.SimSiam("resnet10", width=8, projector_dim=16)
    folder = torchvision.datasets.ImageFolder(str(place / "photos"), transform=simsiam.TwoViews(size=32))
    paths = sorted((place / "photos").rglob("*.jpg"))
    given = {
        "folder": place / "photos",
        "data set": folder,
        "pictures": [Image.open(path) for path in paths],
    }
    checks = {name: simsiam.Monitor(images, size=32).check(model) for name, images in given.items()}
    assert checks["folder"] == checks["data set"] == checks["pictures"]
    part = torch.utils.data.Subset(torch.utils.data.Subset(folder, range(4, 24)), range(0, 20, 2))
    monitor = simsiam.Monitor(part, size=32)
    assert monitor.held_out.labels is not None
    assert monitor.held_out.labels.tolist() == [folder.targets[n] for n in range(4, 24, 2)]
    assert monitor.check(model).candidates == 10
    with pytest.raises(UserError, match="two or more"):
        simsiam.Monitor([Image.new("RGB", (8, 8))])
    with pytest.raises(UserError, match="expected a PIL image"):
        simsiam.Monitor([torch.zeros(3, 8, 8)] * 3, size=8).check(model)


def test_mistakes_name_what_is_wrong(place: Path) -> None:
    with pytest.raises(UserError, match="epochs"):
        simsiam.pretrain(place / "photos", epocs=3)
    with pytest.raises(UserError, match="resnet18"):
        simsiam.SimSiam("resnet17")
    assert simsiam.SimSiam is SimSiam
    with pytest.raises(AttributeError, match="nothing"):
        simsiam.nothing  # noqa: B018
