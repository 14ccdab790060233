"""scripts/reproduce_page.sh: its commands are ones the program takes, and a dry run on tiny data fills every row."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simsiam.published import MODEL_100E
from simsiam.report.collect import collect
from simsiam.report.layout import PAGE_LAYOUTS
from simsiam.report.tables import build
from tests import commands, page_sets

SCRIPT = Path(__file__).parent.parent / "scripts/reproduce_page.sh"
NAMES = {protocol.replace("_", "-") for layout in PAGE_LAYOUTS for protocol in layout.protocols}


def reproduce(data: Path, runs: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **settings}
    return subprocess.run(
        ["sh", str(SCRIPT), str(data), str(runs)], env=env, capture_output=True, text=True, check=False, timeout=1500
    )


def printed(**settings: str) -> list[str]:
    done = reproduce(Path("data"), Path("runs"), DRY_RUN="1", **settings)
    assert done.returncode == 0, done.stderr
    return [line.removeprefix("+ ") for line in done.stdout.splitlines() if line.startswith("+ ")]


@pytest.mark.parametrize("launch", ["torchrun", "slurm", "plain"])
@pytest.mark.parametrize("size", ["full", "tiny"])
def test_every_command_is_taken(launch: str, size: str) -> None:
    lines = printed(LAUNCH=launch, SIZE=size, FLAGS="--device cpu")
    assert {line: why for line in lines if (why := commands.refuse(line))} == {}
    assert set(re.findall(r"evaluate (\S+)", "\n".join(lines))) == NAMES
    assert "pretrain data/imagenet" in lines[0]
    assert len(lines) == 1 + len(NAMES) + 3


def test_the_published_settings_are_not_touched() -> None:
    flags = {word for line in printed() for word in line.split() if word.startswith("--")}
    assert flags == {"--nproc-per-node", "--recipe", "--out", "--data"}


def test_jobs_wait_for_those_they_need() -> None:
    lines = printed(LAUNCH="slurm", PARTITION="gpu", GPUS="4")
    assert "--after" not in lines[0]
    assert all("--after JOB1 --" in line for line in lines[1:-3])
    everything = " ".join(f"JOB{number}" for number in range(1, 2 + len(NAMES)))
    assert all(f"--after {everything}" in line for line in lines[-3:])
    assert all("--partition gpu" in line for line in lines)


def test_the_numbers_of_the_jobs_are_read_from_what_submit_prints(tmp_path: Path) -> None:
    tool = tmp_path / "simsiam"
    tool.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n'
        f'echo "job $((400 + $(wc -l < {tmp_path}/asked))): what was asked"\necho "output: somewhere"\n'
    )
    tool.chmod(0o755)
    (tmp_path / "data/imagenet").mkdir(parents=True)
    done = reproduce(tmp_path / "data", tmp_path, LAUNCH="slurm", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.split(" -- ")[1].split()[0] for line in asked] == [
        "pretrain",
        *["evaluate"] * 3,
        "report",
        "zoo",
        "zoo",
    ]
    assert [re.findall(r"--after ([\d ]+) --", line) for line in asked] == [
        [],
        *[["401"]] * 3,
        *[["401 402 403 404"]] * 3,
    ]


def test_sets_that_are_absent_are_skipped_and_a_failure_is_told(tmp_path: Path) -> None:
    """`simsiam` stands for a program that fails on one set only."""
    tool = tmp_path / "simsiam"
    tool.write_text('#!/bin/sh\ncase "$*" in *places205*) exit 2 ;; *pretrain*) exit 4 ;; esac\n')
    tool.chmod(0o755)
    for folder in ("imagenet", "Places205", "VOCdevkit"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    done = reproduce(tmp_path / "data", tmp_path, LAUNCH="plain", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert "failed: places205 (mend it and give the same command again)" in done.stderr
    assert "collapsed in part" in done.stderr
    assert f"detection-coco: no {tmp_path}/data/coco" in done.stdout
    assert "+ simsiam zoo page" in done.stdout, "the page is written all the same"
    tool.write_text('#!/bin/sh\ncase "$*" in *evaluate*) exit 130 ;; esac\n')
    done = reproduce(tmp_path / "data", tmp_path, LAUNCH="plain", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 130
    assert done.stdout.count("evaluate") == 1, "an interruption stops it"
    tool.write_text("#!/bin/sh\nexit 3\n")
    done = reproduce(tmp_path / "data", tmp_path, LAUNCH="plain", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 3, "nothing is measured on a collapsed network"


@pytest.mark.slow
def test_the_whole_of_it_on_tiny_data(tmp_path: Path) -> None:
    data, runs = page_sets.write(tmp_path / "data"), tmp_path / "runs"
    settings = {"LAUNCH": "plain", "SIZE": "tiny", "FLAGS": f"--device cpu --workers 0 --cache {tmp_path / 'cache'}"}
    done = reproduce(data, runs, **settings)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "skipped" not in done.stdout
    page = (runs / "model_zoo.md").read_text()
    assert (runs / "model_zoo.html").stat().st_size > 10_000
    assert {path.suffix for path in (runs / "tables").iterdir()} >= {".md", ".html", ".csv", ".tex", ".png"}
    for table in build(collect([runs]), which="all")[: len(PAGE_LAYOUTS)]:
        rows = [row for row in table.rows if row.origin == "ours"]
        assert [row.model for row in rows] == [MODEL_100E], table.title
        assert all(cell.value is not None or cell.word for cell in rows[0].cells), table.title
        assert not rows[0].comparable, "tiny data never passes for the published set"
        assert f"| {MODEL_100E} | ours | {rows[0].data} † |" in page
    assert "semi_supervised" in {one.result.protocol for one in collect([runs])}
    assert "torchrun --nproc-per-node 8 -m simsiam pretrain" in page, "the published run is still to do"

    before = {path: path.stat().st_mtime_ns for path in runs.rglob("evaluations/*/result.json")}
    assert len(before) == len(NAMES) + 2
    again = reproduce(data, runs, **settings)
    assert again.returncode == 0, again.stderr[-3000:]
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing is measured twice"
