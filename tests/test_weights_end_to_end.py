"""`simsiam import`, `export`, `zoo` and `pretrain --init` on files as other programs write them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet18

from simsiam import cli
from simsiam.backbones import build_backbone
from simsiam.pretraining.inputs import start_network
from simsiam.recipes.pretrain import folder_cpu
from simsiam.results import Result
from simsiam.weights import cards
from simsiam.weights import export as exporting
from simsiam.weights.export import FORMS, Form
from simsiam.weights.load import Loaded, load_backbone
from simsiam.weights.save import write_backbone
from simsiam.weights.targets import Reader
from tests import tiny
from tests.weights import foreign
from tests.weights.test_formats import CASES, same_outputs

Run = Callable[..., "Said"]
TINY = "--views.size 16 --device cpu --workers 0 --channels-last off --epochs 1 --batch-size 8 --base-lr 0".split()


class Said:
    """What a command left: its exit code and what it printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def simsiam(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str | Path) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main([str(word) for word in arguments])
        said = capsys.readouterr()
        return Said(int(end.value.code or 0), said.out, said.err)

    return run


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("data") / "photos", images=16)


def saved(case: str, path: Path) -> foreign.Trio:
    """Write the case's file; returns the program's own network."""
    net, content = CASES[case][0]()
    torch.save(content, path)
    return net


@pytest.mark.parametrize("case", CASES)
def test_import_says_what_it_is_and_keeps_all_of_it(case: str, tmp_path: Path, images: Tensor, simsiam: Run) -> None:
    _, name, has_heads = CASES[case]
    net = saved(case, tmp_path / "file.pth")
    said = simsiam("import", tmp_path / "file.pth", "--out", tmp_path / "in")
    assert said.code == 0, said.err
    assert f"recognised as {name}" in said.out
    assert f"resnet18 (width 64, stem {'small' if 'solo' in case else 'imagenet'}): 120 tensors, all loaded" in said.out
    assert "11,176,512 parameters" in said.out or "11,168,832 parameters" in said.out
    heads = re.findall(r"(projector|predictor) +(.*)", said.out)
    written = {name: "512 -> 24 -> 24 -> 24" if name == "projector" else "24 -> 10 -> 24" for name, _ in heads}
    for name, text in heads[:2]:
        assert text.endswith(written[name]) if has_heads else text == "none in it"
    again = load_backbone(tmp_path / "in")
    assert (again.projector is not None) == has_heads
    same_outputs(again, net, images)


SLOWER = ("solo-learn", "mmselfsup 0.x training", "mmselfsup 1.x", "lightly, first")


@pytest.mark.parametrize("case", ["official pre-train", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOWER)])
def test_training_goes_on_from_imported_heads(case: str, tmp_path: Path, photos: Path, simsiam: Run) -> None:
    """With the printed flags and a rate of zero, the tensors that training would change come out as they went in."""
    saved(case, tmp_path / "file.pth")
    said = simsiam("import", tmp_path / "file.pth", "--out", tmp_path / "in")
    printed = next(line for line in said.out.splitlines() if line.strip().startswith("simsiam pretrain"))
    words = shlex.split(printed)
    flags = words[words.index("IMAGES") + 1 :]
    trained = simsiam("pretrain", photos, "--recipe", "folder-cpu", *flags, *TINY, "--out", tmp_path / "run")
    assert trained.code in (0, 4), trained.err
    for part in ("backbone", "projector", "predictor"):
        assert f"{part} from {tmp_path / 'in'}" in trained.out + trained.err
    before, after = load_backbone(tmp_path / "in"), load_backbone(tmp_path / "run")
    for one, other in ((before.projector, after.projector), (before.predictor, after.predictor)):
        assert one is not None
        assert other is not None
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one if name.endswith(("weight", "bias")))
    ours, theirs = before.backbone.state_dict(), after.backbone.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if name.endswith(("weight", "bias")))
    padding = load_backbone(tmp_path / "in").backbone.conv1.padding
    assert after.backbone.conv1.padding == padding


def test_a_folders_recipe_takes_the_network_of_its_start(tmp_path: Path, photos: Path, simsiam: Run) -> None:
    """The recipe for a CPU has another network; nobody has to know the shape of the file."""
    network = resnet18(weights=None)
    torch.save(network.state_dict(), tmp_path / "supervised.pth")
    heads = "--model.projector-hidden 0 --model.projector-dim 32 --model.predictor-dim 8".split()
    said = simsiam("pretrain", photos, "--init", tmp_path / "supervised.pth", *TINY, *heads, "--out", tmp_path / "run")
    assert said.code in (0, 4), said.err
    assert f"backbone from {tmp_path / 'supervised.pth'}" in said.out + said.err
    after = load_backbone(tmp_path / "run").backbone
    assert (after.name, after.width, after.stem) == ("resnet18", 64, "imagenet")
    assert torch.equal(after.state_dict()["layer4.1.conv2.weight"], network.state_dict()["layer4.1.conv2.weight"])
    flag = ("--model.backbone", "resnet34")
    said = simsiam("pretrain", photos, "--init", tmp_path / "supervised.pth", *flag, *TINY, "--out", tmp_path / "other")
    assert said.code == 2
    assert "--model.backbone" in said.err


def test_heads_that_do_not_fit_are_told(tmp_path: Path) -> None:
    saved("mmselfsup 0.x released", tmp_path / "bare.pth")
    saved("official pre-train", tmp_path / "heads.pth")
    recipe = folder_cpu()
    network = {"backbone": "resnet18", "width": 64, "stem": "imagenet"}
    model = dataclasses.replace(recipe.model, **network, projector_dim=16, predictor_dim=8)  # type: ignore[arg-type]
    recipe = dataclasses.replace(recipe, model=model)
    told = start_network(recipe, str(tmp_path / "heads.pth")).notes
    assert f"backbone from {tmp_path / 'heads.pth'} (official pre-train)" in told
    shape = "has one of another shape; `simsiam import` prints the flags that fit"
    assert [line for line in told if "starts at random" in line] == [
        f"{head} starts at random: {tmp_path / 'heads.pth'} {shape}" for head in ("projector", "predictor")
    ]
    told = start_network(recipe, str(tmp_path / "bare.pth")).notes
    assert sum(line.endswith("bare.pth has none") for line in told) == 2
    assert start_network(recipe, None).notes == []


@pytest.mark.parametrize("case", [name for name, (_, _, has_heads) in CASES.items() if has_heads])
def test_a_start_from_each_format_is_the_same_network(case: str, tmp_path: Path, images: Tensor) -> None:
    net = saved(case, tmp_path / "file.pth")
    recipe = folder_cpu()
    stem = "small" if "solo" in case else "imagenet"
    shape: dict[str, object] = {"backbone": "resnet18", "width": 64, "stem": stem}
    shape |= {"projector_layers": 3, "projector_hidden": 24, "projector_dim": 24, "predictor_dim": 10}
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, **shape))  # type: ignore[arg-type]
    network = start_network(recipe, str(tmp_path / "file.pth")).network.eval()
    with torch.no_grad():
        features = network.backbone(images)
        z = network.projector(features)
        found = (features, z, network.predictor(z))
    for ours, theirs in zip(found, net.outputs(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-6 * float(theirs.abs().max()))


def test_an_import_is_evaluated_and_exported(tmp_path: Path, simsiam: Run) -> None:
    saved("mmselfsup 1.x", tmp_path / "epoch_100.pth")
    assert simsiam("import", tmp_path / "epoch_100.pth", "--out", tmp_path / "in", "--licence", "MIT").code == 0
    data = ["--train", tiny.folder(tmp_path / "train"), "--test", tiny.folder(tmp_path / "test")]
    machine = ["--device", "cpu", "--workers", "0", "--size", "32", "--resize", "32", "--cache", tmp_path / "cache"]
    said = simsiam("evaluate", "knn", tmp_path / "in", *data, *machine, "--k", "1", "--quoted-k", "1")
    assert said.code == 0, said.err
    found = [Result.read(path) for path in (tmp_path / "in").rglob("result.json")]
    assert [each.weights.sha256 for each in found] == [load_backbone(tmp_path / "epoch_100.pth").weights.sha256]
    said = simsiam("export", tmp_path / "in", "--to", "torchvision", "safetensors")
    assert said.code == 0, said.err
    assert len(re.findall(r"on 4 images the features differ by at most \d\.\de[-+]\d\d", said.out)) == 2
    for target in ("torchvision", "safetensors"):
        card = (tmp_path / "in" / "export" / target / "README.md").read_text()
        assert card.startswith("---\nlicense: mit\n")
        assert "(import of MMSelfSup 1.x)" in card
        assert "pre-trained with SimSiam" in card
    again = load_backbone(tmp_path / "in/export/torchvision/backbone-torchvision.pth")
    assert again.weights.sha256 == found[0].weights.sha256


def test_bgr_weights_stay_turned_round(tmp_path: Path, simsiam: Run) -> None:
    """The mean and std that go with a turned first convolution are kept in the folder and in what is exported."""
    saved("mmselfsup 0.x released", tmp_path / "x.pth")
    said = simsiam("import", tmp_path / "x.pth", "--out", tmp_path / "in", "--channel-order", "bgr")
    assert "mean 0.406 0.456 0.485" in said.out
    once = load_backbone(tmp_path / "x.pth", channel_order="bgr")
    assert simsiam("export", tmp_path / "in", "--to", "safetensors", "--out", tmp_path / "out").code == 0
    for place in ("in", "out/backbone.safetensors"):
        again = load_backbone(tmp_path / place)
        assert again.preprocess == once.preprocess
        assert torch.equal(again.backbone.conv1.weight, once.backbone.conv1.weight)
    assert any("BGR" in note for note in load_backbone(tmp_path / "in").notes)


def test_a_detectron2_pickle_and_a_named_timm_network(tmp_path: Path, simsiam: Run) -> None:
    pytest.importorskip("timm", reason="the timm extra is not installed")
    names = foreign.detectron2_names(foreign.resnet("resnet50"))
    arrays = {name: tensor.numpy() for name, tensor in names.items() if "num_batches" not in name}
    (tmp_path / "r50.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}))
    said = simsiam("import", tmp_path / "r50.pkl", "--out", tmp_path / "d2")
    assert "recognised as detectron2" in said.out
    assert "resnet50 (width 64, stem imagenet): 318 tensors" in said.out
    import timm

    torch.save(timm.create_model("resnet26d", num_classes=3).state_dict(), tmp_path / "timm.pth")
    said = simsiam("import", tmp_path / "timm.pth", "--out", tmp_path / "timm", "--backbone", "timm:resnet26d")
    assert "timm:resnet26d" in said.out
    assert "left out, the classifier: fc.weight, fc.bias" in said.out
    refused = simsiam("import", tmp_path / "timm.pth", "--out", tmp_path / "no")
    assert refused.code == 2
    assert "--backbone timm:resnet50d" in refused.err


class Hostile:
    """A pickle that would run a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("form", ["pickle", "torch"])
@pytest.mark.parametrize("verb", ["import", "export", "evaluate"])
def test_a_hostile_file_is_refused_by_name(form: str, verb: str, tmp_path: Path, simsiam: Run) -> None:
    file = tmp_path / "weights.pkl"
    if form == "pickle":
        file.write_bytes(pickle.dumps({"model": Hostile(tmp_path / "opened")}))
    else:
        torch.save({"state_dict": Hostile(tmp_path / "opened")}, file)
    words = {"import": ["import", file], "export": ["export", file, "--to", "timm"], "evaluate": ["evaluate", "knn"]}
    more = [file, "--train", tmp_path, "--test", tmp_path] if verb == "evaluate" else []
    said = simsiam(*words[verb], *more)
    assert said.code == 2
    assert f"{file}: refused" in said.err
    assert "posix.system" in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "opened").exists()


def test_what_does_not_fit_is_listed_side_by_side(tmp_path: Path, simsiam: Run) -> None:
    state = foreign.prefixed(foreign.resnet(), "backbone.")
    del state["backbone.layer1.0.bn1.weight"]
    state["backbone.layer2.0.conv9.weight"] = torch.zeros(3)
    torch.save({"state_dict": state}, tmp_path / "file.pth")
    said = simsiam("import", tmp_path / "file.pth", "--out", tmp_path / "in")
    assert said.code == 2
    assert re.search(r"layer1\.0\.bn1\.weight +missing +64", said.err)
    assert re.search(r"layer2\.0\.conv9\.weight +3 +unexpected", said.err)
    assert "Nothing was loaded" in said.err
    assert not (tmp_path / "in").exists()


def test_an_import_does_not_write_over_a_run(tmp_path: Path, simsiam: Run) -> None:
    saved("plain", tmp_path / "file.pth")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text('{"recipe": {}, "data": {}}')
    said = simsiam("import", tmp_path / "file.pth", "--out", tmp_path / "run")
    assert said.code == 2
    assert "holds what `simsiam pretrain` made, and `simsiam import` writes nothing over it" in said.err
    assert simsiam("import", tmp_path / "file.pth", "--out", tmp_path / "file.pth").code == 2


def test_a_second_import_replaces_the_first(tmp_path: Path, simsiam: Run) -> None:
    saved("official pre-train", tmp_path / "a.pth")
    saved("plain", tmp_path / "b.pth")
    simsiam("import", tmp_path / "a.pth", "--out", tmp_path / "in")
    simsiam("import", tmp_path / "b.pth", "--out", tmp_path / "in")
    assert load_backbone(tmp_path / "in").projector is None
    assert json.loads((tmp_path / "in/import.json").read_text())["format"] == "plain state dict"


def test_an_export_above_the_tolerance_fails(tmp_path: Path, simsiam: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = FORMS["torchvision"]

    def read_wrongly(model: Loaded, path: Path) -> Reader:
        reader = whole.read(model, path)
        return Reader(run=lambda images: reader.run(images) * 1.001, library="a library")

    monkeypatch.setitem(exporting.FORMS, "torchvision", Form(write=whole.write, read=read_wrongly, tolerance=1e-5))
    saved("plain", tmp_path / "file.pth")
    export = ["export", tmp_path / "file.pth", "--out", tmp_path / "out", "--to"]
    assert simsiam(*export, "safetensors").code == 0
    card = (tmp_path / "out/README.md").read_text()
    assert "Its file does not say how it was trained" in card, "nobody said that it was SimSiam"
    shutil.rmtree(tmp_path / "out")
    said = simsiam(*export, "torchvision")
    assert said.code == 2
    assert "differ from ours by 1.0e-03 (tolerance 1e-05)" in said.err
    assert not (tmp_path / "out").exists()


def test_the_zoo_from_the_command_line(tmp_path: Path, simsiam: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMSIAM_CACHE", str(tmp_path / "cache"))
    listed = simsiam("zoo").out
    for card in cards.CARDS:
        assert card.name in listed
        assert card.url in listed
    assert "CC BY-NC 4.0 (no commercial use)" in listed
    assert {each["name"] for each in json.loads(simsiam("zoo", "list", "--format", "json").out)} == {
        card.name for card in cards.CARDS
    }
    assert "| v0.5.0 (this model's release) |" in simsiam("zoo", "show", "mmselfsup-100e-v0.5.0").out
    saved("official pre-train", tmp_path / "mine.pth")
    simsiam("import", tmp_path / "mine.pth", "--out", tmp_path / "mine")
    said = simsiam("zoo", "add", tmp_path / "mine", "--licence", "CC BY 4.0", "--name", "birds")
    assert said.code == 0, said.err
    assert "backbone.safetensors" in said.out
    assert "birds" in simsiam("zoo").out
    assert simsiam("zoo", "show", "birds").out.startswith("---\nlicense: cc-by-4.0\n")
    said = simsiam("export", "birds", "--to", "safetensors", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert (tmp_path / "out/README.md").read_text().startswith("---\nlicense: cc-by-4.0\n")
    assert "Did you mean" in simsiam("zoo", "show", "mmselfsup-100e-v0.5").err
    assert "Did you mean show" in simsiam("zoo", "shw").err


def test_get_verifies_what_was_placed_by_hand(tmp_path: Path, simsiam: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMSIAM_CACHE", str(tmp_path))
    saved("mmselfsup 0.x released", tmp_path / "file.pth")
    digest = hashlib.sha256((tmp_path / "file.pth").read_bytes()).hexdigest()
    card = dataclasses.replace(cards.CARDS[0], url="http://127.0.0.1:9/weights.pth", sha8=digest[:8])
    monkeypatch.setattr(cards, "CARDS", (card,))
    place = cards.place(card)
    said = simsiam("zoo", "get", card.name)
    assert said.code == 2
    assert f"put it at {place}" in said.err
    assert f"Run `simsiam zoo get {card.name}`" in simsiam("export", card.name, "--to", "timm").err
    place.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "file.pth").rename(place)
    said = simsiam("zoo", "get", card.name)
    assert said.code == 0, said.err
    assert digest in said.out
    assert "licence: Apache-2.0" in said.out
    said = simsiam("import", card.name, "--out", tmp_path / "in")
    assert "licence    Apache-2.0" in said.out
    assert "trained on BGR images" in said.out


def test_a_target_that_cannot_hold_it_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    write_backbone(tmp_path, build_backbone("resnet10", width=8, stem="small").eval(), recipe=None)
    source, out = str(tmp_path / "backbone.safetensors"), tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        cli.main(["export", source, "--to", "torchvision", "safetensors", "--out", str(out)])
    assert end.value.code == 2
    assert "64 channels wide" in capsys.readouterr().err
    assert [folder.name for folder in out.iterdir()] == ["safetensors"]
