"""`mmclip pretrain`, through the installed command."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOY = """\
version: 1
sources: [{kind: table, file: table.csv}]
model:
  image: {width: 32, layers: 1, heads: 2, size: 32, patch: 16}
  text: {width: 32, layers: 1, heads: 2, context: 32}
  projection: 32
  image_decoder: {width: 32, layers: 1, heads: 2}
  text_decoder: {layers: 1, heads: 2}
tokenizer: {vocab: 300}
prompt: {findings: [Edema]}
entmlm: {strategy: random}
batch: {paired: 4, unpaired: 0}
warmup: {iterations: 1}
steps: 3
store_size: 32
"""


@pytest.fixture
def toy(mmclip):
    generator = np.random.default_rng(0)
    rows = ["file,patient,report"]
    for number in range(6):
        Image.fromarray(generator.integers(0, 255, (128, 128), dtype=np.uint8)).save(mmclip.folder / f"{number}.png")
        rows.append(f"{number}.png,p{number},{'no ' * (number % 2)}pleural effusion")
    (mmclip.folder / "table.csv").write_text("\n".join(rows) + "\n")
    (mmclip.folder / "toy.yaml").write_text(TOY)
    return mmclip


def test_mimic_padchest_without_its_data_names_every_missing_piece_and_makes_nothing(mmclip):
    done = mmclip("pretrain", "mimic_padchest")
    assert done.returncode == 78
    message = json.loads(done.stderr)["message"]
    for key in (
        "sources.0.root: no reports",
        "sources.0.jpg_root: no images",
        "sources.1.root: no label table",
        "sources.1.root: no images",
    ):
        assert key in message
    for layout in (
        "files/p10/p10000032/s50414267.txt",
        "<dicom_id>.jpg",
        "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",
        "ImageDir",
    ):
        assert layout in message
    assert list(mmclip.folder.iterdir()) == []


def test_a_dry_run_checks_and_does_nothing(toy):
    done = toy("pretrain", "toy.yaml", "--dry-run", "--set", "steps=2000")
    first, second = done.stdout.splitlines()
    assert first == "toy: 2,000 steps of 4 images with a report and 0 without, into runs/toy"
    assert second.startswith("6 training images with text and 0 without, of 6 patients; 2 different texts; 0 images held out;")
    assert not (toy.folder / "runs").exists()


def test_a_table_is_all_that_pretraining_needs(toy):
    table = toy.folder / "own.csv"
    rows = [f"{number}.png,s{number},The lungs are clear." for number in range(3)]
    for number in range(3):
        (toy.folder / f"{number}.png").write_bytes(b"not looked into")
    table.write_text("\n".join(["Image Index,subject_id,report", *rows, ""]))
    done = toy("pretrain", "own.csv", "--dry-run", "--set", "tokenizer.vocab=300")
    assert done.returncode == 0, done.stderr
    assert "own: 1,800 steps" in done.stdout
    assert "3 training images with text and 0 without, of 3 patients" in done.stdout
    assert toy("pretrain", "none.csv").returncode == 66


def test_a_run_tells_its_steps_and_leaves_a_model(toy):
    done = toy("pretrain", "toy.yaml", "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result.keys() == {"recipe", "out", "prepared", "started", "step", "saved", "finished"}
    assert result["finished"]["steps"] == 3
    assert result["step"]["losses"].keys() == {"align", "mim", "mlm"}
    assert (toy.folder / "runs/toy/bundle/model.safetensors").is_file()
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines[-2]["message"] == "step 3 of 3" or lines[-1]["message"] == "step 3 of 3"
    again = toy("pretrain", "toy.yaml")
    assert again.returncode == 2
    assert "--resume" in json.loads(again.stderr.splitlines()[-1])["message"]


def test_on_a_terminal_bars_show_images_then_steps(toy):
    terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    command = [Path(sys.executable).with_name("mmclip"), "pretrain", "toy.yaml", "--device", "cpu", "--max-steps", "1"]
    done = subprocess.run(
        [sys.executable, "-c", terminal, *command],
        cwd=toy.folder,
        env=toy.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout
    assert "images: 100%" in done.stdout
    assert "6/6" in done.stdout
    assert done.stdout.index("images: 100%") < done.stdout.index("prepared: images 6") < done.stdout.index("toy:")


def test_a_table_that_is_not_there_is_66(toy):
    done = toy("pretrain", "toy.yaml", "--set", "sources.0.file=absent.csv", "--quiet")
    assert done.returncode == 66
    assert len(done.stderr.splitlines()) == 1
