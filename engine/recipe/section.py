"""Base classes of recipes: frozen, strict, versioned; and faults that name their place below a section."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A section of a recipe: frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Recipe(Section):
    """The top level of a recipe file."""

    version: Literal[1]
    """Version of the recipe format. A release refuses versions that it does not know."""
    source: str = ""
    """Where the numbers or phrases of the recipe come from."""


class SectionFaults(ValueError):  # noqa: N818 - pydantic turns it into faults of a recipe
    """Several faults that a validator found at once.

    Attributes:
        faults: (path below the validated section, message) of each.
    """

    def __init__(self, faults: Sequence[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__("; ".join(message for _, message in faults))
        self.faults = tuple(faults)


def plain_name(name: str) -> str:
    """A finding's name as label columns are matched: case, spaces, hyphens and underscores do not count."""
    return re.sub(r"[\s_-]+", " ", name.casefold()).strip()


def repeated_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """(name, earlier name) of each name that differs from an earlier one in nothing that `plain_name` keeps."""
    first: dict[str, str] = {}
    repeated = []
    for name in names:
        if (earlier := first.get(plain_name(name))) is not None:
            repeated.append((name, earlier))
        else:
            first[plain_name(name)] = name
    return repeated
