import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.intake.ipc import message_in, pack, pack_result, unpack_result
from engine.intake.read_result import ReadResult

PICTURE = np.arange(64 * 70, dtype=np.uint8).reshape(70, 64)


def test_a_reading_survives_the_pipe() -> None:
    sent = ReadResult(
        Path("x"), "score", None, ("padding",), "ab" * 32, None, "DX", "PA", rows=300, columns=256, patient="\x1b=é", image=PICTURE
    )
    message = message_in(bytearray(pack_result(sent, spent=False)))
    assert message is not None
    got = unpack_result(Path("x"), *message)
    assert got.image is not None and np.array_equal(got.image, PICTURE)
    assert all(
        getattr(got, name) == getattr(sent, name) for name in ("flags", "content_hash", "pixel_hash", "view", "rows", "patient", "reason")
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.dictionaries(st.text(max_size=5), st.integers()), st.binary(max_size=50)), max_size=5), st.integers(1, 40))
def test_messages_come_apart_however_they_arrive(messages: list[tuple[dict[str, int], bytes]], step: int) -> None:
    stream = b"".join(pack(head, body) for head, body in messages)
    buffer, got = bytearray(), []
    for start in range(0, len(stream), step):
        buffer += stream[start : start + step]
        while (message := message_in(buffer)) is not None:
            got.append(message)
    assert got == messages and not buffer


@pytest.mark.parametrize(
    "stream", [struct.pack("<II", 1 << 30, 0), struct.pack("<II", 2, 1 << 31), pack({})[:8].replace(b"\2", b"\3") + b"xyz"]
)
def test_what_is_no_message_is_refused(stream: bytes) -> None:
    with pytest.raises(ValueError):
        message_in(bytearray(stream + b"\0" * 8))


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [10, 10]}, {"shape": [-1, -1]}, {"shape": None}, {"modality": 5}, {"patient": ["x"]}, {"outcome": "fine"},
        {"reason": "because"}, {"outcome": "reject", "shape": None, "reason": "<script>"}, {"flags": ["=cmd"]}, {"flags": "polarity"},
        {"content_hash": "zz"}, {"rows": 1 << 80}, {"rows": "7"}, {"columns": True}, {"detail": "=cmd"},
    ],
)  # fmt: skip
def test_a_child_that_lies_is_not_believed(change: dict[str, object]) -> None:
    message = message_in(bytearray(pack_result(ReadResult(Path("x"), "score", image=PICTURE), spent=False)))
    assert message is not None
    head, body = message
    with pytest.raises((ValueError, KeyError, TypeError)):
        unpack_result(Path("x"), json.loads(json.dumps(head | change)), body)
    with pytest.raises((ValueError, KeyError, TypeError)):
        unpack_result(Path("x"), {}, b"")
