"""The feature cache: what was added comes back by content, for the same reader, and what may change is not kept."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from engine.dicom.reasons import REASONS
from engine.intake.duplicates import DuplicateIndex
from engine.intake.read_result import ReadResult, coarse_image
from engine.scoring.feature_cache import NOT_KEPT, FeatureCache, cached_contents, cached_files, holds
from engine.tables.shards import ShardFolder

WIDTH = 3


def content(number):
    return hashlib.sha256(bytes([number])).hexdigest()


def reading(number, **changes):
    picture = np.random.default_rng(number).integers(0, 256, (70, 64), dtype=np.uint8)
    facts = {
        "flags": ("aspect", "padding"),
        "modality": "DX",
        "transfer_syntax": "1.2",
        "rows": 70,
        "image": picture,
        "patient": 'D"OÉ\n',
    }
    facts |= {"sop_instance_uid": f"1.1.{number}", "study_instance_uid": "1.3"}
    return ReadResult(Path(f"{number}.dcm"), **({"outcome": "score", "content_hash": content(number)} | facts | changes))


def shards(folder, reader="reader", same=()):
    return ShardFolder(folder, "ab" * 32, reader, WIDTH, same)


def doubled(features):
    return features[:, :1] * 2


@pytest.fixture
def filled(tmp_path):
    """Two radiographs, one of them without features, and a file that is damaged."""
    cache = FeatureCache(shards(tmp_path))
    cache.add(reading(1), np.float32([0.25, 0, 0]))
    cache.flush()
    cache.add(reading(2), None)
    cache.add(reading(3, outcome="reject", reason="truncated", detail="PixelData", image=None, flags=()), None)
    cache.close()
    return tmp_path


def test_a_known_file_comes_back_with_its_scores(filled):
    cache = FeatureCache(shards(filled), doubled)
    assert len(cache) == 3
    assert cache.get(content(1)).scores == pytest.approx([0.5])
    assert cache.get(content(2)).scores is None
    assert cache.get(content(9)) is cache.get("") is None


def test_a_cached_result_equals_the_one_that_was_read(filled):
    cache = FeatureCache(shards(filled), doubled)
    first = reading(1)
    again = cache.get(content(1)).reading(first.path)
    assert coarse_image(again.image) == coarse_image(first.image)
    for name in (
        "outcome",
        "reason",
        "detail",
        "flags",
        "content_hash",
        "modality",
        "rows",
        "sop_instance_uid",
        "patient",
        "transfer_syntax",
    ):
        assert getattr(again, name) == getattr(first, name)
    duplicates = DuplicateIndex()
    assert [duplicates.resolve(each).outcome for each in (first, again)] == ["score", "duplicate"]


def test_a_rejected_file_comes_back_without_an_image(filled):
    again = FeatureCache(shards(filled)).get(content(3)).reading(Path("b"))
    assert (again.outcome, again.reason, again.detail, again.image, again.flags) == ("reject", "truncated", "PixelData", None, ())


def test_digests_are_sorted_and_each_is_there_once(filled):
    cache = FeatureCache(shards(filled))
    cache.add(reading(1), np.float32([0.25, 0, 0]))
    cache.close()
    digests = FeatureCache(shards(filled)).digests()
    assert digests == b"".join(sorted(bytes.fromhex(content(number)) for number in (1, 2, 3)))
    contents = cached_contents(shards(filled))
    assert contents.tobytes() == digests
    assert holds(contents, content(3)) and not holds(contents, content(4)) and not holds(contents, "")


def test_features_of_many_contents(filled):
    found = FeatureCache(shards(filled)).features([content(9), content(1), content(2), content(1)])
    assert np.isnan(found).all(axis=1).tolist() == [True, False, True, False]
    assert found[1].tolist() == found[3].tolist() == [0.25, 0, 0]


def test_rows_of_another_reader_are_counted_and_not_used(filled):
    newer = FeatureCache(shards(filled, "newer"), doubled)
    assert len(newer) == 0 and newer.outdated == {"reader": 3}
    assert newer.is_outdated(content(1)) and not newer.is_outdated(content(9))
    equal = FeatureCache(shards(filled, "newer", same=["reader"]), doubled)
    assert len(equal) == 3 and not equal.outdated


def test_what_is_read_again_takes_the_place_of_outdated_rows(filled):
    newer = FeatureCache(shards(filled, "newer"))
    for number in (1, 2, 3):
        newer.add(reading(number), None)
    newer.close()
    assert not FeatureCache(shards(filled, "newer")).outdated


def test_reasons_that_may_change_are_not_kept(tmp_path):
    assert set(REASONS) >= NOT_KEPT
    cache = FeatureCache(shards(tmp_path))
    cache.add(reading(1, outcome="reject", reason="resource_limit", image=None), None)
    cache.add(reading(2, content_hash=""), None)
    cache.close()
    assert len(FeatureCache(shards(tmp_path))) == 0


def test_files_are_found_by_path_where_their_paths_are_kept(filled):
    cache = FeatureCache(shards(filled))
    cache.add(reading(4), None, path="/a", bytes=10, mtime_ns=20)
    cache.add(reading(4), None, path="/b", bytes=10, mtime_ns=10)
    cache.close()
    assert list(cached_files(shards(filled))) == [("/b", content(4), 10, 10), ("/a", content(4), 10, 20)]


def test_many_rows_come_back_each_with_its_own(tmp_path):
    cache = FeatureCache(shards(tmp_path))
    for number in range(200):
        cache.add(reading(number, patient="é" * number), np.float32([number, 0, 0]))
        if number % 60 == 0:
            cache.flush()
    cache.close()
    again = FeatureCache(shards(tmp_path), doubled)
    for number in (0, 1, 59, 60, 61, 199):
        known = again.get(content(number))
        assert known.cells["patient"] == "é" * number and known.scores == pytest.approx([number * 2])
