from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.weak import load_sentences, told, weak_report, wordings
from engine.recipe.prompts import FindingSentences, Plain, WeakSentences

NAMES = ("Normal", "A", "B", "C", "D", "E")


def coded(plain_share: float = 0.3) -> WeakSentences:
    """Sentences that can be read back: "A+1." says that A is there, "A-2." that it is not, "tA" is its short name."""
    findings = {
        name: FindingSentences(terms=(f"t{name}",), positive=tuple(f"{name}+{i}." for i in range(4)), negative=(f"{name}-0.", f"{name}-1."))
        for name in NAMES[:-1]
    }
    findings["E"] = FindingSentences(terms=("tE",), positive=("E+0.",), says=("D",))
    plain = Plain(present=("{term}", "with {term}"), absent=("no {term}",))
    return WeakSentences(
        version=1, normal="Normal", findings=findings, plain=plain, plain_share=plain_share, openings=("Impression:",), most_absent=2
    )


states = st.dictionaries(st.sampled_from(NAMES[1:]), st.sampled_from([0, 1, None]))


@given(states, st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_a_wording_says_nothing_that_the_labels_do_not(state: dict[str, int | None], seed: int, plain_share: float) -> None:
    present = [name for name, value in state.items() if value == 1]
    absent = [name for name, value in state.items() if value == 0]
    text = weak_report(present, absent, np.random.default_rng(seed), coded(plain_share))
    there = set(re.findall(r"(\w)\+", text)) | (set(re.findall(r"t([A-E]|Normal)", text)) if "no " not in text else set())
    missing = set(re.findall(r"(\w)-", text)) | (set(re.findall(r"no t([A-E])", text)))
    assert there <= set(present)
    assert missing <= set(absent)
    sayable = set(present) or set(absent) - {"E"}
    assert bool(text) == bool(sayable)


@given(st.integers(0, 2**32 - 1))
def test_all_findings_are_said_where_they_are_few(seed: int) -> None:
    text = weak_report(["A", "B", "C"], [], np.random.default_rng(seed), coded(plain_share=0))
    assert set(re.findall(r"(\w)\+", text)) == {"A", "B", "C"}


def test_of_many_findings_three_are_said() -> None:
    text = weak_report(["A", "B", "C", "D"], [], np.random.default_rng(0), coded(plain_share=0))
    assert len(re.findall(r"\+", text)) == 3


def test_a_finding_that_another_one_says_has_no_words_of_its_own() -> None:
    assert told(["D", "E", "unheard of"], coded()) == ["E"]
    assert wordings(["D", "E"], [], 4, coded()).group == wordings(["E"], [], 4, coded()).group == "weak:E"


def test_a_normal_study_is_described_from_several_sides_and_by_what_is_absent() -> None:
    texts = wordings(["Normal"], ["A", "B"], 200, coded(plain_share=0)).texts
    assert {len(re.findall(r"Normal\+", text)) for text in texts} == {1, 2, 3}
    assert {len(re.findall(r"-", text)) for text in texts} == {0, 1, 2}
    phrases = set(wordings(["Normal"], ["A", "B"], 200, coded(plain_share=1)).texts)
    assert phrases == {"tNormal", "no tA", "no tB"}


def test_context_opens_a_third_of_the_sentences() -> None:
    texts = wordings(["A"], [], 600, coded(plain_share=0), context=["A child."]).texts
    assert 0.25 < sum("A child." in text for text in texts) / 600 < 0.42
    assert all(text.index("A child.") < text.index("A+") for text in texts if "A child." in text)


def test_wordings_are_the_same_in_every_run_and_do_not_hang_on_the_order_of_labels() -> None:
    assert wordings(["A", "B"], ["C", "D"], 9, coded()) == wordings(["B", "A"], ["D", "C"], 9, coded())
    assert wordings(["A"], [], 9, coded()).texts != wordings(["B"], [], 9, coded()).texts
    assert wordings(["A"], ["B"], 9, coded()).key != wordings(["A"], ["C"], 9, coded()).key


def test_nothing_known_is_no_text() -> None:
    assert wordings([], [], 5, coded()).texts == ()


@pytest.mark.parametrize(
    ("present", "absent", "phrases"),
    [
        (["Pneumonia"], [], {"pneumonia", "pneumonia is present", "there is pneumonia", "findings consistent with pneumonia"}),
        (["No Finding"], ["Pneumonia"], {"no pneumonia", "no evidence of pneumonia", "normal chest radiograph", "clear lungs"}),
        (["Bacterial Pneumonia", "Pneumonia"], [], {"pneumonia", "bacterial pneumonia"}),
    ],
)
def test_shipped_sentences_speak_in_the_style_of_prompts_too(present: list[str], absent: list[str], phrases: set[str]) -> None:
    assert phrases <= set(wordings(present, absent, 3000, load_sentences("weak_sentences.yaml")).texts)


def test_shipped_sentences_vary() -> None:
    texts = wordings(["Pneumonia", "Lung Opacity"], [], 500, load_sentences("weak_sentences.yaml")).texts
    assert len(set(texts)) > 250
