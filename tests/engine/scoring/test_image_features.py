"""Files to read results and features: known ones are not read or encoded again, and the order is kept."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.intake.files import InputFile
from engine.scoring.feature_cache import FeatureCache, cached_contents
from engine.scoring.image_features import FileCounts, content_features, count_files, file_features, file_results, with_features
from engine.tables.shards import ShardFolder


@pytest.fixture
def images(tmp_path):
    """Five images that a table names, each of other greys."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{k}.png" for k in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (80, 90), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def shards(tmp_path):
    return ShardFolder(tmp_path / "out", "ab" * 32, "reader", 2)


def items(paths):
    return iter([InputFile(path, plain_image=True) for path in paths])


def read(paths, cache=None):
    return list(file_results(items(paths), cache, size=16, workers=1))


def known(shards, paths):
    """A cache that knows these images; the first has features."""
    cache = FeatureCache(shards)
    for number, each in enumerate(read(paths)):
        cache.add(each.reading, None if number else np.float32([0.25, 0]))
    cache.close()
    return FeatureCache(shards, lambda features: features[:, :1] * 2)


def test_what_is_known_comes_from_the_cache_in_its_place(shards, images):
    again = read(images, known(shards, images[1:4:2]))
    assert [each.item.path for each in again] == [each.reading.path for each in again] == images
    assert [each.known for each in again] == [False, True, False, True, False]
    assert again[1].scores == pytest.approx([0.5]) and again[3].scores is None
    assert again[1].reading.image.shape == (16, 16)
    assert again[0].reading.content_hash == hashlib.sha256(images[0].read_bytes()).hexdigest()


def test_names_and_dates_do_not_count(shards, images, tmp_path):
    cache = known(shards, images[:1])
    images[0].rename(tmp_path / "moved.png")
    images[1].rename(images[0])
    assert [each.known for each in read([tmp_path / "moved.png", images[0]], cache)] == [True, False]


def test_many_known_files_do_not_disturb_the_order(shards, images):
    many = [images[0]] * 40 + images[1:3] + [images[0]] * 40 + images[3:]
    found = read(many, known(shards, images[:1]))
    assert [each.reading.path for each in found] == many
    assert [each.known for each in found] == [path == images[0] for path in many]


def test_files_are_counted_without_being_read(shards, images):
    known(shards, images[:2])
    decided = InputFile(Path("x"), decided=("skip", "symlink"))
    counts = count_files([*items([*images, Path("missing")]), decided], cached_contents(shards), workers=1)
    assert counts == FileCounts(7, 2, {"symlink": 1})
    assert count_files([*items(images), decided], np.zeros(0, "S32"), workers=1) == FileCounts(6, 0, {"symlink": 1})


def test_a_worker_that_knows_what_it_was_not_given_is_not_believed(shards, images, monkeypatch):
    cache = known(shards, images[:1])
    monkeypatch.setattr(FeatureCache, "digests", lambda self: hashlib.sha256(images[1].read_bytes()).digest())
    (found,) = read(images[1:2], cache)
    assert (found.reading.outcome, found.reading.reason) == ("reject", "decode_crash")


def test_decided_files_are_rows_without_being_opened(images):
    stream = iter(
        [
            InputFile(Path("x"), decided=("reject", "vanished")),
            InputFile(images[0], plain_image=True),
            InputFile(Path("y"), decided=("skip", "symlink")),
        ]
    )
    found = list(file_results(stream, None, size=16, workers=1))
    assert [each.reading.reason for each in found] == ["vanished", None, "symlink"]


def test_plain_images_are_read_only_where_they_are_asked_for_known_ones_too(shards, images):
    for cache in (None, known(shards, images[:1])):
        stream = iter([InputFile(images[0], plain_image=True), InputFile(images[0]), InputFile(images[0], plain_image=True)])
        found = list(file_results(stream, cache, size=16, workers=1))
        assert [each.reading.outcome for each in found] == ["score", "skip", "score"]


# --- features ----------------------------------------------------------------------------------------------------------------------


def means(pictures):
    """Two numbers of each image."""
    return np.array([[picture.mean(), picture.std()] for picture in pictures], np.float32)


def never(pictures):
    raise AssertionError("encoded again")


@pytest.fixture
def files(images, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return [*images[:3], tmp_path / "broken.png", *images[3:], images[0]]


def run(files, shards, encode=means, batch_size=2):
    return list(file_features(files, FeatureCache(shards), encode, size=32, batch_size=batch_size, workers=0))


def test_every_file_has_its_features_in_order_or_a_reason(files, shards):
    found = run(files, shards)
    assert [each.number for each in found] == list(range(7))
    assert [each.features is None for each in found] == [False, False, False, True, False, False, False]
    assert found[3].reason
    assert np.array_equal(found[0].features, found[6].features)


def test_a_second_run_encodes_nothing(files, shards):
    first = run(files, shards)
    second = run([file for file in files if file.name != "broken.png"], shards, encode=never)
    assert all(each.known for each in second)
    kept = [each.features for each in first if each.features is not None]
    assert all(np.array_equal(one, two.features) for one, two in zip(kept, second, strict=True))


def test_what_was_done_before_a_failure_is_kept(files, shards):
    calls = []

    def fails_later(pictures):
        calls.append(len(pictures))
        if len(calls) == 2:
            raise RuntimeError
        return means(pictures)

    with pytest.raises(RuntimeError):
        run(files, shards, encode=fails_later)
    assert sum(each.known for each in run(files, shards)) >= 2


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_images_wait_for_a_full_batch_and_no_longer(images, batch_size):
    sizes = []

    def encode(pictures):
        sizes.append(len(pictures))
        return means(pictures)

    found = list(with_features(iter(read(images)), encode, batch_size))
    assert [each.item.path for each, _ in found] == images
    assert sum(sizes) == 5 and max(sizes) <= batch_size


def test_features_of_stored_images_are_made_once_and_found_by_content(shards):
    pictures = list(np.random.default_rng(0).integers(0, 255, (6, 32, 32), dtype=np.uint8))
    asked = []

    def features(numbers):
        def image(place):
            asked.append(numbers[place])
            return pictures[numbers[place]]

        return content_features([hashlib.sha256(bytes([number])).hexdigest() for number in numbers], image, shards, means)

    first = features([0, 1, 2, 1])
    assert np.array_equal(first, means([pictures[number] for number in (0, 1, 2, 1)]))
    assert sorted(asked) == [0, 1, 2]
    again = features([3, 2, 0])
    assert sorted(asked) == [0, 1, 2, 3]
    assert np.array_equal(again[1:], first[[2, 0]])
    assert features([]).shape == (0, 2)
