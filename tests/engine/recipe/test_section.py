"""What every recipe shares."""

import pydantic
import pytest

from engine.recipe.section import Recipe, Section


class Toy(Recipe):
    size: float = 1.0


def test_unknown_keys_are_refused():
    with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
        Toy(version=1, sise=2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_number_is_nan_or_infinite(value):
    with pytest.raises(pydantic.ValidationError, match="finite"):
        Toy(version=1, size=value)


def test_a_section_does_not_change():
    class Part(Section):
        a: int = 1

    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Part().a = 2


def test_a_recipe_without_a_version_is_refused():
    with pytest.raises(pydantic.ValidationError, match="version"):
        Toy()
