"""Events are small, frozen, and compare by value."""

import dataclasses

import pytest

from engine.evaluation.events import EvaluationNotice, EvaluationPlan, EvaluationSkipped, ImageEncoded, ModelFigures, ModelStarted


@pytest.mark.parametrize(
    "event",
    [
        EvaluationPlan((("row", ""),)),
        EvaluationSkipped("row", "needs data"),
        EvaluationNotice("said"),
        ModelStarted("row", "tiny", 3),
        ImageEncoded(True),
        ModelFigures("row", "tiny", ()),
    ],
)
def test_an_event_cannot_be_changed_and_equals_its_copy(event):
    assert dataclasses.replace(event) == event
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, dataclasses.fields(event)[0].name, None)
