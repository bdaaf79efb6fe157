"""pydantic's findings in the recipe author's words."""

from typing import Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from engine.recipe.document import read_document
from engine.recipe.schema import validation_faults
from engine.recipe.section import Recipe, Section


class Knob(Section):
    size: int = Field(1, gt=0)
    names: tuple[str, ...] = Field((), max_length=2)
    ends: dict[str, Literal["open", "closed"]] = {}

    @model_validator(mode="after")
    def _no_seven(self):
        if self.size == 7:
            raise ValueError("seven is not a size")
        return self


class Toy(Recipe):
    knobs: tuple[Knob, ...] = ()
    limit: Literal["none"] | float = "none"


def faults(text):
    document = read_document(text.encode())
    with pytest.raises(ValidationError) as caught:
        Toy.model_validate(document.values, strict=False)
    return [str(fault) for fault in validation_faults(caught.value, Toy, document)]


def test_each_fault_stands_at_its_own_line():
    text = "version: 1\nknobs:\n  - size: 0\n  - sise: 3\n  - {size: 7}\n  -\n    names: [a, b, c]\n"
    assert faults(text) == [
        "line 3: knobs.0.size: 0 should be greater than 0",
        "line 4: knobs.1.sise: unknown key; did you mean knobs.1.size?",
        "line 5: knobs.2: seven is not a size",
        "line 7: knobs.3.names: should have at most 2 items after validation, not 3",
    ]


def test_a_wrong_value_in_a_table_names_its_key_and_the_near_word():
    assert faults("version: 1\nknobs:\n  - ends:\n      left: closd\n") == [
        "line 4: knobs.0.ends.left: 'closd' should be 'open' or 'closed'; did you mean closed?"
    ]


def test_members_of_a_union_speak_with_one_voice():
    (fault,) = faults("version: 1\nlimit: often\n")
    assert fault.startswith("line 2: limit: 'often' should be 'none', or 'often' should be a valid number")


def test_a_missing_key_stands_at_the_section_that_lacks_it():
    assert faults("\n\nknobs: []\n") == ["line 3: version: missing"]


def test_long_values_are_not_quoted():
    (fault,) = faults(f"version: 1\nknobs: {'x' * 200}\n")
    assert len(fault) < 100
