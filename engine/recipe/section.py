"""What every recipe shares: frozen, unknown keys refused, a version, a source."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A part of a recipe: frozen, and no key that nobody reads."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Recipe(Section):
    """The top of a recipe file."""

    version: Literal[1]
    """Of the recipe format: a release reads the versions it knows and refuses the others."""
    source: str = ""
    """Where the recipe's numbers or words come from."""
