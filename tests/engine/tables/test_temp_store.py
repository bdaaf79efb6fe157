"""Keys and values of a run, in a file without a name."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import OutputError
from engine.tables.temp_store import TempStore

KEYS = st.binary(max_size=2)


@given(st.lists(st.tuples(st.sampled_from("ab"), KEYS, st.binary(max_size=3))))
def test_the_first_value_stays_and_keys_rise(rows):
    scratch, expected = TempStore(), {}
    for kind, key, value in rows:
        assert scratch.first(kind, key, value) == expected.get((kind, key))
        expected.setdefault((kind, key), value)
    for kind in "ab":
        keys = sorted(key for other, key in expected if other == kind)
        assert list(scratch.keys(kind)) == keys
        assert scratch.count(kind) == len(keys)


def test_a_key_may_have_several_values_in_their_order():
    scratch = TempStore()
    for value in (b"b", b"a", b"b"):
        scratch.add("x", b"key", value)
    assert scratch.values("x", b"key") == [b"b", b"a", b"b"]
    assert scratch.values("y", b"key") == scratch.values("x", b"other") == []


def test_the_file_has_no_name(tmp_path):
    scratch = TempStore(tmp_path)
    scratch.add("x", b"key", bytes(100_000))
    assert list(tmp_path.iterdir()) == []
    assert scratch.values("x", b"key") == [bytes(100_000)]


def test_a_folder_that_takes_no_file_is_said(tmp_path):
    with pytest.raises(OutputError, match="temporary file"):
        TempStore(tmp_path / "nowhere")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in kilobytes on Linux")
def test_many_values_are_not_held():
    code = """if True:
        import resource
        from engine.tables.temp_store import TempStore
        scratch = TempStore()
        def held():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = held()
        for number in range(40_000):
            scratch.first("x", number.to_bytes(12, "big"), bytes(1000))
        print(held() - before, scratch.count("x"))
    """
    grown, count = map(int, subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())
    assert count == 40_000
    assert grown < 20_000, "of 40 MB, in kilobytes"
