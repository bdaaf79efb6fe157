import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from engine.data.store import PixelStore

SCRIPT = Path(sys.executable).with_name("mmclip")


def test_a_data_set_is_told_in_counts_and_reasons(mmclip, make_padchest):
    rows = [{"ImageID": f"{n}.png", "PatientID": str(n), "StudyID": str(n), "Projection": view} for n, view in enumerate(["PA", "L"])]
    done = mmclip("ingest", make_padchest(rows), "--out", "table")
    assert done.returncode == 0, done.stderr
    assert "2 rows: 1 images, 1 dropped; 1 files read" in done.stdout
    assert "lateral_view" in done.stdout and "only frontal ones" in done.stdout
    assert json.loads(done.stderr.splitlines()[0])["message"] == "reading padchest"
    assert (mmclip.folder / "table" / "images.parquet").is_file()


def test_json_and_dry_run(mmclip, make_padchest):
    root = make_padchest([{"ImageID": "a.png", "PatientID": "1", "StudyID": "1"}])
    plan = mmclip("ingest", root, "--out", "table", "--dry-run", "--json", "--quiet")
    assert json.loads(plan.stdout) == {"images": 1, "dropped": {}, "left_out": 0}
    assert plan.stderr == "" and not (mmclip.folder / "table").exists()
    done = mmclip("ingest", root, "--as", "padchest", "--out", "table", "--json")
    assert json.loads(done.stdout)["counts"]["images"] == 1


def test_what_is_missing_is_said_at_once(mmclip):
    done = mmclip("ingest", "mimic_padchest", "--out", "table")
    assert done.returncode == 78
    error = json.loads(done.stderr.splitlines()[-1])["message"]
    assert all(key in error for key in ("sources.0.root", "sources.0.jpg_root", "sources.1.root"))


def test_a_damaged_file_is_an_exit_code_of_its_own(mmclip, make_padchest):
    root = make_padchest([{"ImageID": f"{n}.png", "PatientID": str(n), "StudyID": str(n)} for n in range(2)])
    file = root / "0" / "1.png"
    file.write_bytes(file.read_bytes()[:-200])
    done = mmclip("ingest", root, "--out", "table", "--json", "--quiet")
    assert done.returncode == 1
    assert json.loads(done.stdout)["counts"]["dropped"] == {"truncated": 1}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_run_goes_on_where_it_was(mmclip, make_padchest, blow):
    many = 450  # the store commits every 256
    root = make_padchest([{"ImageID": f"{n}.png", "PatientID": str(n), "StudyID": str(n)} for n in range(many)])
    command = [SCRIPT, "ingest", root, "--out", "table", "--workers", "1", "--json", "--quiet", "--set", "store_size=32"]
    process = subprocess.Popen(command, cwd=mmclip.folder, env=mmclip.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not any(file.stat().st_size for file in mmclip.folder.glob("table/pictures-*/journal.jsonl")):
        time.sleep(0.002)
    process.send_signal(blow)
    process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if blow == signal.SIGKILL else 143)
    assert not (mmclip.folder / "table" / "run.json").exists()
    (folder,) = mmclip.folder.glob("table/pictures-*")
    kept = len(PixelStore.open(folder).entries)
    assert 0 < kept < many
    done = mmclip(*command[1:])
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert (counts["images"], counts["read"]) == (many, many - kept)
    assert PixelStore.open(folder).pixels.shape == (many, 32, 32)
    assert pl.read_parquet(mmclip.folder / "table" / "images.parquet").height == many


def test_a_folder_of_plain_images_says_how_they_are_read(mmclip):
    pictures = mmclip.folder / "pictures"
    pictures.mkdir()
    Image.new("L", (64, 64), 90).save(pictures / "a.png")
    done = mmclip("ingest", pictures, "--out", "table", "--quiet")
    assert done.returncode == 1, done.stderr
    assert "no image is left; of not_dicom: " in done.stdout
    assert "`mmclip score images.csv`" in done.stdout
    plan = mmclip("ingest", pictures, "--out", "table", "--dry-run", "--quiet")
    assert plan.stdout.splitlines()[0] == "0 images to read, 1 dropped by their tables, 0 left out"
    assert "no image is left; of not_dicom: " in plan.stdout
