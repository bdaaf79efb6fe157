"""The prompt recipe: what is said to the text tower about each finding, and how the answers become one score."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from engine.recipe.base import Recipe, Section

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
