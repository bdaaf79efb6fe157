"""The count of label tables, on a miniature of COVIDx."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.data.sources import READERS
from engine.data.sources.published_splits import sha256_of

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "count_labels.py"


@pytest.fixture(scope="module")
def count_labels(script):
    return script("examples/count_labels.py")


@pytest.fixture
def covidx(tmp_path):
    (tmp_path / "train_COVIDx8B.txt").write_text("1 a.png negative cohen\n")
    (tmp_path / "test_COVIDx8B.txt").write_text("2 b.png positive ricord\n3 c.png negative rsna\n")
    return tmp_path


def test_every_labelled_data_set_is_counted(count_labels):
    assert set(count_labels.PARTS) == set(READERS) - {"table", "mimic_cxr", "padchest", "openi"}


def test_a_part_is_counted_without_its_pictures_and_others_say_what_they_lack(count_labels, covidx):
    six, eight, *findings, nine = count_labels.rows_of("covidx", str(covidx), findings=True)
    assert "| 2 images | 0 |" in eight and f"`{sha256_of(['test/b.png', 'test/c.png'])[:12]}`" in eight
    assert findings == ["|  | COVID-19 | 1 present | 1 absent |  |  |  |"]
    assert "test_COVIDx6.txt is not there" in six and "test_COVIDx9B.txt is not there" in nine


def test_a_word_that_names_no_folder_is_a_usage_error(covidx):
    run = subprocess.run([sys.executable, SCRIPT, "covid=x", f"covidx={covidx}"], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2 and "not KIND=FOLDER: covid" in run.stderr
