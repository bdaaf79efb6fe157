"""Weak pairs: a report made from an image's labels by sentences of our own, varied, with negations and normal findings.

Nothing is said that the labels do not say: no side, no lobe, no severity. What is unknown is passed over in silence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.recipe.prompts import WeakSentences

OPENING_SHARE = 0.2
"""Share of wordings under a heading such as "Impression:"."""
CONTEXT_SHARE = 1 / 3
"""Share of wordings that open with a sentence on the source as a whole."""


def load_sentences(name: str | Path) -> WeakSentences:
    """The recipe of sentences of that name or path; RecipeError or InputMissing where it cannot be had."""
    from engine.recipe import load_recipe

    return load_recipe(name, WeakSentences)


def told(findings: Sequence[str], sentences: WeakSentences) -> list[str]:
    """The findings that need words of their own, in the recipe's order: known to it, and said by no other one of them."""
    present = set(findings)
    said = {also for name in present & sentences.findings.keys() for also in sentences.findings[name].says}
    return [name for name in sentences.findings if name in present and name not in said]


def weak_report(
    present: Sequence[str], absent: Sequence[str], rng: np.random.Generator, sentences: WeakSentences, *, context: Sequence[str] = ()
) -> str:
    """One wording of these findings; "" where the recipe has no words for any of them.

    Args:
        present: findings that are there. One to `most_present` of them are said, all of them where they are that few.
        absent: findings that were looked for and are not there; up to `most_absent` are said. Unknown ones belong in neither.
        context: sentences true of the source as a whole, which open some wordings.
    """
    there = told(present, sentences)
    missing = [name for name in sentences.findings if name in set(absent) and sentences.findings[name].negative]
    if not there and not missing:
        return ""
    if rng.random() < sentences.plain_share:
        return _plain(there, missing, rng, sentences)
    some = _some(there, sentences.most_present, sentences.most_present, rng)
    parts = [_pick(sentences.findings[name].positive, rng) for name in some]
    if sentences.normal in there:  # a normal study is described from several sides
        normal = sentences.findings[sentences.normal].positive
        parts = _some(normal, 1, 3, rng)
    parts += [_pick(sentences.findings[name].negative, rng) for name in _some(missing, 0 if parts else 1, sentences.most_absent, rng)]
    rng.shuffle(parts)
    if context and rng.random() < CONTEXT_SHARE:
        parts.insert(0, _pick(context, rng))
    if sentences.openings and rng.random() < OPENING_SHARE:
        parts.insert(0, _pick(sentences.openings, rng))
    return " ".join(parts)


def _plain(there: Sequence[str], missing: Sequence[str], rng: np.random.Generator, sentences: WeakSentences) -> str:
    """One phrase in the style of a prompt: of a finding, or, in a study without any, of an absent one half of the time."""
    findings = [name for name in there if name != sentences.normal]
    if findings:
        phrase = _pick(sentences.plain.present, rng)
        most = 1 if " is " in f" {phrase} " else 2  # "is" wants one subject
        names = [_pick(sentences.findings[name].terms, rng) for name in _some(findings, 1, most, rng)]
        return phrase.replace("{term}", " and ".join(names))
    if missing and (not there or rng.random() < 0.5):
        term = _pick(sentences.findings[_pick(missing, rng)].terms, rng)
        return _pick(sentences.plain.absent, rng).replace("{term}", term)
    return _pick(sentences.findings[sentences.normal].terms, rng)


@dataclass(frozen=True)
class Wordings:
    """All wordings made for one set of findings.

    `group` names the findings that the words say are present: sets that read the same share it. `key` also distinguishes what is
    known to be absent and the source's context. `texts` may hold the same words twice; it is empty where there are no words.
    """

    key: str
    group: str
    texts: tuple[str, ...]


def wordings(
    present: Sequence[str], absent: Sequence[str], count: int, sentences: WeakSentences, *, context: Sequence[str] = ()
) -> Wordings:
    """`count` wordings of a set of findings, the same in every run: the set itself and the sentences are the seed."""
    there = told(present, sentences)
    group = "weak:" + ("|".join(there) or "none")
    words = hashlib.sha256("\n".join([*there, "", *sorted(absent), "", sentences.model_dump_json(), *context]).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(words[:16], "little"))
    made = (weak_report(there, absent, rng, sentences, context=context) for _ in range(count))
    return Wordings(f"{group}#{words.hex()[:12]}", group, tuple(text for text in made if text))


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _some(options: Sequence[str], least: int, most: int, rng: np.random.Generator) -> list[str]:
    """Between `least` and `most` different options, as far as there are that many, in random order."""
    most = min(most, len(options))
    count = int(rng.integers(min(least, most), most + 1))
    return [options[int(index)] for index in rng.permutation(len(options))[:count]]
