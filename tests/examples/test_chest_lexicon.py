import pytest

from engine.errors import RecipeError


@pytest.fixture(scope="module")
def lexicon(script):
    return script("examples/chest_lexicon.py")


def test_choices_open_inside_choices(lexicon):
    assert lexicon.expand("{a|b{c|}} d{s|}") == ["a ds", "a d", "bc ds", "bc d", "b ds", "b d"]


def test_a_named_list_stands_for_its_choices(lexicon):
    assert lexicon.expand("@side effusion", {"side": "{left|right}"}) == ["left effusion", "right effusion"]


def test_an_empty_choice_leaves_no_double_space(lexicon):
    assert lexicon.expand("{small |}{left |} effusion") == ["small left effusion", "small effusion", "left effusion", "effusion"]


@pytest.mark.parametrize("entry", ["{a|b", "a}", "a|b", "@nobody effusion"])
def test_an_entry_that_cannot_be_read_is_refused(entry, lexicon):
    with pytest.raises(ValueError):
        lexicon.expand(entry)


def test_every_fault_of_a_lexicon_is_told_with_its_line(tmp_path, lexicon):
    (tmp_path / "lexicon.txt").write_text("early term\n[FINDING]\nopacity\n{mass|masses\n[COLOUR]\n")
    with pytest.raises(RecipeError) as error:
        lexicon.read_lexicon(tmp_path / "lexicon.txt")
    assert [fault.line for fault in error.value.faults] == [1, 4, 5]


def test_a_term_is_listed_once_under_its_first_label(tmp_path, lexicon):
    (tmp_path / "lexicon.txt").write_text("# a comment\n@n = a | b\n[DISEASE]\n@n mass\n\n[FINDING]\na mass\nc mass\n")
    assert [(term.text, term.label) for term in lexicon.read_lexicon(tmp_path / "lexicon.txt")] == [
        ("a mass", "DISEASE"),
        ("b mass", "DISEASE"),
        ("c mass", "FINDING"),
    ]


def test_the_lexicon_holds_clean_lower_case_terms_of_every_label(lexicon):
    terms = lexicon.read_lexicon()
    assert len({term.text for term in terms}) == len(terms) > 600
    assert {term.label for term in terms} == set(lexicon.LABELS)
    assert all(term.text == " ".join(term.text.lower().split()) != "" for term in terms)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("pleural effusion", "DISEASE"),
        ("bibasilar atelectases", "DISEASE"),
        ("pulmonary oedema", "DISEASE"),
        ("haemothorax", "DISEASE"),
        ("left lower lobe air space opacity", "FINDING"),
        ("ground-glass opacities", "FINDING"),
        ("blunting of the left costophrenic angle", "FINDING"),
        ("endotracheal tube", "DEVICE"),
        ("right internal jugular central venous catheter", "DEVICE"),
        ("median sternotomy", "PROCEDURE"),
    ],
)
def test_terms_and_their_other_spellings_are_there(text, label, lexicon):
    assert {term.text: term.label for term in lexicon.read_lexicon()}[text] == label


@pytest.mark.parametrize("text", ["heart", "lungs", "the", "normal", "right", "left", "clear", "no", "disease", "change", "tips", "lines"])
def test_anatomy_and_plain_words_are_no_terms(text, lexicon):
    assert text not in {term.text for term in lexicon.read_lexicon()}
