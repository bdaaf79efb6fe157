"""Splits by patient, for every verb: names of splits, leakage, and draws.

A split has one of three uses: train, validation (choosing) and test (judging). Names of splits in tables mean the same in all verbs. Draws
go by patient: by a hash of patient and seed alone, or stratified by finding among the labelled patients; the name and place of a table do
not count.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from engine.errors import ConfigError, LabelsError

if TYPE_CHECKING:
    from engine.data.sources.image_table import ImageTable
    from engine.recipe.evaluation import SplitSection
    from engine.recipe.finetuning import FinetuneRecipe

SplitUse = Literal["train", "validation", "test"]
TRAIN: SplitUse = "train"
VALIDATION: SplitUse = "validation"
TEST: SplitUse = "test"
PARTS: tuple[SplitUse, ...] = (TRAIN, VALIDATION, TEST)

SPLIT_NAMES: Mapping[SplitUse, tuple[str, ...]] = {
    TRAIN: ("train", "training", "trn", "tr"),
    VALIDATION: ("valid", "validation", "validate", "val", "dev", "development", "calibration", "tune", "tuning"),
    TEST: ("test", "testing", "held_out", "heldout", "holdout", "hold_out", "eval", "evaluation"),
}
"""Use of a split -> the names that tables give it; case, blanks and hyphens do not count."""
_USES = {name.replace("_", ""): use for use, names in SPLIT_NAMES.items() for name in names}
_HINT = "train, valid or test; a column that names something else is left out by another name, or used through `where`"


def split_use(name: str) -> SplitUse | None:
    """What a split is for by its name; None for a name that is not known."""
    return _USES.get("".join(name.casefold().replace("_", " ").replace("-", " ").split()))


def check_split_names(names: Iterable[str], known: Iterable[str] = ()) -> None:
    """Refuse names of splits that mean nothing.

    Args:
        names: of a table's split column; "" is no name.
        known: names that the recipe itself uses.

    Raises:
        LabelsError: names that are not known, each with the nearest that is.
    """
    strange = sorted({name for name in names if name and split_use(name) is None} - set(known))
    if not strange:
        return
    spelt = [name for names in SPLIT_NAMES.values() for name in names if len(name) > 2]
    said = []
    for name in strange[:5]:
        near = difflib.get_close_matches(name.casefold(), spelt, n=1)
        if near or name.isdigit():  # anything else may be a name in the wrong column
            said.append(f"{name[:20]!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    raise LabelsError(
        f"the split column holds {len(strange)} name{'s' if len(strange) > 1 else ''} that mmclip does not know",
        why=", ".join(said),
        hint=_HINT,
    )


def uniform(salted: str) -> float:
    """A number in [0, 1) that this string alone decides: the first 64 bits of its SHA-256."""
    return int.from_bytes(hashlib.sha256(salted.encode()).digest()[:8], "big") / 2**64


def drawn(patient: str, share: float, seed: int) -> bool:
    """Whether a patient is among the `share` set aside for validation: by a hash of patient and seed alone."""
    return uniform(f"{seed}:validation:{patient}") < share


def stratified_draw(labels: Mapping[str, Sequence[int | None]], share: float, salt: str) -> set[str]:
    """A share of the patients, drawn from each group of patients with equal labels.

    Of a group of n patients floor(n share) or one more are drawn, in the order of a hash of salt and patient; of a group of at least three
    patients at least one is drawn and at least one is left, so that a rare finding is in both.

    Args:
        labels: patient -> for each finding 1 (present in one of the images), 0 (absent) or None (unknown).
        share: 0 to 1.
    """
    if share <= 0:
        return set()
    groups: dict[tuple[int | None, ...], list[str]] = {}
    for patient, values in labels.items():
        groups.setdefault(tuple(values), []).append(patient)
    chosen: set[str] = set()
    for group, patients in groups.items():
        wanted = share * len(patients)
        count = int(wanted) + (uniform(f"{salt}:group:{group}") < wanted % 1)
        if len(patients) >= 3 and share < 1:
            count = min(max(count, 1), len(patients) - 1)
        chosen.update(sorted(patients, key=lambda patient: (uniform(f"{salt}:{patient}"), patient))[:count])
    return chosen


def patient_keys(frame: pl.DataFrame) -> list[str]:
    """The patient of each row without the name of its source, which tables put before it: what draws go by."""
    return [patient.partition(":")[2] or patient for patient in frame["patient"]]


def labels_by_patient(frame: pl.DataFrame, findings: Sequence[str]) -> dict[str, tuple[int | None, ...]]:
    """Patient (as in `patient_keys`) -> for each finding 1, 0 or None over all images; patients without any label are left out."""
    by_patient = frame.with_columns(patient=pl.Series(patient_keys(frame), dtype=pl.String)).group_by("patient", maintain_order=True)
    rows = by_patient.agg(pl.col(name).max() for name in findings).iter_rows()
    return {patient: tuple(values) for patient, *values in rows if any(value is not None for value in values)}


@dataclass(frozen=True)
class Split:
    """An image table with its splits.

    Attributes:
        frame: the rows that can be used, with one more column `part`: train, validation or test.
        dropped: reason -> rows left out here: `unlabelled` (no finding is known), `in_another_part` (the same image, byte for byte, is
            validated or tested on).
        disagreeing: labels that copies of one image contradict each other about; unknown now in all of them.
    """

    frame: pl.DataFrame
    dropped: Mapping[str, int]
    disagreeing: int

    def part(self, name: SplitUse) -> pl.DataFrame:
        """The rows of one split."""
        return self.frame.filter(pl.col("part") == name)


def wanted_findings(recipe: FinetuneRecipe, table: ImageTable) -> tuple[str, ...]:
    """What a recipe learns: the findings that it names, else all that its sources label.

    Raises:
        ConfigError: there are none, or no source labels one of them.
    """
    if unknown := [name for name in recipe.findings if name not in table.findings]:
        near = {name: difflib.get_close_matches(name, table.findings, n=1) for name in unknown}
        said = [f"{name}" + (f" (did you mean {near[name][0]}?)" if near[name] else "") for name in unknown]
        raise ConfigError(
            f"no source labels {', '.join(said)}",
            why=f"they label {', '.join(table.findings) or 'no finding'}",
            hint="--findings as the table's columns are called, or --set 'sources.0.rename={COLUMN: Finding}'",
        )
    if not table.findings:
        sources = table.facts.get("sources", [table.facts])
        if unread := next((each for source in sources if (each := source.get("labels_unread"))), None):
            raise LabelsError(unread[0], why=unread[1], hint=unread[2])
        unused = [name for source in sources for name in source.get("unused_columns", [])]
        raise ConfigError(
            "the sources label no finding",
            why="no column is called as one of the 14 findings of chest14"
            + (f"; columns of labels that are not used: {', '.join(unused)}" if unused else ""),
            hint=f"--findings {','.join(unused[:3]) or 'COLUMN'}, or --label-column COLUMN where one column names the finding or class",
        )
    return recipe.findings or table.findings


def split_of(frame: pl.DataFrame, findings: Sequence[str], contents: Mapping[str, str], *, share: float, seed: int) -> Split:
    """Every labelled image in one split.

    Test is what its source holds out, unless the source's own split calls it validation. Of the other labelled patients `share` are
    validated on, drawn stratified by finding, unless their source names validation its own patients.

    Args:
        frame: image table: columns image, patient, split, source, held_out, and one per finding.
        contents: image -> SHA-256 of its file.

    Raises:
        LabelsError: the table's own split has a patient in two splits (leakage), or a name that is not known.
        ConfigError: a split without images.
    """
    check_own_splits(frame)
    known = pl.any_horizontal(pl.col(name).is_not_null() for name in findings) if findings else pl.lit(False)
    labelled = with_uses(frame.filter(known), findings, share=share, seed=seed)
    labelled = labelled.with_columns(_content=pl.Series([contents[image] for image in labelled["image"]], dtype=pl.String))
    labelled, disagreeing = _agreed(labelled, findings)
    rank = pl.col("part").replace_strict({"train": 0, "validation": 1, "test": 2}, return_dtype=pl.Int8)
    elsewhere = rank < rank.max().over("_content")
    kept = labelled.filter(~elsewhere)
    dropped = {"unlabelled": frame.height - labelled.height, "in_another_part": labelled.height - kept.height}
    check_splits(kept, findings, frame.height)
    return Split(kept.drop("_content"), {name: count for name, count in dropped.items() if count}, disagreeing)


def check_own_splits(frame: pl.DataFrame) -> None:
    """Refuse the splits that sources name themselves where a name is not known, or a patient is in two of them.

    Raises:
        LabelsError: see above.
    """
    check_split_names(frame["split"].unique())
    named = frame.filter(pl.col("split") != "").select("patient", "source", "split")
    uses = named.with_columns(part=pl.Series([split_use(split) for split in named["split"]], dtype=pl.String))
    several = uses.group_by("patient").agg(pl.col("part").unique().sort(), pl.col("source").first()).filter(pl.col("part").list.len() > 1)
    if several.is_empty():
        return
    pairs = several.with_columns(pl.col("part").list.join(" and ")).group_by("source", "part").len().sort("source", "part")
    raise LabelsError(
        "leakage: the table's own split has patients in more than one split",
        why="; ".join(
            f"source {source}: {count} patient{'s' if count != 1 else ''} in {part}" for source, part, count in pairs.iter_rows()
        ),
        hint="a split column that keeps each patient's images together, or no split column: the split is then drawn by patient",
    )


def with_uses(frame: pl.DataFrame, findings: Sequence[str], *, share: float, seed: int) -> pl.DataFrame:
    """The labelled images with one more column `part`: train, validation or test; see `split_of`."""
    own = {source for source, split in frame.select("source", "split").unique().iter_rows() if split_use(split) == VALIDATION}
    keys = patient_keys(frame)
    fixed = [
        VALIDATION if split_use(split) == VALIDATION else TEST if held_out else TRAIN if source in own else None
        for source, split, held_out in frame.select("source", "split", "held_out").iter_rows()
    ]
    free = frame.filter(pl.Series([use is None for use in fixed], dtype=pl.Boolean))
    chosen = stratified_draw(labels_by_patient(free, findings), share, f"{seed}:validation")
    parts = [use or (VALIDATION if key in chosen else TRAIN) for use, key in zip(fixed, keys, strict=True)]
    return frame.with_columns(part=pl.Series(parts, dtype=pl.String))


def check_splits(frame: pl.DataFrame, findings: Sequence[str], images: int) -> None:
    """Refuse splits that cannot be learned from, chosen on or judged by.

    Args:
        frame: the labelled images with the column `part`. images: all images of the table.

    Raises:
        ConfigError: a split has no image, or no finding has both classes in the test split.
    """
    for part in PARTS:
        if not (frame["part"] == part).any():
            raise ConfigError(
                f"no labelled image is left for the {part} split",
                why=f"{frame.height} of {images} images have a label of {', '.join(findings) or 'any finding'}",
                hint="a source with `split: {train: 0.8}` holds out a test split; validation.share of its other patients validate",
            )
    counts = split_counts(frame, findings)
    if all(min(counts[TEST][name]) == 0 for name in findings):
        said = [f"{name} {counts[TEST][name][0]} positive, {counts[TEST][name][1]} negative" for name in findings[:4]]
        raise ConfigError(
            "the test split has no finding with both classes, so nothing can be judged",
            why=", ".join(said),
            hint="more labelled images of both classes, or a `split` column that puts some of each into test",
        )


def split_counts(frame: pl.DataFrame, findings: Sequence[str]) -> dict[str, dict[str, tuple[int, int]]]:
    """Split -> finding -> (positive, negative) images."""
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    for part in PARTS:
        rows = frame.filter(pl.col("part") == part)
        counts[part] = {name: (int((rows[name] == 1).sum()), int((rows[name] == 0).sum())) for name in findings}
    return counts


def _agreed(frame: pl.DataFrame, findings: Sequence[str]) -> tuple[pl.DataFrame, int]:
    """What copies of one image say differently is unknown in all of them; and the number of labels that this took away."""
    differs = {name: pl.col(name).n_unique().over("_content") - pl.col(name).is_null().any().over("_content") > 1 for name in findings}
    count = sum(int(value) for value in frame.select(differs[name].sum().alias(name) for name in findings).row(0)) if findings else 0
    return frame.with_columns(pl.when(differs[name]).then(None).otherwise(pl.col(name)).alias(name) for name in findings), count


def with_parts(frame: pl.DataFrame, parts: SplitSection) -> pl.DataFrame:
    """The image table of an evaluation with one more column `part`: test, validation, train, or "" for images that serve none.

    Args:
        parts: the recipe's section. `held_out`: images that their source holds out, without those that its split calls validation.

    Raises:
        ConfigError: no image is in the test split.
        LabelsError: a patient is in two splits (leakage), or a split has a name that neither mmclip nor the recipe knows.
    """
    named = [name for name in (parts.test, parts.validation) if name]
    check_split_names(frame["split"].unique(), named)
    uses = pl.Series([split_use(split) or "" for split in frame["split"]], dtype=pl.String)
    frame = frame.with_columns(_use=uses)
    validation = pl.col("_use") == VALIDATION if parts.validation is None else _is_split(parts.validation)
    if parts.test == "all":
        validation = _is_split(parts.validation) if parts.validation else pl.lit(False)
    test = {"held_out": pl.col("held_out"), "all": pl.lit(True)}.get(parts.test, _is_split(parts.test))
    test = test & ~validation if parts.test in ("held_out", "all") else test
    train = ~pl.col("held_out") & pl.col("_use").is_in(["", TRAIN])
    frame = frame.with_columns(
        part=pl.when(test)
        .then(pl.lit(TEST))
        .when(validation)
        .then(pl.lit(VALIDATION))
        .when(train)
        .then(pl.lit(TRAIN))
        .otherwise(pl.lit(""))
    ).drop("_use")
    if parts.validation_share:
        aside = [drawn(patient, parts.validation_share, parts.seed) for patient in patient_keys(frame)]
        moved = (pl.col("part") == TEST) & pl.Series(aside, dtype=pl.Boolean)
        frame = frame.with_columns(part=pl.when(moved).then(pl.lit(VALIDATION)).otherwise(pl.col("part")))
    if not (frame["part"] == TEST).any():
        known = ", ".join(sorted(filter(None, frame["split"].unique()))) or "none"
        raise ConfigError(
            f"no image is in the test split {parts.test!r}",
            why=f"splits that the sources name: {known}",
            hint="parts.test: all, or the name of a split",
        )
    refuse_leakage(frame["patient"], frame["part"])
    return frame


def _is_split(name: str) -> pl.Expr:
    """Whether a row's split has this name, or another name of the same use where the name is a usual one."""
    use = split_use(name)
    return (pl.col("split") == name) | (pl.col("_use") == use if use else pl.lit(False))


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
            "leakage: the split has patients in more than one split",
            why="; ".join(f"{count} patient{'s' if count != 1 else ''} in {where}" for where, count in counts),
            hint="a split column that keeps each patient's images together",
        )


def part_hash(frame: pl.DataFrame) -> str:
    """SHA-256 over the sorted names of a split's images: the same images, in any folder and order, give the same."""
    digest = hashlib.sha256()
    for source, image in frame.select("source", "image").sort("source", "image").iter_rows():
        digest.update(f"{source}\t{image}\n".encode())
    return digest.hexdigest()


def part_account(frame: pl.DataFrame, name: str) -> dict[str, Any]:
    """What a split is: its names in the sources, images, studies and patients, and the hash of its images."""
    part = frame.filter(pl.col("part") == name)
    return {
        "splits": sorted({split or "unnamed" for split in part["split"]}),
        "images": part.height,
        "studies": part["study"].n_unique(),
        "patients": part["patient"].n_unique(),
        "sha256": part_hash(part),
    }
