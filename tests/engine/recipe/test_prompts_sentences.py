from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from engine.errors import RecipeError
from engine.recipe import load_recipe
from engine.recipe.prompts import WeakSentences
from engine.recipe.sources import CHEXPERT_FINDINGS

UNSAID_BY_LABELS = {"left", "right", "upper", "lower", "middle", "mild", "moderate", "severe", "small", "large", "bilateral"}
TYPICAL = {"Viral Pneumonia": {"bilateral"}}  # Kermany's own pattern: said in the recipe's head


@pytest.fixture(scope="module")
def shipped() -> WeakSentences:
    return load_recipe("weak_sentences", WeakSentences)


def test_every_finding_has_many_wordings(shipped: WeakSentences) -> None:
    assert set(CHEXPERT_FINDINGS) < set(shipped.findings)
    for name, finding in shipped.findings.items():
        assert len(finding.positive) >= (20 if name == shipped.normal else 12), name
        if name != shipped.normal and not finding.says:
            assert len(finding.negative) >= 8, name


def test_no_sentence_says_what_labels_do_not(shipped: WeakSentences) -> None:
    for name, finding in shipped.findings.items():
        for sentence in (*finding.terms, *finding.positive):
            words = set(sentence.lower().strip(".").replace(",", " ").split())
            assert not words & UNSAID_BY_LABELS - TYPICAL.get(name, set()), sentence


def test_a_sentence_has_one_meaning(shipped: WeakSentences) -> None:
    said = [sentence for finding in shipped.findings.values() for sentence in (*finding.positive, *finding.negative)]
    twice = {sentence: count for sentence, count in Counter(said).items() if count > 1}
    # normal studies are also described by what is absent from them
    normal = set(shipped.findings[shipped.normal].positive)
    assert set(twice) <= normal


def test_sentences_that_name_unknown_findings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "version: 1\nnormal: Fine\nplain: {present: ['{term}'], absent: ['no {term}']}\n"
        "findings:\n  Edema: {terms: [edema], positive: [Edema.], says: [Oedema]}\n"
    )
    with pytest.raises(RecipeError, match="Oedema"):
        load_recipe(path, WeakSentences)


def test_a_plain_phrase_must_hold_its_term(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "version: 1\nnormal: Fine\nplain: {present: ['{term} here'], absent: ['nothing']}\n"
        "findings:\n  Fine: {terms: [fine], positive: [Fine.]}\n"
    )
    with pytest.raises(RecipeError, match="must contain"):
        load_recipe(path, WeakSentences)
