"""`simsiam evaluate` from words to rows: every classification protocol on tiny data in the real layouts."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from simsiam import cli, evaluate, load_backbone
from simsiam.backbones import build_backbone
from simsiam.config import Machine
from simsiam.data.classification.torchvision_sets import known_set
from simsiam.errors import UserError
from simsiam.protocols import PROTOCOLS
from simsiam.recipes import classification
from simsiam.report.collect import collect
from simsiam.report.plots import bars_by_stage, draw, write_plots
from simsiam.results import Result
from simsiam.weights.save import write_backbone
from tests import tiny, tiny_voc, trees
from tests.processes import Forked, launch, program

HEADS = "--epochs 2 --batch-size 8 --resize 36 --test-resize 36 --size 32".split()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A narrow ResNet-10 whose features differ from image to image."""
    torch.manual_seed(0)
    backbone = build_backbone("resnet10", width=8, stem="small")
    for part in backbone.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(part.weight)
    with torch.no_grad():
        backbone.train()(torch.rand(64, 3, 32, 32))
    folder = tmp_path_factory.mktemp("weights")
    write_backbone(folder, backbone.eval(), recipe=None)
    return str(folder / "backbone.safetensors")


@pytest.fixture
def machine(tmp_path: Path) -> list[str]:
    return ["--device", "cpu", "--workers", "0", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    """The flags of a user's own labelled folders."""
    train = tiny.folder(tmp_path / "own" / "train", classes=3, images=9)
    test = tiny.folder(tmp_path / "own" / "test", classes=3, images=4)
    return ["--train", str(train), "--test", str(test)]


def simsiam(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", *arguments])
    return int(end.value.code or 0)


def predicted(tmp_path: Path, photos: str) -> list[dict[str, str]]:
    """The surest class of each photo, by `simsiam predict` with the classifier of the evaluation's folder."""
    with pytest.raises(SystemExit) as end:
        cli.main(["predict", str(tmp_path / "out"), photos, "--out", str(tmp_path / "seen"), "--device", "cpu"])
    assert end.value.code == 0
    rows = list(csv.DictReader((tmp_path / "seen" / "predictions.csv").read_text().splitlines()))
    assert [float(row["score"]) for row in rows[:2]] == sorted((float(row["score"]) for row in rows[:2]), reverse=True)
    return list({row["image"]: row for row in reversed(rows)}.values())


def result(tmp_path: Path) -> Result:
    return Result.read(tmp_path / "out" / "result.json")


def test_help_of_each_name_imports_no_torch() -> None:
    script = (
        "import sys; from simsiam.cli import main\n"
        "for name in sys.argv[1:]:\n"
        "    try: main(['evaluate', name, '--help'])\n"
        "    except SystemExit as end: assert not end.code, (name, end.code)\n"
        "    assert 'torch' not in sys.modules, name"
    )
    names = sorted(PROTOCOLS)
    done = subprocess.run([sys.executable, "-c", script, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--device") >= len(names)


def test_knn_on_folders(
    weights: str, machine: list[str], own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simsiam("knn", weights, *own, *machine) == 0
    said = capsys.readouterr()
    assert "to suit data and weights: k 10 20\n" in said.err
    assert "| k=20" in said.out
    found = result(tmp_path)
    assert set(found.metrics) == {"top1_k10", "top1_k20"}
    assert found.weights == load_backbone(weights).weights
    assert found.data.images == 39

    # the same again costs nothing, other settings are not written over it, unless asked
    assert simsiam("knn", weights, *own, *machine) == 0
    assert result(tmp_path).created == found.created
    assert simsiam("knn", weights, *own, *machine, "--k", "1", "3", "--quoted-k", "1") == 2
    assert "holds a result with other settings" in capsys.readouterr().err
    assert simsiam("knn", weights, *own, *machine, "--k", "1", "3", "--quoted-k", "1", "--again") == 0
    assert set(result(tmp_path).metrics) == {"top1_k1", "top1_k3"}


def test_where_nothing_can_be_written_a_result_is_still_printed(
    weights: str,
    machine: list[str],
    own: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    shutil.copytree(Path(weights).parent, run)
    words = [str(run), *own, *machine[: machine.index("--out")]]
    assert simsiam("knn", *words) == 0
    said = capsys.readouterr().out
    assert ", measured now\n" in said
    (out,) = (run / "evaluations").glob("knn-*")
    before = (out / "report.html").read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(run))

    monkeypatch.setattr("simsiam.results.tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("simsiam.report.evaluation_page.write_atomic", refuse)
    assert simsiam("knn", *words) == 0
    again = capsys.readouterr().out
    assert "read from the result of " in again
    assert again.splitlines()[1:] == said.splitlines()[1:]
    assert (out / "report.html").read_bytes() == before
    for changed in (["--again"], ["--seeds", "3", "4"]):  # what would have to be written is refused as ever
        with monkeypatch.context() as patched:
            patched.setattr("simsiam.evaluation.classification.knn.Knn.score", lambda *_, **__: pytest.fail("measured"))
            assert simsiam("knn", *words, *changed) == 2
        assert "Read-only file system). Give another --out." in capsys.readouterr().err
    (out / "report.html").unlink()
    assert simsiam("knn", *words) == 0
    last = capsys.readouterr().out
    assert last.splitlines()[1:] == [line for line in said.splitlines()[1:] if not line.startswith("report:")]


def test_knn_agrees_with_scikit_learn(weights: str, machine: list[str], own: list[str], tmp_path: Path) -> None:
    assert simsiam("knn", weights, *own, *machine, "--k", "1", "--quoted-k", "1") == 0
    arrays = {}
    for folder in (tmp_path / "cache" / "features").iterdir():
        rows = np.load(folder / "pooled.npy")
        arrays[len(rows)] = rows
    search = NearestNeighbors(n_neighbors=1, metric="cosine").fit(arrays[27])
    nearest = search.kneighbors(arrays[12], return_distance=False)[:, 0]
    expected = 100 * np.mean(np.arange(27)[nearest] // 9 == np.arange(12) // 4)  # sorted by class
    assert result(tmp_path).metrics["top1_k1"] == pytest.approx(expected)


def test_several_weights_and_seeds_make_one_table(
    weights: str, machine: list[str], own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"random:{weights}", *own, *machine, "--k", "5", "--quoted-k", "5", "--seeds", "0", "1"]
    assert simsiam("knn", weights, *arguments) == 0
    out = capsys.readouterr().out
    assert len(list((tmp_path / "out").glob("*/seed*/result.json"))) == 4
    assert "top1_k5" in out or "k=5" in out
    assert "backbone.safetensors, untrained" in out
    random = [Result.read(path) for path in (tmp_path / "out").glob("random*/seed*/result.json")]
    assert len({each.weights.sha256 for each in random}) == 2, "each seed draws its own untrained network"


def test_svm_and_low_shot_on_a_voc_tree(
    weights: str, machine: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tiny_voc.tree(tmp_path / "voc")
    assert (
        simsiam("svm-voc07", weights, "--data", str(tree), *machine, "--costs", "0.01", "1", "--batch-size", "8") == 0
    )
    found = result(tmp_path)
    assert {*found.metrics} == {*(f"feature{n}" for n in range(1, 6)), "best"}
    assert found.metrics["best"] == max(found.metrics.values())
    assert found.detail["best_layer"] in capsys.readouterr().out
    _report(tmp_path)
    low_shot = ["low-shot-voc07", weights, "--data", str(tree), "--k", "1", "2", "--costs", "0.01", "1"]
    assert simsiam(*low_shot, *machine, "--again") == 0
    assert set(result(tmp_path).metrics) == {"k1", "k2"}
    assert "chosen on the training images that the samples left out" in capsys.readouterr().out
    published = [*low_shot, "--recipe", "low_shot_voc07_published", *machine, "--again"]
    assert simsiam(*published) == 0
    assert result(tmp_path).recipe["sampling"] == "unseeded"
    assert "chosen on the test set" in capsys.readouterr().out


def _report(tmp_path: Path) -> None:
    """Tables in every format, and the bars by stage."""
    with pytest.raises(SystemExit) as end:
        cli.main(["report", str(tmp_path / "out"), "--out", str(tmp_path / "tables")])
    assert not end.value.code
    names = {file.name for file in (tmp_path / "tables").iterdir()}
    assert {f"tables.{ending}" for ending in ("md", "html", "csv", "tex")} <= names
    assert "svm-by-stage.png" in names
    assert "published" not in (tmp_path / "tables" / "tables.md").read_text(), "these are not the images of VOC2007"


def test_svm_on_csv_files(weights: str, machine: list[str], tmp_path: Path) -> None:
    for split, count in (("train", 24), ("test", 12)):
        lines = []
        for n in range(count):
            tiny.shape(tiny.SHAPES[n % 3], seed=n, size=32).save(tmp_path / f"{split}{n}.png")
            lines.append(f"{split}{n}.png,{tiny.SHAPES[n % 3]}" + (";third" if n % 4 == 0 else ""))
        (tmp_path / f"{split}.csv").write_text("\n".join(lines))
    files = ["--train", str(tmp_path / "train.csv"), "--test", str(tmp_path / "test.csv")]
    assert simsiam("svm-voc07", weights, *files, *machine, "--recipe", "svm_pooled", "--costs", "1") == 0
    assert set(result(tmp_path).detail["per_class"]["pooled"]) == {*tiny.SHAPES, "third"}
    assert write_plots(draw(collect([tmp_path / "out"])), tmp_path / "plots") == [], "nothing by stage to draw"


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("linear-mhead", trees.imagenet),
        ("inaturalist2018", trees.inaturalist),
        ("places205", trees.places205),
    ],
)
def test_five_heads_on_each_layout(name: str, make: object, weights: str, machine: list[str], tmp_path: Path) -> None:
    root = make(tmp_path / "set")  # type: ignore[operator]
    recipe = ["--recipe", "resnet50_mhead_8xb32-steplr-90e"] if name == "linear-mhead" else []
    assert simsiam(name, weights, "--data", str(root), *machine, *recipe, *HEADS) == 0
    found = result(tmp_path)
    assert found.protocol == name.replace("-", "_")
    assert {f"feature{n}" for n in range(1, 6)} <= set(found.metrics)
    assert found.detail["trunk"] == "unchanged"
    assert found.recipe["name"].startswith("resnet50_mhead_8xb32-steplr")


def test_a_backbone_of_four_maps(machine: list[str], own: list[str], tmp_path: Path) -> None:
    assert simsiam("linear-mhead", "random:resnet8", *own, *machine, *HEADS) == 0
    found = result(tmp_path)
    assert found.main_metric == "feature4"
    assert "feature5" not in found.metrics
    figure = bars_by_stage(collect([tmp_path / "out"]), protocol="linear_mhead", title="stages", unit="%")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [f"Feature{n}" for n in range(1, 5)]
    assert simsiam("linear-mhead", "random:resnet8", *own, *machine, *HEADS, "--stages", "3", "--again") == 2
    few = ["--k", "1", "--costs", "1", "--size", "32"]
    assert simsiam("low-shot-voc07", "random:resnet8", *own, *machine, *few, "--again") == 0
    assert result(tmp_path).recipe["layer"] == "feature4"


@pytest.mark.parametrize(
    "recipe", ["resnet50_8xb512-coslr-90e_in1k", "lincls-sgd-4096-90e_in1k", "resnet50_8xb32-steplr-100e_in1k"]
)
def test_avgpool_recipes(recipe: str, weights: str, machine: list[str], tmp_path: Path) -> None:
    root = trees.imagenet_lists(trees.imagenet(tmp_path / "imagenet"))
    arguments = ["--data", str(root), *machine, "--recipe", recipe, *HEADS]
    assert simsiam("linear-avgpool", weights, *arguments) == 0
    assert result(tmp_path).recipe["name"] == f"{recipe} (epochs 2, batch-size 8, resize 36, test-resize 36)"
    assert result(tmp_path).recipe["schooling"]["optimisation"]["epochs"] == 2


def test_semi_supervised_on_a_list(weights: str, machine: list[str], tmp_path: Path) -> None:
    root = trees.imagenet(tmp_path / "imagenet")
    grid = ["--lrs", "0.01", "--head-multipliers", "1", "10", "--part", str(root / "10pct.txt")]
    assert simsiam("semi-supervised", weights, "--data", str(root), *grid, *machine, *HEADS) == 0
    assert result(tmp_path).detail["train_images"] == 6
    assert len(result(tmp_path).detail["grid"]) == 2


def test_probe_few_labels_clustering_and_retrieval(
    weights: str, machine: list[str], own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simsiam("probe", weights, *own, *machine, "--epochs", "3") == 0
    assert {"sweep", "chosen", "confusion"} <= set(result(tmp_path).detail)
    right = np.mean([row["class"] == Path(row["image"]).parent.name for row in predicted(tmp_path, own[3])])
    assert 100 * right == pytest.approx(result(tmp_path).metrics["top1"])
    assert simsiam("retrieval", weights, *own, *machine, "--again") == 0
    assert set(result(tmp_path).metrics) == {"recall_at_1", "recall_at_5", "recall_at_10"}
    labels = tmp_path / "labels.csv"
    files = sorted((tmp_path / "own" / "test").rglob("*.jpg"))
    labels.write_text("path,label\n" + "".join(f"{file},{file.parent.name}\n" for file in files))
    assert simsiam("few-labels", weights, "--data", str(labels), *machine, "--again", "--costs", "1") == 0
    metrics = result(tmp_path).metrics
    assert metrics["top1_low"] <= metrics["top1"] <= metrics["top1_high"]
    assert {row["class"] for row in predicted(tmp_path, own[3])} <= set(tiny.SHAPES)
    assert simsiam("clustering", weights, "--data", own[3], *machine, "--again") == 0
    assert -1 <= result(tmp_path).metrics["ari"] <= 1
    assert "NMI" in capsys.readouterr().out


def test_fashion_mnist_files(weights: str, machine: list[str], tmp_path: Path) -> None:
    import gzip
    import struct

    folder = tmp_path / "fashion"
    folder.mkdir()
    written = {}
    for split, count in (("train", 40), ("t10k", 20)):
        images = tiny.pixels(count, size=28, seed=len(split))[:, :, :, 0]
        labels = (np.arange(count) % 10).astype(np.uint8)
        written[split] = images
        head = struct.pack(">HBBIII", 0, 8, 3, count, 28, 28)
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, count) + labels.tobytes())
    source = known_set("fashion-mnist", folder, cache=tmp_path, split="test")
    assert np.array_equal(np.asarray(source.read(3)), np.repeat(written["t10k"][3][:, :, None], 3, 2))
    assert source.classes is not None
    assert source.classes[source.labels[7]] == "sneaker"  # type: ignore[index]
    assert simsiam("knn", weights, "--data", str(folder), *machine, "--k", "5", "--quoted-k", "5") == 0
    assert result(tmp_path).data.name == "fashion-mnist"
    (folder / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x14\0")
    assert simsiam("knn", weights, "--data", str(folder), *machine) == 2


def test_interrupted_and_resumed_it_is_the_same_run(weights: str, machine: list[str], tmp_path: Path) -> None:
    root = trees.imagenet(tmp_path / "imagenet")
    flags = ["--data", str(root), "--epochs", "40", *HEADS[2:], "--evaluate-every", "40", "--device", "cpu"]
    flags += ["--workers", "0", "--checkpoint-minutes", "0.0001"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = ["evaluate", "linear-mhead", weights, *flags, "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = Forked([*command, broken], env=environment)
    deadline = time.monotonic() + 120
    while not list((broken / "checkpoints").glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert not (broken / "result.json").exists()
    for out, start in ((broken, Forked), (whole, program)):
        ended = start([*command, out], env=environment)
        said, _ = ended.communicate(timeout=300)
        assert ended.returncode == 0, said
    assert Result.read(broken / "result.json").metrics == Result.read(whole / "result.json").metrics
    last = [sorted((out / "checkpoints").glob("step-*"))[-1] for out in (broken, whole)]
    heads = [torch.load(path, weights_only=True)["modules"]["network"] for path in last]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])


def test_two_processes_give_the_numbers_of_one(weights: str, tmp_path: Path) -> None:
    root = trees.imagenet(tmp_path / "imagenet")
    rest = ["--device", "cpu", "--workers", "0", "--cache", str(tmp_path / "cache")]
    found = {}
    for world in (1, 2):
        for name, flags in (("linear-avgpool", HEADS), ("knn", ["--k", "5", "--quoted-k", "5"])):
            out = tmp_path / f"{name}{world}"
            done = launch(
                ["evaluate", name, weights, "--data", str(root), *flags, *rest, "--out", str(out)], world=world
            )
            assert done.returncode == 0, done.stdout
            found[name, world] = Result.read(out / "result.json").metrics
    assert found["knn", 1] == found["knn", 2]
    assert found["linear-avgpool", 1] == pytest.approx(found["linear-avgpool", 2])


def test_all_runs_what_it_can_and_says_what_it_cannot(
    weights: str, own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    tiny_voc.tree(root / "VOCdevkit")
    arguments = [weights, "--root", str(root), *own, "--skip", "probe", "linear-avgpool", "linear-mhead"]
    arguments += ["low-shot-voc07", "--device", "cpu", "--workers", "0", "--cache", str(tmp_path / "cache")]
    assert simsiam("all", *arguments, "--out", str(tmp_path / "all")) == 0
    said = capsys.readouterr().out
    assert f"skipped: knn: no {root / 'imagenet'}" in said
    assert "skipped: semi-supervised: ImageNet and --one-percent LIST" in said
    protocols = {Result.read(path).protocol for path in (tmp_path / "all").rglob("result.json")}
    assert protocols == {"svm_voc07", "knn", "retrieval"}

    (before,) = (tmp_path / "all").glob("knn-*/result.json")
    earlier = before.read_bytes()
    (Path(own[1]) / "circle" / "000.jpg").rename(tmp_path / "moved.jpg")  # other data: measured anew
    assert simsiam("all", *arguments, "--out", str(tmp_path / "all")) == 0
    assert "measured again" in capsys.readouterr().err
    (kept,) = before.parent.glob("result-*.json")
    assert kept.read_bytes() == earlier
    assert Result.read(before).data != Result.read(kept).data


def test_the_same_from_python(weights: str, machine: list[str], own: list[str], tmp_path: Path) -> None:
    assert simsiam("knn", weights, *own, *machine) == 0
    by_command = result(tmp_path)
    here = Machine(device="cpu", workers=0, cache=tmp_path / "cache")
    by_call = evaluate("knn", weights, train=own[1], test=Path(own[3]), machine=here)
    assert by_call.metrics == by_command.metrics
    assert by_call.recipe["k"] == [10, 20]
    few = replace(classification.knn(32), k=(3,), quoted_k=3)
    assert set(evaluate("knn", weights, train=own[1], test=own[3], recipe=few, machine=here).metrics) == {"top1_k3"}
    with pytest.raises(UserError, match="Did you mean knn"):
        evaluate("knnn", weights, data="cifar10")


def test_every_public_name_is_what_it_says() -> None:
    import simsiam as package

    for name in package.__all__:
        assert callable(getattr(package, name)) or name == "__version__", name
    assert callable(package.pretrain), "a module of the same name must not stand before it"


def _voc(tmp_path: Path) -> Path:
    return tiny_voc.tree(tmp_path / "voc")


def test_bad_input_is_a_clear_error(
    weights: str, machine: list[str], own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        assert simsiam(*arguments, *machine) == 2
        return capsys.readouterr().err

    assert "Did you mean knn" in refused("knnn", weights, *own)
    assert "name the weights" in refused("knn", *own)
    assert "say which data" in refused("knn", weights)
    assert "not both" in refused("knn", weights, *own, "--data", "cifar10")
    assert "Did you mean" in refused("linear-avgpool", weights, *own, "--recipe", "resnet50_8xb512-coslr-90")
    assert "no such folder" in refused("knn", weights, "--data", str(tmp_path / "nothing"))
    assert "no data set that is known by its layout" in refused("knn", weights, "--data", own[1])
    assert "--part" in refused("knn", weights, *own, "--part", "x.txt"), "only semi-supervised has it"

    tree = _voc(tmp_path)
    assert "use svm-voc07" in refused("knn", weights, "--data", str(tree))
    one = tiny.folder(tmp_path / "one" / "x", classes=1, images=3)
    assert "not a labelled folder" in refused("knn", weights, "--train", own[1], "--test", str(one))
    (tree / "ImageSets" / "Main" / "red_test.txt").write_text("000061  1\n")
    assert "disagrees with test.txt" in refused("svm-voc07", weights, "--data", str(tree))
    for file in (tree / "ImageSets" / "Main").glob("*_*.txt"):
        file.unlink()
    (tree / "Annotations" / "000061.xml").unlink()
    assert "1 of 40 images has no annotation" in refused("svm-voc07", weights, "--data", str(tree))
    (tree / "Annotations" / "000061.xml").write_text(tiny_voc.annotation(np.array([1, 0, 0])).replace("blue", "mauve"))
    assert "unknown class 'mauve'" in refused("svm-voc07", weights, "--data", str(tree))


def test_bad_weights_are_a_clear_error(
    weights: str, machine: list[str], own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_backbone(weights)
    state = loaded.backbone.state_dict()
    state["layer4.0.conv1.weight"][0] = float("nan")
    broken = tmp_path / "nan"
    write_backbone(broken, loaded.backbone, recipe=None)
    for name in ("knn", "svm-voc07", "clustering"):
        data = ["--data", own[3]] if name == "clustering" else own
        assert simsiam(name, str(broken / "backbone.safetensors"), *data, *machine) == 2
        assert "NaN" in capsys.readouterr().err
    del state["layer3.0.bn1.bias"]
    torch.save(state, tmp_path / "short.pth")
    assert simsiam("knn", str(tmp_path / "short.pth"), *own, *machine) == 2
    assert "layer3.0.bn1.bias" in capsys.readouterr().err
