"""The state of a scoring run, without a model: the scores are ours."""

from pathlib import Path

import numpy as np
import pytest

from engine.intake.files import InputFile
from engine.intake.read_result import ReadResult
from engine.scoring.feature_cache import FeatureCache
from engine.scoring.image_features import FileResult
from engine.scoring.run_state import ScoringRun, result_row
from engine.tables.identity import Names
from engine.tables.results import Results
from engine.tables.shards import ShardFolder

FINDINGS = ("Edema",)


@pytest.fixture
def state(tmp_path):
    return ScoringRun(Results(FINDINGS), Names(b"k" * 32, False), FeatureCache(ShardFolder(tmp_path, "ab" * 32, "reader", 3)))


def found(number, *, known=False, **facts):
    picture = np.random.default_rng(number).integers(0, 256, (20, 20), dtype=np.uint8)
    facts = {"outcome": "score", "image": picture, "sop_instance_uid": f"1.2.{number}", "study_instance_uid": "1.3"} | facts
    reading = ReadResult(Path(f"{number}.dcm"), content_hash=f"{number:02x}" * 32, **facts)
    return FileResult(InputFile(reading.path), reading, known=known)


def take(state, each, score=0.5):
    features = None if each.known or each.reading.image is None else np.float32([1, 0, 0])
    return state.take(each, features, np.float32([score]))


def test_every_file_is_a_row_and_the_first_of_equal_ones_is_scored(state):
    settled = [take(state, each)[1] for each in (found(1), found(1), found(2, outcome="reject", reason="truncated", image=None))]
    assert [each.outcome for each in settled] == ["score", "duplicate", "reject"]
    assert state.results.images().frame()["outcome"].to_list() == ["score", "duplicate", "reject"]
    assert state.results.images().frame()["Edema"].to_list() == [0.5, 0.5, None]
    counts = state.counts(1)
    assert (counts["files"], counts["score"], counts["failed"], counts["reused"]) == (3, 1, 1, 0)


def test_what_is_new_reaches_the_table_once_and_what_is_known_never(state):
    for each in (found(1), found(1), found(2, known=True), found(3, outcome="reject", reason="io_error", image=None)):
        take(state, each)
    state.cache.close()
    assert [shard.rows.height for shard in state.cache.shards.shards()] == [1]


def test_a_conflict_found_late_flags_earlier_files(state):
    take(state, found(1, patient="a"))
    take(state, found(2, patient="b"))
    state.reflag()
    assert state.results.images().frame()["flags"].to_list() == ["uid_conflict"] * 2


# --- rows --------------------------------------------------------------------------------------------------------------------------

NAMES = Names(b"key")


@pytest.fixture
def reading():
    picture = np.random.default_rng(0).integers(0, 256, (70, 64), dtype=np.uint8)
    return ReadResult(
        Path("/DOE/a.dcm"), "score", content_hash="ab" * 32, view="PA", rows=70, columns=64, sop_instance_uid="1.1",
        series_instance_uid="1.2", study_instance_uid="1.3", patient="DOE", image=picture,
    )  # fmt: skip


def test_identifiers_and_paths_stay_private(reading):
    row = result_row(InputFile(reading.path), reading, np.float32([0.5]), NAMES)
    assert "DOE" not in str(row.public)
    assert row.public["image"] == NAMES.of("1.1")
    assert row.public["study"] == NAMES.of("1.3")
    assert row.private == {
        "path": "/DOE/a.dcm", "file": NAMES.hashed("file /DOE/a.dcm"), "location": "/DOE/a.dcm",
        "sop_instance_uid": "1.1", "study_instance_uid": "1.3", "series_instance_uid": "1.2",
        "patient": "DOE", "last_seen": None,
    }  # fmt: skip


def test_the_table_s_word_on_study_and_patient_goes_first(reading):
    row = result_row(InputFile(reading.path, given="a.dcm", study="mine", patient="p", view="AP"), reading, np.float32([0.5]), NAMES)
    assert row.public["study"] == NAMES.hashed("mine")
    assert row.public["view"] == "PA"
    assert row.private["patient"] == "p"
    assert (row.private["path"], row.private["location"]) == ("a.dcm", "/DOE/a.dcm")


def test_a_picture_without_uids_is_a_study_by_itself():
    first = result_row(InputFile(Path("a.png")), ReadResult(Path("a.png"), "score", content_hash="ab" * 32), np.float32([0.5]), NAMES)
    moved = result_row(InputFile(Path("b.png")), ReadResult(Path("b.png"), "score", content_hash="ab" * 32), np.float32([0.5]), NAMES)
    assert first.public["study"] == first.public["image"] == moved.public["image"] == NAMES.hashed("ab" * 32)


def test_files_that_were_not_read_are_told_apart_by_their_paths():
    rows = [result_row(InputFile(Path(name)), ReadResult(Path(name), "reject", "vanished"), None, NAMES) for name in ("DOE1", "DOE2")]
    assert rows[0].public["image"] != rows[1].public["image"]
    assert rows[0].public["study"] is rows[0].public["content_hash"] is None


def test_hostile_tags_are_not_repeated():
    reading = ReadResult(
        Path("a"), "reject", "invalid_uid", modality="=cmd|x", view="<script>", sop_instance_uid="../../x", content_hash="ab" * 32
    )
    row = result_row(InputFile(Path("a")), reading, None, Names(b"key", retain_uids=True))
    assert row.public["modality"] is row.public["view"] is None
    assert len(row.public["image"]) == 64
