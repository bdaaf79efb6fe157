"""The prompt recipe (phrases for each finding, and how similarities become one score) and the recipe of sentences for weak pairs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from engine.recipe.section import Recipe, Section, SectionFaults, plain_name, repeated_names

TAKEN_NAMES = (
    "study", "image", "file", "n_images", "flags", "content_hash", "outcome", "reason", "detail", "modality", "view", "rows", "columns",
    "transfer_syntax", "path", "patient", "sop_instance_uid", "series_instance_uid", "study_instance_uid", "StudyInstanceUID", "report",
    "split", "sex", "age", "source", "finding", "macro", "RESEARCH USE ONLY - not for clinical use",
)  # fmt: skip
"""Columns of score and label tables, and the row of means: findings cannot have these names."""

Phrase = Annotated[str, Field(min_length=1, max_length=400)]


class Phrases(Section):
    """Phrases that say that a finding is present, and that it is absent."""

    positive: tuple[Phrase, ...] = Field(min_length=1)
    negative: tuple[Phrase, ...] = ()

    @model_validator(mode="after")
    def _positives_differ_from_negatives(self) -> Phrases:
        positive, negative = ({_same_text(phrase): phrase for phrase in phrases} for phrases in (self.positive, self.negative))
        if positive.keys() == negative.keys():
            raise ValueError("the positive and the negative phrases are the same, so every score would be 0.5")
        if shared := [phrase for text, phrase in positive.items() if text in negative]:
            raise ValueError(f"{', '.join(map(repr, shared))}: a positive and a negative phrase at once")
        return self


class PromptRecipe(Recipe):
    """Findings and their phrases, in the order of the score columns."""

    findings: dict[str, Phrases] = Field(min_length=1)
    score: Literal["softmax_pair", "cosine", "difference"] = "softmax_pair"
    """softmax_pair: sigmoid of the scaled difference of the positive and negative cosine; cosine, difference: mapped to [0, 1]."""
    pool: Literal["mean_embed", "mean_prob", "max"] = "mean_embed"
    """How several phrases are combined: their mean embedding, the mean of their scores, or the highest score."""
    logit_scale: Literal["learned", "none"] | Annotated[float, Field(gt=0)] = "learned"

    @model_validator(mode="after")
    def _negatives_where_needed(self) -> PromptRecipe:
        if self.score != "cosine":
            missing = [name for name, phrases in self.findings.items() if not phrases.negative]
            if missing:
                raise ValueError(f"score {self.score} needs negative phrases for: {', '.join(missing)}")
        return self

    @field_validator("findings")
    @classmethod
    def _names_and_phrases(cls, findings: dict[str, Phrases]) -> dict[str, Phrases]:
        faults: list[tuple[tuple[str | int, ...], str]] = [
            ((name, "negative", index), f"{phrase!r} negates a negation, which inverts the finding; describe what is seen instead")
            for name, phrases in findings.items()
            for index, phrase in enumerate(phrases.negative)
            if phrase.lower().startswith("no no ")
        ]
        if faults := [*_name_faults(findings), *faults]:
            raise SectionFaults(faults)
        return findings


def _name_faults(names: Iterable[str]) -> list[tuple[tuple[str | int, ...], str]]:
    """Faults of findings that share a name with a table column or, but for case, spaces and hyphens, with an earlier finding."""
    taken = {plain_name(each) for each in TAKEN_NAMES}
    names = list(names)
    return [
        *(((name,), "is the name of a table column; choose another name") for name in names if plain_name(name) in taken),
        *(((name,), f"is the same name as {earlier}") for name, earlier in repeated_names(names)),
    ]


def _same_text(phrase: str) -> str:
    """A phrase without what tokenizers or models ignore: case, spaces, the final full stop."""
    return " ".join(phrase.casefold().split()).rstrip(" .")


Sentence = Annotated[str, Field(min_length=1, max_length=200)]
Chance = Annotated[float, Field(ge=0.0, le=1.0)]


class FindingSentences(Section):
    """Sentences that say that a finding is present, and that it is absent."""

    terms: tuple[Sentence, ...] = Field(min_length=1)
    """Short names of the finding, which replace `{term}` in the prompt-like phrases."""
    positive: tuple[Sentence, ...] = Field(min_length=1)
    negative: tuple[Sentence, ...] = ()
    """Empty: no sentence says that it is absent."""
    says: tuple[str, ...] = ()
    """Findings that these sentences imply, so that they get no sentence themselves."""


class Plain(Section):
    """Phrases in the style of prompts, with `{term}` for a finding's short name."""

    present: tuple[Sentence, ...] = Field(min_length=1)
    absent: tuple[Sentence, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_names_a_term(self) -> Plain:
        for phrase in (*self.present, *self.absent):
            if phrase.count("{term}") != 1:
                raise ValueError(f"{phrase!r} must contain {{term}} once")
        return self


class WeakSentences(Recipe):
    """Sentences for weak pairs, and how they are combined (see engine/data/weak.py)."""

    normal: str = "No Finding"
    """The finding of a normal study; its sentences may be followed by those of absent findings."""
    findings: dict[str, FindingSentences] = Field(min_length=1)
    plain: Plain
    plain_share: Chance = 0.35
    """Share of texts that are one prompt-like phrase."""
    most_present: Annotated[int, Field(ge=1)] = 3
    most_absent: Annotated[int, Field(ge=0)] = 3
    openings: tuple[Sentence, ...] = ()
    """Headings such as "Impression:", put before a fifth of the texts."""

    @model_validator(mode="after")
    def _names_known(self) -> WeakSentences:
        for name, finding in self.findings.items():
            unknown = [implied for implied in finding.says if implied not in self.findings]
            if unknown:
                raise ValueError(f"{name} says {', '.join(unknown)}, which is not a finding of this recipe")
        if self.normal not in self.findings:
            raise ValueError(f"normal: {self.normal!r} is not a finding of this recipe")
        return self
