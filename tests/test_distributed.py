"""Two processes with gloo on the CPU: the run agrees with one process where BatchNorm allows it, and it resumes."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from simsiam.cli import run
from simsiam.engine import distributed
from simsiam.engine.distributed import launcher, per_device_batch
from simsiam.errors import UserError
from simsiam.results import Result, read_json, read_metrics
from tests.processes import Forked, launch, ranks

NETWORK = (
    "--views.size 16 --model.stem small-stride2 --model.width 8 --model.backbone resnet8 --model.projector-layers 2 "
    "--model.projector-hidden 0 --model.projector-dim 32 --model.predictor-dim 8 --device cpu --workers 0 "
    "--epochs 2 --batch-size 16"
).split()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    root.mkdir()
    rng = np.random.default_rng(0)
    for n in range(72):
        low = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(low).resize((24, 24), Image.Resampling.BICUBIC).save(root / f"{n:03d}.png")
    return root


def test_two_processes_train_as_one_run(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "two"
    done = launch(["pretrain", str(photos), *NETWORK, "--out", str(out)], world=2)
    assert done.returncode in (0, 4), done.stdout
    result = Result.read(out / "result.json")
    assert result.detail["verdict"]["status"] == "too early to say"
    rows = [row for row in read_metrics(out / "metrics.jsonl") if row["kind"] == "step"]
    assert read_json(out / "recipe.json")["launcher"] == "torchrun --nproc-per-node 2 -m"
    assert rows[-1]["step"] == 2 * (65 // 16), "the global batch is 16 whatever the number of processes"

    one = tmp_path / "one"
    alone = launch(["pretrain", str(photos), *NETWORK, "--out", str(one)], world=1)
    assert alone.returncode in (0, 4), alone.stdout
    lr_two = [row["lr"] for row in rows]
    lr_one = [row["lr"] for row in read_metrics(one / "metrics.jsonl") if row["kind"] == "step"]
    assert lr_two == lr_one
    states = [torch.load(sorted((p / "checkpoints").glob("step-*"))[-1], weights_only=True) for p in (one, out)]
    first, second = (state["modules"]["model"]["backbone.conv1.weight"] for state in states)
    assert torch.nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0) > 0.99


def test_what_one_process_measures_is_not_measured_by_all(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for n in range(6):
            place = tmp_path / "set" / label / f"{n}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (40 * n, 200 if label == "a" else 20, 90)).save(place)
    images = str(tmp_path / "set")
    words = ["evaluate", "knn", "random", "--train", images, "--test", images, "--backbone", "resnet10", "--k", "1"]
    out = tmp_path / "out"
    done = launch([*words, "--size", "16", "--device", "cpu", "--workers", "0", "--out", str(out)], world=2)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("knn is measured by one process; the others end here.") == 1
    assert done.stdout.count("-> ") == 1
    assert Result.read(out / "result.json").metrics["top1_k1"] == 100


TWO_GROUPS = """
import os, signal, time, torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from simsiam.engine.distributed import any_process, processes
from simsiam.errors import UserError

def meet():
    for number in range(3):
        with processes("cpu") as process:
            assert any_process(process.is_main, process.device)
        if process.is_main:
            time.sleep(1)  # it writes its results while the other one goes on
    begun = os.environ["TORCHELASTIC_RESTART_COUNT"]
    try:
        with processes("cpu") as process:
            if begun == "0" and not process.is_main:
                os.kill(os.getpid(), signal.SIGKILL)
            any_process(True, process.device)
    except UserError as error:
        print(error, flush=True)
        raise
    print(f"all met, start {begun}\\n", end="", flush=True)

standalone = {"min_nodes": 1, "max_nodes": 1, "rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}
agent = LaunchConfig(**standalone, nproc_per_node=2, max_restarts=1, start_method="fork", monitor_interval=0.1)
elastic_launch(agent, meet)()
"""


def test_processes_of_torchrun_meet_again_for_a_second_training_and_after_one_was_killed() -> None:
    """By torchrun's own agent, forked as its processes are."""
    agent = Forked([], env={**os.environ, "OMP_NUM_THREADS": "1"}, code=TWO_GROUPS)
    said, _ = agent.communicate(timeout=120)
    assert agent.returncode == 0, said
    assert said.count("all met, start 1") == 2


def test_a_process_that_lost_another_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(distributed, "_join", lambda backend: None)
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: None)
    for raised, seen in (
        (RuntimeError("[gloo/transport/tcp/pair.cc:545] Connection reset by peer"), UserError),
        (torch.distributed.DistBackendError("NCCL communicator was aborted"), UserError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RuntimeError),
    ):
        with pytest.raises(seen) as met, distributed.processes("cpu"):
            raise raised
        assert ("process 1 of this machine lost another one of this run" in str(met.value)) == (seen is UserError)


SLOWED = """
import os, time, torch, torch.distributed as dist
from simsiam.config import Model
from simsiam.engine.distributed import processes
from simsiam.model import SimSiam
from simsiam.pretraining import estimate

estimate.LONG_ENOUGH = 0.5
tiny = dict(width=4, stem="small", projector_layers=1, projector_hidden=0, projector_dim=4, predictor_dim=2)
steps = 0

def step(network, batch, update):
    global steps
    steps += 1
    dist.all_reduce(torch.ones(1))  # as SyncBatchNorm does in every forward pass
    return {}

with processes("cpu") as process:
    time.sleep(1.5 * process.rank)  # a rank that comes late, where the other's clock runs already
    network = SimSiam(Model(backbone="resnet8", predictor="mlp", stop_gradient="on", heads_norm="default", **tiny))
    batches = iter([0] * 4)
    found = estimate.measure(network, batches, step, images=8, steps_per_epoch=4, epochs=1, device=process.device)
    made = [torch.zeros(1) for _ in range(2)]
    dist.all_gather(made, torch.tensor([float(steps)]))
    print("steps", [int(each) for each in made], flush=True)
"""


def test_the_estimate_makes_as_many_steps_in_every_process() -> None:
    """By its own clock alone one rank would stop while the other waits for it in a collective."""
    done = launch([], world=2, code=SLOWED)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("[1, 1]") == 2  # both; their words may interleave


@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_rank_that_stands_still_through_the_preflight_hangs_nothing(
    photos: Path, tmp_path: Path, seconds: float
) -> None:
    """After 30 s the clock of the other rank is over the preflight's time, by which both must stop together."""
    out = tmp_path / "run"
    first, second = ranks(["pretrain", str(photos), *NETWORK, "--out", str(out)], world=2)
    until = time.monotonic() + 240
    while not (out / "recipe.json").exists() and time.monotonic() < until and first.poll() is None:
        time.sleep(0.002)
    os.kill(second.pid, signal.SIGSTOP)
    time.sleep(seconds)
    assert "a step measured" not in first.said, "it was stopped too late"
    os.kill(second.pid, signal.SIGCONT)
    assert first.wait(timeout=300) in (0, 4), first.said
    assert "a step measured" in first.said
    assert second.wait(timeout=300) in (0, 4)


def test_processes_on_several_machines_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launcher() == ""
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    several = "--nnodes 2 --rdzv-backend c10d --rdzv-endpoint FIRST:29500"
    assert launcher() == f"torchrun {several} --nproc-per-node 8 -m"


def test_a_batch_that_does_not_divide_names_what_would() -> None:
    assert per_device_batch(256, 8) == 32
    with pytest.raises(UserError, match="252 or 259"):
        per_device_batch(256, 7)


def test_a_submitted_job_runs_the_verb(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["submit", "--cluster", "local", "--gpus", "0", "--logs", str(tmp_path / "logs"), "--"]
    done = launch([*options, "pretrain", str(photos), *NETWORK, "--out", str(out)], world=1)
    assert done.returncode in (0, 4), done.stdout
    assert Result.read(out / "result.json").protocol == "pretrain"


def test_a_job_is_asked_of_slurm_with_its_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sbatch` is a stand-in that keeps the job file."""
    pytest.importorskip("submitit", reason="the slurm extra is not installed")
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/job.sh\necho "Submitted batch job 12"\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    words = ["--nodes", "2", "--gpus", "4", "--partition", "gpu", "--after", "5", "6", "--logs", str(tmp_path / "logs")]
    assert run(["submit", *words, "--", "recipes"]) == 0
    asked = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", (tmp_path / "job.sh").read_text()))
    wanted = {"nodes": "2", "gpus-per-node": "4", "ntasks-per-node": "4", "partition": "gpu"}
    assert wanted.items() <= asked.items()
    assert asked["dependency"] == "afterok:5:6"


@pytest.mark.gpu
def test_batchnorm_becomes_synchronised_on_gpus() -> None:
    from simsiam.engine.distributed import Process, parallel

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29511")
    torch.distributed.init_process_group("nccl", rank=0, world_size=1)
    try:
        device = torch.device("cuda", 0)
        net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)).to(device)
        wrapped = parallel(net, Process(rank=0, world=2, device=device))
        kinds = {type(module) for module in wrapped.modules()}
        assert torch.nn.SyncBatchNorm in kinds
        assert torch.nn.BatchNorm1d not in kinds
        wrapped(torch.randn(8, 4, device=device)).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
