"""A reading as rows, and back."""

from pathlib import Path

import numpy as np
import pytest

from engine.intake.duplicates import Registry
from engine.intake.files import Item
from engine.intake.read_result import Reading, coarse_picture
from engine.scoring.feature_cache import remembered_reading, result_row, table_row
from engine.tables.identity import Names

NAMES = Names(b"key")


@pytest.fixture
def reading():
    picture = np.random.default_rng(0).integers(0, 256, (70, 64), dtype=np.uint8)
    return Reading(
        Path("/DOE/a.dcm"), "score", flags=("aspect", "padding"), content_hash="ab" * 32, pixel_hash="cd" * 32, modality="DX", view="PA",
        transfer_syntax="1.2", sop_class="1.3", rows=70, columns=64, sop_instance_uid="1.1", series_instance_uid="1.2",
        study_instance_uid="1.3", patient="DOE", picture=picture,
    )  # fmt: skip


def test_a_remembered_reading_settles_like_the_one_that_was_read(reading):
    again = remembered_reading(reading.path, table_row(reading))
    assert coarse_picture(again.picture) == coarse_picture(reading.picture)
    for name in ("outcome", "flags", "content_hash", "pixel_hash", "modality", "rows", "sop_instance_uid", "patient", "transfer_syntax"):
        assert getattr(again, name) == getattr(reading, name)
    registry = Registry()
    assert registry.settle(reading).outcome == "score"
    assert registry.settle(again).outcome == "duplicate"


def test_a_rejected_reading_is_remembered_without_a_picture():
    cells = table_row(Reading(Path("a"), "reject", "truncated", content_hash="ab" * 32))
    again = remembered_reading(Path("b"), cells)
    assert (again.outcome, again.reason, again.picture, again.flags) == ("reject", "truncated", None, ())


def test_identifiers_and_paths_stay_private(reading):
    row = result_row(Item(reading.path), reading, np.float32([0.5]), NAMES)
    assert "DOE" not in str(row.public)
    assert row.public["image"] == NAMES.of("1.1")
    assert row.public["study"] == NAMES.of("1.3")
    assert row.private == {
        "path": "/DOE/a.dcm", "file": "/DOE/a.dcm", "sop_instance_uid": "1.1", "study_instance_uid": "1.3", "series_instance_uid": "1.2",
        "patient": "DOE",
    }  # fmt: skip


def test_the_table_s_word_on_study_and_patient_goes_first(reading):
    row = result_row(Item(reading.path, given="a.dcm", study="mine", patient="p", view="AP"), reading, np.float32([0.5]), NAMES)
    assert row.public["study"] == NAMES.hashed("mine")
    assert row.public["view"] == "PA"
    assert row.private["patient"] == "p"
    assert (row.private["path"], row.private["file"]) == ("a.dcm", "/DOE/a.dcm")


def test_a_picture_without_uids_is_a_study_by_itself():
    first = result_row(Item(Path("a.png")), Reading(Path("a.png"), "score", content_hash="ab" * 32), np.float32([0.5]), NAMES)
    moved = result_row(Item(Path("b.png")), Reading(Path("b.png"), "score", content_hash="ab" * 32), np.float32([0.5]), NAMES)
    assert first.public["study"] == first.public["image"] == moved.public["image"] == NAMES.hashed("ab" * 32)


def test_files_that_were_not_read_are_told_apart_by_their_paths():
    rows = [result_row(Item(Path(name)), Reading(Path(name), "reject", "vanished"), None, NAMES) for name in ("DOE1", "DOE2")]
    assert rows[0].public["image"] != rows[1].public["image"]
    assert rows[0].public["study"] is rows[0].public["content_hash"] is None


def test_hostile_tags_are_not_repeated():
    reading = Reading(
        Path("a"), "reject", "invalid_uid", modality="=cmd|x", view="<script>", sop_instance_uid="../../x", content_hash="ab" * 32
    )
    row = result_row(Item(Path("a")), reading, None, Names(b"key", retain_uids=True))
    assert row.public["modality"] is row.public["view"] is None
    assert len(row.public["image"]) == 64
