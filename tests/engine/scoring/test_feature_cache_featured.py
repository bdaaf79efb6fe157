"""Files to features, each by its content once."""

import numpy as np
import pytest
from PIL import Image

from engine.scoring.feature_cache import featured_files
from engine.tables.shards import ImageTable


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return [*paths[:3], tmp_path / "broken.png", *paths[3:], paths[0]]


def means(pictures):
    """Two numbers of each picture."""
    return np.array([[picture.mean(), picture.std()] for picture in pictures], np.float32)


def run(files, folder, encode=means, batch_size=2):
    table = ImageTable(folder, "a model", "a reader", 2)
    return list(featured_files(files, table, encode, size=32, batch_size=batch_size, workers=0))


def test_every_file_has_its_features_in_order_or_a_reason(files, tmp_path):
    found = run(files, tmp_path / "out")
    assert [each.number for each in found] == list(range(7))
    assert [each.features is None for each in found] == [False, False, False, True, False, False, False]
    assert found[3].reason
    assert np.array_equal(found[0].features, found[6].features)


def test_a_second_run_encodes_nothing(files, tmp_path):
    first = run(files, tmp_path / "out")

    def never(pictures):
        raise AssertionError("encoded again")

    second = run([file for file in files if file.name != "broken.png"], tmp_path / "out", encode=never)
    assert all(each.known for each in second)
    kept = [each.features for each in first if each.features is not None]
    assert all(np.array_equal(one, two.features) for one, two in zip(kept, second, strict=True))


def test_what_was_done_before_a_failure_is_kept(files, tmp_path):
    calls = []

    def fails_later(pictures):
        calls.append(len(pictures))
        if len(calls) == 2:
            raise RuntimeError
        return means(pictures)

    with pytest.raises(RuntimeError):
        run(files, tmp_path / "out", encode=fails_later)
    assert sum(each.known for each in run(files, tmp_path / "out")) >= 2
