"""Real runs of two processes on a CPU, under torchrun or started by hand, against the same runs of one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from engine.pretrain import pretrain
from engine.recipe.loader import load_recipe
from engine.recipe.pretraining import PretrainRecipe
from engine.training.checkpoint import Checkpoints

pytestmark = pytest.mark.timeout(300)  # each pair of processes imports torch, and the machine may be busy

TOY = """\
version: 1
sources: [{kind: table, file: table.csv}]
model:
  image: {width: 16, layers: 2, heads: 2, size: 32, patch: 8}
  text: {width: 16, layers: 1, heads: 2, context: 24}
  projection: 16
  image_decoder: {width: 16, layers: 1, heads: 2}
  text_decoder: {layers: 1, heads: 2}
tokenizer: {vocab: 300}
prompt: {findings: [Edema]}
entmlm: {strategy: random}
batch: {paired: 4, unpaired: 2}
warmup: {iterations: 2}
augmentation: {scale: [0.8, 1.0], contrast: 0.1}
optimizer: {name: sgd, lr: 0.05, clip_norm: 1.0}
precision: fp32
checkpoint: {every: 2}
steps: 4
store_size: 32
"""

SCRIPT = """
import json, os, sys, threading, time
from pathlib import Path
import torch
from engine.pretrain import pretrain
from engine.recipe.loader import load_recipe
from engine.recipe.pretraining import PretrainRecipe
from mmclip_cli.app import run
runs, commands = json.loads(sys.argv[1])
if "RANK" not in os.environ:  # without torchrun: what is imported by now is imported once
    import socket
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["RANK"] = os.environ["LOCAL_RANK"] = "0" if (second := os.fork()) else "1"
for name, settings, options in runs:
    recipe = load_recipe("toy.yaml", PretrainRecipe, settings)
    list(pretrain(recipe, Path(name), device="cpu", data=Path("data"), **options))
for name, fate, settings in commands:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # a run that was stopped leaves it to the end of its process
    where = Path(name) / "checkpoints/step-00000004"
    def strike():
        while not where.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), fate)
    if os.environ["RANK"] == "1" and fate:
        threading.Thread(target=strike, daemon=True).start()
    given = [f"--set={setting}" for setting in ["steps=100000", *settings]]
    code = run(["pretrain", "toy.yaml", "--out", name, "--data", "data", "--device", "cpu", *given])
    Path(f"{name}-exit-{os.environ['RANK']}").write_text(str(code))
sys.exit(code)
"""
"""Several runs in one pair of processes, since starting the pair takes longest; then `mmclip pretrain`, whose second process may send
itself a signal once a checkpoint is there."""

Losses = list[tuple[int, dict[str, float]]]
Run = tuple[str, list[str], dict[str, Any]]
"""Its folder, settings of its recipe, and how it is called."""
Command = tuple[str, int, list[str]]
"""Its folder, the signal that its second process sends itself, or 0, and settings."""
FSDP = "compute.parallel=fsdp"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, eight with a report, and the recipe."""
    folder = tmp_path_factory.mktemp("two")
    generator = np.random.default_rng(0)
    rows = ["file,patient,report"]
    for number in range(12):
        Image.fromarray(generator.integers(0, 255, (64, 64), dtype=np.uint8)).save(folder / f"{number}.png")
        report = f"{'no ' * (number % 2)}pleural effusion{' or pneumonia' * (number % 3)}" if number < 8 else ""
        rows.append(f"{number}.png,p{number},{report}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    (folder / "toy.yaml").write_text(TOY)
    return folder


def two_processes(folder: Path, runs: Sequence[Run], commands: Sequence[Command], *, torchrun: bool = True) -> subprocess.Popen[str]:
    (folder / "script.py").write_text(SCRIPT)
    root = Path(__file__).resolve().parents[3]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if torchrun else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, *launcher, "script.py", json.dumps([runs, commands])]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def losses_of(run: Path) -> Losses:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["losses"] | {"loss": line["loss"]}) for line in lines if line["event"] == "step"]


def weights_of(run: Path, step: int = 4) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = safetensors.torch.load_file(run / "checkpoints" / f"step-{step:08d}" / "weights.safetensors")
    return weights


@pytest.fixture(scope="module")
def alone(folder: Path) -> Callable[..., Path]:
    """Runs of one process."""

    def run(name: str, *settings: str, **options: Any) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            recipe = load_recipe("toy.yaml", PretrainRecipe, settings)
            list(pretrain(recipe, Path(name), device="cpu", data=Path("data"), **options))
        return folder / name

    return run


@pytest.fixture(scope="module")
def one(alone: Callable[..., Path]) -> Path:
    return alone("one")


@pytest.fixture(scope="module")
def runs(folder: Path, one: Path, alone: Callable[..., Path]) -> dict[str, Path]:
    """Runs of two processes, by name; the last two were ended by a signal to the second process, and to torchrun."""
    alone("one-then-two", max_steps=2)
    planned: list[Run] = [
        ("ddp", [], {}),
        ("fsdp", [FSDP], {}),
        ("micro-batches", ["compute.micro_batch=2"], {}),
        ("fsdp-micro-batches", [FSDP, "compute.micro_batch=2", "compute.checkpoint_activations=true"], {}),
        *(("broken-ddp", [], options) for options in ({"max_steps": 2}, {"resume": True})),
        *(("broken-fsdp", [FSDP], options) for options in ({"max_steps": 2}, {"resume": True})),
        *(("adamw", [FSDP, "optimizer.name=adamw", "optimizer.lr=1e-4"], options) for options in ({"max_steps": 2}, {"resume": True})),
        ("one-then-two", [FSDP], {"resume": True}),
        ("two-then-one", [FSDP], {"max_steps": 2}),
    ]
    saving_rarely = ["checkpoint.every=4"]
    commands = [("second-struck", int(signal.SIGTERM), saving_rarely), ("torchrun-struck", 0, saving_rarely)]
    with two_processes(folder, planned, commands) as pair:
        wait_for(folder / "torchrun-struck/checkpoints/step-00000004", pair)
        pair.send_signal(signal.SIGTERM)
        pair.communicate(timeout=200)
    return {name: folder / name for name, *_ in (*planned, *commands)}


def wait_for(path: Path, pair: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert pair.poll() is None, pair.stdout and pair.stdout.read()
        time.sleep(0.02)


def agree(run: Path, one: Path) -> None:
    """To 1e-6 of each loss and of the largest weight."""
    found, expected = losses_of(run), losses_of(one)
    assert [step for step, _ in found] == [step for step, _ in expected] == [1, 2, 3, 4]
    for (_, mine), (_, theirs) in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6)
    for name, weight in weights_of(one).items():
        torch.testing.assert_close(weights_of(run)[name], weight, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "micro-batches", "fsdp-micro-batches"])
def test_two_processes_learn_what_one_learns(runs: dict[str, Path], one: Path, name: str) -> None:
    """The same global batch, the same masks; in micro-batches, sharded, with recomputed blocks: all the same."""
    agree(runs[name], one)


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_resumed_pair_repeats_the_unbroken_one_to_the_bit(runs: dict[str, Path], how: str) -> None:
    assert losses_of(runs[f"broken-{how}"]) == losses_of(runs[how])
    mine, theirs = weights_of(runs[f"broken-{how}"]), weights_of(runs[how])
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_sharded_adamw_goes_on_with_its_moments(runs: dict[str, Path], alone: Callable[..., Path]) -> None:
    expected = losses_of(alone("one-adamw", "optimizer.name=adamw", "optimizer.lr=1e-4"))
    for (_, mine), (_, theirs) in zip(losses_of(runs["adamw"]), expected, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)


def test_two_go_on_from_the_checkpoint_of_one_and_one_from_that_of_two(
    runs: dict[str, Path], one: Path, alone: Callable[..., Path]
) -> None:
    agree(runs["one-then-two"], one)
    agree(alone("two-then-one", resume=True), one)


def test_only_the_first_process_writes(runs: dict[str, Path]) -> None:
    run = json.loads((runs["ddp"] / "run.json").read_text())
    assert (run["status"], run["steps"], run["device"]["processes"]) == ("finished", 4, 2)
    assert [step for step, _ in losses_of(runs["ddp"])] == [1, 2, 3, 4]
    assert (runs["fsdp"] / "bundle" / "model.safetensors").stat().st_size == (runs["ddp"] / "bundle" / "model.safetensors").stat().st_size


def test_when_one_dies_the_other_stops_and_the_last_checkpoint_is_good(folder: Path, one: Path) -> None:
    with two_processes(folder, [], [("killed", int(signal.SIGKILL), [])], torchrun=False) as pair:
        wait_for(folder / "killed/checkpoints/step-00000004", pair)
        struck = time.monotonic()
        said, _ = pair.communicate(timeout=200)
    assert time.monotonic() - struck < 60
    assert pair.returncode != 0
    assert (folder / "killed-exit-0").read_text() == "70", said
    assert "another process of this run has died or no longer answers" in said
    assert not (folder / "killed-exit-1").exists()
    step, refused = Checkpoints(folder / "killed/checkpoints", {}).last_good()
    assert step >= 4
    assert refused == []
    assert json.loads((folder / "killed/run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("whom", ["torchrun", "second"])
def test_a_signal_to_any_of_them_saves_the_same_step_and_ends_all_with_143(runs: dict[str, Path], whom: str) -> None:
    run = runs[f"{whom}-struck"]
    assert [(run.parent / f"{run.name}-exit-{rank}").read_text() for rank in (0, 1)] == ["143", "143"]
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "stopped"
    last, refused = Checkpoints(run / "checkpoints", {}).last_good()
    assert (last, refused) == (losses_of(run)[-1][0], [])
