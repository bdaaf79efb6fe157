"""CheXpert as published -> the image table.

Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels" (AAAI 2019, arXiv 1901.07031).

    train.csv, valid.csv    Path, Sex, Age, Frontal/Lateral, AP/PA, 14 findings as 1.0, 0.0, -1.0 (uncertain) or blank; one row per image
    groundtruth.csv         the 500 test studies: Study and the 14 findings, 0 or 1, in an order of their own; one row per study
    {train,valid,test}/patientNNNNN/studyN/viewN_{frontal,lateral}.jpg

Columns go by name. A path begins with the name of the release (CheXpert-v1.0 or -small), which is left off, so that both releases
have the same ids. Labels are those of the study; two rows of one study that differ tell nothing.

What a training label means (Section 2 of the paper; checked on the published table):
    1, 0    present, absent.
    -1      as the recipe's `uncertain` says.
    blank   not mentioned, hence unknown - with one exception: "No Finding" is 1 only where none of the twelve pathologies is 1 or -1
            (true of all 22,381 such rows), so that these twelve are absent there; where one of the twelve is 1, "No Finding" is absent.
            With `blank: absent` every blank is 0, as most fine-tuning figures of the field were made.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from engine.data.sources.image_table import FINDING_TYPE, ImageTable
from engine.data.sources.label_files import read_label_file
from engine.data.sources.label_tables import LabelRows, age_column, binary, sex_column, table_of
from engine.data.sources.published import CHEXPERT_TABLES, chexpert_folder, find_label_file
from engine.errors import ConfigError, InputMissing
from engine.recipe.labelled_sources import CHEXPERT_FINDINGS, ChexpertSource, Uncertain

PATHOLOGIES = tuple(name for name in CHEXPERT_FINDINGS if name not in ("No Finding", "Support Devices"))
"""The twelve that "No Finding" speaks of."""
PUBLISHED = {"train": 187_641, "valid": 200, "test": 500}
"""Studies of each part."""
SEEN = ["Sex", "Age", "Frontal/Lateral", "AP/PA"]


def read_chexpert(source: ChexpertSource) -> ImageTable:
    """The images of one part, with the labels of their studies.

    Raises:
        InputMissing, ReadError, ConfigError: no table of the part is there, or it cannot be read, or is another one.
        LabelsError: a cell is no label.
    """
    folder = chexpert_folder(Path(source.root).absolute())
    labels = chexpert_rows(folder, source)
    patients = {part: _names(folder / part) for part in CHEXPERT_TABLES}
    files = {}
    for image, part, patient in labels.frame.select("image", "split", "patient").iter_rows():
        # a patient whose folder is not there costs no look at each of its files
        if patient in patients[part] and (folder / image).is_file():
            files[image] = str(folder / image)
    return table_of(source, labels, source.part, files)


def chexpert_rows(folder: Path, source: ChexpertSource) -> LabelRows:
    """The rows of the part's table; of the test, one per image that is there, and one per study that has none."""
    parts = list(CHEXPERT_TABLES) if source.part == "all" else [source.part]
    tables = {part: path for part in parts if (path := find_label_file(folder, CHEXPERT_TABLES[part]))}
    if not tables:
        names = " or ".join(CHEXPERT_TABLES[part][0] for part in parts)
        raise InputMissing(f"{names} is not there, neither as it is nor as .gz or .zip", hint="set `root` to the folder of CheXpert")
    frames = [_test_rows(folder, path) if part == "test" else _rows(path, part, source) for part, path in tables.items()]
    frame = pl.concat(frames, how="vertical")
    said = frame.select("unit", *CHEXPERT_FINDINGS).unique()["unit"]
    again = pl.col("unit").is_in(said.filter(said.is_duplicated()).unique().implode())
    lateral = pl.when(pl.lit(source.frontal_only) & (pl.col("facing") == "lateral")).then(pl.lit("lateral_view"))
    later = pl.lit(None, pl.String)
    if source.first_view:
        first = (pl.col("facing") == "frontal") & (pl.col("image") == pl.col("image").min().over("unit", "facing"))
        later = pl.when((pl.col("facing") != "") & ~first).then(pl.lit("later_view"))
    reason = pl.when(again & pl.col("reason").is_null()).then(pl.lit("labels_disagree")).otherwise("reason")
    frame = frame.with_columns(reason=reason, aside=pl.coalesce(lateral, later)).drop("facing")
    views = f"views={'frontal' if source.frontal_only else 'all'}{', the first of a study' if source.first_view else ''}"
    return LabelRows(frame, CHEXPERT_FINDINGS, "chexpert, published parts", "study", PUBLISHED, {"read_as": f"{_reading(source)}; {views}"})


def _rows(path: Path, part: str, source: ChexpertSource) -> pl.DataFrame:
    """The rows of train.csv or valid.csv."""
    frame = read_label_file(path, ["Path", *SEEN, *CHEXPERT_FINDINGS])
    frame = binary(frame, CHEXPERT_FINDINGS, path.name)
    frame = _with_places(frame.rename({"Path": "image"}), path)
    if (frame["split"] != part).any():
        raise ConfigError(f"{path.name} names images of another part", hint=f"its paths begin with CheXpert-v1.0/{part}/ where published")
    if part == "train":
        frame = meant(frame, source.uncertain, source.blank)
    else:
        frame = frame.with_columns(pl.when(pl.col(name) != -1).then(pl.col(name)).alias(name) for name in CHEXPERT_FINDINGS)
    facing = pl.col("Frontal/Lateral").str.to_lowercase().fill_null("")
    view = pl.when(facing == "lateral").then(pl.lit("L")).otherwise(pl.col("AP/PA").fill_null(""))
    return _finished(frame.with_columns(facing=facing, view=view, sex=sex_column("Sex"), age=age_column("Age")))


def _test_rows(folder: Path, path: Path) -> pl.DataFrame:
    """groundtruth.csv, a row per study (Study) or per image (Path), joined by name to the images under test/."""
    head = read_label_file(path, [], ["Study", "Path"])
    column = "Study" if head["Study"].is_not_null().any() else "Path"
    frame = binary(read_label_file(path, [column, *CHEXPERT_FINDINGS]), CHEXPERT_FINDINGS, path.name)
    frame = _with_places(frame.rename({column: "image"}), path)
    if column == "Path":
        frame = frame.with_columns(facing=pl.col("image").str.extract(r"(frontal|lateral)[^/]*$").fill_null(""))
    else:
        twice = pl.col("image").is_duplicated()
        same = pl.struct(*CHEXPERT_FINDINGS).n_unique().over("image") == 1
        # studies named twice stay, for their disagreement to be seen, unless they agree
        frame = frame.filter(~twice | ~same | pl.col("image").is_first_distinct())
        found = pl.DataFrame(_pictures(folder, "test"), schema={"unit": pl.String, "view_file": pl.String}, orient="row")
        unnamed = found.join(frame, on="unit", how="anti")
        frame = frame.join(found, on="unit", how="left", maintain_order="left")
        frame = frame.with_columns(image=pl.coalesce("view_file", "image"), facing=pl.col("view_file").str.extract(r"(frontal|lateral)"))
        frame = pl.concat([frame.drop("view_file"), _unlabelled(unnamed, frame)], how="diagonal").with_columns(
            pl.col("facing").fill_null("")
        )
    view = pl.when(pl.col("facing") == "lateral").then(pl.lit("L")).otherwise(pl.lit(""))
    return _finished(frame.with_columns(view=view, sex=pl.lit(""), age=pl.lit(None, pl.Float64)))


def meant(frame: pl.DataFrame, uncertain: Uncertain, blank: str) -> pl.DataFrame:
    """Int8 columns of 1, 0, -1 and null (blank) as 1, 0 and null (unknown), by the rules at the top of this file."""
    normal = (pl.col("No Finding") == 1).fill_null(False)
    ill = pl.any_horizontal((pl.col(name) == 1).fill_null(False) for name in PATHOLOGIES)
    one, zero = pl.lit(1, FINDING_TYPE), pl.lit(0, FINDING_TYPE)
    columns = []
    for name in CHEXPERT_FINDINGS:
        doubtful = one if name in uncertain.ones else zero if name in uncertain.zeros else pl.lit(None, FINDING_TYPE)
        said = normal if name in PATHOLOGIES else ill if name == "No Finding" else pl.lit(False)
        unsaid = zero if blank == "absent" else pl.when(said).then(zero)
        column = pl.when(pl.col(name).is_null()).then(unsaid).when(pl.col(name) == -1).then(doubtful).otherwise(pl.col(name))
        columns.append(column.cast(FINDING_TYPE).alias(name))
    return frame.with_columns(columns)


def _with_places(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The rows with image, unit (the study), split and patient, all from the path: `[release/]part/patientN/studyN[/viewN_frontal.jpg]`."""
    places = (
        frame["image"]
        .fill_null("")
        .str.extract_groups(r"(?:^|/)(?P<at>(?P<split>train|valid|test)/(?P<patient>[^/]+)/[^/]+)(?P<rest>(?:/[^/]+)?)$")
    )
    frame = frame.with_columns(places.struct.unnest())
    if (strange := int(frame["at"].is_null().sum())) == len(frame):
        raise ConfigError(
            f"{path.name} is not the published table",
            why=f"none of its {strange:,} paths has the form of CheXpert's",
            hint="Path is CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg",
        )
    blank = pl.when(pl.col("at").is_null()).then(pl.lit("file_blank"))
    image = pl.concat_str(pl.col("at"), pl.col("rest"))
    frame = frame.with_columns(image=pl.coalesce(image, "image", pl.lit("")), unit=pl.col("at").fill_null(""), reason=blank)
    # a row without a place belongs to the part of its table
    part = frame["split"].drop_nulls()[0]
    return frame.with_columns(split=pl.col("split").fill_null(part), patient=pl.col("patient").fill_null("")).drop("at", "rest")


def _finished(frame: pl.DataFrame) -> pl.DataFrame:
    before = [pl.col(name) for name in ("image", "unit", "patient", "view", "split", "sex", "age", "reason", "facing")]
    return frame.select(*before, pl.col("unit").alias("study"), pl.lit("").alias("origin"), *(pl.col(name) for name in CHEXPERT_FINDINGS))


def _unlabelled(found: pl.DataFrame, like: pl.DataFrame) -> pl.DataFrame:
    """Images that are there and whose study the label table does not name."""
    patient = pl.col("unit").str.split("/").list.get(1)
    frame = found.select(image="view_file", unit="unit", patient=patient, split=pl.lit("test"), reason=pl.lit("no_label"))
    return frame.select(name for name in frame.columns if name in like.columns)


def _pictures(folder: Path, part: str) -> Iterator[tuple[str, str]]:
    """(study, image) of everything under a part: `test/patient64741/study1`, `test/patient64741/study1/view1_frontal.jpg`."""
    for patient in sorted(_names(folder / part)):
        for study in sorted(_names(folder / part / patient)):
            unit = f"{part}/{patient}/{study}"
            yield from ((unit, f"{unit}/{view}") for view in sorted(_names(folder / unit)) if view.startswith("view"))


def _names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError:
        return set()


def _reading(source: ChexpertSource) -> str:
    """How training labels were read, for the record."""
    ones, zeros = ", ".join(source.uncertain.ones) or "none", ", ".join(source.uncertain.zeros) or "none"
    return f"-1 of training labels: present for {ones}; absent for {zeros}; else unknown. blank={source.blank}"
