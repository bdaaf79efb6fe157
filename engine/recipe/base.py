"""What every recipe shares: frozen, unknown keys refused, a version, a source."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a recipe: frozen, and no key that nobody reads."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Recipe(Section):
    """The top of a recipe file."""

    version: int
    source: str = ""
    """Where the recipe's numbers or words come from."""
