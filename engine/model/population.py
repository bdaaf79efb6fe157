"""Training population of a model: how many images by age and view, carried in its bundle; and whether a patient is outside it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

AGE_BANDS = ((0, "0-5"), (6, "6-17"), (18, "18-39"), (40, "40-64"), (65, "65 and over"))
"""Lower limit in years of each band, and its name."""
RARE = 0.05
"""An age band or view with a smaller share of the training images of known age or view is outside of the population."""
FLAG = "outside_training_population"


def age_in_years(cell: str) -> float | None:
    """Years from `63`, `63.0`, `063Y`, `7M`, `3W` or `12D` (DICOM PS3.5, 6.2, AS); None for anything else or beyond 0 to 130."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([YMWD]?)", cell.strip().upper())
    if not found:
        return None
    years = float(found[1]) / {"": 1, "Y": 1, "M": 12, "W": 365.25 / 7, "D": 365.25}[found[2]]
    return years if years <= 130 else None


def age_band(years: float) -> str:
    """The name of the band of an age."""
    return next(name for lowest, name in reversed(AGE_BANDS) if years >= lowest)


@dataclass(frozen=True)
class Population:
    """Images that a model was trained on.

    Attributes:
        sources: source -> images.
        ages: age band -> images of known age.
        views: AP or PA -> images of known view.
    """

    sources: Mapping[str, int] = field(default_factory=dict)
    ages: Mapping[str, int] = field(default_factory=dict)
    views: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def of(images: Iterable[tuple[str, float | None, str]]) -> Population:
        """The population of images given as (source, age in years or None, view)."""
        sources, ages, views = Counter[str](), Counter[str](), Counter[str]()
        for source, age, view in images:
            sources[source] += 1
            if age is not None:
                ages[age_band(age)] += 1
            if (known := _view(view)) is not None:
                views[known] += 1
        by_age = {name: ages[name] for _, name in AGE_BANDS if name in ages}
        return Population(dict(sorted(sources.items())), by_age, dict(sorted(views.items())))

    @staticmethod
    def read(provenance: Mapping[str, Any]) -> Population | None:
        """The population in the provenance of a bundle; None where it has none, or one that cannot be read."""
        stored = provenance.get("population")
        if not isinstance(stored, Mapping):
            return None
        parts = [stored.get(name, {}) for name in ("sources", "ages", "views")]
        if not all(isinstance(part, Mapping) and all(isinstance(count, int) for count in part.values()) for part in parts):
            return None
        return Population(*(dict(part) for part in parts))

    def as_section(self) -> dict[str, Any]:
        """The section of the provenance."""
        return {"sources": dict(self.sources), "ages": dict(self.ages), "views": dict(self.views)}

    def is_outside(self, age: float | None, view: str | None) -> bool:
        """Whether a patient's age band, or the view, is rare or absent in training; what is not known on either side is not outside."""
        band = None if age is None else age_band(age)
        return _is_rare(self.ages, band) or _is_rare(self.views, _view(view or ""))

    def __str__(self) -> str:
        """The population in a sentence, for first screens and cards."""
        parts = [f"{count} of {source}" for source, count in self.sources.items()]
        ages = ", ".join(f"{name}: {count}" for name, count in self.ages.items()) or "not known"
        views = ", ".join(f"{name}: {count}" for name, count in self.views.items()) or "not known"
        return f"images {', '.join(parts) or 'not known'}; ages {ages}; views {views}"


def _view(view: str) -> str | None:
    return view.upper() if view.upper() in ("AP", "PA") else None


def _is_rare(counts: Mapping[str, int], key: str | None) -> bool:
    total = sum(counts.values())
    return key is not None and total > 0 and counts.get(key, 0) < RARE * total
