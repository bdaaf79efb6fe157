"""YAML, read more strictly than YAML asks for."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine.recipe.document import MAX_BYTES, MAX_DEPTH, MAX_VALUES, read_document, read_scalar, read_value


def read(text):
    return read_document(text.encode())


def only_fault(raw):
    document = read_document(raw if isinstance(raw, bytes) else raw.encode())
    (fault,) = document.faults
    return fault


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-17", -17),
        ("1e-3", 1e-3),
        ("5E-5", 5e-5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-2.5e+3", -2500.0),
    ],
)
def test_plain_words_with_a_value(word, value):
    found = read_scalar(word)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "word",
    [
        *("no", "yes", "on", "off", "No", "YES", "On", "y", "n", "True", "FALSE", "Null"),
        *("010", "0x1F", "0o17", "0b1", "1_000", "1,000", "12:30:00", "2026-11-22", "v1.0"),
        *(".inf", ".nan", "inf", "nan", ".", "+", "e3", ".e3", "1e", "<<"),
    ],
)
def test_words_that_stay_words(word):
    assert read_scalar(word) == word
    assert read(f"key: {word}").values == {"key": word}


@pytest.mark.parametrize("word", ["1e999", "-1e400", "1" * 400, "9999999999999999999"])
def test_numbers_too_large_to_hold_are_refused_with_their_line(word):
    fault = only_fault(f"a: 1\nb: {word}\n")
    assert (fault.line, fault.path) == (2, "b")


def test_quoted_words_are_text():
    assert read("a: '1'\nb: \"true\"\nc: |\n  1\n").values == {"a": "1", "b": "true", "c": "1\n"}


def test_keys_are_the_words_as_written():
    assert read("no: 1\n010: 2\n1e-3: 3\ntrue: 4\n").values == {"no": 1, "010": 2, "1e-3": 3, "true": 4}


def test_every_key_and_item_has_its_line():
    document = read("a: 1\nb:\n  - x\n  - c: 2\n    d: 3\n")
    assert {path: line for path, line in document.lines.items() if path} == {
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1): 4,
        ("b", 1, "c"): 4,
        ("b", 1, "d"): 5,
    }
    assert document.line(("b", 1, "absent")) == 4


def test_a_key_given_twice_names_both_lines():
    fault = only_fault("a:\n  b: 1\n  c: 2\n  b: 3\n")
    assert (fault.line, fault.path) == (4, "a.b")
    assert "first on line 2" in fault.message


def test_an_alias_bomb_stays_small_and_each_alias_is_a_fault():
    bomb = "a: &a [x, x]\n" + "".join(f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdefghij", "bcdefghijk", strict=True))
    document = read(bomb)
    assert sum("alias" in fault.message for fault in document.faults) == 20
    assert len(str(document.values)) < 1000


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!str", "!own", "!!python/name:os.getcwd"])
def test_tags_are_refused_and_never_run(tag):
    fault = only_fault(f"a: 1\nb: {tag} [x]\n")
    assert (fault.line, fault.path) == (2, "b")
    assert "tags are not read" in fault.message


def test_merge_keys_are_plain_keys_with_a_refused_alias():
    document = read("base: {x: 1}\nmore:\n  <<: *base\n")
    assert [fault.line for fault in document.faults] == [3]


@pytest.mark.parametrize("opening", ["[", "{a: ", "\n- "])
def test_nesting_has_an_end(opening):
    deep = opening * (MAX_DEPTH + 1) if opening != "\n- " else "- " * (MAX_DEPTH + 1) + "x"
    assert any("nested deeper" in fault.message for fault in read(deep).faults)


def test_a_hundred_thousand_brackets_end_at_once():
    assert "nested deeper" in only_fault("[" * 100_000).message


def test_size_has_an_end():
    assert "bytes" in only_fault(b"a: " + b"x" * MAX_BYTES).message


@pytest.mark.parametrize("text", ["a: [" + "1," * 300_000 + "1]", "".join(f"k{n}: 1\n" for n in range(40_000)), "- a\n" * 200_000])
def test_a_megabyte_of_values_is_not_read_to_its_end(text):
    document = read(text)
    assert [fault.message for fault in document.faults] == ["more than 20,000 values: this is not a recipe"]
    assert len(document.lines) <= MAX_VALUES + 2


def test_a_file_full_of_faults_ends_after_a_hundred():
    faults = read("a: 1\n" * 100_000).faults
    assert len(faults) == 101
    assert "100 faults" in faults[-1].message


def test_byte_order_mark_and_crlf_are_read():
    document = read_document("a: 1\r\nb: größer\r\n".encode("utf-8-sig"))
    assert document.values == {"a": 1, "b": "größer"}
    assert document.lines[("b",)] == 2


def test_latin_1_is_refused_with_its_line():
    fault = only_fault("a: 1\nb: größer\n".encode("latin-1"))
    assert fault.line == 2
    assert "UTF-8" in fault.message


def test_utf_16_is_refused():
    assert "UTF-16" in only_fault("a: 1\n".encode("utf-16")).message


@pytest.mark.parametrize("text", ["a:\n\tb: 1\n", "a: 1\nb:\t\t\n  c: 2\n\td: 3", "a: 1\n\tb: 1\n"])
def test_tabs_are_refused_with_their_line(text):
    fault = only_fault(text)
    assert "tab" in fault.message
    assert fault.line == next(i for i, line in enumerate(text.split("\n"), 1) if "\t" in line)


@pytest.mark.parametrize("text", ["a: 1\nb: \x00\n", "a: 1\nb: \x07\n"])
def test_control_characters_are_refused_with_their_line(text):
    fault = only_fault(text)
    assert fault.line == 2


def test_half_a_surrogate_pair_is_refused():
    assert "surrogate" in only_fault('a: "\\ud800"\n').message


@pytest.mark.parametrize(
    ("text", "line"), [("a: b: c\n", 1), ("a: [1, 2\nb: 3\n", 2), ("a: 1\n b: 2\n", 2), ("a: 'x\n\nb: 1", 3), ("a: @x\n", 1)]
)
def test_broken_structure_is_one_fault_with_a_line(text, line):
    fault = only_fault(text)
    assert fault.line == line
    assert fault.message


def test_a_second_document_is_a_fault():
    assert "second document" in only_fault("a: 1\n---\nb: 2\n").message


@pytest.mark.parametrize("text", ["? [a, b]\n: 1\n", "{[a]: 1}\n", "? {a: 1}\n: 2\n"])
def test_keys_that_are_no_words_are_refused(text):
    assert any("keys are plain text" in fault.message for fault in read(text).faults)


def test_faults_before_a_break_in_the_structure_are_kept():
    faults = read("a: 1\na: 2\nb: [\n").faults
    assert [fault.line for fault in faults][:1] == [2]
    assert len(faults) == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        (" a b ", "a b"),
        ("[1, no]", [1, "no"]),
        ("{a: 1e-3}", {"a": 1e-3}),
        ("'5'", "5"),
        ("a: b", "a: b"),
        ("", None),
        ("#x", "#x"),
    ],
)
def test_a_value_outside_a_file(text, value):
    assert read_value(text) == value


@pytest.mark.parametrize("text", ["[1", "'x", "[*a]", "1e999"])
def test_a_value_that_cannot_be_read_says_why(text):
    with pytest.raises(ValueError, match=r"\w"):
        read_value(text)


@given(st.binary(max_size=300) | st.text("ab:-[]{}&*!|>'\"#%@?,\n \t0", max_size=80).map(str.encode))
def test_whatever_the_bytes_a_fault_has_a_line_of_the_file(raw):
    lines = len(raw.decode("utf-8-sig", "replace").splitlines()) + 1
    for fault in read_document(raw).faults:
        assert 1 <= fault.line <= lines
        assert fault.message


_words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Co", "Cn")), min_size=1, max_size=8).filter(
    lambda word: read_scalar(word) == word  # YAML 1.1 writes the text 1e3 without quotes, and here it is a number
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False) | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(_words, _values, max_size=4))
def test_what_another_writer_wrote_is_read_back(values):
    document = read_document(yaml.safe_dump(values, allow_unicode=True).encode())
    assert document.faults == ()
    assert document.values == values
