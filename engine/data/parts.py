"""Which patients are trained on, chosen by, and tested on; and which of the first belong to a fraction of them.

Everything goes by patient, and by hashes of patient and seed alone: other rows of a table change nobody's part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import polars as pl

from engine.errors import ConfigError, LabelsError

if TYPE_CHECKING:
    from engine.data.sources.image_table import ImageTable
    from engine.recipe.finetuning import FinetuneRecipe

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

_VALIDATION_NAMES = {"valid", "validation", "validate", "val", "dev"}
_TRAIN_NAMES = {"train", "training", ""}


@dataclass(frozen=True)
class Split:
    """An image table with its parts.

    Attributes:
        frame: the rows that can be used, with one more column `part`: train, validation or test.
        dropped: reason -> rows left out here: `unlabelled` (no finding is known), `in_another_part` (the same picture, byte for byte, is
            validated or tested on).
        disagreeing: labels that copies of one picture contradict each other about; unknown now in all of them.
    """

    frame: pl.DataFrame
    dropped: Mapping[str, int]
    disagreeing: int

    def part(self, name: Part) -> pl.DataFrame:
        """The rows of one part."""
        return self.frame.filter(pl.col("part") == name)


def wanted_findings(recipe: FinetuneRecipe, table: ImageTable) -> tuple[str, ...]:
    """What a recipe learns: the findings that it names, else all that its sources label.

    Raises:
        ConfigError: there are none, or no source labels one of them.
    """
    if unknown := [name for name in recipe.findings if name not in table.findings]:
        raise ConfigError(
            f"no source labels {', '.join(unknown)}",
            why=f"they label {', '.join(table.findings) or 'no finding'}",
            hint="`findings` as the sources' columns or `rename` spell them",
        )
    if not table.findings:
        raise ConfigError(
            "the sources label no finding",
            why="no column is called as one of the 14 findings of chest14",
            hint="`rename: {COLUMN: Finding}` in the source, or `labels: COLUMN` where one column lists findings",
        )
    return recipe.findings or table.findings


def split_of(frame: pl.DataFrame, findings: Sequence[str], contents: Mapping[str, str], *, share: float, seed: int) -> Split:
    """Every labelled image in one part.

    Test is what its source holds out, unless the source's own split calls it a validation image. Of the other patients `share` are
    validated on, drawn by a hash of seed and patient, unless their source names validation patients of its own.

    Args:
        frame: image table: columns image, patient, split, source, held_out, and one per finding.
        contents: image -> SHA-256 of its file.

    Raises:
        LabelsError: the table's own split has a patient in two parts (leakage).
        ConfigError: a part without images.
    """
    _refuse_leakage(frame)
    known = pl.any_horizontal(pl.col(name).is_not_null() for name in findings) if findings else pl.lit(False)
    labelled = frame.filter(known)
    parts = _parts(labelled, share, seed)
    labelled = labelled.with_columns(
        part=pl.Series(parts, dtype=pl.String), _content=pl.Series([contents[image] for image in labelled["image"]], dtype=pl.String)
    )
    labelled, disagreeing = _agreed(labelled, findings)
    rank = pl.col("part").replace_strict({"train": 0, "validation": 1, "test": 2}, return_dtype=pl.Int8)
    elsewhere = rank < rank.max().over("_content")
    kept = labelled.filter(~elsewhere)
    dropped = {"unlabelled": frame.height - labelled.height, "in_another_part": labelled.height - kept.height}
    for part in PARTS:
        if not (kept["part"] == part).any():
            raise ConfigError(
                f"no labelled image is left for the {part} part",
                why=f"{labelled.height} of {frame.height} images have a label of {', '.join(findings) or 'any finding'}",
                hint="a source with `split: {train: 0.8}` holds out a test part; validation.share of its other patients validate",
            )
    return Split(kept.drop("_content"), {name: count for name, count in dropped.items() if count}, disagreeing)


def _named_part(split: str) -> Part:
    name = split.casefold()
    return "train" if name in _TRAIN_NAMES else "validation" if name in _VALIDATION_NAMES else "test"


def _refuse_leakage(frame: pl.DataFrame) -> None:
    """A table whose own split puts images of one patient in several parts."""
    named = frame.filter(pl.col("split") != "").select("patient", "source", "split")
    parts = named.with_columns(part=pl.Series([_named_part(split) for split in named["split"]], dtype=pl.String))
    several = parts.group_by("patient").agg(pl.col("part").unique().sort(), pl.col("source").first()).filter(pl.col("part").list.len() > 1)
    if several.is_empty():
        return
    pairs = several.with_columns(pl.col("part").list.join(" and ")).group_by("source", "part").len().sort("source", "part")
    raise LabelsError(
        "leakage: the table's own split has patients in more than one part",
        why="; ".join(
            f"source {source}: {count} patient{'s' if count != 1 else ''} in {part}" for source, part, count in pairs.iter_rows()
        ),
        hint="a split column that keeps each patient's images together, or none and `sources.N.split`",
    )


def _parts(frame: pl.DataFrame, share: float, seed: int) -> list[Part]:
    own = {source for source, split in frame.select("source", "split").unique().iter_rows() if _named_part(split) == "validation"}
    parts: list[Part] = []
    for patient, source, split, held_out in frame.select("patient", "source", "split", "held_out").iter_rows():
        if _named_part(split) == "validation":
            parts.append("validation")
        elif held_out:
            parts.append("test")
        else:
            parts.append("validation" if source not in own and _uniform(f"{seed}:validation:{patient}") < share else "train")
    return parts


def _agreed(frame: pl.DataFrame, findings: Sequence[str]) -> tuple[pl.DataFrame, int]:
    """What copies of one picture say differently is unknown in all of them; and the number of labels that this took away."""
    differs = {name: pl.col(name).n_unique().over("_content") - pl.col(name).is_null().any().over("_content") > 1 for name in findings}
    count = sum(int(value) for value in frame.select(differs[name].sum().alias(name) for name in findings).row(0)) if findings else 0
    return frame.with_columns(pl.when(differs[name]).then(None).otherwise(pl.col(name)).alias(name) for name in findings), count


def patients_in_order(labels: Mapping[str, Sequence[int | None]], seed: int) -> list[str]:
    """The patients in the order in which fractions take them: every prefix mirrors the whole, and smaller fractions lie in larger ones.

    Patients of one kind (the same findings present, absent and unknown) are spread evenly over the order by systematic sampling: the
    i-th of the kind's n patients, in the order of a hash of seed and patient, stands at (i + u) / n with one u of the kind.

    Args:
        labels: patient -> for each finding 1 (present in one of the images), 0 (absent) or None (unknown).
    """
    kinds: dict[tuple[int | None, ...], list[str]] = {}
    for patient, values in labels.items():
        kinds.setdefault(tuple(values), []).append(patient)
    places = []
    for kind, patients in kinds.items():
        offset = _uniform(f"{seed}:kind:{kind}")
        for number, patient in enumerate(sorted(patients, key=lambda patient: (_uniform(f"{seed}:fraction:{patient}"), patient))):
            places.append(((number + offset) / len(patients), patient))
    return [patient for _, patient in sorted(places)]


def fraction_of(frame: pl.DataFrame, findings: Sequence[str], fraction: float, seed: int) -> pl.DataFrame:
    """The images of `fraction` of the patients (0 to 1; rounded, and at least one patient), by `patients_in_order`."""
    if fraction >= 1:
        return frame
    by_patient = frame.group_by("patient", maintain_order=True).agg(pl.col(name).max() for name in findings)
    order = patients_in_order({patient: values for patient, *values in by_patient.iter_rows()}, seed)
    return frame.filter(pl.col("patient").is_in(order[: max(1, round(fraction * len(order)))]))


def split_hash(frame: pl.DataFrame) -> str:
    """A sha256 over the names of the images, sorted: equal for equal parts, whatever the order of the table."""
    digest = hashlib.sha256()
    for image in sorted(frame["image"].to_list()):
        digest.update(image.encode() + b"\n")
    return digest.hexdigest()


def _uniform(salted: str) -> float:
    """A number in [0, 1) that this string alone decides."""
    return int.from_bytes(hashlib.sha256(salted.encode()).digest()[:8], "big") / 2**64
