"""The family of errors: one line each, and an exit code."""

import inspect
import re

import pytest

from engine import errors
from engine.errors import EngineError, Fault, RecipeError

FAMILY = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, EngineError)]


def test_an_error_says_what_why_and_what_to_try_in_one_line():
    error = EngineError("it broke", why="too\nlong", hint="less")
    assert str(error) == "it broke: too long. Try: less."
    assert (error.what, error.hint) == ("it broke", "less")


def test_the_drawing_holds_every_error_with_its_exit_code():
    drawn = {name: int(code) for name, code in re.findall(r"^[│├└─ ]*(\w+) +(\d+)  ", errors.__doc__, re.M)}
    assert len(drawn) == 9  # the others share the code of the one above them
    for each in FAMILY:
        assert re.search(rf"\b{each.__name__}\b", errors.__doc__)
        assert each.exit_code == (drawn.get(each.__name__) or each.__mro__[1].exit_code)


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
def test_exit_codes_are_those_of_the_command_line(kind):
    assert kind.exit_code in {2, 65, 66, 70, 73, 74, 75, 78}


def test_faults_stand_in_the_order_of_their_lines():
    error = RecipeError("x.yaml", [Fault(7, "b", "late"), Fault(2, "a", "early")])
    assert [fault.line for fault in error.faults] == [2, 7]
    assert str(error) == "recipe x.yaml has 2 faults: line 2: a: early; line 7: b: late."


@pytest.mark.parametrize(
    ("fault", "text"),
    [(Fault(3, "a.b", "wrong"), "line 3: a.b: wrong"), (Fault(0, "a", "wrong"), "a: wrong"), (Fault(3, "", "wrong"), "line 3: wrong")],
)
def test_a_fault_says_what_it_knows(fault, text):
    assert str(fault) == text
