"""Loading: whole or not at all, our own folders and files, and files that are not what they seem."""

from __future__ import annotations

import json
import os
import pickle
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file

from simsiam.backbones import build_backbone
from simsiam.config import Model, Pretraining, Views, as_dict, command_to_go_on
from simsiam.engine.checkpoints import serialise
from simsiam.errors import UserError
from simsiam.model import SimSiam
from simsiam.weights.load import Loaded, fingerprint, load_backbone
from simsiam.weights.pretrained import load_any
from simsiam.weights.save import write_backbone, write_import
from tests.weights import foreign

VIEWS = Views(
    size=32,
    min_scale=0.2,
    max_scale=1.0,
    jitter_probability=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    grayscale_probability=0.2,
    blur_probability=0.0,
    blur_sigma_min=0.1,
    blur_sigma_max=2.0,
    flip_probability=0.5,
    mean=(0.49, 0.48, 0.45),
    std=(0.2, 0.21, 0.22),
)
MODEL = Model(
    backbone="resnet10",
    width=8,
    stem="small-stride2",
    projector_layers=2,
    projector_hidden=0,
    projector_dim=32,
    predictor="mlp",
    predictor_dim=8,
    stop_gradient="on",
    heads_norm="default",
)
RECIPE = Pretraining(
    name="tiny",
    about="a test",
    data_kind="folder",
    train_images=0,
    model=MODEL,
    views=VIEWS,
    epochs=1,
    batch_size=8,
    base_lr=0.05,
    momentum=0.9,
    weight_decay=1e-4,
    schedule="epoch",
    warmup_epochs=0,
    predictor_lr="fixed",
    similarity="cosine",
    symmetric="on",
    targets="step",
    precision="fp32",
    monitor_images=8,
    monitor_every=1,
    checkpoint_every=1,
    keep_checkpoints=1,
    seed=0,
)


@pytest.fixture
def model() -> SimSiam:
    torch.manual_seed(0)
    return foreign.shake(SimSiam(MODEL))


def checkpoint(model: SimSiam, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(serialise({"recipe": as_dict(RECIPE), "modules": {"model": model.state_dict()}}))
    return path


def same(loaded: Loaded, model: SimSiam) -> None:
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(images), model.backbone(images), rtol=0, atol=0)
    assert loaded.weights.sha256 == fingerprint(model.backbone.state_dict())
    assert loaded.recipe == RECIPE
    assert loaded.preprocess.mean == VIEWS.mean
    assert loaded.preprocess.origin == "recipe"


def test_own_checkpoint_carries_its_recipe_and_stem(model: SimSiam, tmp_path: Path) -> None:
    loaded = load_backbone(checkpoint(model, tmp_path / "best.pt"))
    same(loaded, model)
    fresh = SimSiam(MODEL)
    fresh.projector.load_state_dict(loaded.projector or {})
    fresh.predictor.load_state_dict(loaded.predictor or {})


def test_run_folder_finished(model: SimSiam, tmp_path: Path) -> None:
    checkpoint(model, tmp_path / "checkpoints/step-000000007.pt")
    write_backbone(tmp_path, model.backbone, recipe=RECIPE)
    (tmp_path / "recipe.json").write_text(json.dumps({"recipe": as_dict(RECIPE)}))
    (tmp_path / "result.json").write_text("{}")
    loaded = load_backbone(str(tmp_path))
    same(loaded, model)
    assert loaded.source_format == "run folder"
    assert loaded.projector is not None
    assert loaded.weights.source == str(tmp_path)


def test_run_folder_under_way_gives_the_newest_checkpoint(model: SimSiam, tmp_path: Path) -> None:
    old = SimSiam(MODEL)
    write_backbone(tmp_path, old.backbone, recipe=RECIPE)  # of an earlier, shorter run
    checkpoint(old, tmp_path / "checkpoints/step-000000007.pt")
    checkpoint(model, tmp_path / "checkpoints/step-000000019.pt")
    same(load_backbone(tmp_path), model)


def test_exported_files_stand_alone(model: SimSiam, tmp_path: Path) -> None:
    write_backbone(tmp_path / "a", model.backbone, recipe=RECIPE)
    same(load_backbone(tmp_path / "a/backbone.safetensors"), model)
    plain = load_backbone(tmp_path / "a/backbone.pth", stem="small-stride2")
    assert plain.recipe is None
    assert plain.weights.sha256 == fingerprint(model.backbone.state_dict())
    assert (plain.backbone.name, plain.preprocess.origin) == ("resnet10", "assumed")


def test_import_folder_keeps_heads_and_stem_padding(tmp_path: Path) -> None:
    net = foreign.trio(biased="last", small=2)
    state = foreign.prefixed(net.backbone, "backbone.") | foreign.prefixed(net.projector, "projector.")
    state |= foreign.prefixed(net.predictor, "predictor.") | {"classifier.weight": torch.zeros(2, 512)}
    torch.save({"state_dict": state}, tmp_path / "solo.ckpt")
    first = load_backbone(tmp_path / "solo.ckpt")
    again = load_backbone(write_import(first, tmp_path / "imported"))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(again.backbone(images), net.backbone(images), rtol=1e-6, atol=1e-6)
    assert again.weights.sha256 == first.weights.sha256
    assert again.projector is not None
    assert first.projector is not None
    assert all(torch.equal(again.projector[name], tensor) for name, tensor in first.projector.items())
    assert json.loads((tmp_path / "imported/import.json").read_text())["format"] == "solo-learn"


def test_fingerprint_sees_names_shapes_and_bytes() -> None:
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1)}
    base = fingerprint(state)
    assert base == fingerprint(dict(reversed(state.items())))
    assert base == fingerprint({**state, "a": state["a"].t().contiguous().t()})
    changed = [
        {**state, "a": state["a"].reshape(3, 2)},
        {**state, "a": state["a"].double()},
        {**state, "b": torch.tensor(2)},
        {"a": state["a"], "c": state["b"]},
    ]
    assert len({base, *map(fingerprint, changed)}) == 5
    assert len(fingerprint({"x": torch.ones(2, dtype=torch.bfloat16)})) == 64


def test_loading_draws_no_random_numbers(model: SimSiam, tmp_path: Path) -> None:
    path = checkpoint(model, tmp_path / "c.pt")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_backbone(path)
    assert torch.equal(before, torch.get_rng_state())


def test_misfit_lists_both_sides(tmp_path: Path) -> None:
    state = foreign.resnet().state_dict()
    del state["layer3.1.conv2.weight"]
    state["layer1.0.extra.weight"] = torch.zeros(3)
    state["bn1.bias"] = torch.zeros(32)
    torch.save(state, tmp_path / "f.pth")
    with pytest.raises(UserError) as caught:
        load_backbone(tmp_path / "f.pth")
    rows = {line.split()[0]: line.split()[1:] for line in str(caught.value).splitlines() if line.startswith("  ")}
    assert rows["layer3.1.conv2.weight"] == ["missing", "256x256x3x3"]
    assert rows["layer1.0.extra.weight"] == ["3", "unexpected"]
    assert rows["bn1.bias"] == ["32", "64"]
    assert "3 of 120 tensors" in str(caught.value)
    torch.save(
        {n: t for n, t in state.items() if not n.startswith("layer3.1.bn")}
        | {"conv1.weight": state["bn1.weight"].new_zeros(32, 3, 7, 7)},
        tmp_path / "f.pth",
    )
    with pytest.raises(UserError, match=r"do not fit resnet18 .*\n(.*\n)+.*and \d+ more"):
        load_backbone(tmp_path / "f.pth")


def test_another_network_than_the_file_holds_is_told_in_two_lines(model: SimSiam, tmp_path: Path) -> None:
    torch.save(foreign.resnet().state_dict(), tmp_path / "f.pth")
    write_backbone(tmp_path / "run", model.backbone, recipe=RECIPE)
    for source, it_is, others in (
        (tmp_path / "f.pth", "resnet18", ["resnet34"]),
        (tmp_path / "run", "resnet10", ["resnet34", "timm:resnet50"]),
    ):
        for asked in others:
            with pytest.raises(UserError) as caught:
                load_backbone(source, backbone=asked)
            first, second = str(caught.value).splitlines()
            assert f"{source}: the network in it is {it_is}, but --backbone says {asked}" in first
            assert f"random:{source}" in second
        assert load_backbone(source, backbone=it_is).backbone.name == it_is


def test_three_stages_are_told_from_the_tensors(tmp_path: Path) -> None:
    torch.save(build_backbone("resnet8", width=8).state_dict(), tmp_path / "f.pth")
    assert load_backbone(tmp_path / "f.pth").backbone.name == "resnet8"


@pytest.mark.parametrize("source", ["random", "random:resnet18", "nothing.pth"])
@pytest.mark.parametrize(("asked", "near"), [("resnet99", "resnet50"), ("timm:resnt50", "resnet50")])
def test_a_misspelt_network_is_told_with_its_flag(source: str, asked: str, near: str) -> None:
    with pytest.raises(UserError, match=rf"^--backbone {asked}: .*Did you mean .*{near}"):
        load_any(source, seed=0, backbone=asked)


def test_an_untrained_network_is_a_known_one_or_that_of_weights(model: SimSiam, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"resnet99 is neither a network nor weights.*Did you mean .*resnet50"):
        load_any("random:resnet99", seed=0)
    write_backbone(tmp_path, model.backbone, recipe=RECIPE)
    twin = load_any(f"random:{tmp_path}", seed=5)
    trained = model.backbone.state_dict()
    assert {n: t.shape for n, t in twin.backbone.state_dict().items()} == {n: t.shape for n, t in trained.items()}
    assert not torch.equal(twin.backbone.state_dict()["conv1.weight"], trained["conv1.weight"])


def test_nan_weights_are_refused(tmp_path: Path) -> None:
    state = foreign.resnet().state_dict()
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "f.pth")
    with pytest.raises(UserError, match=r"layer2.0.conv1.weight holds NaN"):
        load_backbone(tmp_path / "f.pth")


def test_half_precision_and_safetensors(tmp_path: Path) -> None:
    net = foreign.resnet()
    halves = {name: t.half() if t.is_floating_point() else t for name, t in net.state_dict().items()}
    save_file(halves, tmp_path / "f.safetensors")
    loaded = load_backbone(tmp_path / "f.safetensors")
    assert loaded.backbone.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(loaded.backbone.conv1.weight, net.conv1.weight, rtol=1e-3, atol=1e-3)


class Hostile:
    """Its pickle calls os.system, as a real attack does."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_hostile_file_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "evil.pkl"
    content = {"state_dict": foreign.resnet().state_dict(), "meta": Hostile(mark)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(UserError, match=r"evil.pkl: refused.*(posix|nt)\.system"):
        load_backbone(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "attack", [b"cbuiltins\neval\n", b"cbuiltins\n__import__\n", b"ctorch\nload\n", b"cos\nsystem\n"]
)
def test_other_callables_are_refused(attack: bytes, tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"\x80\x02" + attack + b"X\x01\x00\x00\x001\x85R.")
    with pytest.raises(UserError, match="refused"):
        load_backbone(path)


def test_looked_up_attributes_are_not_looked_up(tmp_path: Path) -> None:
    # getattr is inert: getattr(OrderedDict, "fromkeys") gives a stand-in, whose call gives another.
    path = tmp_path / "evil.pkl"
    path.write_bytes(
        b"\x80\x02cbuiltins\ngetattr\nccollections\nOrderedDict\nX\x08\x00\x00\x00fromkeys\x86RX\x01\x00\x00\x001\x85R."
    )
    with pytest.raises(UserError, match="no state dict in it"):
        load_backbone(path)


def test_training_frameworks_own_objects_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MMSelfSup 1.x keeps log buffers, a class of its framework with numpy arrays inside, beside the weights."""
    import sys
    import types

    module = types.ModuleType("mmengine")

    class HistoryBuffer:
        def __init__(self) -> None:
            self.history, self.scalar = numpy.arange(3.0), numpy.float64(1)

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = "mmengine", "HistoryBuffer"
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mmengine", module)
    net = foreign.trio()
    state = foreign.prefixed(net.backbone, "backbone.") | foreign.mm_names(net.projector, "neck.")
    torch.save({"state_dict": state, "message_hub": {"log": HistoryBuffer()}}, tmp_path / "f.pth")
    monkeypatch.delitem(sys.modules, "mmengine")
    assert load_backbone(tmp_path / "f.pth").source_format == "MMSelfSup 1.x"


IMPOSTORS = {
    "empty": (b"", "empty"),
    "html": (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page.*Fetch the file again"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML text.*Fetch the file again"),
    "json": (b'{"error": "rate limit"}', "a JSON text.*Fetch the file again"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer.*git lfs pull"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
    "noise": (b"\x00\xfa\xde\xad" + bytes(64), "not a weights file.*begins with"),
    "picture": (b"GIF89a" + bytes(64), "a GIF image"),
    "parquet": (b"PAR1" + bytes(64), "a Parquet table"),
    "gzip": (b"\x1f\x8b\x08" + bytes(64), "a gzip archive .unpack it first"),
    "tar": (b"a.pth".ljust(257, b"\0") + b"ustar" + bytes(64), "a tar archive"),
    "pdf": (b"%PDF-1.7\n", "a PDF document"),
    "text": (b"epoch 1 loss 3.2\n", "a text file"),
    "zeros": (bytes(4096), "zero bytes .*Fetch the file again"),
    "plain zip": (b"PK\x05\x06" + bytes(18), "a zip archive with nothing in it"),
}


@pytest.mark.parametrize("case", IMPOSTORS)
def test_impostors_are_named(case: str, tmp_path: Path) -> None:
    content, message = IMPOSTORS[case]
    path = tmp_path / "checkpoint_0099.pth.tar"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"checkpoint_0099.pth.tar: .*{message}"):
        load_backbone(path)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors", "pickle"])
def test_truncated_files_are_named(form: str, tmp_path: Path) -> None:
    state, path = foreign.resnet().state_dict(), tmp_path / "cut.pth"
    if form == "safetensors":
        save_file(state, path)
    elif form == "pickle":
        path.write_bytes(pickle.dumps({name: tensor.numpy() for name, tensor in state.items()}))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    path.write_bytes(path.read_bytes()[: 3 << 20])
    with pytest.raises(UserError, match=r"cut.pth: (truncated|damaged)"):
        load_backbone(path)


def test_safetensors_whose_length_begins_with_a_brace(tmp_path: Path) -> None:
    header = b'{"__metadata__": {"pad": "' + b"x" * (0x7B - 29) + b'"}}'
    header = header[: 0x7B - 1] + b"}" if len(header) != 0x7B else header
    path = tmp_path / "odd"
    path.write_bytes(struct.pack("<Q", 0x7B) + header.ljust(0x7B))
    with pytest.raises(UserError) as caught:
        load_backbone(path)
    assert "JSON" not in str(caught.value)


def test_torchscript_is_refused(tmp_path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own notice; the file is what is wanted
        torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "s.pt"))
    with pytest.raises(UserError, match=r"s.pt: a TorchScript program"):
        load_backbone(tmp_path / "s.pt")


def test_no_such_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        load_backbone(str(tmp_path / "nothing.pth"))
    with pytest.raises(UserError, match="no run folder"):
        load_backbone(tmp_path)
    run = {"recipe": as_dict(replace(RECIPE, name="x"))}
    (tmp_path / "recipe.json").write_text(json.dumps(run))
    with pytest.raises(UserError, match="no checkpoint in this run folder yet") as error:
        load_backbone(tmp_path)
    assert str(error.value).splitlines()[1:] == [f"  {command_to_go_on(run, tmp_path)}"]


@pytest.mark.parametrize(
    ("run", "command"),
    [
        (
            {"command": ["/bin/simsiam", "pretrain", "my photos", "--out", "r"], "launcher": ""},
            "simsiam pretrain 'my photos' --out r",
        ),
        (
            {"command": ["__main__.py", "pretrain", "x"], "launcher": "torchrun --nproc-per-node 8 -m"},
            "torchrun --nproc-per-node 8 -m simsiam pretrain x",
        ),
        (
            {"command": ["train.py", "x"], "recipe": {"name": "folder", "data_kind": "folder"}},
            "simsiam pretrain DATA --recipe folder --out runs/a",
        ),
        ({"recipe": {"name": "demo", "data_kind": "demo"}}, "simsiam pretrain --recipe demo --out runs/a"),
        ({}, "simsiam pretrain DATA --out runs/a"),
    ],
)
def test_the_command_that_goes_on(run: dict[str, Any], command: str) -> None:
    assert command_to_go_on(run, Path("runs/a")) == command


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"conv1.0.weight": torch.zeros(32, 3, 3, 3)}, "deep stem.*timm:resnet50d"),
        ({"blocks.0.attn.qkv.weight": torch.zeros(3, 3)}, "transformer.*timm:NAME"),
        ({"other.weight": torch.zeros(3, 3)}, "no ResNet in it. Its tensors begin with other.weight"),
        ({"a": 1, "b": "text"}, "no state dict in it .found a dict with a, b"),
    ],
)
def test_files_without_a_resnet(state: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "f.pth")
    with pytest.raises(UserError, match=message):
        load_backbone(tmp_path / "f.pth")


def test_a_depth_that_is_none_of_ours(tmp_path: Path) -> None:
    state = foreign.resnet().state_dict()
    torch.save({n: t for n, t in state.items() if not n.startswith("layer4.1")}, tmp_path / "f.pth")
    with pytest.raises(UserError, match=r"BasicBlock blocks with depths \(2, 2, 2, 1\)"):
        load_backbone(tmp_path / "f.pth")
