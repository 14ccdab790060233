"""The command line's own manners, and what the README says of the project."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simsiam import cli
from simsiam.recipes.pretrain import RECIPES

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("verb", ["", *cli.VERBS])
def test_help_imports_no_torch(verb: str) -> None:
    program = (
        "import sys; from simsiam.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    arguments = [verb, "--help"] if verb else ["--help"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_readme_lists_every_verb_and_only_those() -> None:
    listed = set(re.findall(r"^\| `simsiam (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert listed == set(cli.VERBS)


def test_the_readme_file_map_is_true() -> None:
    text = (ROOT / "README.md").read_text()
    listed = re.findall(r"^\| `((?:simsiam|benchmarks)/[\w/.]*)`", text, re.MULTILINE)
    assert len(listed) > 10
    assert [name for name in listed if not (ROOT / name).exists()] == []
    packages = {f"simsiam/{path.parent.name}/" for path in (ROOT / "simsiam").glob("*/__init__.py")}
    assert packages <= set(listed)


def test_links_in_the_documents_lead_somewhere() -> None:
    broken = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_show_prints_every_field(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["show", name])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for flag in ("epochs", "base-lr", "model.projector-dim", "views.min-scale", "predictor-lr", "seed"):
        assert re.search(rf"^{re.escape(flag)} +\S", shown, re.MULTILINE), flag


PUBLISHED = {
    "resnet50_8xb32-coslr-100e": {"epochs": 100, "batch_size": 256, "lr": 0.05, "weight_decay": 1e-4},
    "resnet50_8xb32-coslr-200e": {"epochs": 200, "batch_size": 256, "lr": 0.05, "weight_decay": 1e-4},
    "resnet50_official-b512-100e": {"epochs": 100, "batch_size": 512, "lr": 0.1, "weight_decay": 1e-4},
    "cifar10": {"epochs": 800, "batch_size": 512, "lr": 0.06, "weight_decay": 5e-4},
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_recipes(name: str) -> None:
    recipe = RECIPES[name]()
    for field, value in PUBLISHED[name].items():
        assert getattr(recipe, field) == pytest.approx(value), field
    assert recipe.predictor_lr == "fixed"
    assert recipe.schedule == "epoch"
    assert recipe.warmup_epochs == 0
    assert (recipe.model.projector_dim, recipe.model.predictor_dim) == (2048, 512)
    views = recipe.views
    assert (views.min_scale, views.jitter_probability, views.grayscale_probability) == (0.2, 0.8, 0.2)
    assert (views.brightness, views.contrast, views.saturation, views.hue) == (0.4, 0.4, 0.4, 0.1)
    assert views.blur_probability == (0.0 if name == "cifar10" else 0.5)


def test_published_parameter_counts() -> None:
    from simsiam.model import SimSiam

    network = SimSiam(RECIPES["resnet50_8xb32-coslr-100e"]().model)
    counts = [sum(p.numel() for p in part.parameters()) for part in (network.backbone, network.projector)]
    assert counts == [23_508_032, 12_591_104]
    assert sum(p.numel() for p in network.parameters()) == 38_199_360


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (
            errno.EACCES,
            "simsiam: /there/it: Permission denied. Give yourself the right to it, or name another place.\n",
        ),
        (errno.ENOTDIR, "simsiam: /there/it: Not a directory. A file stands where a folder should be."),
        (errno.ENOSPC, "simsiam: /there/it: No space left on device. Free some space;"),
    ],
)
def test_what_the_disk_refuses_is_told_without_a_traceback(
    number: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(arguments: list[str]) -> int:
        raise OSError(number, os.strerror(number), "/there/it")

    monkeypatch.setattr(cli, "run", refuses)
    with pytest.raises(SystemExit) as stop:
        cli.main(["predict"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(told)


def test_other_failures_of_the_system_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(arguments: list[str]) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(cli, "run", fails)
    with pytest.raises(OSError, match="Bad file"):
        cli.main(["predict"])
