"""Fractions of the training patients, as `finetune --fraction` draws them: nested, and each a mirror of the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.data.splits import PARTS, Split, patient_keys, uniform
from engine.errors import ConfigError, UsageError


def patients_in_order(labels: Mapping[str, Sequence[int | None]], seed: int, keys: Mapping[str, str] | None = None) -> list[str]:
    """The patients in the order in which fractions take them: every prefix mirrors the whole, and smaller fractions are in larger ones.

    Patients of one kind (the same findings present, absent and unknown) are spread evenly over the order by systematic sampling: the
    i-th of the kind's n patients, in the order of a hash of seed and patient, is at (i + u) / n with one u of the kind.

    Args:
        labels: patient -> for each finding 1 (present in one of the images), 0 (absent) or None (unknown).
        keys: patient -> what is hashed; None: the patient.
    """
    keys = keys or {patient: patient for patient in labels}
    kinds: dict[tuple[int | None, ...], list[str]] = {}
    for patient, values in labels.items():
        kinds.setdefault(tuple(values), []).append(patient)
    places = []
    for kind, patients in kinds.items():
        offset = uniform(f"{seed}:kind:{kind}")
        for number, patient in enumerate(sorted(patients, key=lambda patient: (uniform(f"{seed}:fraction:{keys[patient]}"), patient))):
            places.append(((number + offset) / len(patients), patient))
    return [patient for _, patient in sorted(places)]


def fraction_of(frame: pl.DataFrame, findings: Sequence[str], fraction: float, seed: int) -> pl.DataFrame:
    """The images of `fraction` of the patients (0 to 1; rounded, and at least one patient), by `patients_in_order`."""
    if fraction >= 1:
        return frame
    by_patient = frame.group_by("patient", maintain_order=True).agg(pl.col(name).max() for name in findings)
    keys = dict(zip(frame["patient"], patient_keys(frame), strict=True))
    order = patients_in_order({patient: values for patient, *values in by_patient.iter_rows()}, seed, keys)
    return frame.filter(pl.col("patient").is_in(order[: max(1, round(fraction * len(order)))]))


def split_hash(frame: pl.DataFrame) -> str:
    """A sha256 over the names of the images, sorted: equal for equal parts, for any order of the table."""
    digest = hashlib.sha256()
    for image in sorted(frame["image"].to_list()):
        digest.update(image.encode() + b"\n")
    return digest.hexdigest()


@dataclass(frozen=True)
class FractionSplit:
    """The training part of one fraction. `one_class`: findings that it shows only present, or only absent: not learned."""

    fraction: float
    patients: int
    images: int
    positive: Mapping[str, int]
    negative: Mapping[str, int]
    one_class: tuple[str, ...]


@dataclass(frozen=True)
class Fraction:
    """The three parts as one fraction has them.

    Attributes:
        share: of the training patients, above 0 and at most 1.
        findings: all that are asked for; `learned` are those of which the training part shows both classes.
        train, validation, test: rows of the image table.
        drawn: what the training part holds.
        sources: names of those that any part, undrawn patients included, comes from.
    """

    share: float
    findings: tuple[str, ...]
    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame
    drawn: FractionSplit
    sources: tuple[str, ...]

    @property
    def learned(self) -> tuple[str, ...]:
        """The findings that can be learned. Raises ConfigError where there is none."""
        if learned := tuple(name for name in self.findings if name not in self.drawn.one_class):
            return learned
        raise ConfigError(
            f"{100 * self.share:g} % of the training patients show one class only of every finding",
            why=f"{self.drawn.patients} patients, {self.drawn.images} images",
            hint="a larger --fraction" if self.share < 1 else "more labelled images: a finding needs some with it and some without it",
        )

    @property
    def labels(self) -> NDArray[np.float32]:
        """(N, F) of the training part over the learned findings: 1 = present, 0 = absent, NaN = unknown."""
        return labels_of(self.train, self.learned)

    @property
    def validation_labels(self) -> NDArray[np.float32]:
        """The same of the validation part."""
        return labels_of(self.validation, self.learned)

    def account(self) -> dict[str, dict[str, Any]]:
        """Part -> its patients, images, and a sha256 over the names of its images."""
        frames = dict(zip(PARTS, (self.train, self.validation, self.test), strict=True))
        return {
            part: {"patients": frame["patient"].n_unique(), "images": frame.height, "sha256": split_hash(frame)}
            for part, frame in frames.items()
        }


def labels_of(frame: pl.DataFrame, findings: Sequence[str]) -> NDArray[np.float32]:
    """(N, F): 1 = present, 0 = absent, NaN = unknown."""
    columns = frame.select(pl.col(name).cast(pl.Float32).fill_null(float("nan")) for name in findings)
    return columns.to_numpy().astype(np.float32, copy=False)


def checked_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    """The same, ascending, each once. Raises UsageError for one that is not above 0 and at most 1, and for none."""
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
        raise UsageError("a fraction is above 0 and at most 1", hint="--fraction 0.01,0.1,1")
    return tuple(sorted(set(fractions)))


def fraction_split(split: Split, findings: Sequence[str], share: float, seed: int, *, scaled: bool) -> Fraction:
    """The parts with `share` of the training patients, drawn by `fraction_of`.

    Args:
        share: above 0 and at most 1.
        seed: decides which patients.
        scaled: take that share of the validation patients too, instead of all.
    """
    train, validation = fraction_of(split.part("train"), findings, share, seed), split.part("validation")
    if scaled:
        validation = fraction_of(validation, findings, share, seed)
    positive = {name: int((train[name] == 1).sum()) for name in findings}
    negative = {name: int((train[name] == 0).sum()) for name in findings}
    one_class = tuple(name for name in findings if not (positive[name] and negative[name]))
    drawn = FractionSplit(share, train["patient"].n_unique(), train.height, positive, negative, one_class)
    return Fraction(share, tuple(findings), train, validation, split.part("test"), drawn, tuple(sorted(set(split.frame["source"]))))
