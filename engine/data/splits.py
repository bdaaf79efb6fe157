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


import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import UsageError
from engine.recipe.evaluation import EvaluationRecipe, SplitSection
from engine.tables.labels import plain_name

# SplitSection of a data set - train, valid, test - by published lists or drawn by patient; each named, counted and hashed.

SUFFIXES = {"png", "jpg", "jpeg", "dcm", "dicom"}
"""Suffixes of picture files, which lists may give or leave out."""


def stem_of(name: str) -> str:
    """An image's name without folders and without the suffix of a picture; dots that are part of the name stay."""
    last = name.strip().replace("\\", "/").rpartition("/")[2]
    stem, dot, suffix = last.rpartition(".")
    return stem if dot and suffix.lower() in SUFFIXES else last


def sha256_of(names: pl.Series | Sequence[str]) -> str:
    """SHA-256 of the different names, sorted, one a line: equal for equal sets of images or studies, whatever their order."""
    lines = pl.Series("names", names, pl.String).unique().sort().str.join("\n").item()
    return hashlib.sha256(lines.encode()).hexdigest()


def drawn_parts(patients: Iterable[str], shares: Sequence[tuple[str, float]], seed: int) -> dict[str, str]:
    """Patient -> part, by a hash of seed and patient alone: what else the table holds changes nothing.

    Args:
        shares: (part, share of the patients), adding up to 1; the last takes what rounding leaves.
    """

    def part_of(patient: str) -> str:
        place = int.from_bytes(hashlib.sha256(f"{seed}:{patient}".encode()).digest()[:8], "big") / 2**64
        for part, share in shares[:-1]:
            if place < share:
                return part
            place -= share
        return shares[-1][0]

    return {patient: part_of(patient) for patient in set(patients)}


def read_list(path: Path, images: Iterable[str]) -> frozenset[str]:
    """The images that a list names, without their suffix: plain text with one a line, or a CSV that names them in some column.

    Args:
        images: the data set's own images. The column that names most of them is the one; a header is a name like any other and drops out.

    Raises:
        InputMissing, ReadError: it cannot be read.
        ConfigError: it names no image of the data set.
    """
    from engine.data.sources.label_files import label_text  # engine.data.sources imports this module

    known = {stem_of(image) for image in images}
    columns: dict[int, set[str]] = {}
    for row in csv.reader(io.StringIO(label_text(path), newline="")):
        for place, cell in enumerate(row):
            if (stem := stem_of(cell)) in known:
                columns.setdefault(place, set()).add(stem)
    if not columns:
        raise ConfigError(
            f"the list {path.name} names no image of this data set",
            why=f"none of its names is among the table's {len(known):,}",
            hint="give one image a line, as the table spells it, or a CSV with a column of images",
        )
    most = max(columns.values(), key=len)
    return frozenset(most)


def parts_by_lists(rows: pl.DataFrame, lists: Mapping[str, frozenset[str]], rest: str) -> pl.DataFrame:
    """The rows with a column `split`: the part whose list names the image; `rest` where none does.

    Raises:
        ConfigError: two lists name the same image.
    """
    named = [(part, stem) for part, stems in lists.items() for stem in stems]
    if twice := len(named) - len({stem for _, stem in named}):
        raise ConfigError(
            f"the split leaks: {twice:,} images are named by two of its lists",
            why=", ".join(sorted(lists)),
            hint="give each image one part",
        )
    stems = pl.Series("stem", [stem_of(image) for image in rows["image"]], pl.String)
    parts = pl.DataFrame(named, schema={"split": pl.String, "stem": pl.String}, orient="row")
    found = rows.drop("split", strict=False).with_columns(stem=stems).join(parts, on="stem", how="left", maintain_order="left")
    return found.with_columns(pl.col("split").fill_null(rest)).drop("stem")


def without_valid(rows: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    """The rows with this share of the training patients moved to part `valid`."""
    if share == 0:
        return rows
    moved = drawn_parts(rows.filter(pl.col("split") == "train")["patient"], (("valid", share), ("train", 1 - share)), seed)
    drawn = pl.col("patient").replace_strict(moved, default=None, return_dtype=pl.String)
    return rows.with_columns(split=pl.when(pl.col("split") == "train").then(drawn).otherwise("split"))


def without_overlap(rows: pl.DataFrame, overlap: str) -> pl.DataFrame:
    """The rows, where no patient stands in two parts.

    Args:
        rows: columns patient, split and reason (null = the row can be used).
        overlap: refuse; or leave_out, which gives the patients' rows outside the test (and outside validation, where only train and
            valid share them) the reason `split_overlap`.

    Raises:
        ConfigError: parts share patients, and `overlap` is refuse. Says how many, and never which.
    """
    usable = pl.col("reason").is_null()
    parts = rows.filter(usable).group_by("patient").agg(parts=pl.col("split").unique().sort()).filter(pl.col("parts").list.len() > 1)
    if parts.is_empty():
        return rows
    shared = pl.col("patient").is_in(parts["patient"].implode())
    if overlap == "refuse":
        counts = rows.filter(usable & shared).group_by("split").len().sort("split")
        said = ", ".join(f"{count:,} in {part}" for part, count in counts.iter_rows())
        raise ConfigError(
            f"the split leaks: {len(parts):,} {'patient has' if len(parts) == 1 else 'patients have'} images in several parts",
            why=f"their images: {said}",
            hint="overlap: leave_out drops them from training and validation; or give lists that part patients",
        )
    rank = pl.col("split").replace_strict({"test": 0, "valid": 1}, default=2, return_dtype=pl.Int8)
    last = rank.filter(usable).min().over("patient")
    # `over` within a filter of rows: the best part among a patient's usable rows
    return rows.with_columns(reason=pl.when(usable & shared & (rank > last)).then(pl.lit("split_overlap")).otherwise("reason"))


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


# What one fraction of the training patients learns from and chooses by, and which findings it shows only one side of.


@dataclass(frozen=True)
class Drawn:
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
    drawn: Drawn
    sources: tuple[str, ...]

    @property
    def learned(self) -> tuple[str, ...]:
        """The findings that can be learned. Raises ConfigError where there is none."""
        if learned := tuple(name for name in self.findings if name not in self.drawn.one_class):
            return learned
        raise ConfigError(
            f"{100 * self.share:g} % of the training patients show one class only of every finding",
            why=f"{self.drawn.patients} patients, {self.drawn.images} images",
            hint="a larger --fraction",
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


def drawn_fraction(split: Split, findings: Sequence[str], share: float, seed: int, *, scaled: bool) -> Fraction:
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
    drawn = Drawn(share, train["patient"].n_unique(), train.height, positive, negative, one_class)
    return Fraction(share, tuple(findings), train, validation, split.part("test"), drawn, tuple(sorted(set(split.frame["source"]))))


# Which images of an image table judge, which are chosen on, and which a baseline may learn from; and from images to studies.

TEST, VALIDATION, TRAIN = "test", "validation", "train"


def drawn(patient: str, share: float, seed: int) -> bool:
    """Whether a patient is among the `share` set aside for choosing: a hash of patient and seed alone."""
    number = int.from_bytes(hashlib.sha256(f"{seed}:validation:{patient}".encode()).digest()[:8], "big")
    return number / 2**64 < share


def with_parts(frame: pl.DataFrame, parts: SplitSection) -> pl.DataFrame:
    """The image table with one more column `part`: test, validation, train, or "" for images that serve none.

    Raises:
        ConfigError: no image is in the test part.
        LabelsError: a patient is in two parts (leakage).
    """
    split, held_out = pl.col("split"), pl.col("held_out")
    validation = split == parts.validation if parts.validation is not None else pl.lit(False)
    test = {"held_out": held_out, "all": pl.lit(True)}.get(parts.test, split == parts.test) & ~validation
    train = ~held_out & split.str.to_lowercase().is_in(["", "train", "training"]) & ~test & ~validation
    frame = frame.with_columns(
        part=pl.when(test)
        .then(pl.lit(TEST))
        .when(validation)
        .then(pl.lit(VALIDATION))
        .when(train)
        .then(pl.lit(TRAIN))
        .otherwise(pl.lit(""))
    )
    if parts.validation_share:
        aside = [drawn(patient, parts.validation_share, parts.seed) for patient in frame["patient"]]
        moved = (pl.col("part") == TEST) & pl.Series(aside, dtype=pl.Boolean)
        frame = frame.with_columns(part=pl.when(moved).then(pl.lit(VALIDATION)).otherwise(pl.col("part")))
    if not (frame["part"] == TEST).any():
        known = ", ".join(sorted(filter(None, frame["split"].unique()))) or "none"
        raise ConfigError(
            f"no image is in the test part {parts.test!r}", why=f"splits that the sources name: {known}", hint="parts.test: all, or a split"
        )
    refuse_leakage(frame["patient"], frame["part"])
    return frame


def refuse_leakage(patients: pl.Series, parts: pl.Series) -> None:
    """Refuse a split that has a patient in two parts; "" is no part.

    Raises:
        LabelsError: how many patients are in which parts.
    """
    by_patient = pl.DataFrame({"patient": patients, "part": parts}).filter(pl.col("part") != "").unique().group_by("patient").agg("part")
    several = by_patient.filter(pl.col("part").list.len() > 1).with_columns(pl.col("part").list.sort().list.join(" and "))
    if several.height:
        counts = several.group_by("part").len().sort("part").iter_rows()
        raise LabelsError(
            "the split has patients in two parts (leakage)",
            why="; ".join(f"{count} patients in {where}" for where, count in counts),
            hint="a split by patient",
        )


def finding_columns(frame: pl.DataFrame, columns: Sequence[str], wanted: Sequence[str], words: Sequence[str]) -> dict[str, str]:
    """Finding as it is judged (as the words spell it, where they know it) -> column of the image table, joined by name, never by position.

    Args:
        columns: the table's finding columns.
        wanted: findings of the recipe; empty: those with words.
        words: findings that have words; empty: every name will do.

    Raises:
        ConfigError: a wanted finding that no source labels or nothing is said about, or none left.
    """
    by_name = {plain_name(column): column for column in columns}
    spelt = {plain_name(word): word for word in words}
    names = [plain_name(name) for name in wanted] or [name for name in by_name if not spelt or name in spelt]
    unlabelled = [name for name, plain in zip(wanted, names, strict=False) if plain not in by_name]
    unsaid = [name for name, plain in zip(wanted, names, strict=False) if spelt and plain not in spelt]
    if unlabelled or unsaid or not names:
        why = "; ".join(
            f"{what}: {', '.join(which)}" for what, which in (("no source labels", unlabelled), ("nothing is said about", unsaid)) if which
        )
        raise ConfigError(
            "the findings cannot be judged" if names else "no finding that the sources label has words",
            why=why or f"the sources label {', '.join(columns) or 'nothing'}",
            hint="`findings` as prompts spell them, or a `template` for findings that the prompts lack",
        )
    return {spelt.get(name, by_name[name]): by_name[name] for name in names}


@dataclass(frozen=True)
class StudyTable:
    """One row per study with a picture.

    Attributes:
        frame: columns study, patient, sex, age, view, source, n_images.
        scores: (N, F) float64.
        labels: (N, F) of 1, 0 and NaN = unknown.
        disagreeing: labels that images of one study contradict each other about; unknown here.
    """

    frame: pl.DataFrame
    scores: NDArray[np.float64]
    labels: NDArray[np.float64]
    disagreeing: int


def studies(images: pl.DataFrame, scores: NDArray[np.float64], findings: Mapping[str, str], recipe: EvaluationRecipe) -> StudyTable:
    """Images to studies, as the recipe's `level` and `aggregate` say.

    Args:
        images: rows of the image table, one per row of scores.
        scores: (N, F); rows of NaN are images that could not be read, and have no part.
        findings: finding -> its label column.
    """
    read = ~np.isnan(scores).all(axis=1) if scores.size else np.zeros(len(images), bool)
    names = list(findings)
    table = images.select("study", "image", "patient", "sex", "age", "view", "source", *dict.fromkeys(findings.values()))
    score_columns = [pl.Series(f"score {k}", scores[:, k]) for k in range(len(names))]
    table = table.with_columns(score_columns).filter(pl.Series(read, dtype=pl.Boolean))
    key = "study" if recipe.level == "study" else "image"
    aggregate = [pl.col(each.name).mean() if recipe.aggregate == "mean" else pl.col(each.name).max() for each in score_columns]
    low = [pl.col(column).min().alias(f"low {k}") for k, column in enumerate(findings.values())]
    high = [pl.col(column).max().alias(f"high {k}") for k, column in enumerate(findings.values())]
    one_view = pl.when(pl.col("view").n_unique() == 1).then(pl.col("view").first()).otherwise(pl.lit("several"))
    facts = [pl.col(name).first() for name in ("patient", "sex", "age", "source")]
    keyed = table.with_columns(pl.col(key).alias("study"))
    grouped = keyed.group_by("study", maintain_order=True).agg(
        *facts, one_view.first().alias("view"), pl.len().alias("n_images"), *aggregate, *low, *high
    )
    lows, highs = (_matrix(grouped, f"{edge} ", len(names)) for edge in ("low", "high"))
    contradicted = (lows != highs) & ~np.isnan(lows)
    return StudyTable(
        grouped.select("study", "patient", "sex", "age", "view", "source", "n_images"),
        _matrix(grouped, "score ", len(names)),
        np.where(contradicted, np.nan, lows),
        int(contradicted.sum()),
    )


def _matrix(frame: pl.DataFrame, prefix: str, count: int) -> NDArray[np.float64]:
    columns = [frame[f"{prefix}{k}"].cast(pl.Float64).fill_null(float("nan")).to_numpy() for k in range(count)]
    return np.stack(columns, axis=1) if columns else np.empty((frame.height, 0))


def part_hash(frame: pl.DataFrame) -> str:
    """SHA-256 over the sorted names of a part's images: the same images, wherever they lie and in whatever order, give the same."""
    digest = hashlib.sha256()
    for source, image in frame.select("source", "image").sort("source", "image").iter_rows():
        digest.update(f"{source}\t{image}\n".encode())
    return digest.hexdigest()


def part_account(frame: pl.DataFrame, name: str) -> dict[str, Any]:
    """What a part is: its splits by name, images, studies and patients, and the hash of its images."""
    part = frame.filter(pl.col("part") == name)
    return {
        "splits": sorted({split or "unnamed" for split in part["split"]}),
        "images": part.height,
        "studies": part["study"].n_unique(),
        "patients": part["patient"].n_unique(),
        "sha256": part_hash(part),
    }
