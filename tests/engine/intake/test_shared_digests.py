import os
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.intake.shared_digests import SharedDigests, shared_digests

DIGEST = st.binary(min_size=32, max_size=32)


@settings(max_examples=50, deadline=None)
@given(st.sets(DIGEST, min_size=1), st.lists(DIGEST, max_size=5))
def test_it_holds_what_was_shared_and_nothing_else(digests, others):
    with shared_digests(b"".join(sorted(digests))) as handle:
        contents = SharedDigests(handle)
        assert list(contents) == sorted(digests)
        assert all(digest in contents for digest in digests)
        assert [digest in contents for digest in others] == [digest in digests for digest in others]
        assert b"" not in contents and "text" not in contents


def test_nothing_to_share_needs_no_file():
    with shared_digests(b"") as handle:
        assert handle is None


def test_the_file_has_no_name_and_goes_with_its_last_user():
    with shared_digests(bytes(32)) as handle:
        assert os.fstat(handle).st_nlink == 0


@pytest.mark.skipif(sys.platform != "linux", reason="opened anew through /proc")
def test_a_child_process_cannot_change_it():
    with shared_digests(bytes(32)) as handle, pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(handle, b"x", 0)
