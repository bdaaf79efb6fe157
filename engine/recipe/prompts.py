"""The prompt recipe: what is said to the text tower about each finding, and how the answers become one score."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from engine.recipe.section import Recipe, Section

Phrase = Annotated[str, Field(min_length=1, max_length=400)]


class Phrases(Section):
    """How one finding is said to be there, and said to be absent."""

    positive: tuple[Phrase, ...] = Field(min_length=1)
    negative: tuple[Phrase, ...] = ()


class PromptRecipe(Recipe):
    """Findings and their phrasings, in the order of the report's columns."""

    findings: dict[str, Phrases] = Field(min_length=1)
    score: Literal["softmax_pair", "cosine", "difference"] = "softmax_pair"
    """softmax_pair: sigmoid of the scaled difference of positive and negative cosines; cosine, difference: mapped to [0, 1]."""
    pool: Literal["mean_embed", "mean_prob", "max"] = "mean_embed"
    """How several phrasings become one."""
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
    def _no_double_negative(cls, findings: dict[str, Phrases]) -> dict[str, Phrases]:
        for name, phrases in findings.items():
            for phrase in phrases.negative:
                if phrase.lower().startswith("no no "):
                    raise ValueError(f"{name}: {phrase!r} negates a negation, which inverts the finding; say what is seen instead")
        return findings


# The recipe of sentences for weak pairs: how findings, their absence and normal studies are put into words.

Sentence = Annotated[str, Field(min_length=1, max_length=200)]
Chance = Annotated[float, Field(ge=0.0, le=1.0)]


class FindingSentences(Section):
    """How one finding is said to be there, and said to be absent."""

    terms: tuple[Sentence, ...] = Field(min_length=1)
    """Short names of the finding, which fill `{term}` in the prompt-like phrasings."""
    positive: tuple[Sentence, ...] = Field(min_length=1)
    negative: tuple[Sentence, ...] = ()
    """Empty: its absence is never put into words."""
    says: tuple[str, ...] = ()
    """Findings that its words say as well, so that they need no sentence of their own."""


class Plain(Section):
    """Phrasings in the style of prompts, with `{term}` for a finding's short name."""

    present: tuple[Sentence, ...] = Field(min_length=1)
    absent: tuple[Sentence, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_names_a_term(self) -> Plain:
        for phrase in (*self.present, *self.absent):
            if phrase.count("{term}") != 1:
                raise ValueError(f"{phrase!r} must hold {{term}} once")
        return self


class WeakSentences(Recipe):
    """Sentences for weak pairs, and how they are put together (see engine/data/weak.py)."""

    normal: str = "No Finding"
    """The finding that says a study is normal; its sentences may close with those of absent findings."""
    findings: dict[str, FindingSentences] = Field(min_length=1)
    plain: Plain
    plain_share: Chance = 0.35
    """Share of wordings that are one prompt-like phrase."""
    most_present: Annotated[int, Field(ge=1)] = 3
    most_absent: Annotated[int, Field(ge=0)] = 3
    openings: tuple[Sentence, ...] = ()
    """Headings such as "Impression:", put before a fifth of the wordings."""

    @model_validator(mode="after")
    def _names_known(self) -> WeakSentences:
        for name, finding in self.findings.items():
            unknown = [said for said in finding.says if said not in self.findings]
            if unknown:
                raise ValueError(f"{name} says {', '.join(unknown)}, which is no finding of this recipe")
        if self.normal not in self.findings:
            raise ValueError(f"normal: {self.normal!r} is no finding of this recipe")
        return self
