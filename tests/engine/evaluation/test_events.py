"""Events are small, frozen, and compare by value."""

import dataclasses

import pytest

from engine.evaluation.events import Looked, Measured, Needs, Notice, Planned, Reading


@pytest.mark.parametrize(
    "event",
    [
        Planned((("row", ""),)),
        Needs("row", "needs data"),
        Notice("said"),
        Reading("row", "tiny", 3),
        Looked(True),
        Measured("row", "tiny", ()),
    ],
)
def test_an_event_cannot_be_changed_and_equals_its_copy(event):
    assert dataclasses.replace(event) == event
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, dataclasses.fields(event)[0].name, None)
