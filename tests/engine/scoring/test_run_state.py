"""What grows while files go by, without a model: the scores are ours."""

from pathlib import Path

import numpy as np
import pytest

from engine.intake.files import Item
from engine.intake.read_result import Reading
from engine.scoring.feature_cache import Found
from engine.scoring.run_state import Gathered
from engine.tables.identity import Names
from engine.tables.results import Results
from engine.tables.shards import ImageTable

FINDINGS = ("Edema",)


@pytest.fixture
def gathered(tmp_path):
    return Gathered(Results(FINDINGS), Names(b"k" * 32, False), ImageTable(tmp_path, "ab" * 32, "reader", 3))


def found(number, *, known=False, **facts):
    picture = np.random.default_rng(number).integers(0, 256, (20, 20), dtype=np.uint8)
    facts = {"outcome": "score", "picture": picture, "sop_instance_uid": f"1.2.{number}", "study_instance_uid": "1.3"} | facts
    reading = Reading(Path(f"{number}.dcm"), content_hash=f"{number:02x}" * 32, **facts)
    return Found(Item(reading.path), reading, known=known)


def take(gathered, each, score=0.5):
    features = None if each.known or each.reading.picture is None else np.float32([1, 0, 0])
    return gathered.take(each, features, np.float32([score]))


def test_every_file_is_a_row_and_the_first_of_equal_ones_is_scored(gathered):
    settled = [take(gathered, each)[1] for each in (found(1), found(1), found(2, outcome="reject", reason="truncated", picture=None))]
    assert [each.outcome for each in settled] == ["score", "duplicate", "reject"]
    assert gathered.results.images().frame()["outcome"].to_list() == ["score", "duplicate", "reject"]
    assert gathered.results.images().frame()["Edema"].to_list() == [0.5, 0.5, None]
    counts = gathered.counts(1)
    assert (counts["files"], counts["score"], counts["failed"], counts["reused"]) == (3, 1, 1, 0)


def test_what_is_new_reaches_the_table_once_and_what_is_known_never(gathered):
    for each in (found(1), found(1), found(2, known=True), found(3, outcome="reject", reason="io_error", picture=None)):
        take(gathered, each)
    gathered.close()
    assert [len(part.rows) for part in gathered.table.parts()] == [1]


def test_a_conflict_found_late_flags_earlier_files(gathered):
    take(gathered, found(1, patient="a"))
    take(gathered, found(2, patient="b"))
    gathered.reflag()
    assert gathered.results.images().frame()["flags"].to_list() == ["uid_conflict"] * 2


def test_without_labels_there_is_nothing_to_join(gathered):
    assert gathered.joined([]) is None
