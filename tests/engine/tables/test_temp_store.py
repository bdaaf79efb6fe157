"""The temporary key-value store."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import OutputError
from engine.tables.temp_store import TempStore

KEYS = st.binary(max_size=2)


@given(st.lists(st.tuples(st.sampled_from("ab"), KEYS, st.binary(max_size=3))))
def test_the_first_value_of_a_key_stays(rows):
    store, expected = TempStore(), {}
    for kind, key, value in rows:
        assert store.first(kind, key, value) == expected.get((kind, key))
        expected.setdefault((kind, key), value)


def test_a_key_may_have_several_values_in_their_order():
    store = TempStore()
    for value in (b"b", b"a", b"b"):
        store.add("x", b"key", value)
    assert store.values("x", b"key") == [b"b", b"a", b"b"]
    assert store.values("y", b"key") == store.values("x", b"other") == []


def test_the_file_has_no_name(tmp_path):
    store = TempStore(tmp_path)
    store.add("x", b"key", bytes(100_000))
    assert list(tmp_path.iterdir()) == []
    assert store.values("x", b"key") == [bytes(100_000)]


def test_a_folder_that_takes_no_file_is_said(tmp_path):
    with pytest.raises(OutputError, match="temporary file"):
        TempStore(tmp_path / "nowhere")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in kilobytes on Linux")
def test_many_values_are_not_held():
    code = """if True:
        import resource
        from engine.tables.temp_store import TempStore
        store = TempStore()
        def held():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = held()
        for number in range(40_000):
            store.first("x", number.to_bytes(12, "big"), bytes(1000))
        print(held() - before, sum(bool(store.values("x", number.to_bytes(12, "big"))) for number in range(0, 40_000, 100)))
    """
    grown, count = map(int, subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())
    assert count == 400
    assert grown < 20_000, "of 40 MB, in kilobytes"
